"""A simulated line of five pumps as one asset of 50 sensors, a sample a minute: what happens when some of them die?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.tail import WEEK_SECONDS
from trainer.benchmark.cases import Case, Figures, Plan, known, ratio
from trainer.benchmark.plant import (
    HOUR,
    INTERVAL,
    Plant,
    PlantSize,
    PlantTally,
    draw_faults,
    scored_rows,
    windows_of,
)
from trainer.faults import FaultPlan
from trainer.simulate import DEFAULT_START, simulate

PUMPS = 5
LINE = PlantSize(4.0, 2.0, 1)
QUICK_LINE = PlantSize(0.5, 0.5, 1)


class Line(Plant):
    """Five pump loops of `trainer simulate` side by side, other ones for each seed, with faults in one at a time.

    The pumps run their own duties and know nothing of each other: a detector has to find five blocks in a table of 50.

    Args:
        size: how long; None is the whole benchmark.
    """

    name = "line"
    keys: tuple[str, ...] = ("far", "false_alarms_per_week", "event_recall", "top1_sensor", "top3_sensor")
    remarks: tuple[str, ...] = (
        "far is the share of normal rows in alarm; with --dead of those after the last of the sensors died.",
        "A fault that shows only in a dead sensor cannot be found: read event_recall of the clean run.",
    )
    seeds = 3

    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return the one case; there is no data to read."""
        return [Plan(self.name, partial(make_line, self._size or (QUICK_LINE if quick else LINE)))]

    def figures(self, tallies: Sequence[PlantTally]) -> Figures:
        """Pool the counts."""
        rates = self._rates(tallies)
        weeks = sum(one.weeks for one in tallies)
        return {
            "far": rates["time_in_alarm_ratio"],
            "false_alarms_per_week": ratio(sum(one.false for one in tallies), weeks),
            **{key: rates[key] for key in ("event_recall", "top1_sensor", "top3_sensor")},
        }

    def case_figures(self, tally: PlantTally) -> Figures:
        """Return the figures of one line."""
        return self.figures([tally])

    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return the share of normal rows in alarm and of faults missed."""
        return known(figures["far"]) + 1.0 - known(figures["event_recall"], 1.0)


def make_line(size: PlantSize, seed: int) -> Case:
    """Simulate the pumps of one line, each fault in one of them."""
    rng = np.random.default_rng([seed, 78])
    before = size.history * WEEK_SECONDS
    plans = draw_faults(size, before, rng)
    broken = rng.integers(PUMPS, size=len(plans))
    hours = (size.history + size.test) * WEEK_SECONDS / HOUR
    runs = [
        simulate(hours, PUMPS * seed + pump, INTERVAL, _of(plans, broken == pump)) for pump in range(PUMPS)
    ]
    values = np.concatenate([run.values for run in runs], axis=1)
    first = round(before / INTERVAL)
    windows = tuple(
        replace(window, blamed=tuple(_name(int(pump), name) for name in window.blamed))
        for window, pump in zip(windows_of(plans, first), broken, strict=True)
    )
    ticks = np.round((runs[0].time - DEFAULT_START % INTERVAL) / INTERVAL).astype(np.int64)
    labels = np.maximum.reduce([run.label for run in runs])[first:].astype(np.int8)
    sensors = tuple(_name(pump, name) for pump, run in enumerate(runs) for name in run.sensors)
    return Case(
        "line", sensors, INTERVAL, DEFAULT_START % INTERVAL, ticks[:first], values[:first], ticks[first:],
        values[first:], labels, scored_rows(labels, windows), windows,
    )  # fmt: skip


def _of(plans: Sequence[FaultPlan], chosen: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> list[FaultPlan]:
    return [plan for plan, here in zip(plans, chosen, strict=True) if here]


def _name(pump: int, sensor: str) -> str:
    return f"pump{pump + 1}_{sensor}"
