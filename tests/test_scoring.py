"""Laws of scaling, averages, distances and the score's attribution."""

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.ewma import LONGEST, Smoother, deviation
from edge_agent.contract.mahalanobis import Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.novelty import NearestCentre, find_centres
from edge_agent.contract.range_guard import EXCESS_BOUND, range_excess, range_margin
from edge_agent.contract.scaling import fit_scaling
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_averages import BIAS_BOUND, BIAS_TICKS
from edge_agent.contract.scoring_model import NOTHING_USUAL, ScoringModel, fit_scoring
from edge_agent.contract.scoring_state import ScoringState
from edge_agent.contract.types import Bool, Float32, Float64

WIDTH = 4
SPANS = (1, 5, 15)
MIX = np.random.default_rng(9).normal(size=(WIDTH, WIDTH))


def _normal(count: int, seed: int) -> Float64:
    """Return correlated rows (n, F) with variance about 1."""
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)) @ MIX
    return np.asarray(rows / np.linalg.norm(MIX, axis=0))


@pytest.fixture(scope="module")
def model() -> ScoringModel:
    """Return a model learnt from correlated normal residuals and levels."""
    level = _normal(600, 1)
    judged = np.ones(WIDTH, np.bool_)
    return fit_scoring(0.3 * _normal(600, 2), level, judged, level.min(axis=0), level.max(axis=0), SPANS)


def _walk(scorer: Scorer, residual: Float64, level: Float64, present: Bool) -> ScoringState:
    """Return the state of one asset after rows (n, F), from nothing."""
    state = ScoringState.zero(1, scorer.model)
    scorer.averages.follow(state, residual[None], level[None], present[None], np.arange(len(residual))[None])
    return state


def _with(level: Float64, filler: float) -> Float32:
    """Return levels with something in place of the third sensor's."""
    filled = level.astype(np.float32)
    filled[:, 2] = filler
    return filled


def _fused(scorer: Scorer, statistics: Float64) -> Float64:
    """Return the fused statistic where everything is as usual as in the history and no range is left."""
    return scorer.fuse(scorer.aspects(statistics, np.zeros(len(statistics))), NOTHING_USUAL)


@settings(max_examples=60, deadline=None)
@given(pattern=st.lists(st.booleans(), min_size=WIDTH, max_size=WIDTH).filter(any), seed=st.integers(0, 99))
def test_missing_sensors_give_the_marginal_distance(pattern: list[bool], seed: int) -> None:
    """With sensors missing, the distance is that of the others' own distribution, whatever stands in the cells."""
    correlation = shrunk_correlation(_normal(500, 3))
    z = np.random.default_rng(seed).normal(size=(1, 2, WIDTH))
    seen = np.flatnonzero(pattern)
    found = Mahalanobis(correlation).distance(z, np.array([pattern]))
    marginal = np.linalg.inv(correlation[np.ix_(seen, seen)])
    square = np.einsum("nsi,ij,nsj->ns", z[:, :, seen], marginal, z[:, :, seen]) * WIDTH / len(seen)
    np.testing.assert_allclose(found, np.sqrt(square), rtol=1e-9)


def test_what_is_missing_is_expected_from_the_others_by_regression() -> None:
    """In place of a missing sensor stands the least-squares guess by the others, and readings stay as they are."""
    rows = _normal(4000, 3)
    correlation, seen = np.asarray(np.corrcoef(rows, rowvar=False)), np.array([True, False, True, True])
    z = rows / rows.std(axis=0)
    found = Mahalanobis(correlation).expected(z[:, None], np.tile(seen, (len(z), 1)))[:, 0]
    centred = z - z.mean(axis=0)
    weights = np.linalg.lstsq(centred[:, seen], centred[:, 1], rcond=None)[0]
    np.testing.assert_allclose(found[:, 1], z[:, seen] @ weights, atol=1e-8)
    np.testing.assert_array_equal(found[:, seen], z[:, seen])


def test_contributions_sum_to_the_squared_distance() -> None:
    """The sensors' parts of a distance add up to its square."""
    space = Mahalanobis(shrunk_correlation(_normal(500, 3)))
    z, present = np.random.default_rng(4).normal(size=(6, 3, WIDTH)), np.ones((6, WIDTH), np.bool_)
    np.testing.assert_allclose(
        space.contributions(z, present).sum(axis=2), space.distance(z, present) ** 2, rtol=1e-9
    )


