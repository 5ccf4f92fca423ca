"""Laws of the volumes under the surface."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_agent.contract.types import Float64
from tests.sequences import flags, rows
from trainer.scored_rows import ScoredRows
from trainer.volume_metrics import LONGEST_BUFFER, volume_figures

SCORES = st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 1.0, 3.0, math.inf])


def scored(
    most: int = 20, assets: int = 2, scores: st.SearchStrategy[float] = SCORES
) -> st.SearchStrategy[ScoredRows]:
    """Return rows of up to so many assets, with at least one fault, and scores that tie and are infinite."""
    signs = st.lists(st.tuples(st.sampled_from(".#"), scores), min_size=1, max_size=most)
    tables = st.lists(signs, min_size=1, max_size=assets)
    return tables.map(_rows_of).filter(lambda found: len(found.faults) > 0)


def _rows_of(tables: list[list[tuple[str, float]]]) -> ScoredRows:
    fault = "|".join("".join(sign for sign, _ in table) for table in tables)
    return rows(fault, fault, [score for table in tables for _, score in table])


def _volumes(fault: str, score: list[float], longest: int | None = None) -> tuple[float, float]:
    figures = volume_figures(rows(fault, fault, score), longest)
    assert figures["vus_pr"] is not None and figures["vus_roc"] is not None
    return figures["vus_pr"], figures["vus_roc"]


def test_three_buffers_are_as_computed_by_hand() -> None:
    """One faulty row that comes second: the areas for buffers 0, 1 and 2, step by step on paper."""
    beside = math.sqrt(1 / 2)  # the label next to the fault for a buffer of 2
    first = beside / (1 + beside / 2)  # the true positive rate at the first threshold
    false = (1 - beside) / (4 - (1 + beside / 2))
    pr = first * beside + (1 - first) * (1 + beside) / 2
    roc = false * first / 2 + (1 - false)
    found = _volumes(".#..", [1.0, 2.0, 3.0, 0.0], 2)
    assert found == pytest.approx(((1 / 2 + 1 / 2 + pr) / 3, (2 / 3 + 2 / 3 + roc) / 3))


@settings(deadline=None)
@given(scored(), st.integers(0, 9))
def test_the_fast_way_is_the_definition(judged: ScoredRows, longest: int) -> None:
    """Both volumes are what the definition gives, threshold by threshold and row by row."""
    found = volume_figures(judged, longest)
    pr, roc = np.mean([_plain_areas(judged, length) for length in range(longest + 1)], axis=0)
    assert found["vus_pr"] == pytest.approx(pr)
    assert found["vus_roc"] == (None if judged.faulty.all() else pytest.approx(roc))


def _plain_areas(judged: ScoredRows, length: int) -> tuple[float, float]:
    """Return the areas under both curves for one buffer, by loops."""
    label, joined = _plain_labels(judged, length)
    curve = [(0.0, 0.0)]
    area = 0.0
    for threshold in sorted(set(judged.score.tolist()), reverse=True):
        over = judged.score >= threshold
        hits = float(label[over].sum())
        positives = judged.faulty.sum() + label[over & ~judged.faulty].sum() / 2
        met = np.mean([over[sorted(one)].any() for one in joined])
        recall = min(1.0, hits / positives) * float(met)
        area += (recall - curve[-1][1]) * hits / over.sum()
        normal = len(judged) - positives
        curve.append(((over.sum() - hits) / normal if normal else 0.0, recall))
    curve.append((1.0, 1.0))
    x, y = np.array(curve).T
    return area, float(np.trapezoid(y, x))


def _plain_labels(judged: ScoredRows, length: int) -> tuple[Float64, list[set[int]]]:
    """Return the label of each row, and the rows of each fault with its buffers, joined where they overlap."""
    label = np.zeros(len(judged))
    joined: list[set[int]] = []
    for first, last in judged.faults.tolist():
        asset = int(np.flatnonzero(judged.bounds <= first)[-1])
        own = set()
        for row in range(judged.bounds[asset], judged.bounds[asset + 1]):
            distance = max(first - row, row - (last - 1), 0)
            if distance <= length // 2:
                own.add(row)
                label[row] += math.sqrt(1 - distance / length) if distance else 1.0
        if joined and joined[-1] & own:
            joined[-1] |= own
        else:
            joined.append(own)
    return np.minimum(label, 1.0), joined


@settings(deadline=None)
@given(scored())
def test_figures_lie_between_0_and_1_either_way_round(judged: ScoredRows) -> None:
    """Both are ratios, and the same when time runs backwards."""
    figures = volume_figures(judged)
    assert all(value is None or 0 <= value <= 1 for value in figures.values())
    size = len(judged)
    backwards = ScoredRows(
        judged.score[::-1],
        judged.alarm[::-1],
        judged.faulty[::-1],
        size - judged.alarms[::-1, ::-1],
        size - judged.faults[::-1, ::-1],
        size - judged.bounds[::-1],
    )
    assert volume_figures(backwards) == pytest.approx(figures)


@settings(deadline=None)
@given(scored(), st.integers(0, 9))
def test_a_perfect_score_earns_1(judged: ScoredRows, longest: int) -> None:
    """A score that is higher on every faulty row than on any other, all alike, has volumes of 1."""
    assume(not judged.faulty.all())
    perfect = ScoredRows(
        judged.faulty.astype(np.float64),
        judged.alarm,
        judged.faulty,
        judged.alarms,
        judged.faults,
        judged.bounds,
    )
    assert volume_figures(perfect, longest) == pytest.approx({"vus_pr": 1.0, "vus_roc": 1.0})


@settings(deadline=None)
@given(scored(assets=1, scores=st.sampled_from([0.0, 0.5, 1.0, 2.0])))
def test_without_a_buffer_one_fault_has_the_areas_of_scikit_learn(judged: ScoredRows) -> None:
    """With one fault and L = 0 the volumes are average precision and ROC-AUC."""
    assume(len(judged.faults) == 1 and not judged.faulty.all())
    assert volume_figures(judged, 0) == pytest.approx(
        {
            "vus_pr": average_precision_score(judged.faulty, judged.score),
            "vus_roc": roc_auc_score(judged.faulty, judged.score),
        }
    )


@settings(deadline=None)
@given(scored(), st.integers(0, 9))
def test_only_the_order_of_the_scores_counts(judged: ScoredRows, longest: int) -> None:
    """Any other scores in the same order have the same volumes."""
    _, order = np.unique(judged.score, return_inverse=True)
    other = ScoredRows(
        np.exp(order.astype(np.float64)),
        judged.alarm,
        judged.faulty,
        judged.alarms,
        judged.faults,
        judged.bounds,
    )
    assert volume_figures(other, longest) == volume_figures(judged, longest)


@settings(deadline=None)
@given(st.permutations(range(12)), st.integers(0, 11), st.integers(0, 5), st.integers(0, 8))
def test_a_fault_that_scores_higher_never_lowers_the_roc(
    ranks: list[int], first: int, row: int, longest: int
) -> None:
    """With one fault, VUS-ROC does not fall when one of the faulty rows rises above all others."""
    last = min(first + 6, 12)
    assume(first > 0 or last < 12)
    fault = "." * first + "#" * (last - first) + "." * (12 - last)
    score = [float(rank) for rank in ranks]
    raised = score.copy()
    raised[min(first + row, last - 1)] = 100.0
    assert _volumes(fault, raised, longest)[1] >= _volumes(fault, score, longest)[1] - 1e-12


def test_a_score_that_says_nothing_earns_the_mean_label() -> None:
    """The floor: a constant score has as VUS-PR the mean label, and without buffers a VUS-ROC of 1/2."""
    fault = "." * 20 + "#" * 4 + "." * 16
    labels = [_plain_labels(rows(fault, fault), length)[0].mean() for length in range(7)]
    assert _volumes(fault, [0.5] * 40, 6)[0] == pytest.approx(np.mean(labels))
    assert _volumes(fault, [0.5] * 40, 0) == pytest.approx((4 / 40, 1 / 2))


def test_scores_at_random_earn_what_the_buffers_give() -> None:
    """Chance: VUS-PR is near the mean label, and VUS-ROC above 1/2 by what buffers add; without them it is 1/2."""
    fault = ("." * 980 + "#" * 20) * 20
    score = np.random.default_rng(0).random(len(fault)).tolist()
    vus_pr, vus_roc = _volumes(fault, score)
    label = np.mean([_plain_labels(rows(fault, fault), length)[0].mean() for length in range(0, 21, 5)])
    assert vus_pr == pytest.approx(label, abs=0.01)
    assert 0.55 < vus_roc < 0.62
    assert _volumes(fault, score, 0)[1] == pytest.approx(0.5, abs=0.03)


def test_near_misses_earn_something_and_far_ones_nothing() -> None:
    """A score two rows late earns more with a buffer than without; one fifteen rows late does not."""
    fault = "." * 20 + "#" * 4 + "." * 26
    late, far = (np.roll(flags(fault), shift).astype(float).tolist() for shift in (2, 15))
    assert _volumes(fault, late, 8)[0] > _volumes(fault, late, 0)[0] + 0.1
    alone = volume_figures(rows(fault, fault, far), 8)["vus_pr"] or 0.0
    assert alone == pytest.approx(_volumes(fault, [0.0] * 50, 8)[0], abs=0.02)


def test_no_buffer_reaches_into_another_asset() -> None:
    """Rows beside a fault earn credit in its own asset alone."""
    score = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert _volumes("..##....", score, 6) > _volumes("..##|....", score, 6)


@settings(deadline=None)
@given(scored(assets=1), scored(assets=1), st.integers(0, 9))
def test_assets_are_pooled_whatever_their_order(one: ScoredRows, two: ScoredRows, longest: int) -> None:
    """Rows of all assets share their thresholds: neither asset comes first."""
    found = []
    for parts in ((one, two), (two, one)):
        fault = "|".join("".join(np.where(part.faulty, "#", ".")) for part in parts)
        score = np.concatenate([part.score for part in parts]).tolist()
        found.append(volume_figures(rows(fault, fault, score), longest))
    assert found[0] == pytest.approx(found[1])


def test_the_buffer_is_as_long_as_the_median_fault_and_bounded() -> None:
    """L is the median length of the faults, 100 rows at most."""
    rng = np.random.default_rng(1)
    for lengths, longest in (((3, 9, 5), 5), ((300, 300), LONGEST_BUFFER)):
        fault = "".join("." * 200 + "#" * length for length in lengths)
        score = rng.random(len(fault)).tolist()
        assert _volumes(fault, score) == _volumes(fault, score, longest)
        assert _volumes(fault, score) != _volumes(fault, score, longest - 2)


def test_without_a_fault_both_are_none_and_without_a_nominal_row_the_roc_is() -> None:
    """No fault: undefined. Nothing but faults: VUS-PR is 1, and there is no false positive rate."""
    nothing = {"vus_pr": None, "vus_roc": None}
    assert volume_figures(rows("....", "....", [0.0, 1.0, 2.0, 3.0])) == nothing
    assert volume_figures(rows("", "")) == nothing
    assert volume_figures(rows("###", "###", [0.0, 1.0, 2.0])) == {"vus_pr": 1.0, "vus_roc": None}
