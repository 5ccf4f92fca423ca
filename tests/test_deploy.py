"""Laws of the shipped unit, broker, Prometheus and Grafana files: the real tools accept them and they do as said."""

import getpass
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

REPOSITORY = Path(__file__).resolve().parent.parent
DEPLOY = REPOSITORY / "deploy"
UNIT = "forewarn-edge-agent.service"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "forewarn.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
INSTALL = "apt-get install -y --no-install-recommends mosquitto prometheus systemd"
PASSWORD = "not-a-secret"


def find_tool(name: str) -> str:
    """Return the path of an installed tool, or fail with the command that installs it."""
    # Launchers first: what is unpacked without root needs the libraries unpacked beside it.
    places = [Path("/usr/sbin") / name, REPOSITORY / ".cache" / "servers" / "bin" / name]
    places += REPOSITORY.glob(f".cache/**/usr/bin/{name}")
    places += REPOSITORY.glob(f".cache/**/usr/sbin/{name}")
    found = shutil.which(name) or next((str(place) for place in places if place.is_file()), None)
    if found is None:
        pytest.fail(f"{name} is missing; run: {INSTALL}")
    return found


def run_tool(name: str, *arguments: str | Path) -> str:
    """Run a tool to success and return everything it said."""
    command = [find_tool(name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{name} refused:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Copy the unit, starting an executable that exists here."""
    executable = tmp_path / "edge-agent"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    text = (DEPLOY / "systemd" / UNIT).read_text()
    copy = tmp_path / UNIT
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={executable}", text, flags=re.MULTILINE))
    return copy


def with_cuda(unit: Path) -> Path:
    """Lay the CUDA drop-in beside the unit and return the unit."""
    shutil.copytree(DEPLOY / "systemd" / f"{UNIT}.d", unit.parent / f"{UNIT}.d")
    return unit


def test_systemd_accepts_the_unit_without_a_word(unit: Path) -> None:
    """systemd-analyze verifies the unit and has nothing to say of it."""
    assert UNIT not in run_tool("systemd-analyze", "verify", unit)


def test_systemd_accepts_the_cuda_drop_in(unit: Path) -> None:
    """The unit with its CUDA drop-in verifies too."""
    assert UNIT not in run_tool("systemd-analyze", "verify", with_cuda(unit))


def test_the_unit_is_hardened(unit: Path) -> None:
    """The exposure that systemd computes stays at 1.5 of 10 or below."""
    run_tool("systemd-analyze", "security", "--offline=yes", "--threshold=15", unit)


def test_the_cuda_drop_in_opens_no_more_than_the_driver_needs(unit: Path) -> None:
    """With the devices and the executable memory of CUDA the exposure stays at 2 of 10 or below."""
    run_tool("systemd-analyze", "security", "--offline=yes", "--threshold=20", with_cuda(unit))


def test_the_unit_does_not_restart_into_a_wrong_configuration() -> None:
    """Exit statuses 2 and 78 end the service; anything else is tried again, for ever."""
    text = (DEPLOY / "systemd" / UNIT).read_text()
    assert "RestartPreventExitStatus=2 78" in text
    assert "StartLimitIntervalSec=0" in text
    assert {"Type=notify", "WatchdogSec=30", "StateDirectory=forewarn"} <= set(text.splitlines())


def test_prometheus_accepts_configuration_and_rules() -> None:
    """Promtool checks the configuration with the rule file it names."""
    assert "SUCCESS" in run_tool("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    run_tool("promtool", "check", "rules", ALERTS)


def test_each_alert_fires_for_its_failure_and_no_other() -> None:
    """The rule tests hold: a healthy agent raises nothing, every failure raises its own alert."""
    run_tool("promtool", "test", "rules", DEPLOY / "prometheus" / "alerts_test.yml")


def test_every_alert_is_tried() -> None:
    """No alert is shipped that the rule tests do not name."""
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    tests = (DEPLOY / "prometheus" / "alerts_test.yml").read_text()
    assert [rule["alert"] for rule in rules if f'"{rule["alert"]}"' not in tests] == []


def test_prometheus_scrapes_where_the_sample_configuration_listens() -> None:
    """Scrape target and the agent's sample configuration name the same port."""
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    target = scrape["scrape_configs"][0]["static_configs"][0]["targets"][0]
    sample = (DEPLOY / "edge-agent.toml").read_text()
    assert f"port = {target.rpartition(':')[2]}" in sample


def dashboard_queries() -> list[str]:
    """Return the PromQL of all panels."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_asks_valid_queries(tmp_path: Path) -> None:
    """Each query of the dashboard is PromQL, once Grafana has filled in its variables."""
    filled = [
        query.replace("$__rate_interval", "1m").replace("$instance", ".*") for query in dashboard_queries()
    ]
    rules = [
        {"record": f"panel:query:{number}", "expr": re.sub(r"\$\w+", ".*", query)}
        for number, query in enumerate(filled)
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run_tool("promtool", "check", "rules", path)


def test_dashboard_panels_have_their_own_ids_and_do_not_overlap() -> None:
    """Panel ids are unique and no two panels lie over each other."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)


def test_grafana_provisioning_names_source_and_dashboards() -> None:
    """The provisioning files are of the version Grafana reads and say what to load."""
    folder = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())
    provider = yaml.safe_load((folder / "dashboards" / "forewarn.yml").read_text())
    assert (source["apiVersion"], provider["apiVersion"]) == (1, 1)
    assert source["datasources"][0]["type"] == "prometheus"
    assert provider["providers"][0]["type"] == "file"


@contextmanager
def running_broker(folder: Path) -> Iterator[int]:
    """Run Mosquitto on a copy of the shipped files on a free loopback port, and give the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    passwords = folder / "forewarn.passwd"
    passwords.touch(mode=0o600)
    for account in ("forewarn-agent", "forewarn-gateway", "forewarn-operator", "forewarn-viewer"):
        run_tool("mosquitto_passwd", "-b", passwords, account, PASSWORD)
    shutil.copy(DEPLOY / "mosquitto" / "forewarn.acl", folder)
    text = (DEPLOY / "mosquitto" / "forewarn.conf").read_text()
    text = text.replace("listener 1883 ", f"listener {port} ").replace("/etc/mosquitto/", f"{folder}/")
    # Started as root, Mosquitto would change to an account that cannot read the test's folder.
    (folder / "forewarn.conf").write_text(f"{text}\nuser {getpass.getuser()}\n")
    with (folder / "broker.log").open("w") as log:
        broker = subprocess.Popen(
            [find_tool("mosquitto"), "-c", folder / "forewarn.conf"], stdout=log, stderr=log
        )
    try:
        _await_port(port, broker, folder / "broker.log")
        yield port
    finally:
        broker.terminate()
        broker.wait(timeout=10)


def _await_port(port: int, broker: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and broker.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            with suppress(subprocess.TimeoutExpired):
                broker.wait(timeout=0.02)
    pytest.fail(f"the broker did not start:\n{log.read_text()}")


class Account:
    """A client of the broker under one account, driven by hand from the test's own thread."""

    def __init__(self, port: int, name: str | None) -> None:
        self.answer: str | None = None
        self.heard: list[str] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if name is not None:
            self.client.username_pw_set(name, PASSWORD)
        self.client.on_connect = self._connected
        self.client.on_message = lambda _client, _data, message: self.heard.append(message.topic)
        self.client.connect("127.0.0.1", port)
        self.turn_until(lambda: self.answer is not None)

    def _connected(
        self, _client: object, _data: object, _flags: object, reason: object, _props: object
    ) -> None:
        self.answer = str(reason)

    def turn_until(self, done: Any) -> None:
        """Exchange packets with the broker until the condition holds."""
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline, "the broker did not answer"
            self.client.loop(0.1)

    def publish(self, topic: str) -> str:
        """Publish under QoS 1 and return the broker's reason."""
        reasons: list[str] = []
        self.client.on_publish = lambda _client, _data, _mid, reason, _props: reasons.append(str(reason))
        self.client.publish(topic, b"{}", qos=1)
        self.turn_until(lambda: reasons)
        return reasons[0]

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait for the broker's word."""
        granted: list[object] = []
        self.client.on_subscribe = lambda _client, _data, _mid, reasons, _props: granted.extend(reasons)
        self.client.subscribe(topic, qos=1)
        self.turn_until(lambda: granted)


def test_mosquitto_starts_on_the_shipped_files_and_holds_the_access_list(tmp_path: Path) -> None:
    """A real broker lets each account do its part and no other, and no one in without a password."""
    with running_broker(tmp_path) as port:
        agent, gateway = Account(port, "forewarn-agent"), Account(port, "forewarn-gateway")
        viewer = Account(port, "forewarn-viewer")
        assert Account(port, None).answer == "Not authorized"
        viewer.subscribe("forewarn/#")
        agent.subscribe("plant/#")
        assert gateway.publish("forewarn/edge/event/pump") == "Not authorized"
        assert gateway.publish("plant/pump") != "Not authorized"
        agent.turn_until(lambda: agent.heard == ["plant/pump"])
        assert agent.publish("forewarn/edge/event/pump") == "Success"
        viewer.turn_until(lambda: viewer.heard == ["forewarn/edge/event/pump"])
        assert viewer.publish("forewarn/edge/cmd/mute/1") == "Not authorized"
        operator = Account(port, "forewarn-operator")
        agent.subscribe("forewarn/+/cmd/#")
        assert operator.publish("forewarn/edge/event/pump") == "Not authorized"
        assert operator.publish("forewarn/edge/cmd/mute/1") == "Success"
        agent.turn_until(lambda: "forewarn/edge/cmd/mute/1" in agent.heard)
