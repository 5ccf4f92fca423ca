"""What a history is like, before anything is fitted on it: gaps, frozen stretches, ranges, correlations, warnings.

Nothing is repaired here and nothing is refused: a warning says what a person should look at. Long histories are looked
at through evenly spaced rows where a quantile or a correlation is asked for, and in full where a run or an extreme is.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge_agent.contract.grid import Axis
from edge_agent.contract.stale import longest_absence
from edge_agent.contract.types import Float32, Float64
from edge_agent.contract.unit_jump import conversions_of
from trainer.cleaning import Cleaned
from trainer.counters import is_counter

CONSTANT = "constant"
LOOKED_AT = 200_000
"""Rows that quantiles and correlations are taken from."""
BLOCKS = 20
"""Of an asset's history, between which levels are compared."""
LEAST_BLOCK = 20
MOSTLY_MISSING = 0.5
NEARLY_CONSTANT = 0.99
"""Share of the readings that are the same number."""
FROZEN_READINGS = 20
"""Equal readings in a row of a sensor that usually moves."""
DUPLICATED = 0.999
"""Correlation from which on two columns say the same."""
SHOWN_PAIRS = 5
STEP = 5.0
"""Standard deviations within a block by which a level has to change, to stay changed."""
ABRUPT = 0.7
"""Share of a change of level that happens between two neighbouring blocks; a drift takes longer."""
FAR_OUT = 20.0
"""Interquartile ranges beyond the quartiles: what is there is a marker or an error, and rarely a machine."""
IRREGULAR = 0.05
"""Share of the rows."""
_QUARTILES = 1.3489795003921634


@dataclass(frozen=True)
class SensorReport:
    """One sensor over all assets.

    Attributes:
        name: of the sensor.
        missing: share of the samples that lack it.
        minimum, maximum, mean: engineering units.
        low, high: the 0.001 and 0.999 quantiles.
        longest_hold: equal readings in a row, at most.
        longest_absence: samples in a row without a reading, at most.
        warnings: a phrase each.
    """

    name: str
    missing: float
    minimum: float
    maximum: float
    mean: float
    low: float
    high: float
    longest_hold: int
    longest_absence: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class AssetReport:
    """One asset.

    Attributes:
        name: of the asset.
        samples: ticks with a reading.
        first, last: seconds since the epoch.
        gaps: jumps between ticks.
        longest_gap_seconds: of them; 0 without one.
        labelled: share of the samples that are labelled as not normal; None without labels.
    """

    name: str
    samples: int
    first: float
    last: float
    gaps: int
    longest_gap_seconds: float
    labelled: float | None

    @property
    def begin(self) -> str:
        """Return the first time as people write it."""
        return _moment(self.first)


@dataclass(frozen=True)
class DataReport:
    """What a history is like.

    Attributes:
        interval: seconds between samples.
        rows: of the files.
        repairs: rows or cells that cleaning repaired, by kind.
        assets: one entry each.
        sensors: one entry each.
        correlations: pairs of sensors with their correlation, the strongest first.
        warnings: on the whole history, a sentence each.
    """

    interval: float
    rows: int
    repairs: dict[str, int]
    assets: tuple[AssetReport, ...]
    sensors: tuple[SensorReport, ...]
    correlations: tuple[tuple[str, str, float], ...]
    warnings: tuple[str, ...]

    @property
    def all_warnings(self) -> list[str]:
        """Return every warning, those of a sensor behind its name."""
        return [*self.warnings, *(f"{one.name}: {text}" for one in self.sensors for text in one.warnings)]

    def record(self) -> dict[str, Any]:
        """Return the report as a JSON record."""
        return asdict(self)


def inspect(cleaned: Cleaned) -> DataReport:
    """Look at a history after it was cleaned, which counted what it repaired."""
    sampled = _sampled(cleaned)
    pairs = _correlations(cleaned.sensors, sampled)
    sensors = tuple(_sensor(cleaned, place, sampled[:, place]) for place in range(len(cleaned.sensors)))
    return DataReport(
        cleaned.interval,
        cleaned.rows,
        dict(cleaned.repairs),
        tuple(_assets(cleaned)),
        tuple(_with_duplicates(one, pairs) for one in sensors),
        tuple(pairs[:SHOWN_PAIRS]),
        tuple(_clock(cleaned)),
    )


