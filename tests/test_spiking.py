"""Laws of spiking sensors: again and again, alone, until it was quiet for long."""

import numpy as np
import pytest

from edge_agent.contract.sensor_gate import SensorGate
from edge_agent.contract.spike import LEAST_READINGS, NEVER, WINDOW, spike_limits, usual_spike
from edge_agent.contract.spiking import SPACING
from edge_agent.contract.types import Float32
from tests.gated import Gated, manifest_of, run_gate

ROWS = 500


def _normal(rows: int, seed: int) -> Float32:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.normal((5.0, 60.0, 9.0), (0.1, 0.5, 0.2), (rows, 3)), np.float32)


MANIFEST = manifest_of(("pressure", "temperature", "flow"), ("bar", "°C", "m3/h"), [_normal(5000, 1)])


def _spiked(places: list[int], sensor: int = 0, height: float = 3.0) -> Float32:
    values = _normal(ROWS, 7)
    values[places, sensor] += height
    return values


def _gated(values: Float32) -> Gated:
    return run_gate(SensorGate(MANIFEST), values[:, None])


def test_the_third_spike_begins_it_and_a_quiet_window_ends_it() -> None:
    """The event comes when the third spike has returned, names the first, and ends `WINDOW` ticks after the last."""
    result = _gated(_spiked([100, 130, 170, 200]))
    named = [("pressure", "spiking")]
    assert result.facts() == [("start", 171, named), ("end", 200 + WINDOW, named)]
    assert result.events[0].sensors[0].since == 100


def test_only_leaps_are_masked_while_it_lasts() -> None:
    """Every spike is masked as it comes, also one soon after another, and every other reading counts."""
    values = _spiked([100, 130, 170, 200, 203])
    result = _gated(values)
    assert np.argwhere(np.isnan(result.values[:, 0])).tolist() == [
        [row, 0] for row in (100, 130, 170, 200, 203)
    ]


def test_a_level_that_steps_while_it_lasts_is_seen() -> None:
    """Of a step only the first reading is masked."""
    values = _spiked([100, 130, 170])
    values[200:, 0] += 3.0
    result = _gated(values)
    assert np.argwhere(np.isnan(result.values[150:, 0])).tolist() == [[20, 0], [50, 0]]


@pytest.mark.parametrize(
    ("places", "masked"),
    [
        ([100, 130], [100, 130]),
        ([100, 100 + WINDOW // 2, 101 + WINDOW], [100, 100 + WINDOW // 2, 101 + WINDOW]),
        ([100, 102, 104], [100]),
    ],
    ids=["two", "too seldom", "rough"],
)
def test_fewer_rarer_and_closer_ones_are_no_such_sensor(places: list[int], masked: list[int]) -> None:
    """Two spikes, three that need longer than a window, and roughness say nothing, and roughness counts."""
    assert places[-1] - places[-2] < SPACING or places[-1] - places[0] > WINDOW or len(places) == 2
    result = _gated(_spiked(places))
    assert result.events == []
    assert np.argwhere(np.isnan(result.values[:, 0])).tolist() == [[row, 0] for row in masked]


def test_sensors_that_spike_together_are_of_a_rough_machine() -> None:
    """Where another sensor had a spike of late, none begins to be a spiking one."""
    values = _spiked([100, 130, 170])
    values[[110, 150], 1] += 20.0
    result = _gated(values)
    assert result.found["spike"] == 5
    assert result.events == []


def test_without_witnesses_nobody_is_blamed() -> None:
    """Of an asset with two sensors spikes are counted, and none is said to be a spiking one."""
    manifest = manifest_of(("pressure", "temperature"), ("bar", "°C"), [_normal(5000, 1)[:, :2]])
    values = _spiked([100, 130, 170])[:, :2]
    result = run_gate(SensorGate(manifest), values[:, None])
    assert result.found["spike"] == 3
    assert result.events == []


def test_a_short_history_does_not_tell_what_is_usual() -> None:
    """Below `LEAST_READINGS` over all assets no sensor is judged."""
    column = np.asarray(_normal(LEAST_READINGS, 3)[:, 0])
    assert usual_spike([column[:-1]]) == 0.0
    assert usual_spike([column[:700], column[700:]]) > 0.0


def test_what_normal_operation_shows_twice_is_no_spike() -> None:
    """The usual spike is the lower of two that stand in one window; a single one, however high, is none."""
    column = np.asarray(_normal(2500, 3)[:, 0])
    quiet = usual_spike([column])
    column[500] += 50.0
    assert usual_spike([column]) == pytest.approx(quiet, abs=0.3)
    column[[540, 800]] += (20.0, 80.0)
    assert usual_spike([column]) == pytest.approx(20.0, abs=1.0)
    assert usual_spike([np.zeros(10, np.float32), np.full(2, 3.0, np.float32)]) == 0.0


def test_the_limit_is_at_least_a_tenth_of_the_range_and_nothing_where_nothing_is_known() -> None:
    """A quiet sensor needs a leap that is far for it; one whose habits are not known never spikes."""
    assert spike_limits([0.0, 2.0, 0.1], np.array([9.0, 9.0, 9.0])).tolist() == pytest.approx(
        [NEVER, 4.0, 0.9]
    )
