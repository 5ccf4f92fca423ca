"""Simulated plants, a sample a minute: is the alarm budget kept, and is every kind of fault found and blamed?"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Bool, Float32
from trainer.benchmark.cases import (
    ALARMS_PER_WEEK,
    Case,
    Figures,
    Labels,
    Plan,
    SensorReport,
    Suite,
    Verdict,
    Window,
    known,
    ratio,
)
from trainer.benchmark.poisson import CONFIDENCE, poisson_interval
from trainer.faults import SENSOR_FAULTS
from trainer.pump import SENSOR_NAMES, SENSORS
from trainer.simulate import DEFAULT_START, FAULT_KINDS, FaultPlan, simulate

INTERVAL = 60.0
HOUR = 3600.0
FAULT_HOURS = (2.0, 6.0)
RECOVERY_HOURS = 6.0
"""Rows after a fault that count neither as normal nor as faulty: heat and levels take hours to return."""
DRIFT = 0.02
"""Standard deviation of a sensor's drift in a day, as a part of the size of its normal movement."""
VARIANTS = ("stationary", "drifting")
_RATES = (
    "budget_ratio", "time_in_alarm_ratio", "event_recall", "alarm_recall", "top1_sensor", "top3_sensor",
    "false_quality_events_per_week", "forecast_rmse",
)  # fmt: skip


@dataclass(frozen=True)
class PlantSize:
    """How long a plant runs, in weeks: before and after, and how often each kind of fault comes in the test part."""

    history: float = 8.0
    test: float = 10.0
    rounds: int = 2


QUICK = PlantSize(1.0, 1.0, 1)


@dataclass(frozen=True)
class PlantTally:
    """Counts of one plant.

    Attributes:
        variant: one of `VARIANTS`.
        weeks: of normal operation.
        false: alarms that begin in normal operation.
        rows, alarmed: of normal operation, all and those in alarm.
        faults, found: by kind; a fault is found when an alarm begins while it lasts. That of a sensor is found, too,
            when a data-quality event names the sensor: a dead sensor is no machine alarm.
        alarmed_faults: by kind, those found by an alarm.
        named, named_among_three: found faults whose first alarm names a sensor to blame first, or among three, and
            those that a data-quality event found; None where the contender names none.
        false_quality: sensors that data-quality events name in normal operation; None where there are no such events.
        square, cells: of the forecast in normal operation, the sum of its squared errors, each sensor in standard
            deviations of its history, and how many there are; no cell where the contender forecasts nothing.
    """

    variant: str
    weeks: float
    false: int
    rows: int
    alarmed: int
    faults: Counter[str]
    found: Counter[str]
    alarmed_faults: Counter[str]
    named: int | None
    named_among_three: int | None
    false_quality: int | None
    square: float = 0.0
    cells: int = 0


