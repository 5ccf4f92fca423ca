"""Laws of what the trainer tells the gate: normal operation of the pump says nothing, its sensors' faults say what."""

import numpy as np
import pytest

from edge_agent.contract.bundle import Manifest
from edge_agent.contract.sensor_gate import SensorGate
from edge_agent.contract.spike import WINDOW
from edge_agent.contract.types import Float32
from tests.gated import manifest_of, run_gate
from trainer.habits import Habits, sensor_habits
from trainer.pump import SENSOR_NAMES, SENSORS
from trainer.simulate import parse_faults, simulate

LIVES = (11, 12, 13)


def _manifest(hours: float, seed: int) -> Manifest:
    history = simulate(hours, seed)
    return manifest_of(history.sensors, history.units, [history.values])


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Return the manifest of four hours of the pump."""
    return _manifest(4.0, 0)


def test_habits_are_those_of_all_assets_together() -> None:
    """Holds and absences are the longest, steps the largest or the median, over all tables."""
    nan = np.nan
    first = np.array([[1, 5], [2, nan], [3, nan], [3, 6], [2, 5]], np.float32)
    second = np.array([[1, 5], [4, 9], [5, 5]], np.float32)
    steps: Habits = sensor_habits([first, second])[0]
    assert (steps.longest_hold, steps.longest_absence, steps.usual_step) == (2, 0, 1.0)
    assert sensor_habits([first, second])[1].longest_absence == 2


@pytest.mark.parametrize(("hours", "seed"), [(4.0, 0), (0.5, 3)], ids=["long history", "short history"])
def test_eight_hours_of_normal_operation_say_nothing(hours: float, seed: int) -> None:
    """Starts, stops and set-points of three pumps never seen raise no event, mask nothing and count nothing."""
    lives: Float32 = np.stack([simulate(8.0, life).values for life in LIVES], axis=1)
    result = run_gate(SensorGate(_manifest(hours, seed)), lives)
    assert result.events == []
    assert not any(result.found.values())
    np.testing.assert_array_equal(result.values, lives)


@pytest.mark.parametrize("sensor", [sensor.name for sensor in SENSORS])
@pytest.mark.parametrize(
    ("kind", "reason", "latest"), [("sensor_freeze", "frozen", 30), ("sensor_loss", "stale", 61)]
)
def test_a_fault_of_a_sensor_is_reported_as_such(
    manifest: Manifest, kind: str, reason: str, latest: int, sensor: str
) -> None:
    """Whichever sensor of the running pump freezes or is lost, it alone is named, soon, and until it is back."""
    faulty = simulate(0.6, 21, faults=parse_faults(f"{kind}/{sensor}@900+900"))
    result = run_gate(SensorGate(manifest), faulty.values[:, None])
    start, end = result.facts()
    assert (start[0], start[2], end[0]) == ("start", [(sensor, reason)], "end")
    assert 900 < start[1] <= 900 + latest
    assert 1800 < end[1] <= 1810


@pytest.mark.parametrize("fault", ["bearing_wear", "leak", "cavitation", "sensor_offset"])
def test_a_fault_of_the_machine_is_none_of_a_sensor(manifest: Manifest, fault: str) -> None:
    """The gate masks hardly a reading of a machine in trouble: what it would mask, no alarm could show."""
    faulty = simulate(0.6, 21, faults=parse_faults(f"{fault}@900+900:2")).values[:, None]
    result = run_gate(SensorGate(manifest), faulty)
    assert result.events == []
    masked = np.isnan(result.values)
    assert masked.sum() <= 5
    np.testing.assert_array_equal(result.values[~masked], faulty[~masked])


def test_spikes_are_counted(manifest: Manifest) -> None:
    """The simulator's spikes are found one by one; the sensor is named, and nothing but its leaps is masked."""
    faulty = simulate(0.6, 21, faults=parse_faults("spikes@900+900")).values[:, None]
    sound = simulate(0.6, 21).values[:, None]
    result = run_gate(SensorGate(manifest), faulty)
    assert result.found["spike"] >= 20
    start, end = result.facts()
    assert (start[0], start[2], end[0]) == ("start", [("vibration_mm_s", "spiking")], "end")
    assert 900 < start[1] <= 1100
    assert 1800 < end[1] <= 1800 + WINDOW
    masked = np.isnan(result.values)
    assert masked[900:1800].sum() >= 15
    # The second of two in a row passes as a step would, and what comes back from it is taken for a leap.
    assert (faulty[masked] != sound[masked]).mean() >= 0.9
    np.testing.assert_array_equal(result.values[~masked], faulty[~masked])


def test_a_valve_that_slips_and_returns_at_once_is_named_and_stays_in_sight(manifest: Manifest) -> None:
    """Its position alone leaps and returns within a tick: so it is told, and no two readings in a row are masked."""
    faulty = simulate(0.6, 21, faults=parse_faults("valve_sticking@900+900:2")).values[:, None]
    result = run_gate(SensorGate(manifest), faulty)
    assert {one for fact in result.facts() for one in fact[2]} <= {("valve_position_pct", "spiking")}
    masked = np.isnan(result.values[:, 0])
    assert np.flatnonzero(masked.any(axis=0)).tolist() == [SENSOR_NAMES.index("valve_position_pct")]
    assert not (masked[1:] & masked[:-1]).any()
    assert masked.sum() <= 20
