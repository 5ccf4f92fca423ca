"""Alarm rules as people write them: read from a record, changed key by key, checked."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.minimum_deviation import DeviationRule, broken_deviation

_LEAST = {
    "open_count": 1,
    "open_window": 1,
    "immediate_score": 0.0,
    "clear_samples": 1,
    "critical_score": 0.0,
    "critical_after_samples": 1,
    "update_samples": 1,
    "cool_down_samples": 0,
    "merge_samples": 0,
}


def changed_rules(rules: AlarmRules, changes: Mapping[str, Any], sensors: Collection[str]) -> AlarmRules:
    """Return the rules with some keys changed; sensors that are not named keep theirs.

    Args:
        rules: what holds without the changes.
        changes: fields of `AlarmRules`; under `sensors`, tables of fields of `DeviationRule`.
        sensors: names that there are.

    Raises:
        ValueError: `key: rule` of the first thing that is wrong.
    """
    known = {item.name for item in fields(AlarmRules)}
    for key in changes:
        if key not in known:
            raise ValueError(f"{key}: is not a known key")
    tables = changes.get("sensors", {})
    if not isinstance(tables, Mapping):
        raise ValueError("sensors: must be a table by the names of the sensors")
    plain = {key: _number(key, value, _LEAST[key]) for key, value in changes.items() if key != "sensors"}
    named = {name: _deviation(name, table) for name, table in tables.items()}
    for name in named:
        if name not in sensors:
            raise ValueError(f"sensors.{name}: is not a sensor, known are {', '.join(sensors)}")
    found = replace(rules, **plain, sensors={**rules.sensors, **named})
    if not found.open_count <= found.open_window <= 63:
        raise ValueError("open_window: must be at least open_count and at most 63")
    return found


def _number(key: str, value: Any, least: float) -> Any:
    whole = isinstance(least, int)
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value):
        raise ValueError(f"{key}: must be a {'whole ' if whole else ''}number")
    if value < least:
        raise ValueError(f"{key}: must be {'above 0' if least == 1 else f'at least {least:g}'}")
    return value


def _deviation(name: str, table: Any) -> DeviationRule:
    if isinstance(table, DeviationRule):
        table = asdict(table)
    if not isinstance(table, Mapping):
        raise ValueError(f"sensors.{name}: must be a table")
    default = DeviationRule()
    for key, value in table.items():
        if not hasattr(default, key):
            raise ValueError(f"sensors.{name}.{key}: is not a known key")
        if key != "direction" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"sensors.{name}.{key}: must be a number")
    rule = replace(default, **table)
    broken = broken_deviation(rule)
    if broken is not None:
        raise ValueError(f"sensors.{name}.{broken}")
    return rule
