"""Laws of the benchmarks: they run, and give the promised figures; how large these are is no law."""

import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edge_agent.contract.grid import Axis
from tests.benchmarks import agent, kernel, latency, memory, scaling, training
from tests.benchmarks.default_bundle import Shape, random_weights
from tests.benchmarks.figures import in_turn, machine_facts, ratio, spread
from tests.benchmarks.learning_curve import Task
from tests.benchmarks.payloads import NO_FAULT, Fault, load_with, messages
from tests.benchmarks.plain_script import SCRIPTS, keras_predict, make_script, xla_function
from tests.benchmarks.site import Subject, running_site
from tests.benchmarks.tables import machine_page, part_pages
from tests.benchmarks.targets import verdicts
from tests.small_bundle import SENSORS, WINDOW, make_small_bundle, normal_values
from trainer.model import ModelSpec
from trainer.network import build_window_model
from trainer.progress import Progress

SCENARIOS = (
    agent.Scenario(agent.BASE, "script, 2 assets", "onnx", 2, 2),
    agent.Scenario("packed", "2 assets, 4 a message", "daemon", 2, 8, per_message=4),
    agent.Scenario("sensors", "2 assets, a topic per sensor, QoS 1", "daemon", 2, 3, "sensor", qos=1),
    agent.Scenario("many", "left out", "daemon", 5000, 1),
)
SLOW = (
    agent.Scenario("slow_daemon", "2 assets at a pace", "daemon", 2, 3, pace=100.0),
    agent.Scenario("slow_resting", "2 assets at a pace, resting", "daemon", 2, 3, pace=100.0, rest=50.0),
)
LENGTH = agent.Length(1.0, starts=1, idle_seconds=0.5, most_assets=10, worker_load=(4, 20))
SPEC = ModelSpec(len(SENSORS), WINDOW, units=(4,))
CASES = (
    scaling.Case("assets_100", "3 assets", Shape(2, 4, (4,)), 3),
    scaling.Case("sensors", "3 sensors", Shape(3, 4, (4,)), 3),
)
SHORT = training.Length(hours=20.0, seconds=1.0, long_rows=1500, units=(4, 3), window=8)
STEADY = latency.Steady(assets=5, pace=200.0, rows=16)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small bundle, and a small model for Keras."""
    bundle = make_small_bundle(tmp_path_factory.mktemp("subject") / "bundle")
    return Subject(bundle, random_weights(SPEC), normal_values(200))


@pytest.fixture(scope="module")
def runs(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a tiny run of every part gives."""
    model = build_window_model(subject.weights)
    predictors = {("keras", "Keras"): keras_predict(model), ("xla", "XLA"): xla_function(model)}
    places = {
        name: tmp_path_factory.mktemp(name) for name in ("agent", "latency", "memory", "scaling", "training")
    }
    quiet = Progress()
    measured = {
        "kernel": kernel.measure_kernel(
            kernel.Subject(subject.bundle, predictors, {("other", "other"): lambda *_: False}, subject.values),
            2, 0.001, quiet,
        ),
        "agent": agent.measure_agent(subject, places["agent"], 1, quiet, SCENARIOS, SLOW, LENGTH),
        "latency": latency.measure_latency(subject, places["latency"], 1, quiet, STEADY),
        "memory": memory.measure_memory(subject, places["memory"], quiet, (3,)),
        "scaling": scaling.measure_scaling(places["scaling"], 2, 0.001, quiet, CASES),
        "training": training.measure_training(places["training"], 1, quiet, SHORT),
    }  # fmt: skip
    facts = {"machine": machine_facts(), "version": "0", "quick": True, "rounds": 1, "seconds": 1.0}
    return {part: {**facts, **run} for part, run in measured.items()}


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for part in content.values():
            yield from _numbers(part)
    elif isinstance(content, list):
        for part in content:
            yield from _numbers(part)
    elif isinstance(content, (int, float)):
        yield content


def test_every_figure_is_finite_and_positive(runs: dict[str, dict[str, Any]]) -> None:
    """No part gives a rate, a cost, a time or a size that is nothing or no number."""
    for part, run in runs.items():
        if part == "training":
            continue
        assert all(math.isfinite(number) and number > 0 for number in _numbers(run)), part
    json.dumps(runs, allow_nan=False)


def test_the_kernel_compares_every_contender_with_the_first(runs: dict[str, dict[str, Any]]) -> None:
    """Script, Keras, XLA, the neighbour and the detector are there, and the first is the others' measure."""
    scoring = {one["key"]: one for one in runs["kernel"]["scoring"]}
    assert list(scoring) == [
        "script_onnx", "keras", "xla", "other", "forewarn_rows", "forewarn_chunk", "forewarn_100", "forewarn_1000",
    ]  # fmt: skip
    assert set(scoring["script_onnx"]["ratio"].values()) == {1.0}
    assert [one["key"] for one in runs["kernel"]["graph"]] == ["step_1", "step_64", "step_256"]