def test_remembering_inverses_changes_nothing() -> None:
    """Many more masks than are remembered give the distances of a fresh object."""
    width = 9
    rows = np.random.default_rng(5).normal(size=(400, width))
    old = Mahalanobis(shrunk_correlation(rows))
    z = rows[:, None, :]
    masks = np.array([[bool(number >> bit & 1) for bit in range(width)] for number in range(1, 401)])
    first = old.distance(z, masks)
    np.testing.assert_array_equal(old.distance(z, masks), first)


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_a_shrunk_correlation_is_always_positive_definite(count: int) -> None:
    """Few rows, equal columns and missing cells still give a matrix that can be inverted."""
    rows = _normal(count, 6)
    rows[:, 1] = rows[:, 0]
    rows[0, 2] = np.nan
    assert np.linalg.eigvalsh(shrunk_correlation(rows)).min() > 0.0


def test_averages_start_at_zero_and_skip_missing_cells() -> None:
    """An average begins at zero, follows its recursion, and stands still where a cell is missing."""
    smoother = Smoother([1, 3])
    first = smoother.follow(np.zeros((1, 2, 2)), np.array([[[4.0, 8.0]]]))[:, 0]
    assert first.tolist() == [[[4.0, 8.0], [2.0, 4.0]]]
    second = smoother.follow(first, np.array([[[0.0, np.nan]]]), np.array([[[True, False]]]))[:, 0]
    assert second.tolist() == [[[0.0, 8.0], [1.0, 4.0]]]


@settings(max_examples=40, deadline=None)
@given(ticks=st.integers(1, 2 * LONGEST + 5), share=st.sampled_from([0.0, 0.3, 0.9]), seed=st.integers(0, 99))
def test_averages_of_many_ticks_are_those_of_one_after_the_other(ticks: int, share: float, seed: int) -> None:
    """However many ticks are taken at once, with cells missing or not, each average is that of its recursion."""
    rng, spans = np.random.default_rng(seed), (1, 5, 60)
    value, present = rng.normal(size=(2, ticks, 3)), rng.random((2, ticks, 3)) >= share
    start = rng.normal(size=(2, len(spans), 3))
    found = Smoother(spans).follow(start, value, present)
    average, a = start, 2.0 / (np.array(spans) + 1.0)[:, None]
    for tick in range(ticks):
        moved = average + a * (value[:, tick, None] - average)
        average = np.where(present[:, tick, None], moved, average)
        np.testing.assert_allclose(found[:, tick], average, atol=1e-12)


def test_the_deviation_of_an_average_of_white_noise() -> None:
    """The average of white noise has the standard deviation that the statistics divide by."""
    noise = np.random.default_rng(0).normal(size=(1, 500, 400))
    average = Smoother([5, 15]).follow(np.zeros((1, 2, 400)), noise)[0, -1]
    np.testing.assert_allclose(average.std(axis=1), deviation([5, 15]), rtol=0.1)


def test_shares_sum_to_one_and_name_the_culprit(model: ScoringModel) -> None:
    """Shares are never negative, sum to 1, and the sensor that deviates alone has the largest."""
    scorer, present = Scorer(model), np.ones((40, WIDTH), np.bool_)
    for sensor in range(WIDTH):
        residual, level = 0.3 * _normal(40, 7), _normal(40, 8)
        residual[-10:, sensor] += 2.0
        level[-10:, sensor] += 8.0
        shares = scorer.shares(_walk(scorer, residual, level, present), present[:1])
        assert shares.min() >= 0.0
        assert shares.sum() == pytest.approx(1.0)
        assert shares.argmax() == sensor


def test_a_missing_sensor_has_no_share(model: ScoringModel) -> None:
    """What was not read carries no blame while it stays within its range."""
    scorer, present = Scorer(model), np.ones((30, WIDTH), np.bool_)
    present[:, 2] = False
    shares = scorer.shares(_walk(scorer, 0.3 * _normal(30, 7), 0.2 * _normal(30, 8), present), present[:1])
    assert shares[0, 2] == 0.0
    assert shares.sum() == pytest.approx(1.0)


