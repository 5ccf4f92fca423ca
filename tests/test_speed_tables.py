"""Laws of the tables of speed: they are what the stored runs say, and hold each figure against its limits."""

import json
from typing import Any

import pytest

from tests.benchmarks.agent import SCENARIOS, SLOW
from tests.benchmarks.memory import ASSETS
from tests.benchmarks.readme_table import LARGEST_BYTES, README, with_table
from tests.benchmarks.scaling import CASES
from tests.benchmarks.speed_tables import (
    BEGIN,
    DOCUMENT,
    END,
    NOTHING,
    PARTS,
    RUNS,
    document_text,
    stored_runs,
    targets_text,
)
from tests.benchmarks.tables import number, targets_page
from tests.benchmarks.targets import TARGETS, Runs, verdicts
from tests.benchmarks.training import NAMES


def _spread(value: float) -> dict[str, float]:
    return {"median": value, "least": value, "most": value}


def _runs(value: float = 1.0, quick: bool = False) -> Runs:
    """Return runs of all parts in which every figure is the same."""
    latencies = {
        f"{name}_{mark}_ms": value
        for name in ("publish_to_score", "publish_to_alarm")
        for mark in ("p50", "p99", "p999")
    }
    way = {"key": "default", **latencies, "core_percent": _spread(value), "messages": 1}
    way["spread"] = {name: _spread(value) for name in latencies}
    rates = {f"{what}_per_cpu_second": _spread(value) for what in ("samples", "readings")}
    start = ("wall_seconds", "cpu_seconds", "import_wall_seconds", "import_cpu_seconds")
    parts: dict[str, dict[str, Any]] = {
        "kernel": {
            "scoring": [],
            "graph": [{"key": "step_256", "name": "g", **rates, "peak_share": _spread(value)}],
            "sgemm_gflops": _spread(value),
        },
        "agent": {
            "throughput": [
                {"key": one.key, "name": one.name, **rates, "ratio": _spread(value),
                 "rounds": [value, value], "peak_megabytes": value}
                for one in SCENARIOS
            ],
            "start": {key: _spread(value) for key in start},
            "idle": {"core_percent": value, "resident_megabytes": value},
            "slow": [{"key": one.key, "name": one.name, "pace": 1.0, "core_percent": value} for one in SLOW],
        },
        "latency": {"pace": 2000.0, "assets": 1, "ways": [way]},
        "memory": {
            "resident_megabytes": value,
            "assets": [
                {"assets": assets, "resident_megabytes": value, "peak_megabytes": value} for assets in ASSETS
            ],
        },
        "scaling": {
            "cases": [
                {"key": case.key, "name": case.name, "microseconds_per_sample": _spread(value), "ratio": _spread(value),
                 "against": case.against}
                for case in CASES
            ],
        },
        "training": {
            "target_rmse": [value], "persistence": value, "ridge": value, "samples": 1000, "long_samples": 2000,
            "contenders": [
                {"key": key, "name": name, "rounds": [value], "epoch": None, "start_megabytes": value,
                 "peak_megabytes": value, "long_peak_megabytes": value,
                 **dict.fromkeys(("cpu_seconds", "wall_seconds", "windows", "speed", "best_rmse"), _spread(value))}
                for key, name in NAMES.items()
            ],
        },
    }  # fmt: skip
    libraries = (
        "python",
        "numpy",
        "blas",
        "onnxruntime",
        "keras",
        "tensorflow",
        "paho-mqtt",
        "river",
        "mosquitto",
    )
    machine = {"cpu": "c", "cores": 2, "load_average": 1.0, **dict.fromkeys(libraries, "1")}
    facts = {"machine": machine, "version": "0.1", "quick": quick, "rounds": 3, "seconds": 60.0}
    return {part: {**facts, **run} for part, run in parts.items()}


def test_the_documents_hold_what_the_stored_runs_say() -> None:
    """Nothing between the markers is typed."""
    runs = stored_runs()
    for path, made in ((DOCUMENT, document_text(runs)), (README, targets_text(runs))):
        text = path.read_text("utf-8")
        assert with_table(text, made, BEGIN, END) == text, path.name