def test_the_agent_bench_runs_every_scenario_that_is_not_too_large(runs: dict[str, dict[str, Any]]) -> None:
    """Each has its rate, its ratio to the script and its memory; start, idling and the slow stream are there."""
    found = {one["key"]: one for one in runs["agent"]["throughput"]}
    assert list(found) == [one.key for one in SCENARIOS if one.assets <= LENGTH.most_assets]
    assert set(found[agent.BASE]["ratio"].values()) == {1.0}
    assert found["packed"]["samples"] == 16
    assert {"wall_seconds", "cpu_seconds"} < runs["agent"]["start"].keys()
    assert [one["key"] for one in runs["agent"]["slow"]] == ["slow_daemon", "slow_resting"]
    assert [one["workers"] for one in runs["agent"]["workers"]] == [1, 2]


def test_each_way_has_the_latency_of_every_message_and_alarm(runs: dict[str, dict[str, Any]]) -> None:
    """All messages are acknowledged, and every asset's fault led to an alarm that was heard."""
    assert [one["key"] for one in runs["latency"]["ways"]] == list(latency.WAYS)
    assert runs["latency"]["alarms"] >= STEADY.assets
    for way in runs["latency"]["ways"]:
        assert way["messages"] == STEADY.assets * STEADY.rows
        for name in ("publish_to_score", "publish_to_alarm"):
            assert way[f"{name}_p50_ms"] <= way[f"{name}_p99_ms"] <= way[f"{name}_p999_ms"]


def test_everybody_reaches_the_rmse_that_training_is_measured_to(runs: dict[str, dict[str, Any]]) -> None:
    """Each curve starts untrained and gets to the target, spends time and memory, and the tutorial is the measure."""
    run = runs["training"]
    (target,) = run["target_rmse"]
    trained = {one["key"]: one for one in run["contenders"] if "rounds" in one}
    assert {"tutorial", "forewarn_alone", "forewarn"} <= set(trained) <= set(training.NAMES)
    assert trained["tutorial"]["speed"]["median"] == 1.0
    for one in trained.values():
        (points,) = one["curves"]
        assert points[0]["windows"] == 0
        assert [point["cpu_seconds"] for point in points] == sorted(point["cpu_seconds"] for point in points)
        assert min(point["rmse"] for point in points) <= target
        assert one["cpu_seconds"]["median"] == one["rounds"][0] > 0.0
        assert one["peak_megabytes"] >= one["start_megabytes"] > 0.0