def test_a_batch_equals_one_by_one(model: ScoringModel) -> None:
    """Assets scored together have the statistics, fused statistics, guards and shares that each has alone."""
    scorer, rng = Scorer(model), np.random.default_rng(3)
    residual, level = rng.normal(size=(20, 7, WIDTH)), rng.normal(size=(20, 7, WIDTH))
    present = rng.random((20, 7, WIDTH)) > 0.2
    state = ScoringState.zero(7, model)
    for row in range(20):
        tick = np.full((7, 1), row)
        scorer.averages.follow(
            state, residual[row][:, None], level[row][:, None], present[row][:, None], tick
        )
    together = scorer.statistics(state, present[-1])
    guarded = np.ones(WIDTH, np.bool_)
    for asset in range(7):
        alone = _walk(scorer, residual[:, asset], level[:, asset], present[:, asset])
        seen = present[-1, asset : asset + 1]
        np.testing.assert_allclose(scorer.statistics(alone, seen)[0], together[asset], rtol=1e-9)
        np.testing.assert_allclose(scorer.guard(alone, guarded)[0], scorer.guard(state, guarded)[asset])
        np.testing.assert_allclose(
            scorer.shares(alone, seen)[0], scorer.shares(state, present[-1])[asset], atol=1e-9
        )
        np.testing.assert_allclose(
            scorer.expected_level(alone)[0], scorer.expected_level(state)[asset], atol=1e-9
        )


def test_what_stands_in_a_missing_cell_is_not_used(model: ScoringModel) -> None:
    """Not-a-number and any number in a missing cell give the same statistics."""
    scorer, present = Scorer(model), np.random.default_rng(1).random((25, WIDTH)) > 0.3
    present[-1] = [True, False, True, True]
    results = []
    for filler in (np.nan, 1e6):
        residual = np.where(present, _normal(25, 5), filler)
        level = np.where(present, _normal(25, 6), filler)
        state = _walk(scorer, residual, level, present)
        results.append(_fused(scorer, scorer.statistics(state, present[-1:])))
        assert np.isfinite(results[-1]).all()
    np.testing.assert_array_equal(results[0], results[1])


def test_one_statistic_alone_cannot_double_the_fused_one(model: ScoringModel) -> None:
    """The fused statistic is a log-mean: its weights sum to 1, and one large statistic moves it by its weight."""
    scorer = Scorer(model)
    ordinary = np.ones((1, 2 * len(SPANS) + 5))
    assert _fused(scorer, ordinary)[0] == pytest.approx(1.0)
    assert _fused(scorer, 10 * ordinary)[0] == pytest.approx(10.0)
    loud = ordinary.copy()
    loud[0, 0] = 20.0
    assert 1.0 < _fused(scorer, loud)[0] < 2.0


def test_normalisers_divide_the_statistics(model: ScoringModel) -> None:
    """A statistic at its own normaliser counts as 1."""
    scales = np.linspace(0.5, 3.0, 2 * len(SPANS) + 5)
    assert _fused(Scorer(model.normalised(scales)), scales[None])[0] == pytest.approx(1.0)


def test_a_sensor_that_is_not_judged_is_only_guarded(model: ScoringModel) -> None:
    """A constant sensor moves no distance, but leaving its range raises the guard."""
    judged = np.array([True, True, True, False])
    scorer, present = Scorer(replace(model, judged=judged)), np.ones((20, WIDTH), np.bool_)
    residual, level = 0.3 * _normal(20, 7), 0.3 * _normal(20, 8)
    away = level.copy()
    away[-8:, 3] = 50.0
    calm, moved = (_walk(scorer, residual, one, present) for one in (level, away))
    one = present[:1]
    np.testing.assert_array_equal(scorer.statistics(moved, one), scorer.statistics(calm, one))
    assert scorer.guard(calm, ~judged)[0] == 0.0
    assert scorer.guard(moved, ~judged)[0] > 1.0
    assert scorer.shares(moved, one).argmax() == 3


