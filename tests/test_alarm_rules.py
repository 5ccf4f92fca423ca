"""Laws of alarm rules as people write them."""

from typing import Any

import pytest

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.minimum_deviation import DeviationRule

SENSORS = ("flow", "pressure")


def test_what_is_not_changed_stays() -> None:
    """Changed keys are those given; a sensor that is not named keeps its rule."""
    rules = AlarmRules(open_count=2, sensors={"flow": DeviationRule(1.0)})
    changes = {"merge_samples": 5, "sensors": {"pressure": {"min_relative": 0.5, "direction": "above"}}}
    found = changed_rules(rules, changes, SENSORS)
    assert (found.open_count, found.merge_samples) == (2, 5)
    assert found.sensors == {"flow": DeviationRule(1.0), "pressure": DeviationRule(0.0, 0.5, "above")}
    assert changed_rules(rules, {}, SENSORS) == rules


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mood": 1}, "mood: is not a known key"),
        ({"open_count": 6}, "open_window: must be at least open_count and at most 63"),
        ({"cool_down_samples": -1}, "cool_down_samples: must be at least 0"),
        ({"merge_samples": 1.5}, "merge_samples: must be a whole number"),
        ({"critical_score": float("nan")}, "critical_score: must be a number"),
        ({"sensors": []}, "sensors: must be a table"),
        ({"sensors": {"flow": 3}}, "sensors.flow: must be a table"),
        ({"sensors": {"flow": {"least": 3}}}, "sensors.flow.least: is not a known key"),
        ({"sensors": {"flow": {"min_absolute": "3"}}}, "sensors.flow.min_absolute: must be a number"),
        ({"sensors": {"flow": {"direction": "up"}}}, "sensors.flow.direction: is 'up'"),
        ({"sensors": {"flows": {}}}, "sensors.flows: is not a sensor, known are flow, pressure"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    """The first thing that is wrong is said by its key."""
    with pytest.raises(ValueError, match="^" + said):
        changed_rules(AlarmRules(), changes, SENSORS)
