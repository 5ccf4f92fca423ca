"""Laws of the payloads: they hold to their schemas, and the same alarm has the same ids."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge_agent.contract.types import (
    AlarmEvent,
    Conversion,
    DriftEvent,
    QualityEvent,
    SensorDrift,
    SensorQuality,
    SensorShare,
)
from edge_agent.events import BundleIdentity, EventWriter, rfc3339, status_payload, to_json

SCHEMAS = Path(__file__).parent.parent / "edge_agent" / "schemas"
BUNDLE = BundleIdentity("pump", "1", "ab" * 32)
EVENT = AlarmEvent(
    kind="start",
    alarm_number=1,
    asset=0,
    time=1_700_000_010.0,
    onset_time=1_700_000_000.0,
    start_time=1_700_000_010.0,
    severity="warning",
    score=1.5,
    peak_score=2.0,
    peak_time=1_700_000_010.0,
    score_basis="tail",
    sensors=(
        SensorShare("bearing", "°C", 0.9, 71.0, 63.0, "above", "rising"),
        SensorShare("flow", "m³/h", 0.1, None, math.nan, "missing", "steady"),
    ),
)

SILENT = SensorQuality(-1, None, "", "silent", 1_700_000_000.0, None)
DEAD = (
    SensorQuality(0, "bearing", "°C", "frozen", 1_700_000_000.0, 71.0),
    SensorQuality(1, "flow", "m³/h", "unit_jump", 1_700_000_000.0, math.inf, Conversion("×10", 10.0)),
    SensorQuality(2, "speed", "", "stale", 1_700_000_000.0, None),
    SensorQuality(3, "power", "kW", "out_of_range", 1_700_000_000.0, -9999.0),
)


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    return schema


@pytest.mark.parametrize("kind", ["start", "update", "end"])
@pytest.mark.parametrize("score", [1.0, math.inf, math.nan])
def test_event_holds_to_its_schema(kind: str, score: float) -> None:
    """Every kind of event is valid JSON by its schema, whatever its numbers are."""
    payload = EventWriter(BUNDLE).write(replace(EVENT, kind=kind, score=score), "pump/1")
    jsonschema.validate(json.loads(to_json(payload)), _schema("event"), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("phase", ["start", "update", "end"])
@pytest.mark.parametrize("sensors", [(SILENT,), DEAD, (SILENT, *DEAD)])
def test_data_quality_holds_to_its_schema(phase: str, sensors: tuple[SensorQuality, ...]) -> None:
    """Every data-quality event is valid by the schema of its topic, and is no alarm by it."""
    event = QualityEvent(phase, 0, 1_700_000_060.0, 1_700_000_020.0, sensors)
    payload = json.loads(to_json(EventWriter(BUNDLE).write_quality(event, "pump/1")))
    schema = _schema("event")
    jsonschema.validate(payload, schema, jsonschema.Draft202012Validator)
    assert payload["duration_seconds"] == 40.0
    alarm = {**schema, "oneOf": [{"$ref": "#/$defs/alarm"}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, alarm, jsonschema.Draft202012Validator)


def test_advice_holds_to_its_schema() -> None:
    """Advice to train anew is valid by the schema of its topic, and by none of the other events' there."""
    moved = SensorDrift("bearing", "°C", "level", 1.7, "above")
    event = DriftEvent(0, 1_700_000_060.0, 1_700_000_020.0, 1.7, (moved,))
    payload = json.loads(to_json(EventWriter(BUNDLE).write_advice(event, "pump/1")))
    jsonschema.validate(payload, _schema("event"), jsonschema.Draft202012Validator)
    assert (payload["kind"], payload["sensors"][0]["name"]) == ("retrain_advised", "bearing")


def test_events_of_one_time_of_bad_data_share_an_id() -> None:
    """Start, updates and end count from 1 under one id, live as replayed; what begins later has another."""
    writer = EventWriter(BUNDLE, replayed=True)
    phases = ("start", "update", "end")
    events = [QualityEvent(phase, 0, 100.0 + at, 100.0, DEAD) for at, phase in enumerate(phases)]
    payloads = [writer.write_quality(event, "a") for event in events]
    assert [payload["sequence"] for payload in payloads] == [1, 2, 3]
    later = writer.write_quality(QualityEvent("start", 0, 200.0, 200.0, DEAD), "a")
    assert len({payload["episode_id"] for payload in payloads}) == 1
    assert later["episode_id"] != payloads[0]["episode_id"]
    live = EventWriter(BUNDLE).write_quality(events[0], "a")
    assert live["event_id"] == payloads[0]["event_id"]


@pytest.mark.parametrize("state", ["online", "offline", "stopped"])
def test_status_holds_to_its_schema(state: str) -> None:
    """Every status is valid by its schema, with and without a time."""
    for time in (None, 1_700_000_000.0):
        jsonschema.validate(status_payload(state, "gate", BUNDLE, time), _schema("status"))


def test_sequence_counts_within_the_alarm() -> None:
    """The events of one alarm share an id and count from 1; the next alarm starts anew."""
    writer = EventWriter(BUNDLE)
    kinds = ("start", "update", "end")
    first = [writer.write(replace(EVENT, kind=kind), "a") for kind in kinds]
    second = writer.write(replace(EVENT, alarm_number=2, start_time=EVENT.start_time + 60), "a")
    assert [payload["sequence"] for payload in (*first, second)] == [1, 2, 3, 1]
    assert len({payload["alarm_id"] for payload in first}) == 1
    assert second["alarm_id"] != first[0]["alarm_id"]
    assert len({payload["event_id"] for payload in first}) == 3


def test_a_reopened_alarm_counts_on() -> None:
    """What follows an end under the same id goes on counting, so that no two events share their own id."""
    writer = EventWriter(BUNDLE)
    end = replace(EVENT, kind="end", end_reason="cleared")
    again = replace(EVENT, kind="update", reopened=True, time=EVENT.time + 5)
    payloads = [writer.write(event, "a") for event in (EVENT, end, again, end)]
    assert [payload["sequence"] for payload in payloads] == [1, 2, 3, 4]
    assert len({payload["event_id"] for payload in payloads}) == 4
    assert len({payload["alarm_id"] for payload in payloads}) == 1
    for payload in payloads:
        jsonschema.validate(json.loads(to_json(payload)), _schema("event"), jsonschema.Draft202012Validator)
    assert [(payload["end_reason"], payload["reopened"]) for payload in payloads[1:3]] == [
        ("cleared", False),
        (None, True),
    ]


def test_replay_gives_the_same_ids() -> None:
    """A replay names the same event by the same ids and says that it is one."""
    live = EventWriter(BUNDLE).write(EVENT, "a")
    replayed = EventWriter(BUNDLE, replayed=True).write(EVENT, "a")
    assert (live["event_id"], live["replayed"]) == (replayed["event_id"], False)
    assert replayed["replayed"]


def test_time_is_rfc3339() -> None:
    """Times are UTC with milliseconds."""
    assert rfc3339(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