def test_the_range_guard_counts_margins() -> None:
    """Excess is zero inside the range, one at a margin outside, bounded, and a constant sensor has its scale."""
    low, high = np.array([0.0, 5.0]), np.array([10.0, 5.0])
    margin = range_margin(low, high)
    assert margin.tolist() == [0.5, 1.0]
    scaled = np.array([[10.0, 5.0], [10.5, 4.0], [-1.0, 1e9]])
    assert range_excess(scaled, low, high, margin).tolist() == [[0, 0], [1, 1], [2, EXCESS_BOUND]]


def test_novelty_is_zero_at_a_centre_and_ignores_missing_dimensions() -> None:
    """The distance to the nearest centre uses the present dimensions only and is their root mean square."""
    centres = np.array([[0.0, 0.0], [10.0, 10.0]])
    state = np.array([[10.0, 10.0], [13.0, 10.0], [3.0, 77.0]])
    present = np.array([[True, True], [True, True], [True, False]])
    space = NearestCentre(centres, np.ones(2, np.bool_))
    np.testing.assert_allclose(space.distance(state, present), [0.0, np.sqrt(4.5), 3.0], atol=1e-9)
    np.testing.assert_allclose(space.distance(state[:2]), [0.0, np.sqrt(4.5)], atol=1e-7)
    first = NearestCentre(centres, np.array([True, False]))
    np.testing.assert_allclose(first.distance(state), [0.0, 3.0, 3.0], atol=1e-7)


def test_centres_find_separate_groups_and_are_reproducible() -> None:
    """Well separated groups each get a centre, and the same states give the same centres."""
    rng = np.random.default_rng(0)
    groups = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    states = np.concatenate([group + rng.normal(size=(40, 2)) for group in groups])
    centres = find_centres(states)
    np.testing.assert_array_equal(centres, find_centres(states))
    assert NearestCentre(centres, np.ones(2, np.bool_)).distance(groups).max() < 1.5
    assert find_centres(np.zeros((100, 2))).shape[1] == 2


def test_a_bounded_deviation_never_exceeds_eight() -> None:
    """Small deviations pass unchanged and huge ones end at 8."""
    np.testing.assert_allclose(bounded(np.array([0.1, -0.1])), [0.1, -0.1], rtol=1e-3)
    assert np.abs(bounded(np.array([1e9, -1e9]))).max() <= 8.0


def test_scaling_has_a_floor_and_knows_constant_sensors() -> None:
    """A sensor that never moves keeps a usable scale, and inverting gives the values back."""
    values = np.array([[1.0, 500.0], [3.0, 500.0], [np.nan, 500.0]], np.float32)
    scaling = fit_scaling(values)
    assert scaling.constant.tolist() == [False, True]
    assert scaling.scale.tolist() == [1.0, 5.0]
    np.testing.assert_allclose(scaling.invert(scaling.apply(values)), values, rtol=1e-6)


def _bias(model: ScoringModel, deviations: Float64) -> Float64:
    """Return what one sensor's bias is after each of its level's deviations, in standard deviations."""
    scorer, state = Scorer(model), ScoringState.zero(1, model)
    level = np.tile(model.level_centre, (1, len(deviations), 1))
    level[0, :, 0] += model.level_scale[0] * deviations
    residual = np.broadcast_to(model.residual_centre, level.shape)
    return scorer.averages.follow(state, residual, level, None, np.arange(len(deviations))[None]).bias[:, 0]


def test_slow_drift_is_followed_within_a_bound(model: ScoringModel) -> None:
    """A level that drifts slowly becomes normal, up to a bound, and the other sensors keep theirs."""
    drift = np.linspace(0.0, 12.0, 6000)
    bias = _bias(model, drift)
    assert np.abs(bias[:1000, 0] - drift[:1000]).max() < 0.5
    assert bias[:, 0].max() == 3.0
    np.testing.assert_allclose(bias[:, 1:], 0.0, atol=1e-6)


def test_a_fault_is_not_learnt(model: ScoringModel) -> None:
    """A level that jumps away stays news however long it lasts."""
    bias = _bias(model, np.r_[np.zeros(50), np.full(3000, 6.0)])
    assert np.abs(bias).max() < 0.5


