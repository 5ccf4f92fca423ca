"""Laws of unit jumps: a reading that converts back to where its sensor stood, and not a machine in trouble."""

import numpy as np
import pytest

from edge_agent.contract.unit_jump import UnitTable, conversions_of, usual_step


def _names(unit: str, name: str = "") -> list[str]:
    return [one.name for one in conversions_of(unit, name)]


@pytest.mark.parametrize(
    ("unit", "name", "among", "missing"),
    [
        ("bar", "", "bar to psi", "°C to °F"),
        ("PSI", "", "psi to kpa", "bar to psi"),
        ("°C", "", "°C to °F", "°F to °C"),
        ("degF", "", "°F to °C", "bar to psi"),
        ("m³/h", "", "m3/h to l/min", "bar to psi"),
        ("", "discharge_pressure_bar", "bar to kpa", "°C to °F"),
        ("", "vibration_mm_s", "mm/s to in/s", "mm to m"),
        ("", "flow_m3h", "m3/h to l/s", "m to mm"),
        ("", "flow_in", "×1000", "in to mm"),
        ("A", "", "÷10", "bar to psi"),
    ],
)
def test_the_unit_decides_what_is_tried(unit: str, name: str, among: str, missing: str) -> None:
    """Powers of ten always, other units of the quantity where unit or name tell it, and no conversion twice."""
    found = conversions_of(unit, name)
    factors = [one.factor for one in found if one.offset == 0.0]
    for power in (10, 100, 1000, 0.1, 0.01, 0.001):
        assert any(np.isclose(factor, power) for factor in factors)
    assert among in _names(unit, name)
    assert missing not in _names(unit, name)
    assert len({(round(one.factor, 9), one.offset) for one in found}) == len(found)


def _table() -> UnitTable:
    """Return the table of a pressure and a temperature."""
    sensors = [("bar", "p"), ("°C", "t")]
    return UnitTable(sensors, np.array([3.0, 40.0]), np.array([5.0, 60.0]), [0.01, 0.05])


def _found(sensor: int, before: float, value: float) -> str | None:
    table = _table()
    number = int(
        table.find(np.array([sensor]), np.array([before], np.float32), np.array([value], np.float32))[0]
    )
    return table.conversions[sensor][number - 1].name if number else None


@pytest.mark.parametrize(
    ("sensor", "before", "value", "name"),
    [
        (0, 4.0, 58.02, "bar to psi"),
        (0, 4.0, 400.1, "bar to kpa"),
        (0, 4.0, 0.4, "bar to mpa"),
        (0, 4.0, 47.0, None),
        (0, 4.0, 4.9, None),
        (1, 50.0, 122.1, "°C to °F"),
        (1, 50.0, 323.15, "°C to K"),
        (1, 50.0, 110.0, None),
    ],
)
def test_a_jump_is_recognised_by_where_it_lands(
    sensor: int, before: float, value: float, name: str | None
) -> None:
    """What converts back to the reading before is found by name; other leaps and readings in range are not."""
    assert _found(sensor, before, value) == name


def test_readings_speak_for_the_jump_as_long_as_they_convert_into_the_range() -> None:
    """Inside the range seen they do not, and a fixed point of the conversion says nothing."""
    sensors = [("°C", "t")]
    table = UnitTable(sensors, np.array([-50.0]), np.array([60.0]), [0.05])
    number = 1 + [one.name for one in table.conversions[0]].index("°C to °F")
    readings = np.array([[120.0], [20.0], [200.0], [-40.0], [np.nan]], np.float32)
    speaks, alike = table.judge(np.full((5, 1), number), readings)
    assert speaks[:, 0].tolist() == [True, False, False, False, False]
    assert alike[:, 0].tolist() == [False, False, False, True, False]


def test_a_sensor_that_stands_still_in_the_new_unit_does_not_move_as_usual() -> None:
    """The steps of five readings, converted back, have to be those of the sensor; without a usual step any will do."""
    table = UnitTable([("", "a"), ("", "b")], np.zeros(2), np.ones(2), [0.1, 0.0])
    moved = np.array([[0.4, 0.0], [0.1, 9.0], [2.5, 0.0]], np.float32)
    assert table.moves_as_usual(moved).tolist() == [[True, True], [False, True], [False, True]]


def test_the_usual_step_is_the_median_over_all_assets() -> None:
    """Starts and stops do not move it, and without readings it is 0."""
    assert usual_step([np.array([1, 2, np.nan, 3, 90], np.float32), np.array([5, 6], np.float32)]) == 1.0
    assert usual_step([]) == usual_step([np.array([1.0], np.float32)]) == 0.0
