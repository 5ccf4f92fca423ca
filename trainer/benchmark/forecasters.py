"""What a forecaster is worth on simulated plants: the detector on persistence, the ridge, the LSTM alone, and both."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from trainer.benchmark.ablation import with_spread
from trainer.benchmark.cases import Contender
from trainer.benchmark.forewarn import Forewarn, ForewarnOptions
from trainer.benchmark.plant import Plant
from trainer.benchmark.report import summary
from trainer.benchmark.runner import Result

PERSISTENCE, RIDGE, ALONE, BOTH = "persistence", "ridge", "LSTM alone", "LSTM and ridge"
COLUMNS = {
    "forecast_rmse": "RMSE",
    "rmse_over_ridge": "over the ridge's",
    "event_recall": "faults found",
    "alarm_recall": "by an alarm",
    "false_alarms": "false alarms",
    "budget_ratio": "over budget",
}
"""Figures of a forecaster, and their titles."""


def contenders(options: ForewarnOptions) -> list[Contender]:
    """Return the detector on each forecaster; `both`, which is what `trainer fit` releases, is the last."""
    return [
        Forewarn(replace(options, forecaster="persistence"), PERSISTENCE),
        Forewarn(replace(options, forecaster="ridge"), RIDGE),
        Forewarn(replace(options, forecaster="lstm", highway=False), ALONE),
        Forewarn(replace(options, forecaster="lstm", highway=True), BOTH),
    ]


def forecasters_report(suite: Plant, results: Sequence[Result], seeds: int) -> dict[str, Any]:
    """Return the record that `--json` prints: the figures of what is released, and all four in `forecasters`.

    Each figure is a mean over the seeds with the standard deviation over them, none with a single seed. The RMSE is
    that of the forecast of the next sample on normal test rows, in standard deviations of a sensor in the history; it
    is divided by the ridge's of the same seed. False alarms are counts of one plant.

    Args:
        suite: the protocol.
        results: in the order of contenders, seeds and plans.
        seeds: how many were run.
    """
    by_name = {name: list(group) for name, group in groupby(results, key=lambda one: one.contender)}
    ridge = by_name[RIDGE]
    return {
        "benchmark": suite.name,
        **summary(suite, by_name[BOTH], seeds),
        "seeds": seeds,
        **suite.weeks,
        "forecasters": {name: _figures(suite, of_name, ridge) for name, of_name in by_name.items()},
        "remarks": list(suite.remarks),
    }


def forecasters_table(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row a forecaster, a column a figure with its spread."""
    rows = [
        [name, *(with_spread(found[key], found["spread"][key]) for key in COLUMNS)]
        for name, found in record["forecasters"].items()
    ]
    return ["forecaster", *COLUMNS.values()], rows


def _figures(suite: Plant, results: Sequence[Result], ridge: Sequence[Result]) -> dict[str, Any]:
    """Return the figures of a forecaster, means over the seeds, with their spread and every RMSE."""
    tallies = [one.tally for one in results]
    of_seed = [suite.case_figures(tally) for tally in tallies]
    rmse = [figures["forecast_rmse"] for figures in of_seed]
    against = [suite.case_figures(one.tally)["forecast_rmse"] for one in ridge]
    values: dict[str, list[float | None]] = {
        **{key: [figures[key] for figures in of_seed] for key in COLUMNS if key in of_seed[0]},
        "rmse_over_ridge": [a / b if a and b else None for a, b in zip(rmse, against, strict=True)],
        "false_alarms": [float(tally.false) for tally in tallies],
    }
    known = {key: [one for one in values[key] if one is not None] for key in COLUMNS}
    return {
        **{key: statistics.fmean(found) if found else None for key, found in known.items()},
        "spread": {key: statistics.stdev(found) if len(found) > 1 else None for key, found in known.items()},
        "normal_weeks": sum(tally.weeks for tally in tallies),
        "faults": sum(tally.faults.total() for tally in tallies),
        "rmse_by_seed": rmse,
    }
