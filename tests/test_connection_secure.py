"""Laws of the guarded connection, against a real Mosquitto: password, encryption, certificates on both sides."""

import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from edge_agent.connection import MqttClient
from edge_agent.contract.errors import BrokerError
from edge_agent.mqtt_errands import try_broker
from edge_agent.outbox import OutgoingMessage
from edge_agent.paho_client import Subscription
from edge_agent.settings import MqttSettings
from tests.broker import PATIENCE_SECONDS, Broker, find_mosquitto

NAME, PASSWORD = "forewarn-agent", "open sesame"


@contextmanager
def _running(directory: Path, *lines: str) -> Iterator[Broker]:
    broker = Broker(directory, *lines)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def _password_line(directory: Path) -> str:
    program = shutil.which("mosquitto_passwd", path=f"{os.environ['PATH']}:{Path(find_mosquitto()).parent}")
    assert program is not None
    path = directory / "passwords"
    subprocess.run([program, "-c", "-b", str(path), NAME, PASSWORD], check=True, capture_output=True)
    return f"password_file {path}"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority whose certificate lies in `ca.pem`."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


def _issue(authority: trustme.CA, directory: Path, who: str) -> tuple[Path, Path]:
    """Write certificate and key of a name or address, and return their paths."""
    issued = authority.issue_cert(who)
    certificate, key = directory / f"{who}.pem", directory / f"{who}.key"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    return certificate, key


def _tls_lines(authority: trustme.CA, directory: Path, who: str = "127.0.0.1") -> list[str]:
    certificate, key = _issue(authority, directory, who)
    return [f"cafile {directory / 'ca.pem'}", f"certfile {certificate}", f"keyfile {key}"]


def _settings(broker: Broker, **more: Any) -> MqttSettings:
    return MqttSettings.model_validate({"port": broker.port, **more})


def _subscribes(settings: MqttSettings) -> bool:
    """Whether the agent's client gets as far as its subscriptions."""
    client = MqttClient(settings, [Subscription("plant/+")], "s", lambda state, _time: state.encode())
    client.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while not client.subscribed.is_set() and time.monotonic() < deadline:
            client.wait(0.05)
        return client.subscribed.is_set()
    finally:
        client.stop(5.0)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_the_right_password_is_let_in(tmp_path: Path, protocol: str) -> None:
    """With the password from its file the client subscribes; with a wrong one the broker's refusal is told."""
    with _running(tmp_path, _password_line(tmp_path)) as broker:
        (tmp_path / "right").write_text(f"{PASSWORD}\n")
        (tmp_path / "wrong").write_text("guess")
        known = {"username": NAME, "protocol": protocol}
        assert _subscribes(_settings(broker, password_file=tmp_path / "right", **known))
        with pytest.raises(BrokerError, match="refused") as refused:
            try_broker(_settings(broker, password_file=tmp_path / "wrong", **known), 5.0)
        assert "guess" not in str(refused.value)


def test_an_encrypted_connection_is_verified(tmp_path: Path, authority: trustme.CA) -> None:
    """A broker whose certificate the authority signed is trusted, and one of another authority is not."""
    with _running(tmp_path, *_tls_lines(authority, tmp_path)) as broker:
        assert _subscribes(_settings(broker, tls={"enabled": True, "ca_file": tmp_path / "ca.pem"}))
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
            try_broker(_settings(broker, tls={"enabled": True, "ca_file": tmp_path / "other.pem"}), 5.0)


@pytest.mark.parametrize("reader", ["batched", "plain"])
def test_readings_come_encrypted(tmp_path: Path, authority: trustme.CA, reader: str) -> None:
    """More than a record holds, many messages and a large one, all come, in order, though TLS holds some back."""
    with _running(tmp_path, *_tls_lines(authority, tmp_path)) as broker:
        tls = {"enabled": True, "ca_file": tmp_path / "ca.pem"}
        settings = _settings(broker, tls=tls, reader=reader)
        client = MqttClient(settings, [Subscription("plant/+")], "s", lambda state, _time: state.encode())
        sent = [str(number).encode() * 30 for number in range(1000)] + [b"x" * 200_000, b"last"]
        waiting = deque(OutgoingMessage("plant/p1", payload, 0) for payload in sent)
        heard: list[bytes] = []
        client.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while len(heard) < len(sent):
                assert time.monotonic() < deadline
                client.wait(0.05)
                while waiting and client.subscribed.is_set() and client.publish(waiting[0]):
                    waiting.popleft()
                heard += [payload for messages in client.take(5000, 1 << 22) for payload in messages.payloads]
        finally:
            client.stop(5.0)
        assert heard == sent


def test_the_name_in_the_certificate_counts(tmp_path: Path, authority: trustme.CA) -> None:
    """A certificate for another host is refused, unless the settings say that names do not count."""
    with _running(tmp_path, *_tls_lines(authority, tmp_path, "broker.example")) as broker:
        tls = {"enabled": True, "ca_file": tmp_path / "ca.pem"}
        with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
            try_broker(_settings(broker, tls=tls), 5.0)
        assert _subscribes(_settings(broker, tls={**tls, "verify_host_name": False}))


def test_a_client_certificate_is_shown(tmp_path: Path, authority: trustme.CA) -> None:
    """A broker that asks for a certificate lets in the client that has one, and no other."""
    lines = [*_tls_lines(authority, tmp_path), "require_certificate true"]
    with _running(tmp_path, *lines) as broker:
        certificate, key = _issue(authority, tmp_path, "agent.example")
        tls = {"enabled": True, "ca_file": tmp_path / "ca.pem"}
        own = {"certificate_file": certificate, "key_file": key}
        assert _subscribes(_settings(broker, tls={**tls, **own}))
        with pytest.raises(BrokerError, match="closed the connection"):
            try_broker(_settings(broker, tls=tls), 5.0)
