"""Laws of the walk-forward folds: nothing that was fitted on is later than what is judged, nor within the gap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Int64
from trainer.cleaning import Cleaned, Series
from trainer.walk_forward import SCHEMES, walk_forward


def _cleaned(ticks: list[Int64]) -> Cleaned:
    series = tuple(
        Series(f"pump-{number}", one, one[:, None].astype(np.float32), (one % 2).astype(np.int8))
        for number, one in enumerate(ticks)
    )
    return Cleaned(("flow",), 1.0, 0.0, series, {}, (), (), sum(len(one.ticks) for one in series))


@st.composite
def histories(draw: st.DrawFn) -> Cleaned:
    """One to three assets with gaps, that begin and end at different times."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ticks = []
    for _ in range(draw(st.integers(1, 3))):
        first, count = rng.integers(0, 80), rng.integers(150, 300)
        ticks.append(np.flatnonzero(rng.random(count) < 0.9) + first)
    return _cleaned(ticks)


@given(histories(), st.integers(2, 5), st.integers(1, 12), st.sampled_from(SCHEMES))
def test_what_is_judged_is_new(cleaned: Cleaned, folds: int, gap: int, scheme: str) -> None:
    """Each fold's training ends at least a gap before its test block at every asset, and test blocks do not overlap."""
    every = np.unique(np.concatenate([one.ticks for one in cleaned.series]))
    found = list(walk_forward(cleaned, folds, gap, scheme))
    assert [fold.number for fold in found] == list(range(1, folds + 1))
    judged: list[int] = []
    for fold in found:
        last = max(int(one.ticks[-1]) for one in fold.train.series)
        between = every[(every > last) & (every < fold.first_tick)]
        assert len(between) >= gap
        block = np.unique(np.concatenate([one.ticks for one in fold.test.series]))
        judged += block[block >= fold.first_tick].tolist()
    assert judged == sorted(set(judged))
    assert judged == every[-len(judged) :].tolist()


@given(histories(), st.integers(2, 4))
def test_rolling_folds_are_fitted_on_equally_many_ticks(cleaned: Cleaned, folds: int) -> None:
    """Rolling folds have as many training ticks each, expanding ones more and more."""

    def counts(scheme: str) -> list[int]:
        return [
            len(np.unique(np.concatenate([one.ticks for one in fold.train.series])))
            for fold in walk_forward(cleaned, folds, 5, scheme)
        ]

    assert len(set(counts("rolling"))) == 1
    assert counts("expanding") == sorted(set(counts("expanding")))


def test_every_array_of_a_series_is_cut_alike() -> None:
    """Ticks, values and labels of a fold stay row by row what they were."""
    (fold, *_) = walk_forward(_cleaned([np.arange(100)]), 2, 3, "expanding")
    (series,) = fold.test.series
    assert series.labels is not None
    np.testing.assert_array_equal(series.values[:, 0], series.ticks)
    np.testing.assert_array_equal(series.labels, series.ticks % 2)


def test_a_history_too_short_for_its_folds_is_refused() -> None:
    """Folds that could not hold two windows are refused with what would help."""
    with pytest.raises(HistoryError, match="fewer --folds"):
        list(walk_forward(_cleaned([np.arange(60)]), 5, 8, "expanding"))
