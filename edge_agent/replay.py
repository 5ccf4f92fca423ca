"""A file through the very pipeline of the live agent: the alarms and the data-quality events it would have raised."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edge_agent.alarm_desk import AlarmDesk, Notice
from edge_agent.contract.types import AlarmEvent, DriftEvent, Outcomes, QualityEvent, Rows
from edge_agent.events import dead_sensor, rfc3339
from edge_agent.history import History, align_columns
from edge_agent.pipeline import Pipeline

CHUNK_ROWS = 4096


@dataclass
class ReplayedAlarm:
    """One alarm from start to end; `end` is None while it is still open at the end of the file."""

    asset: str
    start: AlarmEvent
    last: AlarmEvent
    end: AlarmEvent | None = None
    reopened: int = 0
    """How often it went on after its end."""

    def record(self) -> dict[str, Any]:
        """Return the alarm as the JSON record that `replay --json` prints."""
        worst = self.last
        return {
            "asset": self.asset,
            "onset": rfc3339(self.start.onset_time),
            "start": rfc3339(self.start.start_time),
            "end": rfc3339(self.end.time) if self.end is not None else None,
            "duration_seconds": worst.duration_seconds if self.end is not None else None,
            "peak_score": _finite(worst.peak_score),
            "peak_time": rfc3339(worst.peak_time),
            "severity": worst.severity,
            "score_basis": self.start.score_basis,
            "end_reason": self.end.end_reason if self.end is not None else None,
            "reopened": self.reopened,
            "sensors": [
                {
                    "name": one.name,
                    "unit": one.unit,
                    "share": one.share,
                    "actual": _finite(one.actual),
                    "expected": _finite(one.expected),
                    "direction": one.direction,
                    "trend": one.trend,
                }
                for one in self.start.sensors
            ],
        }


@dataclass
class ReplayedSuppression:
    """An alarm that was not told of, or only later; `end` is None while it is so at the end of the file."""

    notice: Notice
    end: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as the JSON record that `replay --json` prints."""
        event = self.notice.event
        return {
            "asset": self.notice.asset,
            "alarm_id": self.notice.alarm_id,
            "start": rfc3339(event.start_time),
            "end": None if self.end is None else rfc3339(self.end),
            "peak_score": _finite(event.peak_score),
            "reason": self.notice.reason,
            "look_alike_of": self.notice.look_alike_of,
        }


@dataclass
class ReplayedQuality:
    """One time of bad data from start to end, with all that was wrong in it; `end` is None while it is open."""

    asset: str
    start: float
    sensors: dict[tuple[str | None, str], dict[str, Any]] = field(default_factory=dict)
    end: float | None = None

    def record(self) -> dict[str, Any]:
        """Return it as the JSON record that `replay --json` prints."""
        return {
            "asset": self.asset,
            "start": rfc3339(self.start),
            "end": None if self.end is None else rfc3339(self.end),
            "sensors": list(self.sensors.values()),
        }


@dataclass
class ReplayResult:
    """What a replay found."""

    alarms: list[ReplayedAlarm] = field(default_factory=list)
    quality: list[ReplayedQuality] = field(default_factory=list)
    advice: list[dict[str, Any]] = field(default_factory=list)
    suppressed: list[ReplayedSuppression] = field(default_factory=list)
    samples: int = 0
    scored: int = 0
    last_of: dict[int, ReplayedAlarm] = field(default_factory=dict)
    bad_at_end: dict[int, ReplayedQuality] = field(default_factory=dict)

    def take(self, event: AlarmEvent, asset: str) -> None:
        """Add an event to the alarm that it belongs to."""
        if event.kind == "start":
            self.last_of[event.asset] = ReplayedAlarm(asset, event, event)
            self.alarms.append(self.last_of[event.asset])
            return
        alarm = self.last_of[event.asset]
        alarm.last = event
        alarm.end = event if event.kind == "end" else None
        alarm.reopened += event.reopened

    def take_notice(self, notice: Notice) -> None:
        """Add what is to be published of an alarm."""
        if notice.hidden is None:
            self.take(notice.event, notice.asset)
        elif notice.hidden == "start":
            self.suppressed.append(ReplayedSuppression(notice))
        else:
            last = next(one for one in reversed(self.suppressed) if one.notice.asset == notice.asset)
            last.notice, last.end = notice, notice.event.time

    def take_quality(self, event: QualityEvent, asset: str) -> None:
        """Add an event to the time of bad data that it belongs to."""
        if event.phase == "start":
            self.bad_at_end[event.asset] = ReplayedQuality(asset, event.start_time)
            self.quality.append(self.bad_at_end[event.asset])
        bad = self.bad_at_end[event.asset]
        for one in event.sensors:
            bad.sensors.setdefault((one.name, one.reason), dead_sensor(one))
        if event.phase == "end":
            bad.end = event.time
            del self.bad_at_end[event.asset]


def replay(
    pipeline: Pipeline,
    history: History,
    on_rows: Callable[[int], None] | None = None,
    desk: AlarmDesk | None = None,
) -> ReplayResult:
    """Run a history through the pipeline in the order of the file.

    Args:
        pipeline: fresh.
        history: sensors are matched by name; sensors the bundle does not know are not used.
        on_rows: told how many rows were done.
        desk: with what operators said; its marks and maintenance count, a mute is for those who listen now.

    Raises:
        HistoryError: the history has none of the bundle's sensors.
    """
    values = align_columns(history.source, history.sensors, history.values, pipeline.sensors)
    rows_of = np.array([pipeline.asset_row(asset) for asset in history.assets], np.int64)
    result = ReplayResult()
    if desk is not None:
        _maintain(pipeline, desk)
    for at in range(0, len(history.time), CHUNK_ROWS):
        part = slice(at, at + CHUNK_ROWS)
        rows = Rows(rows_of[history.asset[part]], history.time[part], values[part])
        _take(result, pipeline, pipeline.feed(rows, np.inf), desk)
        if on_rows is not None:
            on_rows(len(rows))
    _take(result, pipeline, pipeline.flush(), desk)
    return result


def _maintain(pipeline: Pipeline, desk: AlarmDesk) -> None:
    for row, asset in enumerate(pipeline.assets):
        since, until = desk.feedback.maintenance(asset)
        if until > since:
            pipeline.detector.maintain(np.array([row]), np.array([since]), np.array([until]))


def _take(result: ReplayResult, pipeline: Pipeline, outcomes: Outcomes, desk: AlarmDesk | None) -> None:
    result.samples += len(outcomes)
    result.scored += int(np.isfinite(outcomes.score).sum())
    for event in outcomes.events:
        asset = pipeline.assets[event.asset]
        if desk is None:
            result.take(event, asset)
        else:
            for notice in desk.take(event, asset, np.inf):
                result.take_notice(notice)
    result.advice += [_advice(event, pipeline.assets[event.asset]) for event in outcomes.advice]
    for found in outcomes.quality:
        result.take_quality(found, pipeline.assets[found.asset])


def _advice(event: DriftEvent, asset: str) -> dict[str, Any]:
    """Return advice to train anew as the JSON record that `replay --json` prints."""
    sensors = [asdict(sensor) for sensor in event.sensors]
    return {
        "asset": asset,
        "time": rfc3339(event.time),
        "since": rfc3339(event.since),
        "drift": event.drift,
        "sensors": sensors,
    }


def _finite(number: float | None) -> float | None:
    return None if number is None or not np.isfinite(number) else float(number)
