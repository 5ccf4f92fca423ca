"""The highway and the training data it is fitted on."""

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32, Int64
from trainer.dataset import Segments, SubSequences, build_segments, mask_cells
from trainer.highway import SPANS, ewma_gain, ewma_matrix, fit_highway


def whole(values: Float32) -> Segments:
    """One segment with nothing missing."""
    return Segments(values.astype(np.float32), np.zeros(values.shape, bool), np.zeros(1, np.int64))


def regressors(values: Float32) -> Float32:
    """Phi by the recurrence, one row at a time."""
    averages = np.zeros((len(SPANS), values.shape[1]))
    rows = []
    for value in values.astype(np.float64):
        for number, span in enumerate(SPANS):
            averages[number] += ewma_gain(span) * (value - averages[number])
        rows.append(np.concatenate([value, averages.ravel(), [1.0]]))
    return np.array(rows)


def plant(rows: int, seed: int = 0) -> Float32:
    """A linear plant that the highway can express: the next sample is W phi plus a little noise."""
    rng = np.random.default_rng(seed)
    values = np.zeros((rows, 2))
    for row in range(1, rows):
        values[row] = 0.8 * values[row - 1] + 0.1 * values[row - 1, ::-1] + rng.normal(0, 1, 2)
    return values.astype(np.float32)


def test_ewma_matrix_is_the_recurrence() -> None:
    """The constant matrix gives what the step-by-step average from zero gives."""
    values = plant(50)
    expected = regressors(values)[:, 2:4]
    assert np.allclose(ewma_matrix(SPANS[0], 50) @ values, expected, atol=1e-5)


def test_fit_equals_the_textbook_solution() -> None:
    """The blockwise closed form is ridge regression over all rows beyond the warm-up."""
    values = plant(900)
    phi, target = regressors(values)[:-1], values[1:].astype(np.float64)
    penalty = np.diag([1e-3 * len(phi)] * 6 + [0.0])
    expected = np.linalg.solve(phi.T @ phi + penalty, phi.T @ target)
    assert np.allclose(fit_highway(whole(values), ridge=1e-3), expected, atol=1e-4)


def test_averages_start_anew_with_each_segment() -> None:
    """Two segments give the same weights in either order, since nothing is carried from one to the next."""
    first, second = whole(plant(300, 1)), whole(plant(400, 2))
    one = fit_highway(Segments.concatenate([first, second]))
    other = fit_highway(Segments.concatenate([second, first]))
    assert np.allclose(one, other, atol=1e-5)


def test_missing_targets_do_not_count() -> None:
    """A row whose target was not measured leaves the fit untouched by the held value."""
    values = plant(500)
    spoiled = whole(values.copy())
    spoiled.values[499] = 1e6
    spoiled.missing[499, 0] = True
    assert np.allclose(fit_highway(spoiled), fit_highway(whole(values[:499])), atol=1e-6)


def test_short_history_still_gives_a_highway() -> None:
    """A history of a few dozen rows is enough; two horizons double the columns."""
    assert fit_highway(whole(plant(40)), horizons=2).shape == (7, 4)


def test_one_sample_is_refused() -> None:
    """A history without two samples in a row is refused in one line."""
    with pytest.raises(HistoryError, match="no two samples"):
        fit_highway(whole(plant(1)))


def test_long_gaps_split_short_gaps_do_not_and_missing_cells_are_held() -> None:
    """A jump over the limit begins a segment, a smaller one adds no row; a missing cell holds the last value."""
    ticks: Int64 = np.array([10, 11, 13, 90, 91])
    values = np.array([[2.0], [4.0], [np.nan], [np.nan], [6.0]], np.float32)
    segments = build_segments(ticks, values, np.array([2.0]), np.array([2.0]), max_gap_ticks=3)
    assert segments.values.ravel().tolist() == [0, 1, 1, 0, 2]
    assert segments.missing.ravel().tolist() == [False, False, True, True, False]
    assert list(segments.bounds()) == [(0, 3), (3, 5)]


def test_rows_of_segments_keep_the_splits_inside() -> None:
    """A cut through segments keeps the beginnings inside it and makes its first row one."""
    segments = Segments(plant(10), np.zeros((10, 2), bool), np.array([0, 4, 8]))
    assert segments.rows(2, 8).starts.tolist() == [0, 2]


def test_sub_sequences_never_cross_a_segment() -> None:
    """Every sub-sequence with its targets lies inside one segment, and all of them are counted."""
    values = np.repeat(np.arange(3.0), [10, 4, 7])[:, None].astype(np.float32)
    segments = Segments(values, np.zeros(values.shape, bool), np.array([0, 10, 14]))
    source = SubSequences(segments, length=4, horizons=2)
    numbers = np.arange(len(source))
    assert source.start_rows(numbers).tolist() == [0, 1, 2, 3, 4, 14, 15]
    inputs, (targets, weights) = source.inputs(numbers), source.targets(numbers)
    assert inputs.shape == (7, 4, 2)
    assert targets.shape == weights.shape == (7, 4, 2)
    assert (np.ptp(np.concatenate([inputs[:, :, 0], targets[:, :, 0]], axis=1), axis=1) == 0).all()


def test_targets_are_the_samples_after_each_step() -> None:
    """The target of step t at horizon h is the sample t + h, and a missing one weighs nothing."""
    segments = whole(np.arange(12, dtype=np.float32)[:, None])
    segments.missing[6] = True
    targets, weights = SubSequences(segments, length=4, horizons=2).targets(np.array([3]))
    assert targets[0].tolist() == [[4, 5], [5, 6], [6, 7], [7, 8]]
    assert weights[0].tolist() == [[1, 1], [1, 0], [0, 1], [1, 1]]


def test_too_short_stretch_is_refused() -> None:
    """A history shorter than window and horizon is refused and says what it needs."""
    with pytest.raises(HistoryError, match="has 5 samples, training needs at least 6"):
        SubSequences(whole(plant(5)), length=5, horizons=1)


def test_hidden_cells_hold_the_row_before() -> None:
    """A hidden cell carries the value before it and a mask of one; the others are untouched."""
    inputs = np.concatenate([plant(200)[None], np.zeros((1, 200, 2), np.float32)], axis=2)
    masked = mask_cells(inputs, 0.3, np.random.default_rng(0))
    hidden = masked[0, :, 2:] == 1
    assert 0.2 < hidden.mean() < 0.4
    assert not hidden[0].any()
    assert (masked[0, 1:, :2][hidden[1:]] == masked[0, :-1, :2][hidden[1:]]).all()
    assert (masked[0, :, :2][~hidden] == inputs[0, :, :2][~hidden]).all()
