"""Laws of shape novelty: it judges what recurs, leaves out what does not, and never looks across a break."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.shape_novelty import (
    FEW_SENSORS,
    LEAST_DISTANCE,
    REFERENCES,
    WINDOW,
    ShapeModel,
    fit_shapes,
    shape_distances,
    shape_statistic,
)
from edge_agent.contract.types import Float32, Float64, Int64

ROWS = 4000
PERIOD = 40


def _cycle(rows: int, seed: int = 0) -> Float64:
    """Return (rows,) a cycle that recurs, with a little noise."""
    noise = np.random.default_rng(seed).normal(size=rows)
    return np.asarray(np.sqrt(2.0) * np.sin(2 * np.pi * np.arange(rows) / PERIOD) + 0.05 * noise)


def _noise(rows: int, seed: int = 1) -> Float64:
    return np.random.default_rng(seed).normal(size=rows)


def _unbroken(rows: int) -> Int64:
    return np.zeros(rows, np.int64)


def _windows(values: Float64) -> Float32:
    """Return (n, W, M) the windows of series (rows, M)."""
    table = np.atleast_2d(values.T).T
    whole = np.lib.stride_tricks.sliding_window_view(table, WINDOW, axis=0)
    return np.asarray(whole.transpose(0, 2, 1), np.float32)


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    """Return what is learnt of a cycle, of noise, of a cycle that is not judged, and of one that stands still."""
    level = np.stack([_noise(ROWS), _cycle(ROWS), _cycle(ROWS, 2), np.zeros(ROWS)], axis=1)
    return fit_shapes(level, _unbroken(ROWS), np.array([True, True, False, True]))


def test_what_recurs_is_judged_and_noise_is_not(model: ShapeModel) -> None:
    """Of a cycle and noise the cycle is chosen; a sensor that is not judged is not, however well it recurs."""
    assert 1 in model.sensors
    assert 0 not in model.sensors
    assert 2 not in model.sensors
    assert model.references.shape == (len(model.sensors), REFERENCES, WINDOW)
    assert (model.scale >= LEAST_DISTANCE).all()
    np.testing.assert_allclose(model.references.mean(axis=2), 0.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_is_not_judged(seed: int) -> None:
    """A signal that wanders moves far and never the same way twice: its shapes do not recur."""
    steps = np.random.default_rng(seed).normal(size=ROWS)
    level = np.zeros(ROWS)
    for row in range(1, ROWS):
        level[row] = 0.98 * level[row - 1] + 0.2 * steps[row]
    assert not len(fit_shapes(level[:, None], _unbroken(ROWS), np.ones(1, np.bool_)).sensors)


def test_a_cycle_cut_short_is_new() -> None:
    """Every reading of a cycle that is cut short was seen before; its shape was not, and later it is usual again."""
    one = fit_shapes(_cycle(ROWS)[:, None], _unbroken(ROWS), np.ones(1, np.bool_))
    whole = _cycle(400, 5)
    cut = np.r_[whole[:205], whole[215:]]
    present = np.ones((len(cut) - WINDOW + 1, 1), np.bool_)
    found = shape_statistic(one, _windows(cut), present)
    assert found[: 205 - WINDOW].max() < 1.0
    assert found[205 - WINDOW : 206].max() > 2.0
    assert found[206:].max() < 1.0


@pytest.mark.parametrize("sensors", range(1, FEW_SENSORS + 1))
@pytest.mark.parametrize("adapts", [False, True])
def test_contexts_are_of_few_sensors_that_adapt(sensors: int, adapts: bool) -> None:
    """Noise, whose shapes never recur, is judged by its context where sensors are few and what is usual adapts."""
    level = np.stack([_noise(ROWS, seed) for seed in range(sensors)], axis=1)
    found = fit_shapes(level, _unbroken(ROWS), np.ones(sensors, np.bool_), adapts)
    expected = list(range(sensors)) if adapts and sensors < FEW_SENSORS else []
    assert found.sensors.tolist() == expected
    assert found.absolute.tolist() == [True] * len(expected)


def test_a_level_within_the_range_at_which_nothing_stays_is_a_new_context() -> None:
    """What moves between two levels and then stays half-way has a shape that is known in a context that is not."""
    level = (3.0 * (np.arange(ROWS) // 100 % 2) + 0.05 * _noise(ROWS))[:, None]
    stuck = 1.5 + 0.05 * _noise(200, 9)
    present = np.ones((200 - WINDOW + 1, 1), np.bool_)
    for adapts in (True, False):
        one = fit_shapes(level, _unbroken(ROWS), np.ones(1, np.bool_), adapts)
        found = shape_statistic(one, _windows(stuck), present)
        assert found.min() > 2.0 if adapts else found.max() < 1.0


def test_windows_across_a_break_are_not_used() -> None:
    """Where the history breaks, and where a reading misses, no window is learnt."""
    pieces = 40
    level = np.concatenate([_cycle(101, seed) + 50.0 * (seed % 2) for seed in range(pieces)])[:, None]
    run = np.repeat(np.arange(pieces), 101)
    level[101 * 3 + 50, 0] = np.nan
    found = fit_shapes(level, run, np.ones(1, np.bool_))
    assert found.sensors.tolist() == [0]
    assert np.isfinite(found.references).all()
    assert np.abs(found.references).max() < 5.0
    taken_for_one = fit_shapes(level, _unbroken(len(level)), np.ones(1, np.bool_))
    assert not len(taken_for_one.sensors) or np.abs(taken_for_one.references).max() > 20.0


@settings(max_examples=30, deadline=None)
@given(
    sensors=st.integers(1, 3),
    references=st.integers(1, 9),
    rows=st.integers(1, 7),
    size=st.floats(0.01, 20.0),
    absolute=st.lists(st.booleans(), min_size=3, max_size=3),
    seed=st.integers(0, 10_000),
)
def test_distances_are_those_of_every_pair(
    sensors: int, references: int, rows: int, size: float, absolute: list[bool], seed: int
) -> None:
    """The nearest distance is the least of all, pair by pair; the window's mean counts where it is absolute."""
    rng = np.random.default_rng(seed)
    keeps = np.array(absolute[:sensors])
    known = (size * rng.normal(size=(sensors, references, WINDOW))).astype(np.float32)
    known -= np.where(keeps[:, None, None], np.float32(0.0), known.mean(axis=2, keepdims=True))
    windows = (size * rng.normal(size=(rows, WINDOW, sensors)) + size).astype(np.float32)
    windows[0, :, 0] = known[0, 0] + np.float32(size)
    found = shape_distances(known, windows, keeps)
    for row in range(rows):
        for sensor in range(sensors):
            own = windows[row, :, sensor].astype(np.float64)
            own = own if keeps[sensor] else own - own.mean()
            pairs = np.sqrt(np.square(known[sensor] - own).mean(axis=1))
            assert found[row, sensor] == pytest.approx(pairs.min(), rel=1e-5, abs=1e-5 * size)