def test_a_library_that_is_not_there_is_said_so(
    runs: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without its environment the library has a line that says so, and no figure of training is held against it."""
    monkeypatch.setenv(training.LIBRARY_VARIABLE, str(tmp_path / "nowhere"))
    assert training.library() is None
    for on_gpu in (False, True):
        assert "library" not in {one.key for one in training.contenders(on_gpu)}
    (record,) = (one for one in runs["training"]["contenders"] if one["key"] == "library")
    if "rounds" not in record:
        assert record == {"key": "library", "name": "darts, not installed"}
    place = {"training": {"quick": False, "contenders": [{"key": "library", "name": "darts, not installed"}]}}
    assert list(verdicts(place)) == []


def test_on_a_gpu_everybody_runs_on_both_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is held against the tutorial's script on its own backend, and sees the GPU, which is hidden otherwise."""
    monkeypatch.setattr(training, "library", lambda: "python")
    there = {one.key: one for one in training.contenders(on_gpu=True)}
    assert {one.environment.get("KERAS_BACKEND") for one in there.values()} == {"jax", "torch", None}
    assert there["forewarn_jax"].base == there["tutorial_jax"].key
    assert there["library"].base == there["tutorial_torch"].key
    assert all("CUDA_VISIBLE_DEVICES" not in one.environment for one in there.values())
    assert all(one.environment["CUDA_VISIBLE_DEVICES"] == "" for one in training.contenders(on_gpu=False))


def test_the_rmse_to_reach_is_one_that_everybody_reached() -> None:
    """It lies a fixed share above the best of whoever did worst, and the first point at or below it counts."""
    curves = [[{"rmse": rmse, "at": at} for at, rmse in enumerate(one)] for one in ([3.0, 1.0], [2.0, 1.5])]
    target = training.target_of(curves)
    assert target == training.MARGIN * 1.5
    assert [training.reached(points, target)["at"] for points in curves] == [1, 1]


def test_a_task_is_the_same_in_another_process(tmp_path: Path) -> None:
    """What is written for a contender is what it reads, and judged windows end right before their targets."""
    values = np.arange(60, dtype=np.float32).reshape(30, 2)
    task = Task(values, values, 4, (3, 2), 8, 1.0, 5)
    task.save(tmp_path / "task.npz")
    again = Task.load(tmp_path / "task.npz")
    assert again.judged(9)[0].shape == (9, 4, 2)
    np.testing.assert_array_equal(again.fit, values)
    assert (again.units, again.window, again.seed) == ((3, 2), 4, 5)
    windows, targets = again.judged(9)
    np.testing.assert_array_equal(targets, windows[:, -1] + 2.0)


def test_the_tables_name_all_that_was_measured(runs: dict[str, dict[str, Any]]) -> None:
    """Every contender, scenario and case has its line, on a terminal and in the document."""
    pages = [machine_page(machine_facts())]
    pages += [page for part, run in runs.items() for page in part_pages(part, run)]
    console = Console(width=160)
    with console.capture() as captured:
        for page in pages:
            console.print(page.rich())
    written = "\n".join(page.markdown() for page in pages)
    lists = (
        ("kernel", "scoring"),
        ("kernel", "graph"),
        ("agent", "throughput"),
        ("agent", "slow"),
        ("scaling", "cases"),
        ("training", "contenders"),
    )
    named = [one["name"] for part, key in lists for one in runs[part][key]]
    for text in (captured.get(), written):
        assert [name for name in named if name not in text] == []
    for page in pages:
        assert {len(row) for row in page.rows} == {len(page.columns)}, page.title


@pytest.mark.parametrize("name", ["onnx", "keras", "xla"])
def test_every_script_knows_its_window(name: str, subject: Subject, tmp_path: Path) -> None:
    """A script warns of nothing before its window is full, and of a leap afterwards."""
    subject.weights.save(tmp_path / "weights.npz")
    warns = make_script(name, subject.bundle.directory, tmp_path / "weights.npz")
    leap = subject.values[0] + 1000.0
    assert not warns("a", leap)
    for row in range(WINDOW):
        warns("a", subject.values[row])
    assert warns("a", leap)


def test_a_neighbour_that_is_not_installed_is_said_so(subject: Subject) -> None:
    """River is no dependency of the tests: where it is absent its name is in the error, elsewhere it scores."""
    assert "river" in SCRIPTS
    if importlib.util.find_spec("river") is None:
        with pytest.raises(ModuleNotFoundError, match="river"):
            make_script("river", subject.bundle.directory)
    else:
        warns = make_script("river", subject.bundle.directory)
        assert [warns("a", row) for row in subject.values[:5]] == [False] * 5


@pytest.mark.parametrize(("layout", "per_message"), [("object", 1), ("object", 3), ("sensor", 1)])
def test_messages_hold_every_reading_of_every_asset_once_and_in_order(layout: str, per_message: int) -> None:
    """However rows are packed, each asset's times are without gap or repetition and hold all sensors."""
    load = load_with(normal_values(50), SENSORS, Axis(1.0), NO_FAULT)
    heard: dict[str, list[tuple[float, str]]] = {}
    for topic, payload in messages(load, layout, range(2), 5, 10, per_message):
        _, asset, *sensor = topic.split("/")
        content = json.loads(payload)
        for item in content if isinstance(content, list) else [content]:
            time = item.pop("time")
            assert tuple(item) == (("value",) if sensor else SENSORS)
            heard.setdefault(asset, []).extend((time, name) for name in sensor or item)
    assert list(heard) == ["0", "1"]
    for found in heard.values():
        assert found == [(load.time(row), name) for row in range(5, 15) for name in SENSORS]


def test_a_fault_begins_where_it_says_and_stays() -> None:
    """Before its row an asset reads as without the fault, from then on its first sensor reads so much higher."""
    fault = Fault(first=10, spread=3, size=7.0)
    faulty, normal = (
        load_with(normal_values(50), SENSORS, Axis(1.0), one) for one in (fault, replace(fault, size=0.0))
    )
    asset, row = np.repeat(np.arange(6), 30), np.tile(np.arange(30), 6)
    difference = faulty.values(asset, row) - normal.values(asset, row)
    begun = row >= fault.begin(asset)
    assert begun.reshape(6, 30).sum(axis=1).tolist() == [20, 19, 18, 20, 19, 18]
    np.testing.assert_allclose(difference[:, 0], 7.0 * begun, atol=1e-4)
    assert not difference[:, 1:].any()
    for one in (9, 10, 12):
        content = json.loads(faulty.item(0, one))
        assert content.pop("time") == faulty.time(one)
        np.testing.assert_allclose(list(content.values()), faulty.values(np.array([0]), np.array([one]))[0])


def test_the_site_knows_the_alarms_of_its_stream(subject: Subject, tmp_path: Path) -> None:
    """Each asset's fault opens one alarm, at or after the row in which it begins."""
    fault = Fault(first=60, spread=3, size=20.0)
    with running_site(subject, tmp_path) as site:
        load = site.stream(assets=3, fault=fault).load
        faults = site.expected_alarms(3, 80, fault) - site.expected_alarms(3, 80)
    assert {asset for asset, _ in faults} == {0, 1, 2}
    assert all(moment >= load.time(60 + asset) for asset, moment in faults)


def test_contenders_take_turns_and_are_compared_within_a_round() -> None:
    """Every other round runs backwards, and a machine that is slow for a whole round does not move the ratio."""
    assert in_turn(3, 0) == [0, 1, 2]
    assert in_turn(3, 1) == [2, 1, 0]
    assert ratio([20.0, 2.0, 30.0], [10.0, 1.0, 10.0]) == {"median": 2.0, "least": 2.0, "most": 3.0}
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}
