"""Laws of the README's table of figures: it is what the stored runs say, and says how they were made."""

import json
from typing import Any

import pytest

from tests.benchmarks.readme_table import (
    FLOORS,
    LARGEST_BYTES,
    README,
    RUNS,
    WANTED,
    Wanted,
    markdown,
    stored_runs,
    with_table,
)
from trainer.benchmark.forecasters import COLUMNS
from trainer.benchmark.line import Line
from trainer.benchmark.nab import Nab
from trainer.benchmark.plant import Plant
from trainer.benchmark.skab import Skab
from trainer.benchmark.smap import Smap

KEYS = {suite.name: suite.keys for suite in (Skab, Smap, Nab, Plant, Line)}


def _run(**fields: Any) -> dict[str, Any]:
    figures = dict.fromkeys(Skab.keys, 0.5)
    return {
        **figures,
        "benchmark": "skab",
        "spread": dict.fromkeys(figures, 0.01),
        "floors": dict.fromkeys(FLOORS, figures),
        "published": {"A": {"f1": 0.7}, "B": {"f1": 0.9}, "C": {"f1": 0.8}},
        "quick": False,
        "forecaster": "lstm",
        "epochs": 30,
        "seeds": 3,
        "version": "1.2",
        "seconds": 120.0,
        **fields,
    }


def test_the_readme_holds_what_the_stored_runs_say() -> None:
    """Nothing between the markers is typed."""
    readme = README.read_text("utf-8")
    assert with_table(readme, markdown(stored_runs())) == readme


def test_stored_runs_are_small_and_whole() -> None:
    """Each stored run is under 100 kB, without its cases, of a known set, and made by a version of the program."""
    paths = sorted(RUNS.glob("*.json"))
    assert paths
    for path in paths:
        assert path.stat().st_size < LARGEST_BYTES, path.name
        record = json.loads(path.read_text("utf-8"))
        assert record["benchmark"] in KEYS
        assert path.stem.split("-")[0] == record["benchmark"]
        assert {"version", "seeds", "forecaster", "epochs", "quick", "seconds", "spread"} <= record.keys()
        assert "cases" not in record


def test_every_line_asks_for_a_figure_that_its_set_has() -> None:
    """No line of the table names a figure that the benchmark does not give."""
    for one in WANTED:
        assert one.key.removeprefix("loss_") in KEYS[one.run.split("-")[0]], one


def test_a_line_shows_limit_figure_floors_and_the_best_published() -> None:
    """A missed limit is said as plainly as a kept one; the two best published results stand beside it."""
    text = markdown({"skab": _run(far=0.2)})
    lines = {
        line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| SKAB")
    }
    assert "| ≥ 0.8 | 0.500 ±0.010 | **missed** |" in lines["SKAB: pooled F1"]
    assert lines["SKAB: pooled F1"].endswith("| B 0.900, C 0.800 |")
    assert "| ≤ 0.25 | 0.200 ±0.010 | kept |" in lines["SKAB: false alarm rate"]
    columns = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1


def test_how_a_run_was_made_is_said() -> None:
    """A quick run and one without the LSTM are called so."""
    assert "- `skab`: LSTM, 30 epochs at most, 3 seeds, version 1.2, 2 min" in markdown({"skab": _run()})
    quick = markdown({"skab": _run(quick=True, forecaster="ridge", seeds=1)})
    assert "**a few small cases only (`--quick`)**, ridge alone, 1 seed" in quick
    assert "missed" not in quick and "kept" not in quick, "a few small cases reach nothing"


def test_an_ablation_has_a_table_of_differences() -> None:
    """Each part left out has its line with signed differences."""
    found = {
        **dict.fromkeys(Skab.keys, -0.02),
        "f1": 0.03,
        "mar": None,
        "spread": dict.fromkeys(Skab.keys, 0.0),
    }
    text = markdown({"skab-ablation": _run(ablations={"without level": found})})
    assert "| without level | +0.030 | -0.020 | - |" in text


def test_each_forecaster_has_its_line() -> None:
    """The four stand under each other with their figures and the spread over the seeds, and what was run is said."""
    found = {**dict.fromkeys(COLUMNS, 0.5), "false_alarms": None, "spread": dict.fromkeys(COLUMNS, 0.01)}
    record = _run(
        benchmark="plant", forecasters={"ridge": found, "both": found}, history_weeks=4.0, test_weeks=2.0
    )
    text = markdown({"plant-forecasters": record})
    assert "| `plant`, 4 weeks of history, 2 of test: forecaster | RMSE |" in text
    assert "| ridge | 0.500 ±0.010 |" in text
    assert "| - |" in text


@pytest.mark.parametrize(
    ("limits", "kept", "missed"),
    [((0.8, None), 0.8, 0.79), ((None, 0.25), 0.25, 0.26), ((0.3, 2.0), 1.0, 2.1), ((0.3, 2.0), 0.3, None)],
)
def test_limits_hold_at_their_edges(
    limits: tuple[float | None, float | None], kept: float, missed: float | None
) -> None:
    """A figure at the limit keeps it; one beyond, or none at all, does not."""
    wanted = Wanted("skab", "f1", "x", *limits)
    assert wanted.kept(kept)
    assert not wanted.kept(missed)


def test_a_readme_without_markers_is_refused() -> None:
    """The table is not written to just anywhere."""
    with pytest.raises(ValueError, match="must hold"):
        with_table("# Forewarn", "table")
