"""Our own contender: the daemon's detector, fitted on a case's history and run over its test rows."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import trainer.fit
from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.types import AlarmEvent, Float32, Int64, Outcomes, QualityEvent, Samples
from edge_agent.detector import Detector
from trainer.backend import keras
from trainer.benchmark.cases import ALARMS_PER_WEEK, Case, SensorReport, Verdict
from trainer.calibrate import chunks_of
from trainer.cleaning import Cleaned, Series
from trainer.fit_options import FitOptions
from trainer.parts import Parts

WARM_ROWS = 2000
"""The newest rows of the history that run before the first test row, so that it is judged like any other."""


@dataclass(frozen=True)
class ForewarnOptions:
    """How the detector is fitted; one configuration for all cases of a set.

    Attributes:
        forecaster: `lstm` beside the ridge highway, the `ridge` highway alone, or `persistence`.
        epochs: at most.
        max_gap_ticks: a longer gap starts over.
        units: of the LSTM layers.
        highway: whether the ridge highway forecasts beside them.
        adaptation, usual_days: what is usual of late, see `FitOptions`.
        alarm_rules: when alarms open and close.
        parts: of the detector that take part.
    """

    forecaster: str = "lstm"
    epochs: int = 30
    max_gap_ticks: int = 60
    units: tuple[int, ...] = (128, 64, 32)
    highway: bool = True
    adaptation: str = "auto"
    usual_days: float = 14.0
    alarm_rules: AlarmRules = field(default_factory=AlarmRules)
    parts: Parts = field(default_factory=Parts)


_LONG_ALARMS = AlarmRules(clear_samples=100)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "smap": {"adaptation": "automatic", "usual_days": 2.0, "alarm_rules": _LONG_ALARMS},
    "nab": {
        "adaptation": "automatic",
        "alarm_rules": replace(_LONG_ALARMS, open_count=1, open_window=1),
        "max_gap_ticks": 2000,
    },
}
"""Sets with settings of their own. Spacecraft and servers change what they do for good, and nobody is there to accept
it as normal: their alarms last until it is usual. Telemetry is recorded for days, not months. A row of NAB is minutes
long, so a single one opens an alarm; its traffic counts pause every few rows, and each row is scored."""


class Forewarn:
    """The product.

    Args:
        options: how it is fitted.
        name: for the table.
    """

    def __init__(self, options: ForewarnOptions, name: str = "forewarn") -> None:
        self.name = name
        self.options = options
        self.seeded = options.forecaster == "lstm"

    def judge(self, case: Case, seed: int) -> Verdict:
        """Fit on the history, warm up on its end, and score the test rows in one pass."""
        detector = fit_detector(case, seed, self.options)
        warm = slice(-WARM_ROWS, None)
        for part in chunks_of(_samples(case.history_ticks[warm], case.history_values[warm])):
            detector.process(part)
        # An alarm that opened in the history is none of the test part; where its cause lasts, one opens there at once.
        detector.end_alarms(np.zeros(1, np.int64))
        samples = _samples(case.test_ticks, case.test_values)
        return _verdict(case, [detector.process(part) for part in chunks_of(samples)])


def fit_detector(case: Case, seed: int, options: ForewarnOptions) -> Detector:
    """Return a fresh detector, fitted and calibrated on a case's history alone as `trainer fit` does.

    Raises:
        HistoryError: the history is too short.
    """
    series = Series(case.name, case.history_ticks, case.history_values, None)
    rows = len(case.history_ticks)
    cleaned = Cleaned(case.sensors, case.interval, case.phase, (series,), {}, (), (), rows)
    lstm = options.forecaster == "lstm"
    wanted = FitOptions(
        name=case.name,
        units=options.units if lstm else (),
        highway=options.highway,
        epochs=options.epochs,
        max_gap_ticks=options.max_gap_ticks,
        alarms_per_week=ALARMS_PER_WEEK,
        seed=seed,
        adaptation=options.adaptation,
        usual_days=options.usual_days,
        alarms={key: value for key, value in asdict(options.alarm_rules).items() if key != "sensors"},
        parts=options.parts if options.forecaster != "persistence" else replace(options.parts, ridge=False),
    )
    if lstm:
        keras.utils.clear_session()  # a process fits many models
    with tempfile.TemporaryDirectory() as scratch:
        return trainer.fit.fit_detector(cleaned, wanted, Path(scratch))


def _samples(ticks: Int64, values: Float32) -> Samples:
    return Samples(np.zeros(len(ticks), np.int64), ticks, values)


def _verdict(case: Case, parts: list[Outcomes]) -> Verdict:
    """Return what the detector said; an alarm that already stood at the first test row has no start."""
    begun: list[AlarmEvent] = [event for part in parts for event in part.events if event.kind == "start"]
    starts = _rows_at(case, [event.time for event in begun])
    onset = np.flatnonzero(np.concatenate([part.onset for part in parts if part.onset is not None]))
    return Verdict(
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.alarm for part in parts]),
        starts,
        tuple(tuple(share.name for share in event.sensors) for event in begun),
        np.union1d(starts, onset),
        _sensor_reports(case, [event for part in parts for event in part.quality]),
        np.concatenate([part.forecast for part in parts]),
    )


def _sensor_reports(case: Case, events: Sequence[QualityEvent]) -> tuple[SensorReport, ...]:
    """Return the sensors that each event names and the one before did not name for the same reason."""
    rows = _rows_at(case, [event.time for event in events]).tolist()
    reports: list[SensorReport] = []
    known: set[tuple[str, str]] = set()
    for row, event in zip(rows, events, strict=True):
        named = {(one.name, one.reason) for one in event.sensors if one.name is not None}
        now = set() if event.phase == "end" else named
        reports += [SensorReport(row, *one) for one in sorted(now - known)]
        known = now
    return tuple(reports)


def _rows_at(case: Case, times: Sequence[float]) -> Int64:
    """Return the rows of the test part at times in seconds since the epoch."""
    ticks = np.round((np.array(times) - case.phase) / case.interval).astype(np.int64)
    return np.searchsorted(case.test_ticks, ticks).astype(np.int64)
