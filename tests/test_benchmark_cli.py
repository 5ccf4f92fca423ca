"""Laws of the command `trainer benchmark`: one record, every promised figure, and the same whoever does the work."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.fusion import SOURCES
from tests.commands import run
from tests.tiny_benchmarks import write_nab, write_skab, write_smap
from trainer.benchmark.ablation import variants
from trainer.benchmark.cases import Contender
from trainer.benchmark.floors import all_floors
from trainer.benchmark.forewarn import ForewarnOptions
from trainer.benchmark.plant import Plant, PlantSize
from trainer.benchmark.report import report, tables
from trainer.benchmark.runner import Result, run_suite
from trainer.benchmark.skab import Skab
from trainer.cli import main
from trainer.progress import Progress

PROMISED = {
    "skab": "f1 far mar roc_auc far_before_event changepoint_nab",
    "smap": "sequence_f1 sequence_precision sequence_recall normal_in_alarm_ratio false_alarms_per_week "
    "average_precision",
    "nab": "standard low_fp low_fn standard_at_budget alarms_per_week",
    "plant": "budget_ratio time_in_alarm_ratio event_recall top1_sensor top3_sensor",
}
WRITE = {"skab": write_skab, "smap": write_smap, "nab": write_nab}
FLOORS = {"all-positive", "random", "clock", "persistence", "PCA T²+Q", "ridge VAR", "isolation forest"}


def _check(name: str, record: dict[str, Any]) -> None:
    for key in PROMISED[name].split():
        assert record[key] is None or isinstance(record[key], float), key
        assert key in record["spread"]
        assert all(key in figures for figures in record["floors"].values())
    assert set(record["floors"]) == FLOORS
    assert len(record["cases"]) == 2
    assert all(isinstance(case["name"], str) for case in record["cases"])


@pytest.mark.parametrize("name", WRITE)
def test_a_set_gives_one_record_with_every_promised_figure(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` prints one object: our figures with their spread, the floors', the published ones, and each case's."""
    WRITE[name](tmp_path)
    words = (
        "benchmark",
        name,
        "--data",
        tmp_path,
        "--forecaster",
        "ridge",
        "--seeds",
        2,
        "--jobs",
        1,
        "--json",
    )
    record = run(main, capsys, *words).record()
    _check(name, record)
    assert record["published"]
    assert record["seeds"] == 2
    assert record["spread"][PROMISED[name].split()[0]] == 0.0, "a ridge regression draws nothing"


def test_plants_give_the_record_of_both_variants() -> None:
    """A plant's record has the promised figures, those of the drifting one beside them, and the pooled budget."""
    suite = Plant(PlantSize(0.1, 0.4, 1))
    results = run_suite(suite, suite.plans(None, quick=True), all_floors(), 1, 1, Progress())
    ours = [
        Result("forewarn", one.case, one.seed, one.tally, one.mistakes)
        for one in results
        if one.contender == "PCA T²+Q"
    ]
    record = report(suite, [*ours, *results], 1)
    _check("plant", json.loads(json.dumps(record, allow_nan=False)))
    assert record["drifting"]["normal_weeks"] == pytest.approx(record["stationary"]["normal_weeks"])
    assert record["spread"]["budget_ratio"] is None, "one seed has no spread"


def test_processes_find_what_one_process_finds(tmp_path: Path) -> None:
    """Two processes give the tallies of a single one, in the same order."""
    write_skab(tmp_path)
    suite = Skab()
    plans = suite.plans(tmp_path, quick=False)
    contenders: Sequence[Contender] = [one for one in all_floors() if one.name in ("random", "persistence")]
    alone, together = (run_suite(suite, plans, contenders, 2, jobs, Progress()) for jobs in (1, 2))
    assert together == alone
    assert [(one.contender, one.seed) for one in alone] == [
        *[("random", 0)] * 2, *[("random", 1)] * 2, *[("persistence", 0)] * 2
    ]  # fmt: skip


