"""Laws of injected faults: what they touch, how large they are, and where they never are."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from tests.tiny_machine import SENSORS, normal_values
from trainer.cleaning import Cleaned, Series
from trainer.injection import FAULT_ROWS, KINDS, SIZES, Ground, InjectedFault, inject_faults

WARM = 100


def _cleaned(rows: int, seed: int, first: int = 0) -> Cleaned:
    series = Series("p1", first + np.arange(rows), normal_values(rows, seed), None)
    return Cleaned(SENSORS, 1.0, 0.0, (series,), {}, (), (), rows)


PAST, BLOCK = _cleaned(800, 1), _cleaned(600, 2, 800)


def _ground(block: Cleaned = BLOCK) -> Ground:
    return Ground(block, np.arange(3), tuple(np.zeros(len(one.ticks), np.bool_) for one in block.series))


def _drawn(block: Cleaned = BLOCK, seed: int = 0) -> list[InjectedFault]:
    return inject_faults(PAST, _ground(block), 4, WARM, 60, seed)


def _sound(
    fault: InjectedFault, block: Cleaned = BLOCK
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    (series,) = block.series
    return series.values[np.searchsorted(series.ticks, fault.ticks)]


def test_a_fault_touches_one_sensor_after_its_start() -> None:
    """Rows before a fault and all other sensors are as they were; each kind is drawn as often."""
    drawn = _drawn()
    assert [fault.kind for fault in drawn] == [kind for kind in KINDS for _ in range(4)]
    for fault in drawn:
        touched = fault.values != _sound(fault)
        assert not touched[:WARM].any()
        assert set(np.flatnonzero(touched.any(axis=0))) == {fault.sensor}
        assert len(fault.ticks) == WARM + FAULT_ROWS
        assert SIZES[0] <= fault.size <= SIZES[1]


def test_each_kind_is_what_it_says() -> None:
    """An offset is constant, a drift grows evenly, a stuck sensor repeats itself, a scaled one swings wider."""
    spread, centre = PAST.series[0].values.std(axis=0), np.median(PAST.series[0].values, axis=0)
    for fault in _drawn():
        after = fault.values[WARM:, fault.sensor].astype(np.float64)
        added = after - _sound(fault)[WARM:, fault.sensor]
        height = fault.size * spread[fault.sensor]
        if fault.kind == "offset":
            np.testing.assert_allclose(np.abs(added), height, rtol=1e-3)
        elif fault.kind == "drift":
            np.testing.assert_allclose(
                np.abs(added), height * np.arange(1, FAULT_ROWS + 1) / FAULT_ROWS, atol=1e-3
            )
        elif fault.kind == "stuck":
            assert set(after) == {float(fault.values[WARM - 1, fault.sensor])}
        elif fault.kind == "noise":
            assert 0.7 < added.std() / (height / 2) < 1.3
        elif fault.kind == "scale":
            before = _sound(fault)[WARM:, fault.sensor] - centre[fault.sensor]
            np.testing.assert_allclose(
                after - centre[fault.sensor], (1 + fault.size) * before, rtol=1e-2, atol=1e-2
            )
        else:
            assert np.isin(after.astype(np.float32), BLOCK.series[0].values[:, fault.sensor]).all()


def test_the_same_seed_draws_the_same_faults() -> None:
    """All that are compared meet the same faults; another seed draws others."""
    one, same, other = _drawn(), _drawn(), _drawn(seed=1)
    assert all(np.array_equal(a.values, b.values) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a.values, b.values) for a, b in zip(one, other, strict=True))


def test_labelled_rows_and_long_gaps_are_left_alone() -> None:
    """No fault lies in rows that are labelled, or over a gap after which the forecaster starts over."""
    (series,) = BLOCK.series
    labels = np.zeros(600, np.int8)
    labels[250:260] = 1
    ticks = series.ticks + np.where(np.arange(600) >= 520, 1000, 0)
    block = replace(BLOCK, series=(replace(series, ticks=ticks, labels=labels),))
    for fault in _drawn(block):
        rows = np.searchsorted(ticks, fault.ticks)
        assert not labels[rows].any()
        assert (np.diff(fault.ticks) == 1).all()


def test_a_block_without_room_is_refused() -> None:
    """A block shorter than a fault and its warm-up is refused, and so is a history in which nothing moves."""
    with pytest.raises(HistoryError, match="no 220 unlabelled samples in a row"):
        _drawn(_cleaned(200, 3, 800))
    still = replace(PAST, series=(replace(PAST.series[0], values=np.ones((800, 3), np.float32)),))
    with pytest.raises(HistoryError, match="no sensor moves"):
        inject_faults(still, _ground(), 1, WARM, 60, 0)


def test_what_is_not_judged_does_not_fail() -> None:
    """Faults are those of the sensors that are forecast, and none lasts into rows of a machine that rests."""
    resting = np.zeros(600, np.bool_)
    resting[:150], resting[400:] = True, True
    ground = Ground(BLOCK, np.array([0, 2]), (resting,))
    drawn = inject_faults(PAST, ground, 8, WARM, 60, 0)
    assert {fault.sensor for fault in drawn} == {0, 2}
    for fault in drawn:
        assert not resting[np.searchsorted(BLOCK.series[0].ticks, fault.ticks[WARM:])].any()
    assert any(resting[fault.ticks[0] - 800] for fault in drawn)
    with pytest.raises(HistoryError, match="in a row, the last of them while the machine runs, in the block"):
        inject_faults(PAST, replace(ground, resting=(np.arange(600) % 100 == 0,)), 1, WARM, 60, 0)