class Plant(Suite):
    """The pump loop of `trainer simulate`, another one for each seed, under a budget of one alarm a week.

    In the `drifting` variant each measurement wanders slowly, in the history as in the test part.

    Args:
        size: how long; None is the whole benchmark.
    """

    name = "plant"
    keys = (*_RATES, *(f"drifting_{key}" for key in _RATES))
    remarks: tuple[str, ...] = (
        "A fault counts as found only when an alarm begins while it lasts: one that hangs from before finds nothing.",
        "A fault of a sensor is found, too, when a data-quality event names the sensor; alarm_recall is without these.",
        "budget_ratio is alarms that begin in normal operation over those that the budget allows.",
    )
    simulated = True
    seeds = 12

    def __init__(self, size: PlantSize | None = None) -> None:
        self._size = size

    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return one case for each variant; there is no data to read."""
        size = self._size or (QUICK if quick else PlantSize())
        return [Plan(variant, partial(make_plant, variant, size)) for variant in VARIANTS]

    @property
    def weeks(self) -> dict[str, float]:
        """Return how long the plants run, unless it is the quick form."""
        size = self._size or PlantSize()
        return {"history_weeks": size.history, "test_weeks": size.test}

    def tally(self, case: Case, verdict: Verdict) -> PlantTally:
        """Count false alarms in normal operation, and faults found."""
        normal = case.scored & (case.labels == 0)
        reports = verdict.quality or ()
        first_alarm = [_first_start(verdict, window) for window in case.windows]
        reported = [_is_reported(reports, window) for window in case.windows]
        both = list(zip(case.windows, first_alarm, reported, strict=True))
        return PlantTally(
            case.name,
            float(normal.sum()) * case.interval / WEEK_SECONDS,
            int(normal[verdict.starts].sum()),
            int(normal.sum()),
            int((verdict.alarm & normal).sum()),
            Counter(window.kind for window in case.windows),
            Counter(window.kind for window, at, told in both if told or at is not None),
            Counter(window.kind for window, at, _ in both if at is not None),
            *_count_named(verdict, both),
            None if verdict.quality is None else sum(bool(normal[one.row]) for one in reports),
            *_forecast_errors(case, verdict, normal),
        )

    def figures(self, tallies: Sequence[PlantTally]) -> Figures:
        """Pool the counts of each variant; those of the stationary one have no prefix."""
        figures: Figures = {}
        for variant in VARIANTS:
            rates = self._rates([one for one in tallies if one.variant == variant])
            lead = "" if variant == VARIANTS[0] else f"{variant}_"
            figures |= {f"{lead}{key}": value for key, value in rates.items()}
        return figures

    def case_figures(self, tally: PlantTally) -> Figures:
        """Return the figures of one plant."""
        return self._rates([tally])

    def pooled(self, tallies: Sequence[PlantTally]) -> dict[str, Any]:
        """Return, by variant, the budget with its interval and the recall of each kind of fault."""
        return {name: _pool([one for one in tallies if one.variant == name]) for name in VARIANTS}

    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return the share of normal time in alarm and of faults missed."""
        return known(figures["time_in_alarm_ratio"]) + 1.0 - known(figures["event_recall"], 1.0)

    def _rates(self, tallies: Sequence[PlantTally]) -> Figures:
        found = sum(one.found.total() for one in tallies)
        faults = sum(one.faults.total() for one in tallies)
        return {
            "budget_ratio": ratio(
                sum(one.false for one in tallies), ALARMS_PER_WEEK * sum(one.weeks for one in tallies)
            ),
            "time_in_alarm_ratio": ratio(
                sum(one.alarmed for one in tallies), sum(one.rows for one in tallies)
            ),
            "event_recall": ratio(found, faults),
            "alarm_recall": ratio(sum(one.alarmed_faults.total() for one in tallies), faults),
            "top1_sensor": _told_ratio([one.named for one in tallies], found),
            "top3_sensor": _told_ratio([one.named_among_three for one in tallies], found),
            "false_quality_events_per_week": _told_ratio(
                [one.false_quality for one in tallies], sum(one.weeks for one in tallies)
            ),
            "forecast_rmse": _root(sum(one.square for one in tallies), sum(one.cells for one in tallies)),
        }


def make_plant(variant: str, size: PlantSize, seed: int) -> Case:
    """Simulate one plant with its faults in the test part, each kind `size.rounds` times in a drawn order."""
    rng = np.random.default_rng([seed, 77])
    before = size.history * WEEK_SECONDS
    plans = draw_faults(size, before, rng)
    run = simulate((size.history + size.test) * WEEK_SECONDS / HOUR, seed, INTERVAL, plans)
    first = round(before / INTERVAL)
    ticks = np.round((run.time - DEFAULT_START % INTERVAL) / INTERVAL).astype(np.int64)
    windows = windows_of(plans, first)
    values = run.values
    if variant == "drifting":
        spans = [(first + window.first, window.last + 1 - window.first) for window in windows]
        values = values + _drift(values, spans, rng)
    labels = run.label[first:].astype(np.int8)
    return Case(
        variant, run.sensors, INTERVAL, DEFAULT_START % INTERVAL, ticks[:first], values[:first], ticks[first:],
        values[first:], labels, scored_rows(labels, windows), tuple(windows),
    )  # fmt: skip


def windows_of(plans: Sequence[FaultPlan], first: int) -> list[Window]:
    """Return the windows of faults, in rows of the test part, which begins at row `first`."""
    spans = [(round(one.start_seconds / INTERVAL), round(one.duration_seconds / INTERVAL)) for one in plans]
    return [
        Window(at - first, at - first + rows - 1, plan.kind, plan.blamed)
        for (at, rows), plan in zip(spans, plans, strict=True)
    ]


def scored_rows(labels: Labels, windows: Sequence[Window]) -> Bool:
    """Return (n,) the rows that count: all but those of the recovery after a fault."""
    scored = labels == 0
    for window in windows:
        scored[window.last + 1 : window.last + 1 + round(RECOVERY_HOURS * HOUR / INTERVAL)] = False
    return np.asarray(scored | (labels > 0))