def test_the_table_shows_every_figure_of_every_contender(tmp_path: Path) -> None:
    """A row for each figure, a column for ours, its spread and each floor; published ones in a table of their own."""
    write_skab(tmp_path)
    suite = Skab()
    results = run_suite(suite, suite.plans(tmp_path, quick=False), all_floors(), 1, 1, Progress())
    (header, rows), (others, published), (_, worst) = tables(suite, report(suite, results, 1), "ours")
    assert header[1:3] == ["ours", "±"]
    assert [row[0] for row in rows] == list(suite.keys)
    assert all(len(row) == len(header) for row in rows)
    assert others[1:] == [one.name for one in suite.published]
    assert all(len(row) == len(others) for row in published)
    assert sorted(row[0] for row in worst) == ["other/1", "valve1/0"]


@pytest.mark.parametrize(
    ("words", "rule", "code"),
    [
        (("skab",), "--data is missing", 2),
        (("skab", "--data", "nowhere"), "no such folder", 1),
        (("plant", "--seeds", "0"), "at least 1", 2),
        (("nab", "--data", "x", "--jobs", "0"), "at least 1", 2),
        (("smap", "--data", "x", "--epochs", "-1"), "at least 0", 2),
        (("skab", "--data", "x", "--contaminated", "0.6"), "a share from 0 to 0.5", 2),
        (("skab", "--data", "x", "--missing", "-0.1"), "a share from 0 to 0.9", 2),
        (("plant", "--dead", "-1"), "at least 0", 2),
        (("plant", "--ablate", "--dead", "1"), "goes with no", 2),
        (("line", "--compare-forecasters"), "is for plant", 2),
        (("plant", "--compare-forecasters", "--ablate"), "goes with no", 2),
        (("plant", "--compare-forecasters", "--forecaster", "ridge"), "goes with no", 2),
        (("plant", "--weeks", "0.5"), "at least 1", 2),
        (("line", "--weeks", "2"), "is for plant", 2),
        (("other",), "invalid choice", 2),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], rule: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be run is refused in one line that names the rule, with the exit code of its kind."""
    said = run(main, capsys, "benchmark", *words)
    assert said.code == code
    assert rule in said.refusal()


RIDGE = ("--forecaster", "ridge", "--jobs", 1)


def test_a_stressed_run_shows_the_clean_one_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command gives stressed and clean figures and the losses, draws for every seed, and keeps a slim record."""
    write_skab(tmp_path)
    kept = tmp_path / "kept" / "skab.json"
    words = ("benchmark", "skab", "--data", tmp_path, *RIDGE, "--seeds", 2, "--missing", 0.3, "--out", kept)
    record = run(main, capsys, *words, "--json").record()
    _check("skab", record)
    assert record["stress"] == {"contaminated": 0.0, "missing": 0.3, "dead": 0}
    assert record["loss_f1"] == pytest.approx(record["clean"]["f1"] - record["f1"])
    assert record["clean"]["spread"]["roc_auc"] == 0.0
    assert record["spread"]["roc_auc"] > 0.0, "another seed loses other cells"
    assert record["floors"]["clock"]["loss_f1"] == 0.0, "a clock looks at nothing"
    slim = json.loads(kept.read_text("utf-8"))
    assert slim.keys() == {"version", *record} - {"cases"}
    assert len(slim["worst_cases"]) == 2


def test_an_ablation_tells_what_each_part_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each source, guard, contradiction, fusion and trimming are left out in turn; differences are to the full one."""
    write_skab(tmp_path)
    (tmp_path / "skab" / "other" / "1.csv").unlink()
    words = ("benchmark", "skab", "--data", tmp_path, *RIDGE, "--seeds", 1, "--ablate", "--json")
    record = run(main, capsys, *words).record()
    assert list(record["ablations"]) == [
        *(f"without {source}" for source in SOURCES), "without range guard", "without contradiction",
        "maximum for log-mean", "without trimming",
    ]  # fmt: skip
    assert all(set(found) == {*Skab.keys, "spread"} for found in record["ablations"].values())
    assert any(found["average_precision"] for found in record["ablations"].values()), (
        "something is worth something"
    )


def test_without_lstm_and_highway_are_parts_of_the_lstm_alone() -> None:
    """With the LSTM its own worth and the highway's are measured too, and each variant has a name of its own."""
    names = [one.name for one in variants(ForewarnOptions("lstm"))]
    assert names[-2:] == ["without highway", "without LSTM"]
    assert len(set(names)) == len(names) == len(variants(ForewarnOptions("ridge"))) + 2
