"""Laws of the benchmarks: they run, and give the promised figures; how large these are is no law."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.benchmarks import agent, kernel
from tests.benchmarks.figures import in_turn, machine_facts, ratio, spread
from tests.benchmarks.publisher import Stream, messages
from tests.benchmarks.tables import tables
from tests.small_bundle import SENSORS, WINDOW, make_small_bundle, normal_values
from trainer.highway import SPANS
from trainer.model import ModelSpec, build_model
from trainer.progress import Progress

SCENARIOS = (
    agent.Scenario("packed", "2 assets, 4 a message", 2, 4, 8, 4),
    agent.Scenario("paced", "2 assets, 1 a message, at a pace", 2, 1, 3, 2, pace=100.0),
)
LENGTH = agent.Length(starts=1, idle_seconds=0.5)


@pytest.fixture(scope="module")
def kernel_figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a tiny run of the kernel's benchmark gives."""
    bundle = make_small_bundle(tmp_path_factory.mktemp("kernel") / "bundle")
    spec = ModelSpec(len(SENSORS), WINDOW, units=(4,))
    model = build_model(spec, np.zeros(((1 + len(SPANS)) * spec.sensors + 1, spec.outputs), np.float32))
    predict = kernel.keras_predict(model)
    subject = kernel.Subject(bundle, lambda window: predict(window)[:, -1], normal_values(200))
    return kernel.measure_kernel(subject, 2, 0.001, Progress())


@pytest.fixture(scope="module")
def agent_figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a tiny run of the agent's benchmark gives."""
    scratch = tmp_path_factory.mktemp("agent")
    subject = agent.Subject(make_small_bundle(scratch / "bundle"), normal_values(200))
    return agent.measure_agent(subject, scratch, 1, Progress(), SCENARIOS, LENGTH)


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for part in content.values():
            yield from _numbers(part)
    elif isinstance(content, list):
        for part in content:
            yield from _numbers(part)
    elif isinstance(content, (int, float)):
        yield content


def test_the_kernel_gives_every_contender_a_positive_rate(kernel_figures: dict[str, Any]) -> None:
    """Script, Keras, detector and graph each have a finite positive rate, and the first is the others' measure."""
    scoring = {one["key"]: one for one in kernel_figures["scoring"]}
    assert list(scoring) == [
        "script_onnx", "script_keras", "forewarn_rows", "forewarn_chunk", "forewarn_100", "forewarn_1000",
    ]  # fmt: skip
    assert scoring["script_onnx"]["ratio"] == 1.0
    assert [one["key"] for one in kernel_figures["graph"]] == ["step_1", "step_64", "step_256"]
    assert all("peak_share" in one for one in kernel_figures["graph"])
    assert kernel_figures["sgemm_gflops"].keys() == {"median", "least", "most"}
    assert all(math.isfinite(number) and number > 0 for number in _numbers(kernel_figures))


def test_the_agent_bench_gives_both_programs_a_positive_rate(agent_figures: dict[str, Any]) -> None:
    """Each scenario has rate and memory of the daemon and of the script; start and idling of the daemon are there."""
    assert [one["key"] for one in agent_figures["throughput"]] == [one.key for one in SCENARIOS]
    for one in agent_figures["throughput"]:
        for who in ("daemon", "script"):
            assert one[who].keys() == {"samples_per_cpu_second", "peak_megabytes"}
    assert agent_figures["start"].keys() == {
        "wall_seconds", "cpu_seconds", "import_wall_seconds", "import_cpu_seconds",
    }  # fmt: skip
    assert agent_figures["idle"].keys() == {"core_percent", "peak_megabytes"}
    assert all(math.isfinite(number) and number > 0 for number in _numbers(agent_figures))


def test_the_tables_name_all_that_was_measured(
    kernel_figures: dict[str, Any], agent_figures: dict[str, Any]
) -> None:
    """Every contender and every scenario has its line, and all figures can be written as JSON."""
    figures = {"machine": machine_facts(), "kernel": kernel_figures, "agent": agent_figures}
    console = Console(width=120)
    with console.capture() as captured:
        for table in tables(figures):
            console.print(table)
    printed = captured.get()
    named = [*kernel_figures["scoring"], *kernel_figures["graph"], *agent_figures["throughput"]]
    assert [one["name"] for one in named if one["name"] not in printed] == []
    assert figures["machine"]["cpu"] in printed
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize("per_message", [1, 3, 100])
def test_a_stream_sends_every_row_of_every_asset_once_and_in_order(tmp_path: Path, per_message: int) -> None:
    """However rows are packed, each asset's times are without gap or repetition and hold all sensors."""
    np.save(tmp_path / "values.npy", normal_values(50))
    stream = Stream(0, tmp_path / "values.npy", SENSORS)
    sent: dict[str, list[float]] = {}
    for topic, payload in messages(stream, 2, 5, 10, per_message):
        content = json.loads(payload)
        for item in content if isinstance(content, list) else [content]:
            assert item.keys() == {"time", *SENSORS}
            sent.setdefault(topic, []).append(item["time"])
    assert len(sent) == 2
    assert all(times == list(range(int(times[0]), int(times[0]) + 10)) for times in sent.values())


def test_contenders_take_turns_and_are_compared_within_a_round() -> None:
    """Every other round runs backwards, and a machine that is slow for a whole round does not move the ratio."""
    assert in_turn(3, 0) == [0, 1, 2]
    assert in_turn(3, 1) == [2, 1, 0]
    assert ratio([20.0, 2.0, 20.0], [10.0, 1.0, 10.0]) == 2.0
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}
