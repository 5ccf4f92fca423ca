"""Alarm and data-quality events, advice to train anew and the agent's status as JSON, by `edge_agent/schemas`.

Ids are derived from what happened, so the same alarm has the same ids live and replayed.
"""

import json
import math
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from edge_agent.contract.types import AlarmEvent, DriftEvent, QualityEvent, SensorQuality, SensorShare
from edge_agent.version import VERSION

EVENT_SCHEMA = "forewarn.event/1"
QUALITY_KIND = "data_quality"
ADVICE_KIND = "retrain_advised"
SUPPRESSED_KIND = "suppressed"
STATUS_SCHEMA = "forewarn.status/1"
_NAMESPACE = uuid.UUID("6f6c7c1e-5a0e-5f0e-9d35-0f0a3b7c2b11")


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which bundle speaks: its name, its version and the hash of its manifest."""

    name: str
    version: str
    sha256: str


def alarm_identity(bundle_sha256: str, asset: str, event: AlarmEvent) -> str:
    """Return the id of the alarm that an event belongs to, the same live and replayed."""
    alarm = f"{bundle_sha256}|{asset}|{event.start_time!r}|{event.alarm_number}"
    return str(uuid.uuid5(_NAMESPACE, alarm))


def rfc3339(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _number(value: float | None) -> float | None:
    """Return a plain float, or None for what JSON cannot say."""
    return float(value) if value is not None and math.isfinite(value) else None


def _sensor(share: SensorShare) -> dict[str, Any]:
    return {
        "name": share.name,
        "unit": share.unit,
        "share": _number(share.share),
        "actual": _number(share.actual),
        "expected": _number(share.expected),
        "direction": share.direction,
        "trend": share.trend,
    }


def dead_sensor(one: SensorQuality) -> dict[str, Any]:
    """Return what is wrong with one sensor as it stands in payloads."""
    conversion = one.conversion
    return {
        "name": one.name,
        "unit": one.unit,
        "reason": one.reason,
        "since": rfc3339(one.since),
        "value": _number(one.value),
        "conversion": None if conversion is None else asdict(conversion),
    }


def to_json(payload: dict[str, Any]) -> bytes:
    """Return the payload as UTF-8 JSON without blanks."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class EventWriter:
    """Turns events into payloads, numbering the events of each alarm and of each time of bad data.

    Args:
        bundle: the bundle that raised them.
        replayed: whether they come from a history file.
    """

    def __init__(self, bundle: BundleIdentity, replayed: bool = False) -> None:
        self._bundle = bundle
        self._replayed = replayed
        self._sequences: dict[str, int] = {}
        self._alarms: dict[str, tuple[str, int]] = {}
        """Of each asset its last alarm and how many events that had: it may go on after its end."""

    def write(
        self, event: AlarmEvent, asset: str, acknowledged: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the payload of one event.

        Args:
            event: times in seconds since the epoch.
            asset: the asset's id.
            acknowledged: who has seen the alarm, when, and a note.
        """
        return {
            **self._of_alarm(event, asset, event.kind),
            "duration_seconds": max(float(event.duration_seconds), 0.0),
            "peak_time": rfc3339(event.peak_time),
            "end_reason": event.end_reason,
            "reopened": event.reopened,
            "renewed": event.renewed,
            "acknowledged": acknowledged,
        }

    def write_suppressed(
        self,
        event: AlarmEvent,
        asset: str,
        phase: str,
        reason: str | None,
        look_alike_of: str | None,
    ) -> dict[str, Any]:
        """Return the payload of an event that says that an alarm is not, or no longer, told of.

        Args:
            event: the alarm's last.
            asset: the asset's id.
            phase: `start` or `end` of the time in which it is not told of.
            reason: `muted` or `look_alike`.
            look_alike_of: the id of the alarm marked as false that it looks like.
        """
        return {
            **self._of_alarm(event, asset, SUPPRESSED_KIND),
            "phase": phase,
            "reason": reason,
            "look_alike_of": look_alike_of,
        }

    def _of_alarm(self, event: AlarmEvent, asset: str, kind: str) -> dict[str, Any]:
        alarm_id = alarm_identity(self._bundle.sha256, asset, event)
        before, count = self._alarms.get(asset, ("", 0))
        sequence = count + 1 if before == alarm_id else 1
        self._alarms[asset] = alarm_id, sequence
        return {
            "schema": EVENT_SCHEMA,
            "event_id": str(uuid.uuid5(_NAMESPACE, f"{alarm_id}|{sequence}|{kind}|{event.time!r}")),
            "alarm_id": alarm_id,
            "sequence": sequence,
            "kind": kind,
            "asset": asset,
            "time": rfc3339(event.time),
            "time_epoch": float(event.time),
            "onset_time": rfc3339(event.onset_time),
            "start_time": rfc3339(event.start_time),
            "severity": event.severity,
            "score": _number(event.score),
            "peak_score": _number(event.peak_score),
            "score_basis": event.score_basis,
            "sensors": [_sensor(share) for share in event.sensors],
            "bundle": asdict(self._bundle),
            "replayed": self._replayed,
        }

    def write_quality(self, event: QualityEvent, asset: str) -> dict[str, Any]:
        """Return the payload of one data-quality event.

        Args:
            event: times in seconds since the epoch.
            asset: the asset's id.
        """
        episode = f"{self._bundle.sha256}|{asset}|{QUALITY_KIND}|{event.start_time!r}"
        episode_id = str(uuid.uuid5(_NAMESPACE, episode))
        sequence = self._next(episode_id, event.phase == "end")
        return {
            "schema": EVENT_SCHEMA,
            "event_id": str(uuid.uuid5(_NAMESPACE, f"{episode_id}|{sequence}|{event.phase}|{event.time!r}")),
            "episode_id": episode_id,
            "sequence": sequence,
            "kind": QUALITY_KIND,
            "phase": event.phase,
            "asset": asset,
            "time": rfc3339(event.time),
            "time_epoch": float(event.time),
            "start_time": rfc3339(event.start_time),
            "duration_seconds": max(float(event.time - event.start_time), 0.0),
            "sensors": [dead_sensor(one) for one in event.sensors],
            "bundle": asdict(self._bundle),
            "replayed": self._replayed,
        }

    def write_advice(self, event: DriftEvent, asset: str) -> dict[str, Any]:
        """Return the payload of advice to train anew.

        Args:
            event: times in seconds since the epoch.
            asset: the asset's id.
        """
        named = f"{self._bundle.sha256}|{asset}|{ADVICE_KIND}|{event.time!r}"
        return {
            "schema": EVENT_SCHEMA,
            "event_id": str(uuid.uuid5(_NAMESPACE, named)),
            "kind": ADVICE_KIND,
            "asset": asset,
            "time": rfc3339(event.time),
            "time_epoch": float(event.time),
            "since": rfc3339(event.since),
            "drift": float(event.drift),
            "sensors": [asdict(sensor) for sensor in event.sensors],
            "bundle": asdict(self._bundle),
            "replayed": self._replayed,
        }

    def _next(self, series_id: str, last: bool) -> int:
        sequence = self._sequences.get(series_id, 0) + 1
        if last:
            self._sequences.pop(series_id, None)
        else:
            self._sequences[series_id] = sequence
        return sequence


def status_payload(state: str, node: str, bundle: BundleIdentity, time: float | None) -> dict[str, Any]:
    """Return the payload of the agent's status.

    Args:
        state: `online`, `offline` or `stopped`.
        node: the agent's name in its topics.
        bundle: the bundle that runs.
        time: seconds since the epoch; None in the last will, which is written before it is true.
    """
    return {
        "schema": STATUS_SCHEMA,
        "state": state,
        "node": node,
        "agent_version": VERSION,
        "time": None if time is None else rfc3339(time),
        "bundle": asdict(bundle),
    }