def test_stored_runs_are_small_and_of_a_part() -> None:
    """Each stored run is under 100 kB, of a part that there is, and says how it was made."""
    for path in RUNS.glob("*"):
        assert path.stem in PARTS
        assert path.stat().st_size < LARGEST_BYTES, path.name
        record = json.loads(path.read_text("utf-8"))
        assert {"machine", "version", "quick", "rounds", "seconds"} <= record.keys()


def test_every_target_names_a_figure_that_is_measured() -> None:
    """With all parts run in full, no target is without its figure."""
    assert [target.title for target, _, _ in verdicts(_runs())] == [target.title for target in TARGETS]


def test_a_part_that_was_not_run_has_no_line() -> None:
    """Neither its targets nor its tables are there, and nothing of others is lost."""
    runs = _runs()
    del runs["agent"]
    assert {target.part for target, _, _ in verdicts(runs)} == set(PARTS) - {"agent"}
    runs["memory"]["assets"] = runs["memory"]["assets"][:1]
    assert "memory, 10 000 assets" not in targets_text(runs)
    assert "memory, one asset" in targets_text(runs)


def test_without_a_run_there_is_a_word_and_no_empty_table() -> None:
    """Nothing measured is said as nothing measured."""
    assert targets_text({}) == document_text({}) == NOTHING


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.title)
def test_a_limit_holds_at_its_edge(target: Any) -> None:
    """What must be is less than what should be, a figure at a limit keeps it, and one beyond does not."""
    worse = 0.99 if target.least else 1.01
    assert target.reaches(target.aim, target.must)
    assert target.reaches(target.must, target.must)
    assert not target.reaches(target.must * worse, target.must)


def test_a_figure_is_called_what_it_is() -> None:
    """Kept, its aim too, missed; and a quick run neither keeps nor misses anything."""
    said = {target.title: verdict for target, _, verdict in verdicts(_runs(1.0))}
    assert said["samples, 100 assets"] == "**missed**"
    assert said["publish to score at 2 k/s, p50"] == "kept"
    assert said["publish to score at 2 k/s, p99"] == "aim kept"
    assert {verdict for _, _, verdict in verdicts(_runs(1.0, quick=True))} == {"quick"}
    assert "**the quick form**" in targets_text(_runs(quick=True))


def test_contenders_are_compared_within_a_round() -> None:
    """The comparison with a script is the median of what Forewarn's rate was over the script's, round by round."""
    runs = _runs()
    for one in runs["agent"]["throughput"]:
        one["rounds"] = {"json_100": [90.0, 20.0, 80.0], "script_onnx": [2.0, 0.1, 2.0]}.get(
            one["key"], [2.0] * 3
        )
    found = {target.title: value for target, value, _ in verdicts(runs)}
    assert found["against the script on ONNX Runtime"] == 45.0
    assert found["cost a sample, QoS 1 over QoS 0"] == 40.0


def test_every_table_of_the_document_is_well_formed() -> None:
    """All rows of a table have as many cells as its head."""
    widths: list[set[int]] = [set()]
    for line in document_text(_runs()).splitlines():
        if line.startswith("|"):
            widths[-1].add(line.count("|"))
        elif widths[-1]:
            widths.append(set())
    assert len(widths) > 5
    assert all(len(one) <= 1 for one in widths)
    assert targets_page(_runs()).markdown().splitlines()[1] == "| --- | --: | --: | --: | --: |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(123456.0, "123 000"), (1234.0, "1 230"), (99.96, "100"), (12.34, "12.3"), (0.00123, "0.00123")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Thousands stand apart, and no number is written with an exponent."""
    assert number(value) == text


def test_a_text_without_markers_is_refused() -> None:
    """The tables are not written to just anywhere."""
    with pytest.raises(ValueError, match="must hold"):
        with_table("# Benchmarks", "table", BEGIN, END)
    assert with_table(f"a{BEGIN}old{END}b", "new", BEGIN, END) == f"a{BEGIN}\nnew\n{END}b"