def _offset(model: ScoringModel, deviations: Float64, level: float = 0.0, taught: bool = True) -> Float64:
    """Return the offsets (n, F) before each of one sensor's residuals, whose level is so many deviations away."""
    scorer, state, found = Scorer(model), ScoringState.zero(1, model), []
    away = np.tile(model.level_centre + np.eye(WIDTH)[0] * level * model.level_scale, (1, BIAS_TICKS, 1))
    for first in range(0, len(deviations), BIAS_TICKS):
        missed = deviations[first : first + BIAS_TICKS, None] * np.eye(WIDTH)[0]
        residual, tick = (
            model.residual_centre + missed * model.residual_scale,
            np.arange(first, first + len(missed)),
        )
        scorer.averages.follow(
            state, residual[None], away[:, : len(missed)], None, tick[None], np.array([taught])
        )
        found += [state.offset[0, 0].copy()] * len(missed)
    return np.asarray(found)


def test_a_forecast_that_is_slowly_off_is_corrected(model: ScoringModel) -> None:
    """An error that grows slowly, as where a sensor wanders, is taken from its residuals and from no others."""
    drift = np.linspace(0.0, 2.0, 4000)
    offset = _offset(model, drift)
    assert np.abs(offset[:, 0] - drift).max() < 0.2
    np.testing.assert_allclose(offset[:, 1:], 0.0, atol=1e-6)


def test_a_sensor_alone_has_no_offset(model: ScoringModel) -> None:
    """What is forecast from itself alone is not corrected; its level's bias is learnt as ever."""
    alone = replace(model, judged=np.arange(WIDTH) == 0)
    scorer, state = Scorer(alone), ScoringState.zero(1, alone)
    off = np.tile(model.residual_centre + 0.3 * model.residual_scale, (1, 5 * BIAS_TICKS, 1))
    level = np.tile(model.level_centre + 0.3 * model.level_scale, (1, 5 * BIAS_TICKS, 1))
    scorer.averages.follow(state, off, level, None, np.arange(5 * BIAS_TICKS)[None])
    assert not state.offset.any()
    assert state.bias[0, 0, 0] > 0.1


def test_an_error_that_a_stretch_begins_with_is_corrected_in_the_end(model: ScoringModel) -> None:
    """A constant error within twice the residuals' deviation is learnt, beyond the gate slowly at first."""
    offset = _offset(model, np.full(100 * BIAS_TICKS, 1.5))[:, 0]
    assert offset[5 * BIAS_TICKS] < 0.5
    assert offset[-1] == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(("jump", "level"), [(3.0, 0.0), (0.5, 6.0)])
def test_a_fault_is_no_offset(model: ScoringModel, jump: float, level: float) -> None:
    """A forecast that is suddenly far off, or a little while the level is far away, teaches next to nothing."""
    offset = _offset(model, np.r_[np.zeros(50), np.full(1000, jump)], level)
    assert np.abs(offset).max() < 0.15 * jump


def test_the_offset_is_bounded(model: ScoringModel) -> None:
    """However far the forecasts drift off, only so much is taken away; what was accepted beyond it stays accepted."""
    assert _offset(model, np.linspace(0.0, 12.0, 12000))[:, 0].max() == BIAS_BOUND
    scorer, state = Scorer(model), ScoringState.zero(1, model)
    state.offset[0, 0, 0] = 2.0 * BIAS_BOUND
    missed = model.residual_centre + 2.5 * BIAS_BOUND * np.eye(WIDTH)[0] * model.residual_scale
    level = np.broadcast_to(model.level_centre, (1, 3 * BIAS_TICKS, WIDTH))
    scorer.averages.follow(
        state, np.broadcast_to(missed, level.shape), level, None, np.arange(3 * BIAS_TICKS)[None]
    )
    assert state.offset[0, 0, 0] == 2.0 * BIAS_BOUND


