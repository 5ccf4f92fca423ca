"""Law of the alarm budget: on later normal data of its machine a bundle raises about as many alarms as were allowed.

Where FOREWARN_DATA points at the public data, the machine is SKAB's without a fault; elsewhere it is simulated.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import poisson

from edge_agent.cli import main as edge_agent
from tests.commands import Main, run
from trainer.cli import main as trainer

DATA = os.environ.get("FOREWARN_DATA")
MACHINES = ["anomaly-free"] if DATA else ["simulated"]
WEEK_SECONDS = 7 * 86400.0
ALLOWED = 0.99
"""Of machines that keep their budget, this share raises no more alarms than the law allows."""


@dataclass(frozen=True)
class Quiet:
    """Normal history of one machine: to fit on, and of later or other times."""

    first: Path
    later: tuple[Path, ...]


def _cut(source: Path, directory: Path) -> Quiet:
    """Cut a file after its first two thirds."""
    header, *rows = source.read_text(encoding="utf-8").splitlines(keepends=True)
    first, later = directory / "first.csv", directory / "later.csv"
    cut = 2 * len(rows) // 3
    first.write_text("".join([header, *rows[:cut]]), encoding="utf-8")
    later.write_text("".join([header, *rows[cut:]]), encoding="utf-8")
    return Quiet(first, (later,))


def _simulated(directory: Path) -> Quiet:
    paths = [directory / f"seed-{seed}.csv" for seed in range(3)]
    for seed, path in enumerate(paths):
        words = ("simulate", "--json", "--out", str(path), "--hours", "3", "--seed", str(seed))
        assert trainer(words) == 0
    return Quiet(paths[0], tuple(paths[1:]))


@pytest.fixture(params=MACHINES)
def quiet(tmp_path: Path) -> Quiet:
    """A machine without a fault."""
    return (
        _cut(Path(DATA, "skab", "anomaly-free", "anomaly-free.csv"), tmp_path)
        if DATA
        else _simulated(tmp_path)
    )


def _said(main: Main, capsys: pytest.CaptureFixture[str], words: Sequence[object]) -> dict[str, Any]:
    capsys.readouterr()
    said = run(main, capsys, *words, "--json")
    assert said.code == 0, said.err
    record: dict[str, Any] = json.loads(said.out)
    return record


def test_normal_data_raises_no_more_alarms_than_allowed(
    quiet: Quiet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Later normal data raises no more alarms than, in 99 of 100 cases, a Poisson count of what was allowed.

    Allowed is the budget that was asked for or, where the history is too short for it, the one that it could show.
    """
    columns = () if DATA else ("--label-column", "label", "--ignore-column", "fault")
    bundle = tmp_path / "bundle"
    small = ("--units", "16", "--epochs", "2")
    fitted = _said(trainer, capsys, ("fit", "--history", quiet.first, "--out", bundle, *columns, *small))
    weekly = max(fitted["alarms_per_week"], fitted["supported_alarms_per_week"])
    alarms, samples = 0, 0
    for later in quiet.later:
        words = ("replay", "--bundle", bundle, "--history", later, *columns)
        replayed = _said(edge_agent, capsys, words)
        alarms, samples = alarms + len(replayed["events"]), samples + replayed["scored"]
    interval = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["sampling_interval_seconds"]
    expected = weekly * samples * interval / WEEK_SECONDS
    assert expected > 0.5
    assert alarms <= poisson.ppf(ALLOWED, expected), (alarms, expected)
