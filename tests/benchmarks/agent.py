"""The whole daemon on a real broker beside what others would write: CPU time a sample, memory, start and idling."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import in_turn, ratio, spread
from tests.benchmarks.payloads import LAYOUTS
from tests.benchmarks.plain_script import SCRIPTS
from tests.benchmarks.site import Site, Subject, running_site
from tests.benchmarks.workers import measure_workers
from trainer.progress import Progress

_PATIENCE_SECONDS = 600.0
_DAEMON = "daemon"
# As `edge-agent run` imports them, without a look for garbage and without other packages' plugins.
_IMPORT = """
import gc, os, time
gc.disable()
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
wall, cpu = time.perf_counter(), time.process_time()
import edge_agent.cli, edge_agent.agent
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


@dataclass(frozen=True)
class Scenario:
    """One program and one way of sending.

    Attributes:
        key, name: of the record and of the table's row.
        program: `daemon`, or one of `plain_script.SCRIPTS`.
        assets: how many send.
        rows: of each asset.
        layout: one of `payloads.LAYOUTS`.
        per_message: rows in one message.
        qos: of publisher and subscriber.
        pace: messages a second; 0 is as fast as the broker takes them.
        rest: `agent.rest_milliseconds` of the daemon.
    """

    key: str
    name: str
    program: str
    assets: int
    rows: int
    layout: str = "object"
    per_message: int = 1
    qos: int = 0
    pace: float = 0.0
    rest: float = 0.0


BASE = "script_onnx"
"""Everything is compared with this scenario."""
SCENARIOS = (
    Scenario(BASE, "script on ONNX Runtime, 100 assets", "onnx", 100, 20),
    Scenario("script_keras", "script on keras.predict, 100 assets", "keras", 100, 1),
    Scenario("script_xla", "script on an XLA tf.function, 100 assets", "xla", 100, 10),
    Scenario("river", "River HalfSpaceTrees, 100 assets", "river", 100, 60),
    Scenario("one", "Forewarn, 1 asset", _DAEMON, 1, 20_000),
    Scenario("packed_one", "Forewarn, 1 asset, 100 a message", _DAEMON, 1, 40_000, per_message=100),
    Scenario("json_100", "Forewarn, 100 assets", _DAEMON, 100, 1000),
    Scenario("json_10000", "Forewarn, 10 000 assets", _DAEMON, 10_000, 10),
    Scenario("sensor_100", "Forewarn, 100 assets, a topic per sensor", _DAEMON, 100, 150, "sensor"),
    Scenario("packed_100", "Forewarn, 100 assets, 100 a message", _DAEMON, 100, 1500, per_message=100),
    Scenario("binary_100", "Forewarn, 100 assets, binary", _DAEMON, 100, 1000, "binary"),
    Scenario(
        "binary_packed", "Forewarn, 100 assets, binary, 100 a message", _DAEMON, 100, 1500, "binary", 100
    ),
    Scenario("qos1_100", "Forewarn, 100 assets, QoS 1", _DAEMON, 100, 500, qos=1),
)
SLOW = (
    Scenario("slow_daemon", "Forewarn", _DAEMON, 100, 10, pace=100.0),
    Scenario("slow_resting", "Forewarn, rest_milliseconds = 100", _DAEMON, 100, 10, pace=100.0, rest=100.0),
    Scenario("slow_script", "script on ONNX Runtime", "onnx", 100, 10, pace=100.0),
)
"""100 samples a second: each asset sends once a second, evenly spread: nothing to put together but for who rests."""


@dataclass(frozen=True)
class Length:
    """How long the parts take.

    Attributes:
        rows: the part of the scenarios' rows that is sent.
        starts: of the daemon.
        idle_seconds: how long it has nothing to do.
        most_assets: scenarios with more are left out.
        workers: numbers of workers that are compared.
        worker_load: assets, and rows of each, that they are compared with.
    """

    rows: float = 1.0
    starts: int = 5
    idle_seconds: float = 10.0
    most_assets: int = 10_000
    workers: tuple[int, ...] = (1, 2)
    worker_load: tuple[int, int] = (100, 1000)