def test_nothing_is_taught_by_those_that_do_not_teach(model: ScoringModel) -> None:
    """Neither level nor residual of an asset that is worked on moves what is known of it."""
    assert not _offset(model, np.full(10 * BIAS_TICKS, 0.3), 0.5, taught=False).any()
    assert _offset(model, np.full(10 * BIAS_TICKS, 0.3), 0.5)[-1, 0] > 0.1


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, 399)), seed=st.integers(0, 99), share=st.sampled_from([0.0, 0.2]))
def test_however_samples_are_split_the_same_is_learnt(
    model: ScoringModel, cuts: set[int], seed: int, share: float
) -> None:
    """At once, one by one or in any parts: averages, bias, offset and what they are still to learn are the same."""
    rng, count = np.random.default_rng(seed), 400
    residual = 0.3 * (_normal(count, seed) + rng.normal(size=WIDTH))[None]
    level = (_normal(count, seed + 1) + rng.normal(size=WIDTH))[None]
    tick, present = (rng.integers(1000) + np.arange(count))[None], rng.random((1, count, WIDTH)) >= share
    scorer, whole, parted = Scorer(model), ScoringState.zero(1, model), ScoringState.zero(1, model)
    scorer.averages.follow(whole, residual, level, present, tick)
    for first, end in pairwise(sorted({0, count, *cuts})):
        part = (slice(None), slice(first, end))
        scorer.averages.follow(parted, residual[part], level[part], present[part], tick[part])
    assert whole.offset.any()
    for item in fields(whole):
        np.testing.assert_allclose(getattr(parted, item.name), getattr(whole, item.name), atol=1e-5)


def test_a_missing_sensor_keeps_what_is_known_of_it(model: ScoringModel) -> None:
    """Nothing is learnt from a sensor that is not there."""
    scorer, state = Scorer(model), ScoringState.zero(1, model)
    state.bias[...], state.offset[...] = 0.7, 0.3
    nothing = np.full((1, 3 * BIAS_TICKS, WIDTH), np.nan)
    scorer.averages.follow(
        state, nothing, nothing, np.zeros(nothing.shape, np.bool_), np.arange(3 * BIAS_TICKS)[None]
    )
    assert (state.bias == 0.7).all()
    assert (state.offset == 0.3).all()


def test_what_a_dead_sensor_reads_is_told_by_the_residuals_of_the_others(model: ScoringModel) -> None:
    """The others' residuals make the guess of a dead sensor's reading better than its forecast, whatever it holds."""
    level, pending = _normal(300, 7), _normal(300, 7) - 0.3 * _normal(300, 8)
    present, zero = np.ones(level.shape, np.bool_), np.zeros((300, 1, WIDTH))
    present[:, 2] = False
    guesses = [
        Scorer(model).unheard(zero, zero, _with(level, filler), pending.astype(np.float32), present)
        for filler in (np.nan, 1e6)
    ]
    np.testing.assert_array_equal(guesses[0], guesses[1])
    error, plain = guesses[0][:, 2] - level[:, 2], pending[:, 2] - level[:, 2]
    assert np.mean(error**2) < 0.8 * np.mean(plain**2)


def test_a_forecast_that_is_never_held_against_a_reading_is_drawn_back(model: ScoringModel) -> None:
    """However far off a dead sensor's forecast begins, it ends at what the others' levels say, inside its range."""
    level = np.tile(model.level_centre, (1, 1)).astype(np.float32)
    present, zero = np.ones(level.shape, np.bool_), np.zeros((1, 1, WIDTH))
    present[:, 2] = False
    scorer, pending = Scorer(model), level.copy()
    pending[:, 2] = 50.0
    for _ in range(800):
        pending[:, 2] = scorer.unheard(zero, model.residual_centre * zero, level, pending, present)[:, 2]
        assert model.low[2] <= pending[0, 2] <= model.high[2]
    assert abs(pending[0, 2] - level[0, 2]) < 0.1 * model.level_scale[2] + 120 * abs(model.residual_centre[2])


def test_a_machine_that_never_moved_is_only_range_guarded() -> None:
    """With no sensor to judge, statistics are finite and zero, one sample or many, and the guard still speaks."""
    judged, rest = np.zeros(WIDTH, np.bool_), np.zeros((200, WIDTH))
    scorer = Scorer(fit_scoring(rest, rest, judged, rest[0], rest[0], SPANS))
    for count in (1, 40):
        state = ScoringState.zero(1, scorer.model)
        away = np.full((1, count, WIDTH), 9.0)
        found = scorer.averages.follow(state, away, away, None, np.arange(count)[None])
        statistics = scorer.statistics(found, None)
        assert (statistics[:, :-1] == 0.0).all()
        assert scorer.guard(found, np.ones(WIDTH, np.bool_))[-1] > 1.0
