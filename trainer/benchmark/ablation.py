"""What each part of the detector is worth: the figures without it, less those with all of them."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from edge_agent.contract.fusion import SOURCES, Fusion
from trainer.benchmark.cases import Contender, Figures, Suite
from trainer.benchmark.forewarn import Forewarn, ForewarnOptions
from trainer.benchmark.ranking import mean_of_known
from trainer.benchmark.report import cell, summary
from trainer.benchmark.runner import Result
from trainer.parts import Parts

FULL = "forewarn"


def variants(options: ForewarnOptions) -> list[Contender]:
    """Return the full configuration first, then one contender for each part that it has, without that part."""
    fusion = Fusion()
    parts = {f"without {source}": Parts(fusion.without(source)) for source in SOURCES}
    parts["without range guard"] = Parts(replace(fusion, range_guard=False))
    parts["without contradiction"] = Parts(replace(fusion, contradiction=False))
    parts["maximum for log-mean"] = Parts(replace(fusion, rule="maximum"))
    parts["without trimming"] = Parts(trimming=False)
    found: list[Contender] = [Forewarn(options, FULL)]
    found += [Forewarn(replace(options, parts=part), name) for name, part in parts.items()]
    if options.forecaster == "lstm":
        # The ridge regression alone has neither part to lose.
        found.append(Forewarn(replace(options, highway=False), "without highway"))
        found.append(Forewarn(replace(options, forecaster="ridge"), "without LSTM"))
    return found


def ablation_report(suite: Suite, results: Sequence[Result], seeds: int) -> dict[str, Any]:
    """Return the record that `--json` prints.

    A difference is that of a part left out to the full configuration, seed by seed; its spread is the standard
    deviation over them, none with a single seed.

    Args:
        suite: the protocol.
        results: in the order of contenders, seeds and plans, the full configuration first.
        seeds: how many were run.
    """
    runs = {
        name: {
            seed: suite.figures([one.tally for one in of_seed])
            for seed, of_seed in groupby(of_name, key=lambda one: one.seed)
        }
        for name, of_name in groupby(results, key=lambda one: one.contender)
    }
    full = runs.pop(FULL)
    of_full = [one for one in results if one.contender == FULL]
    return {
        "benchmark": suite.name,
        **summary(suite, of_full, seeds),
        "seeds": seeds,
        "ablations": {name: _differences(suite, full, without) for name, without in runs.items()},
        "remarks": list(suite.remarks),
    }


def ablation_table(suite: Suite, record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row a part, a column a figure, differences with their spread."""
    rows = [[FULL, *(with_spread(record[key], record["spread"][key]) for key in suite.keys)]]
    rows += [
        [name, *(with_spread(found[key], found["spread"][key], "+") for key in suite.keys)]
        for name, found in record["ablations"].items()
    ]
    return [f"benchmark {suite.name}, differences", *suite.keys], rows


def _differences(suite: Suite, full: dict[int, Figures], without: dict[int, Figures]) -> dict[str, Any]:
    """Return each figure's mean difference and its spread; what draws nothing was run once and stands for all seeds."""
    pairs = [
        (full.get(seed, full[0]), without.get(seed, without[0])) for seed in sorted(set(full) | set(without))
    ]
    found: dict[str, list[float]] = {}
    for key in suite.keys:
        both = [(one[key], other[key]) for one, other in pairs]
        found[key] = [b - a for a, b in both if a is not None and b is not None]
    return {
        **{key: mean_of_known(list(values)) for key, values in found.items()},
        "spread": {
            key: statistics.stdev(values) if len(values) > 1 else None for key, values in found.items()
        },
    }


def with_spread(value: float | None, spread: float | None, sign: str = "") -> str:
    """Return a figure with its spread as the tables show them."""
    if value is None:
        return "-"
    text = f"{sign}{cell(value)}" if value >= 0.0 else cell(value)
    return text if spread is None else f"{text} ±{cell(spread)}"