def _sampled(cleaned: Cleaned) -> Float32:
    """Return evenly spaced rows of all assets, in order."""
    step = max(1, sum(len(one.ticks) for one in cleaned.series) // LOOKED_AT)
    return np.concatenate([one.values[::step] for one in cleaned.series])


def _assets(cleaned: Cleaned) -> list[AssetReport]:
    axis = Axis(cleaned.interval, cleaned.phase)
    reports = []
    for one in cleaned.series:
        first, last = axis.time_of(one.ticks[[0, -1]]).tolist()
        jumps = np.diff(one.ticks) - 1
        longest = float(jumps.max(initial=0)) * cleaned.interval
        labelled = None if one.labels is None else float((one.labels != 0).mean())
        reports.append(
            AssetReport(one.asset, len(one.ticks), first, last, int((jumps > 0).sum()), longest, labelled)
        )
    return reports


def _clock(cleaned: Cleaned) -> list[str]:
    """Return what is odd about the times."""
    told = {
        "time moved to the grid": "stand off the grid of {interval:g} s: a clock that wanders, or another interval",
        "row out of order": "stand out of order",
        "duplicate time": "have the time of another row: files that overlap, or assets without a column",
        "row merged into the tick of another": "share a tick of {interval:g} s with another: is the interval shorter?",
        "time not readable": "have a time that cannot be read",
    }
    return [
        f"{cleaned.repairs[kind] / cleaned.rows:.0%} of the rows {text.format(interval=cleaned.interval)}"
        for kind, text in told.items()
        if cleaned.repairs.get(kind, 0) > IRREGULAR * cleaned.rows
    ]


def _sensor(cleaned: Cleaned, place: int, sampled: Float32) -> SensorReport:
    columns = [one.values[:, place] for one in cleaned.series]
    known = [column[np.isfinite(column)] for column in columns]
    count, total = sum(map(len, known)), sum(map(len, columns))
    some = sampled[np.isfinite(sampled)].astype(np.float64)
    # A sensor that reports rarely may stand in none of the rows that were looked at.
    some = some if len(some) else np.concatenate(known)[:LOOKED_AT].astype(np.float64)
    low, first, third, high = np.quantile(some, (0.001, 0.25, 0.75, 0.999)).tolist()
    minimum, maximum = float(min(map(_least, known))), float(max(map(_most, known)))
    missing, (stands, hold) = 1.0 - count / total, _holds(known, minimum, maximum)
    warnings = [
        *_missing_warnings(missing),
        *_moving_warnings(some, cleaned.sensors[place] in cleaned.constant, stands, hold, cleaned.interval),
        *_far_out_warnings(known, first, third),
        *(_counter_warnings(known) or _level_warnings(cleaned, columns, cleaned.sensors[place])),
    ]
    mean = float(sum(part.sum(dtype=np.float64) for part in known) / count)
    return SensorReport(
        cleaned.sensors[place], missing, minimum, maximum, mean, low, high, hold, longest_absence(columns),
        tuple(warnings),
    )  # fmt: skip


def _least(values: Float32) -> float:
    return float(values.min(initial=np.inf))


def _most(values: Float32) -> float:
    return float(values.max(initial=-np.inf))


def _missing_warnings(missing: float) -> list[str]:
    return [f"missing in {missing:.0%} of the samples"] if missing > MOSTLY_MISSING else []


def _moving_warnings(some: Float64, constant: bool, stands: int, hold: int, interval: float) -> list[str]:
    """Return what is odd about how a sensor moves, by some of its readings and what `_holds` found in all."""
    if constant:
        return [CONSTANT]
    share = float(np.unique(some, return_counts=True)[1].max()) / len(some)
    if share >= NEARLY_CONSTANT:
        return [f"nearly constant, {share:.1%} of the readings are the same"]
    if not stands:
        return []
    return [f"frozen {stands} times, {hold} equal readings in a row at most ({hold * interval:g} s)"]


def _holds(known: Sequence[Float32], minimum: float, maximum: float) -> tuple[int, int]:
    """Return how often a sensor that usually moves stood still for `FROZEN_READINGS`, and the most equal readings.

    At the ends of its range it may stand: that is what a valve that is shut reads.
    """
    stands, longest, moves = 0, 0, 0
    for readings in known:
        if not len(readings):
            continue
        changes = np.flatnonzero(np.diff(readings) != 0)
        last = np.r_[changes, len(readings) - 1]
        runs, value = np.diff(last, prepend=-1), readings[last]
        stands += int(((runs >= FROZEN_READINGS) & (value > minimum) & (value < maximum)).sum())
        longest = max(longest, int(runs.max(initial=0)))
        moves += len(changes)
    usually = moves * 2 >= sum(map(len, known))
    return (stands if usually else 0), longest


def _far_out_warnings(known: Sequence[Float32], first: float, third: float) -> list[str]:
    reach = FAR_OUT * (third - first)
    if reach == 0.0:
        return []
    beyond = [part[(part < first - reach) | (part > third + reach)] for part in known]
    count = sum(map(len, beyond))
    if not count:
        return []
    extreme = max(
        (float(value) for part in beyond for value in (_least(part), _most(part)) if len(part)), key=abs
    )
    return [f"{count} readings far out of the others, such as {extreme:g}"]


def _counter_warnings(known: Sequence[Float32]) -> list[str]:
    return (
        ["only ever rises, a counter: left out of a fit; send its rate instead"] if is_counter(known) else []
    )


def _level_warnings(cleaned: Cleaned, columns: Sequence[Float32], name: str) -> list[str]:
    """Return whether the level changed for good, and whether that looks like another unit."""
    axis = Axis(cleaned.interval, cleaned.phase)
    middles, spreads, starts = _blocks(columns)
    if len(middles) < 2:
        return []
    spread = float(np.median(spreads))
    usual = float(np.median(middles))
    for at in np.flatnonzero(np.abs(middles - usual) > STEP * max(spread, 1e-12)):
        for one in conversions_of("", name):
            back = (middles[at] - one.offset) / one.factor
            alike = spread / 3.0 <= spreads[at] / one.factor <= 3.0 * spread
            if abs(back - usual) <= STEP * spread and alike:
                asset, row = starts[at]
                when = float(axis.time_of(cleaned.series[asset].ticks[[row]])[0])
                where = f" of {cleaned.series[asset].asset}" if len(cleaned.series) > 1 else ""
                told = (
                    f"around {middles[at]:.4g}{where} at {_moment(when)}, elsewhere {usual:.4g} ({one.name})"
                )
                return [f"two units? {told}"]
    for asset, series in enumerate(cleaned.series):
        mine = np.array([place for place, (of, _) in enumerate(starts) if of == asset], np.int64)
        begin = _step(middles[mine], spreads[mine])
        if begin is not None:
            when = float(axis.time_of(series.ticks[[starts[mine[begin]][1]]])[0])
            before, after = np.median(middles[mine[:begin]]), np.median(middles[mine[begin:]])
            where = f" of {series.asset}" if len(cleaned.series) > 1 else ""
            return [f"level{where} steps from {before:.4g} to {after:.4g} at about {_moment(when)} and stays"]
    return []


def _moment(seconds: float) -> str:
    """Return a time as people write it, UTC, to the second."""
    return str(np.datetime64(round(seconds), "s")) + "Z"


def _blocks(columns: Sequence[Float32]) -> tuple[Float64, Float64, list[tuple[int, int]]]:
    """Return median and spread (standard deviation, by the quartiles) of each block, and its asset and first row."""
    middles, spreads, starts = [], [], []
    for asset, column in enumerate(columns):
        edges = np.linspace(0, len(column), BLOCKS + 1).astype(int)
        for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            part = column[first:end]
            part = part[np.isfinite(part)]
            part = part[:: max(1, len(part) * BLOCKS // LOOKED_AT)]
            if len(part) >= LEAST_BLOCK:
                low, middle, high = np.quantile(part, (0.25, 0.5, 0.75)).tolist()
                middles.append(middle)
                spreads.append((high - low) / _QUARTILES)
                starts.append((asset, first))
    return np.asarray(middles), np.asarray(spreads), starts


def _step(middles: Float64, spreads: Float64) -> int | None:
    """Return the first block of a new level that stays to the end; None where there is none."""
    if len(middles) < 4:
        return None
    at = int(np.argmax(np.abs(np.diff(middles)))) + 1
    change = float(np.median(middles[at:]) - np.median(middles[:at]))
    lasting = np.abs(change) > STEP * max(float(np.median(spreads)), 1e-12)
    if not lasting or abs(middles[at] - middles[at - 1]) < ABRUPT * abs(change):
        return None
    apart = min(abs(m - np.median(middles[:at])) for m in middles[at:])
    return at if apart > abs(change) / 2 else None


def _correlations(names: Sequence[str], sampled: Float32) -> list[tuple[str, str, float]]:
    """Return pairs of sensors that move, with their correlation over the rows that have both; the strongest first."""
    known = np.isfinite(sampled)
    z = np.where(known, sampled, 0.0).astype(np.float64)
    count = np.maximum(known.sum(axis=0), 1)
    z = np.where(known, z - z.sum(axis=0) / count, 0.0)
    square = np.sqrt(known.T @ z**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (z.T @ z) / (square * square.T)
    both = known.T.astype(np.float64) @ known
    usable = np.isfinite(r) & (both >= LEAST_BLOCK)
    pairs = [
        (names[a], names[b], float(np.clip(r[a, b], -1.0, 1.0)))
        for a, b in np.argwhere(np.triu(usable, 1)).tolist()
    ]
    return sorted(pairs, key=lambda pair: -abs(pair[2]))


def _with_duplicates(report: SensorReport, pairs: Sequence[tuple[str, str, float]]) -> SensorReport:
    """Return the report with a warning for a column that says what one before it says."""
    same = [a for a, b, r in pairs if b == report.name and abs(r) > DUPLICATED]
    if not same:
        return report
    text = f"moves as {same[0]} does (|r| above {DUPLICATED}): the same quantity twice?"
    return SensorReport(**{**asdict(report), "warnings": (*report.warnings, text)})
