"""Laws of onsets: an abrupt change is told within samples, inside a long alarm too, and noise is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.ewma import smoothing
from edge_agent.contract.onset import REST, OnsetState, follow_onsets, look_ahead
from edge_agent.contract.types import Bool, Float64, Int64

ONE = np.array([0])
NEVER = np.zeros(1, np.bool_)
USUAL = 0.5
SENSORS = 8
"""As SKAB has. Distances of two or four sensors scatter more, and so do their onsets."""


def _noise(strength: Float64, seed: int = 0) -> Float64:
    """Return what the detector makes of white residuals of eight sensors times a strength (n,)."""
    rows = np.random.default_rng(seed).normal(size=(len(strength) + 3000, SENSORS))
    rows[3000:] *= strength[:, None]
    average, a, distance = np.zeros(SENSORS), smoothing([5])[0], np.empty((len(rows), 2))
    for number, row in enumerate(rows):
        average += a * (row - average)
        distance[number] = np.square(row).mean(), np.square(average).mean()
    ratio = np.sqrt(distance / np.quantile(distance[:3000], 0.99, axis=0))
    return np.asarray(np.sqrt(ratio[3000:].prod(axis=1)))


def _onsets(residual: Float64, started: Bool | None = None) -> Int64:
    """Return the rows that are onsets."""
    state, log = OnsetState.zero(1), np.log(residual)
    started = np.zeros(len(residual), np.bool_) if started is None else started
    found = [
        follow_onsets(state, ONE, log[row : row + 1], started[row : row + 1])[0]
        for row in range(len(residual))
    ]
    return np.flatnonzero(found)


@pytest.mark.parametrize("seed", range(10))
def test_a_step_is_an_onset_at_once(seed: int) -> None:
    """Residuals four times as large are an onset within three samples, and the first one near it."""
    residual = _noise(np.r_[np.ones(600), np.full(100, 4.0)], seed)
    found = [row for row in _onsets(residual) if row >= 540]
    assert 600 <= found[0] <= 602


@pytest.mark.parametrize("seed", range(10))
def test_a_second_change_inside_a_long_alarm_is_told(seed: int) -> None:
    """An alarm that lasts has residuals that are always large; when they rise again, that is an onset."""
    residual = _noise(np.repeat([1.0, 4.0, 12.0], [300, 700, 100]), seed)
    started = np.zeros(len(residual), np.bool_)
    started[302] = True
    found = _onsets(residual, started)
    assert [row for row in found if 1000 <= row <= 1003]
    assert len([row for row in found if 303 <= row < 1000]) <= 3


def test_stationary_noise_has_few() -> None:
    """In twenty thousand samples of normal residuals there are at most two onsets."""
    assert len(_onsets(_noise(np.ones(20_000), 3))) <= 2


def test_a_slow_rise_is_no_onset() -> None:
    """What grows by a hundredth of its size in ten samples is the state, which the score tells of."""
    rise = np.exp(np.linspace(0.0, 3.0, 3000))
    assert not len(_onsets(USUAL * rise))


def test_quiet_that_ends_is_no_onset() -> None:
    """A machine that stood still and goes on as ever has no onset, however great the ratio to silence is."""
    residual = np.full(1000, USUAL)
    residual[300:600] = 1e-9
    assert not len(_onsets(residual))


def test_the_start_of_an_alarm_tells_the_same_change() -> None:
    """Where an alarm starts with the change there is no onset beside it, nor within a rest after it."""
    residual = _noise(np.repeat([1.0, 4.0], [200, 300]), 1)
    told = min(row for row in _onsets(residual) if row >= 200)
    started = np.zeros(500, np.bool_)
    started[told] = True
    assert not [row for row in _onsets(residual, started) if 200 <= row < told + REST]


def test_one_change_is_one_onset_and_the_next_is_told_after_a_rest() -> None:
    """Two changes closer than a rest are one onset; farther apart, with quiet between, they are two."""

    def twice(pause: int) -> int:
        residual = np.full(2000, USUAL)
        residual[500:520] = 4.0
        residual[500 + pause : 520 + pause] = 4.0
        return len(_onsets(residual))

    assert twice(REST // 2) == 1
    assert twice(10 * REST) == 2


def test_a_batch_equals_one_by_one() -> None:
    """Assets in any mixture have the onsets and the states that each has alone."""
    rng = np.random.default_rng(2)
    log = np.log(np.stack([_noise(np.ones(600), seed) for seed in range(5)], axis=1))
    log[300:, 1:4] += np.log(5.0)
    started = rng.random((600, 5)) < 0.005
    together, alone = OnsetState.zero(5), [OnsetState.zero(1) for _ in range(5)]
    count = 0
    for row in range(600):
        assets = rng.permutation(5)[: rng.integers(1, 6)]
        found = follow_onsets(together, assets, log[row, assets], started[row, assets])
        count += int(found.sum())
        for asset, onset in zip(assets, found, strict=True):
            one = log[row, asset : asset + 1], started[row, asset : asset + 1]
            assert follow_onsets(alone[asset], ONE, *one)[0] == onset
    assert count >= 3
    for asset in range(5):
        for name in ("fast", "slow", "rest", "low"):
            np.testing.assert_array_equal(getattr(together, name)[asset], getattr(alone[asset], name)[0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), size=st.integers(1, 200))
def test_looking_ahead_finds_the_first_onset(seed: int, size: int) -> None:
    """Ticks that are passed by together up to the first onset leave the states and onsets of one after the other."""
    log = np.log(_noise(np.repeat([1.0, 5.0, 1.0, 6.0], 150), seed))
    single, many = OnsetState.zero(1), OnsetState.zero(1)
    expected = [row for row in range(len(log)) if follow_onsets(single, ONE, log[row : row + 1], NEVER)[0]]
    found, at = [], 0
    while at < len(log):
        ahead = look_ahead(many, ONE, log[None, at : at + size])
        clear = int(ahead.onset[0].argmax()) if ahead.onset.any() else ahead.onset.shape[1]
        if clear:
            ahead.pass_by(many, ONE, clear)
            at += clear
        else:
            assert follow_onsets(many, ONE, log[at : at + 1], NEVER)[0]
            found.append(at)
            at += 1
    assert found == expected
    for name in ("fast", "slow", "rest", "low"):
        np.testing.assert_allclose(getattr(many, name), getattr(single, name), atol=1e-12)


def test_nothing_is_an_onset_before_anything_is_known() -> None:
    """The first samples are no onset, however large; a change after the rest is."""
    assert not len(_onsets(np.full(REST - 1, 10.0)))
    assert not follow_onsets(OnsetState.zero(1), ONE, np.array([20.0]), NEVER)[0]
