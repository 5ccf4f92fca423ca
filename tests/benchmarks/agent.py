"""The whole daemon on a real broker beside the script everybody writes first: CPU, memory, start and idling."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import Float32
from tests.benchmarks.agent_process import PATIENCE_SECONDS, AgentProcess
from tests.benchmarks.figures import in_turn, ratio, spread
from tests.benchmarks.publisher import Stream
from tests.broker import Broker
from trainer.progress import Progress

# The daemon's inbox holds 50 000 messages and the broker's queue is made boundless: nothing is lost at any speed.
_BROKER_LINES = ("max_queued_messages 0",)
_WARM_ROWS_A_MESSAGE = 20
_STARTS = 5
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
    """One way of sending.

    Attributes:
        key, name: of the record and of the table's row.
        assets: how many send.
        per_message: samples in one message.
        daemon_rows, script_rows: samples of each asset; the script is slower and gets fewer.
        pace: messages a second; 0 is as fast as the broker takes them.
    """

    key: str
    name: str
    assets: int
    per_message: int
    daemon_rows: int
    script_rows: int
    pace: float = 0.0


SCENARIOS = (
    Scenario("single_1", "1 asset, 1 a message", 1, 1, 6_000, 600),
    Scenario("packed_1", "1 asset, 100 a message", 1, 100, 10_000, 600),
    Scenario("single_100", "100 assets, 1 a message", 100, 1, 250, 6),
    Scenario("packed_100", "100 assets, 100 a message", 100, 100, 500, 6),
    Scenario("paced_100", "100 assets, 1 a second", 100, 1, 5, 5, pace=100.0),
)


@dataclass(frozen=True)
class Length:
    """How long the parts take that are not scenarios."""

    starts: int = _STARTS
    idle_seconds: float = 4.0


@dataclass(frozen=True)
class Subject:
    """What is measured: a bundle with both graphs, and (n, F) readings of normal life."""

    bundle: Bundle
    values: Float32


def measure_agent(
    subject: Subject,
    scratch: Path,
    rounds: int,
    progress: Progress,
    scenarios: tuple[Scenario, ...] = SCENARIOS,
    length: Length | None = None,
) -> dict[str, Any]:
    """Run every scenario with both programs once a round, in turn, then starts and idling.

    Args:
        subject: model and readings.
        scratch: an empty directory.
        rounds: how often.
        progress: told after each measurement.
        scenarios: ways of sending.
        length: of the rest.

    Returns:
        `throughput`, a record a scenario; `start` and `idle` of the daemon.
    """
    length = length or Length()
    np.save(scratch / "values.npy", subject.values)
    broker = Broker(scratch, *_BROKER_LINES)
    broker.start()
    try:
        bench = _Bench(subject.bundle, broker.port, scratch / "values.npy")
        progress.stage("agent", 2 * rounds * len(scenarios) + length.starts + 1)
        return {
            "rounds": rounds,
            "throughput": _throughput(bench, scenarios, rounds, progress),
            "start": _start(bench, length.starts, progress),
            "idle": _idle(bench, length.idle_seconds, progress),
        }
    finally:
        broker.kill()


class _Bench:
    """Both programs at one broker."""

    def __init__(self, bundle: Bundle, port: int, values: Path) -> None:
        self.directory = bundle.directory
        self.port = port
        manifest = bundle.manifest
        # The window of the script is then full, and the daemon's warm-up over.
        self._warm_rows = max(manifest.window_length, manifest.warmup_ticks)
        self._warmup_ticks = manifest.warmup_ticks
        self._stream = Stream(port, values, manifest.sensor_names)

    def daemon(self, scenario: Scenario) -> dict[str, float]:
        """Return what scoring the scenario cost the daemon."""
        unscored = scenario.assets * self._warmup_ticks
        with AgentProcess(self.directory, self.port) as agent:
            agent.wait_until_subscribed()
            self._warm(scenario)
            sent = scenario.assets * self._warm_rows
            begun = agent.wait_until_scored(sent - unscored)
            self._send(scenario, scenario.daemon_rows)
            samples = scenario.assets * scenario.daemon_rows
            spent = agent.wait_until_scored(sent + samples - unscored) - begun
            return {
                "samples": samples,
                "cpu_seconds": spent,
                "peak_megabytes": agent.peak_megabytes(),
            }

    def script(self, scenario: Scenario) -> dict[str, float]:
        """Return what scoring the scenario cost the script."""
        skipped = scenario.assets * self._warm_rows
        samples = scenario.assets * scenario.script_rows
        command = [sys.executable, "-m", "tests.benchmarks.plain_script", "--bundle", str(self.directory)]
        command += ["--port", str(self.port), "--skip", str(skipped), "--samples", str(samples)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            self._warm(scenario)
            self._send(scenario, scenario.script_rows)
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        report: dict[str, float] = json.loads(said)
        return report

    def _warm(self, scenario: Scenario) -> None:
        self._stream.publish(scenario.assets, 0, self._warm_rows, _WARM_ROWS_A_MESSAGE)

    def _send(self, scenario: Scenario, rows: int) -> None:
        self._stream.publish(scenario.assets, self._warm_rows, rows, scenario.per_message, scenario.pace)


def _throughput(
    bench: _Bench, scenarios: tuple[Scenario, ...], rounds: int, progress: Progress
) -> list[dict[str, Any]]:
    programs = (("daemon", bench.daemon), ("script", bench.script))
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for scenario in scenarios:
            for at in in_turn(len(programs), number):
                who, run = programs[at]
                runs.setdefault((scenario.key, who), []).append(run(scenario))
                progress.advance(1, f"{scenario.name}: {who}")
    return [
        _record(scenario, runs[scenario.key, "daemon"], runs[scenario.key, "script"])
        for scenario in scenarios
    ]


def _record(
    scenario: Scenario, daemon: list[dict[str, float]], script: list[dict[str, float]]
) -> dict[str, Any]:
    return {
        "key": scenario.key,
        "name": scenario.name,
        "daemon": _summary(daemon),
        "script": _summary(script),
        "ratio": ratio(_rates(daemon), _rates(script)),
    }


def _rates(runs: list[dict[str, float]]) -> list[float]:
    return [run["samples"] / run["cpu_seconds"] for run in runs]


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "samples_per_cpu_second": spread(_rates(runs)),
        "peak_megabytes": max(run["peak_megabytes"] for run in runs),
    }


def _start(bench: _Bench, starts: int, progress: Progress) -> dict[str, Any]:
    wall, cpu, import_wall, import_cpu = [], [], [], []
    for _ in range(starts):
        with AgentProcess(bench.directory, bench.port) as agent:
            wall.append(agent.start_seconds)
            cpu.append(agent.start_cpu_seconds)
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


def _idle(bench: _Bench, seconds: float, progress: Progress) -> dict[str, float]:
    """Return what the daemon takes while it is connected and nothing arrives."""
    with AgentProcess(bench.directory, bench.port) as agent:
        agent.wait_until_subscribed()
        begun, used = time.perf_counter(), agent.cpu_seconds()
        time.sleep(seconds)
        spent, passed = agent.cpu_seconds() - used, time.perf_counter() - begun
        megabytes = agent.peak_megabytes()
    progress.advance(1, "idle")
    return {"core_percent": 100.0 * spent / passed, "peak_megabytes": megabytes}
