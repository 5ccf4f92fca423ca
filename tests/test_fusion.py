"""Laws of the fusion: sources count by their weights, and one that is left out has no say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.bundle import Bundle, read_golden, write_bundle
from edge_agent.contract.errors import BundleError
from edge_agent.contract.fusion import LEAST_RATIO, RULES, SOURCES, Fusion
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_state import ScoringState
from tests.small_bundle import make_small_bundle

COLUMNS = ("residual", "residual", "residual", "level", "level", "novelty")
RATIOS = st.lists(st.floats(0.06, 20.0), min_size=len(COLUMNS), max_size=len(COLUMNS))


@settings(max_examples=60, deadline=None)
@given(ratios=RATIOS, factor=st.floats(1.01, 3.0))
def test_the_fused_statistic_scales_with_its_parts_and_stays_between_them(
    ratios: list[float], factor: float
) -> None:
    """All ratios times a factor give the fused one times it, and it lies between the least and the largest."""
    row = np.array([ratios])
    for rule in RULES:
        fused = Fusion(rule=rule).fuse(row, COLUMNS)
        assert row.min() * (1 - 1e-9) <= fused[0] <= row.max() * (1 + 1e-9)
        np.testing.assert_allclose(Fusion(rule=rule).fuse(row * factor, COLUMNS), fused * factor)


def test_a_source_counts_by_its_weight_whatever_the_number_of_its_spans() -> None:
    """The weights are 2 : 1 : 1 by default, shared by the statistics of a source, and sum to 1."""
    weights = Fusion().column_weights(COLUMNS)
    np.testing.assert_allclose(weights, np.array([2 / 3, 2 / 3, 2 / 3, 1 / 2, 1 / 2, 1]) / 4)
    assert Fusion().fuse(np.array([[4.0, 4.0, 4.0, 1.0, 1.0, 1.0]]), COLUMNS)[0] == pytest.approx(2.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_left_out_has_no_say(source: str, rule: str) -> None:
    """Without a source, its statistics change nothing; every other one still does."""
    fusion = Fusion(rule=rule).without(source)
    row = np.full((1, len(COLUMNS)), 2.0)
    for place, name in enumerate(COLUMNS):
        wild = row.copy()
        wild[0, place] = 50.0
        changed = bool(fusion.fuse(wild, COLUMNS)[0] > fusion.fuse(row, COLUMNS)[0])
        assert changed == (name != source)


def test_a_statistic_near_zero_hides_no_other() -> None:
    """Ratios are held at a floor, so that nothing is as quiet as minus infinity."""
    row = np.array([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert Fusion().fuse(row, COLUMNS)[0] == pytest.approx(LEAST_RATIO ** (1 / 6))


def test_a_bundle_keeps_its_fusion(tmp_path: Path) -> None:
    """What was fitted with another fusion is read back and runs with it, the guard included."""
    bundle = make_small_bundle(tmp_path / "bundle")
    golden = read_golden(bundle)
    chosen = Fusion({"level": 1.0}, "maximum", range_guard=False)
    scoring = bundle.scoring
    fitted = replace(scoring, fusion=chosen)
    found = write_bundle(Bundle(bundle.directory, bundle.manifest, fitted), golden)
    assert found.scoring.fusion == chosen
    far_out = replace(ScoringState.zero(1, scoring), excess=np.full((1, 1, 2), 5.0))
    everyone = np.ones(2, np.bool_)
    assert Scorer(scoring).guard(far_out, everyone)[0] == 5.0
    assert Scorer(found.scoring).guard(far_out, everyone)[0] == 0.0


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"weights": {"magic": 1.0}}, "unknown source"),
        ({"rule": "median"}, "known are"),
        ({"weights": {"level": 0.0}}, "one above"),
        ({"weights": {"level": -1.0, "residual": 2.0}}, "none below 0"),
    ],
)
def test_a_fusion_that_cannot_be_is_refused(fields: dict[str, object], rule: str) -> None:
    """Unknown sources and rules, and weights that leave nothing, are refused by the rule."""
    with pytest.raises(ValueError, match=rule):
        Fusion(**fields)  # type: ignore[arg-type]  # what a file may hold


def test_a_bundle_with_an_unknown_source_is_refused(tmp_path: Path) -> None:
    """A bundle of a later program, which knows more sources, is refused in one line."""
    bundle = make_small_bundle(tmp_path / "bundle")
    golden = read_golden(bundle)
    fusion = Fusion()
    object.__setattr__(fusion, "weights", {"magic": 1.0})
    fitted = replace(bundle.scoring, fusion=fusion)
    with pytest.raises(BundleError, match=r"scoring\.npz: not a scoring model"):
        write_bundle(Bundle(bundle.directory, bundle.manifest, fitted), golden)
