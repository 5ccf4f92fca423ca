"""Alarm events and the agent's status as JSON payloads; their schemas stand in `edge_agent/schemas`.

Ids are derived from what happened, so the same alarm has the same ids live and replayed.
"""

import json
import math
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from edge_agent.contract.types import AlarmEvent, SensorShare
from edge_agent.version import VERSION

EVENT_SCHEMA = "forewarn.event/1"
STATUS_SCHEMA = "forewarn.status/1"
_NAMESPACE = uuid.UUID("6f6c7c1e-5a0e-5f0e-9d35-0f0a3b7c2b11")


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """Which bundle speaks: its name, its version and the hash of its manifest."""

    name: str
    version: str
    sha256: str


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


def to_json(payload: dict[str, Any]) -> bytes:
    """Return the payload as UTF-8 JSON without blanks."""
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class EventWriter:
    """Turns alarm events into payloads, numbering the events of each alarm.

    Args:
        bundle: the bundle that raised them.
        replayed: whether they come from a history file.
    """

    def __init__(self, bundle: BundleIdentity, replayed: bool = False) -> None:
        self._bundle = bundle
        self._replayed = replayed
        self._sequences: dict[str, int] = {}

    def write(self, event: AlarmEvent, asset: str) -> dict[str, Any]:
        """Return the payload of one event.

        Args:
            event: times in seconds since the epoch.
            asset: the asset's id.
        """
        alarm = f"{self._bundle.sha256}|{asset}|{event.start_time!r}|{event.alarm_number}"
        alarm_id = str(uuid.uuid5(_NAMESPACE, alarm))
        sequence = self._next(alarm_id, event.kind)
        return {
            "schema": EVENT_SCHEMA,
            "event_id": str(uuid.uuid5(_NAMESPACE, f"{alarm_id}|{sequence}|{event.kind}|{event.time!r}")),
            "alarm_id": alarm_id,
            "sequence": sequence,
            "kind": event.kind,
            "asset": asset,
            "time": rfc3339(event.time),
            "time_epoch": float(event.time),
            "onset_time": rfc3339(event.onset_time),
            "start_time": rfc3339(event.start_time),
            "duration_seconds": max(float(event.duration_seconds), 0.0),
            "severity": event.severity,
            "score": _number(event.score),
            "peak_score": _number(event.peak_score),
            "peak_time": rfc3339(event.peak_time),
            "score_basis": event.score_basis,
            "sensors": [_sensor(share) for share in event.sensors],
            "bundle": asdict(self._bundle),
            "replayed": self._replayed,
        }

    def _next(self, alarm_id: str, kind: str) -> int:
        sequence = self._sequences.get(alarm_id, 0) + 1
        if kind == "end":
            self._sequences.pop(alarm_id, None)
        else:
            self._sequences[alarm_id] = sequence
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