QUICK = Length(0.1, 1, 3.0, 1000, worker_load=(100, 200))


def measure_agent(
    subject: Subject,
    scratch: Path,
    rounds: int,
    progress: Progress,
    scenarios: tuple[Scenario, ...] = SCENARIOS,
    slow: tuple[Scenario, ...] = SLOW,
    length: Length | None = None,
) -> dict[str, Any]:
    """Run every scenario once a round, in turn, then starts, idling and a slow stream.

    Args:
        subject: model and readings.
        scratch: an empty directory.
        rounds: how often.
        progress: told after each measurement.
        scenarios: programs and ways of sending; the first is what the others are compared with.
        slow: the same, at life's pace.
        length: of all.

    Returns:
        `throughput`, a record a scenario; `start`, `idle`, `slow`, and `workers`, see `measure_workers`.
    """
    length = length or Length()
    scenarios = tuple(one for one in scenarios if one.layout in LAYOUTS and one.assets <= length.most_assets)
    with running_site(subject, scratch) as site:
        bench = _Bench(site, length.rows)
        steps = rounds * (len(scenarios) + len(length.workers)) + length.starts + 1 + len(slow)
        progress.stage("agent", steps)
        return {
            "rounds": rounds,
            "throughput": _throughput(bench, scenarios, rounds, progress),
            "start": _start(site, length.starts, progress),
            "idle": _idle(site, length.idle_seconds, progress),
            "slow": [_slow(bench, one, progress) for one in slow],
            "workers": measure_workers(site, length.workers, *length.worker_load, rounds, progress),
        }


class _Bench:
    """Programs at one broker; what they should find is computed once."""

    def __init__(self, site: Site, rows: float) -> None:
        self.site = site
        self._rows = rows
        self._alarms: dict[tuple[int, int], int] = {}

    def run(self, scenario: Scenario) -> dict[str, float]:
        """Return what scoring the scenario cost its program."""
        return self._daemon(scenario) if scenario.program == _DAEMON else self._script(scenario)

    def _count(self, scenario: Scenario) -> int:
        packed = scenario.per_message
        return max(round(scenario.rows * self._rows / packed), 1) * packed

    def _daemon(self, scenario: Scenario) -> dict[str, float]:
        assets, rows, warm = scenario.assets, self._count(scenario), self.site.warm_rows
        stream = self._stream(scenario)
        rest: dict[str, Any] = {"agent__rest_milliseconds": scenario.rest}
        with self.site.daemon(scenario.qos, assets, **rest) as daemon:
            daemon.wait_until_subscribed()
            stream.warm(warm)
            unscored = self.site.unscored(assets)
            begun = daemon.wait_until_scored(assets * warm - unscored)
            stream.publish(warm, rows, scenario.pace)
            spent = daemon.wait_until_scored(assets * (warm + rows) - unscored) - begun
            # Everything that was sent has a score, once, and led to the alarms that it should.
            scored = daemon.metric("forewarn_samples_scored_total")
            assert scored == assets * (warm + rows) - unscored, f"{scenario.key}: {scored:g} samples scored"
            rejected = daemon.metric("forewarn_readings_rejected_total")
            assert rejected == 0, f"{scenario.key}: {rejected:g} readings rejected"
            alarms = daemon.metric("forewarn_alarm_events_total", 'kind="start"')
            expected = self._expected_alarms(assets, warm + rows)
            assert alarms == expected, f"{scenario.key}: {alarms:g} alarms, not {expected}"
            return {
                "samples": assets * rows,
                "cpu_seconds": spent,
                "alarms": alarms,
                "peak_megabytes": daemon.peak_megabytes(),
            }

    def _expected_alarms(self, assets: int, rows: int) -> int:
        if (assets, rows) not in self._alarms:
            self._alarms[assets, rows] = len(self.site.expected_alarms(assets, rows))
        return self._alarms[assets, rows]

    def _script(self, scenario: Scenario) -> dict[str, float]:
        assert scenario.program in SCRIPTS
        site, assets, rows = self.site, scenario.assets, self._count(scenario)
        command = [sys.executable, "-m", "tests.benchmarks.plain_script", scenario.program]
        command += ["--bundle", str(site.subject.bundle.directory), "--weights", str(site.weights)]
        command += ["--port", str(site.port)]
        command += ["--skip", str(assets * site.warm_rows), "--samples", str(assets * rows)]
        stream = self._stream(scenario)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "ready\n", f"{scenario.name} did not start: is its library installed?"
            stream.warm(site.warm_rows)
            stream.publish(site.warm_rows, rows, scenario.pace)
            said, _ = process.communicate(timeout=_PATIENCE_SECONDS)
        report: dict[str, float] = json.loads(said)
        assert report["samples"] == assets * rows, f"{scenario.key}: {report['samples']:g} samples scored"
        return report

    def _stream(self, scenario: Scenario) -> Any:
        return self.site.stream(
            assets=scenario.assets, layout=scenario.layout, per_message=scenario.per_message, qos=scenario.qos
        )


