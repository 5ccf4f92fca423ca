"""Figures of all contenders, mean and spread over the seeds, as one record and as one table."""

import statistics
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from trainer.benchmark.cases import Figures, Suite
from trainer.benchmark.mistakes import WORST, record_of, worst_table
from trainer.benchmark.ranking import mean_of_known
from trainer.benchmark.runner import Result


def report(suite: Suite, results: Sequence[Result], seeds: int) -> dict[str, Any]:
    """Return the record that `--json` prints; the first contender is ours, the others are floors.

    Args:
        suite: the protocol.
        results: in the order of contenders, seeds and plans.
        seeds: how many were run.
    """
    by_name = {name: list(group) for name, group in groupby(results, key=lambda one: one.contender)}
    ours, *floors = by_name
    return {
        "benchmark": suite.name,
        **summary(suite, by_name[ours], seeds),
        **suite.pooled([one.tally for one in by_name[ours]]),
        "seeds": seeds,
        "floors": {name: summary(suite, by_name[name], seeds) for name in floors},
        "published": {one.name: dict(one.figures) for one in suite.published},
        "cases": (cases := _cases(suite, by_name[ours])),
        "worst_cases": sorted(cases, key=lambda one: -suite.badness(one))[:WORST],
        "remarks": list(suite.remarks),
    }


def tables(suite: Suite, record: dict[str, Any], name: str) -> list[tuple[list[str], list[list[str]]]]:
    """Return header and rows of tables: ours beside the floors, what others published, and the worst cases."""
    spread = record["spread"]
    floors: dict[str, dict[str, Any]] = record["floors"]
    measured = [
        [key, cell(record[key]), cell(spread[key]), *(cell(one[key]) for one in floors.values())]
        for key in suite.keys
    ]
    found = [([f"benchmark {suite.name}", name, "±", *floors], measured)]
    others: dict[str, dict[str, float]] = record["published"]
    if others:
        known = [key for key in suite.keys if any(key in one for one in others.values())]
        rows = [[key, *(cell(one.get(key)) for one in others.values())] for key in known]
        found.append((["published", *others], rows))
    found.append(worst_table(record["worst_cases"]))
    return found


def summary(suite: Suite, results: Sequence[Result], seeds: int) -> dict[str, Any]:
    """Return each figure's mean over the seeds, and its spread: the standard deviation over them.

    The spread of what draws nothing is 0; with a single seed there is none.

    Args:
        suite: the protocol.
        results: of one contender, in the order of seeds and plans.
        seeds: how many were run.
    """
    runs = [
        suite.figures([one.tally for one in group]) for _, group in groupby(results, key=lambda one: one.seed)
    ]
    fixed = seeds > 1 and len(runs) == 1
    return {
        **{key: mean_of_known([run[key] for run in runs]) for key in suite.keys},
        "spread": {key: 0.0 if fixed else _spread(runs, key) for key in suite.keys},
    }


def _spread(runs: Sequence[Figures], key: str) -> float | None:
    known = [value for run in runs if (value := run[key]) is not None]
    return statistics.stdev(known) if len(known) > 1 else None


def _cases(suite: Suite, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the figures of each case, means over the seeds, and the mistakes of the first seed."""
    by_case: dict[str, list[Figures]] = {}
    first: dict[str, Result] = {}
    for one in results:
        by_case.setdefault(one.case, []).append(suite.case_figures(one.tally))
        first.setdefault(one.case, one)
    return [
        {
            "name": name,
            **{key: mean_of_known([run[key] for run in runs]) for key in runs[0]},
            **record_of(first[name].mistakes),
        }
        for name, runs in by_case.items()
    ]


def cell(value: float | None) -> str:
    """Return a figure as the tables show it."""
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