def test_a_batch_equals_one_by_one(model: ShapeModel) -> None:
    """Many windows at once have the statistics that each has alone, to a millionth, those of known shapes too."""
    level = np.stack([_cycle(700, seed) for seed in range(len(model.sensors))], axis=1)
    windows = _windows(level)
    windows[5] = model.references[:, 7].T
    present = np.ones((len(windows), len(model.sensors)), np.bool_)
    together = shape_statistic(model, windows, present)
    alone = [shape_statistic(model, windows[row : row + 1], present[:1])[0] for row in range(len(windows))]
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-6)
    assert together[5] < 1e-5


def test_a_missing_sensor_has_no_say(model: ShapeModel) -> None:
    """The statistic is that of the sensors that are there, and not a number where none is."""
    level = np.stack([_cycle(WINDOW + 1, 3), _noise(WINDOW + 1)], axis=1)
    shapes = np.zeros(2, np.bool_)
    two = ShapeModel(
        np.array([0, 1]), np.repeat(model.references[:1], 2, axis=0), np.array([0.5, 2.0]), shapes
    )
    windows = _windows(level)
    ratio = shape_distances(two.references, windows[:1], two.absolute)[0] / two.scale
    for present in ([True, True], [True, False], [False, True]):
        expected = np.sqrt(np.square(ratio[present]).mean())
        assert shape_statistic(two, windows[:1], np.array([present]))[0] == pytest.approx(expected)
    assert np.isnan(shape_statistic(two, windows[:1], np.array([[False, False]]))[0])


@pytest.mark.parametrize("rows", [0, 5, WINDOW - 1, 4 * WINDOW])
def test_too_little_history_judges_nothing(rows: int) -> None:
    """Without windows in both parts of a history no sensor is judged, and that is no fault."""
    found = fit_shapes(_cycle(rows)[:, None], _unbroken(rows), np.ones(1, np.bool_))
    assert not len(found.sensors)
    assert found.least == 1.0
    assert shape_distances(found.references, np.zeros((3, WINDOW, 0), np.float32), found.absolute).shape == (
        3,
        0,
    )