def draw_faults(size: PlantSize, before: float, rng: np.random.Generator) -> list[FaultPlan]:
    """Return faults in order of time, each somewhere in a slot of its own with room to recover."""
    kinds = [kind for _ in range(size.rounds) for kind in rng.permutation(list(FAULT_KINDS)).tolist()]
    slot = size.test * WEEK_SECONDS / len(kinds)
    plans = []
    for number, kind in enumerate(kinds):
        room = slot - RECOVERY_HOURS * HOUR
        duration = min(float(rng.uniform(*FAULT_HOURS)) * HOUR, room / 2.0)
        start = before + number * slot + float(rng.uniform(0.0, room - duration))
        sensor = str(rng.choice(SENSOR_NAMES)) if kind in SENSOR_FAULTS else None
        plans.append(FaultPlan(kind, _whole(start), _whole(duration), 1.0, sensor))
    return plans


def _whole(seconds: float) -> float:
    return round(seconds / INTERVAL) * INTERVAL


def _drift(values: Float32, faults: Sequence[tuple[int, int]], rng: np.random.Generator) -> Float32:
    """Return a random walk for each sensor (n, F); during a fault it stands still, so that a frozen sensor stays so."""
    spans = np.array([sensor.span for sensor in SENSORS])
    steps = rng.standard_normal(values.shape) * DRIFT * spans * np.sqrt(INTERVAL / 86_400.0)
    for first, rows in faults:
        steps[first : first + rows] = 0.0
    return np.cumsum(steps, axis=0).astype(np.float32)


def _first_start(verdict: Verdict, window: Window) -> int | None:
    """Return the number of the first alarm that begins in a window."""
    inside = np.flatnonzero((verdict.starts >= window.first) & (verdict.starts <= window.last))
    return int(inside[0]) if len(inside) else None


def _place(named: Sequence[str], window: Window) -> int:
    """Return the place, from 0, of the first sensor to blame among those that an alarm names."""
    return min((place for place, name in enumerate(named) if name in window.blamed), default=len(named))


def _is_reported(reports: Sequence[SensorReport], window: Window) -> bool:
    """Return whether a data-quality event names the sensor of a sensor's fault while it lasts."""
    return window.kind in SENSOR_FAULTS and any(
        window.first <= one.row <= window.last and one.sensor in window.blamed for one in reports
    )


def _count_named(
    verdict: Verdict, both: Sequence[tuple[Window, int | None, bool]]
) -> tuple[int | None, int | None]:
    """Return of how many found faults the sensor is named first, and among three; None where none is ever named.

    Args:
        verdict: of the contender.
        both: of each fault its window, the number of its first alarm, and whether data-quality events name its sensor.
    """
    if verdict.sensors is None:
        return None, None
    places = [0 for _, _, told in both if told]
    places += [
        _place(verdict.sensors[at], window) for window, at, told in both if at is not None and not told
    ]
    return sum(place < 1 for place in places), sum(place < 3 for place in places)


def _forecast_errors(case: Case, verdict: Verdict, normal: Bool) -> tuple[float, int]:
    """Return the sum of squared errors of the forecast of normal rows, and of how many cells it is."""
    if verdict.forecast is None:
        return 0.0, 0
    scale = np.nanstd(case.history_values.astype(np.float64), axis=0)
    moving = scale > 0.0
    error = (case.test_values - verdict.forecast)[normal][:, moving] / scale[moving]
    square = np.square(error[np.isfinite(error)])
    return float(square.sum()), len(square)


def _root(square: float, cells: int) -> float | None:
    return math.sqrt(square / cells) if cells else None


def _told_ratio(counts: Sequence[int | None], whole: float) -> float | None:
    told = [count for count in counts if count is not None]
    return ratio(sum(told), whole) if len(told) == len(counts) else None


def _pool(tallies: Sequence[PlantTally]) -> dict[str, Any]:
    weeks, false = sum(one.weeks for one in tallies), sum(one.false for one in tallies)
    expected = ALARMS_PER_WEEK * weeks
    faults = sum((one.faults for one in tallies), Counter[str]())
    found = sum((one.found for one in tallies), Counter[str]())
    alarmed = sum((one.alarmed_faults for one in tallies), Counter[str]())
    return {
        "normal_weeks": weeks,
        "expected_alarms": expected,
        "false_alarms": false,
        "budget_ratio_interval": [limit / expected for limit in poisson_interval(false)]
        if expected
        else None,
        "confidence": CONFIDENCE,
        "event_recall_by_kind": {kind: ratio(found[kind], faults[kind]) for kind in sorted(faults)},
        "alarm_recall_by_kind": {kind: ratio(alarmed[kind], faults[kind]) for kind in sorted(faults)},
    }