def _throughput(
    bench: _Bench, scenarios: tuple[Scenario, ...], rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    runs: dict[str, list[dict[str, float]]] = {one.key: [] for one in scenarios}
    for number in range(rounds):
        for at in in_turn(len(scenarios), number):
            runs[scenarios[at].key].append(bench.run(scenarios[at]))
            progress.advance(1, scenarios[at].name)
    sensors = len(bench.site.subject.bundle.manifest.sensors)
    first = _rates(runs[scenarios[0].key])
    return [_record(one, runs[one.key], first, sensors) for one in scenarios]


def _record(
    scenario: Scenario, runs: list[dict[str, float]], first: list[float], sensors: int
) -> dict[str, Any]:
    rates = _rates(runs)
    return {
        "key": scenario.key,
        "name": scenario.name,
        "samples_per_cpu_second": spread(rates),
        "readings_per_cpu_second": spread(rate * sensors for rate in rates),
        "ratio": ratio(rates, first),
        "rounds": rates,
        "samples": runs[0]["samples"],
        "peak_megabytes": max(run["peak_megabytes"] for run in runs),
    }


def _rates(runs: list[dict[str, float]]) -> list[float]:
    return [run["samples"] / run["cpu_seconds"] for run in runs]


def _start(site: Site, starts: int, progress: Progress) -> dict[str, Any]:
    wall, cpu, import_wall, import_cpu = [], [], [], []
    for _ in range(starts):
        with site.daemon() as daemon:
            wall.append(daemon.start_seconds)
            cpu.append(daemon.start_cpu_seconds)
        done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        seconds = done.stdout.split()
        import_wall.append(float(seconds[0]))
        import_cpu.append(float(seconds[1]))
        progress.advance(1, "start")
    return {
        "wall_seconds": spread(wall),
        "cpu_seconds": spread(cpu),
        "import_wall_seconds": spread(import_wall),
        "import_cpu_seconds": spread(import_cpu),
    }


def _idle(site: Site, seconds: float, progress: Progress) -> dict[str, float]:
    """Return what the daemon takes while it is connected and nothing arrives."""
    with site.daemon() as daemon:
        daemon.wait_until_subscribed()
        begun, used = time.perf_counter(), daemon.cpu_seconds()
        time.sleep(seconds)
        spent, passed = daemon.cpu_seconds() - used, time.perf_counter() - begun
        megabytes = daemon.resident_megabytes()
    progress.advance(1, "idle")
    return {"core_percent": 100.0 * spent / passed, "resident_megabytes": megabytes}


def _slow(bench: _Bench, scenario: Scenario, progress: Progress) -> dict[str, Any]:
    run = bench.run(scenario)
    progress.advance(1, f"{scenario.name}, {scenario.pace:g} a second")
    return {
        "key": scenario.key,
        "name": scenario.name,
        "pace": scenario.pace,
        "core_percent": 100.0 * run["cpu_seconds"] / (run["samples"] / scenario.pace),
    }
