"""Laws of what adapts in the detector: the factor moves the threshold and nothing else, and can be switched off."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from edge_agent.board import AssetBoard
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.types import Float32, Outcomes, Samples
from edge_agent.detector import Detector, load_detector
from edge_agent.detector_state import DetectorState
from tests.small_bundle import make_small_bundle, normal_values

SURPLUS = 6.0
FACTOR = np.exp(0.2 * 3.0)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A small bundle."""
    return make_small_bundle(tmp_path / "bundle")


def _faulty() -> Float32:
    values = normal_values(600, 4)
    values[200:300, 0] += 12.0
    values[400:450, 1] -= 1.5
    return values


def _samples(values: Float32) -> Samples:
    return Samples(np.zeros(len(values), np.int64), 1_700_000_000 + np.arange(len(values)), values)


def _opened(bundle: Bundle, surplus: float, adaptive: bool = True) -> Detector:
    detector = load_detector(bundle.directory, adaptive=adaptive)
    detector.ensure_assets(1)
    detector.state.budget.surplus[0] = surplus
    return detector


def _fed(detector: Detector, size: int, at_row: int | None = None) -> Iterable[Outcomes]:
    samples = _samples(_faulty())
    for at in range(0, len(samples), size):
        cut = slice(at, at + size)
        yield detector.process(Samples(samples.asset[cut], samples.tick[cut], samples.values[cut]))
        if at == at_row:
            detector.state = DetectorState.from_bytes(detector.state.to_bytes(), detector.bundle)


def test_the_factor_moves_the_threshold_and_not_the_statistic(bundle: Bundle) -> None:
    """With a surplus of alarms the score is that of the statistic over the factor; the statistic is as before."""
    (plain,) = _fed(_opened(bundle, 0.0), 10_000)
    (moved,) = _fed(_opened(bundle, SURPLUS), 10_000)
    np.testing.assert_array_equal(moved.statistic, plain.statistic)
    assert plain.factor is not None
    assert moved.factor is not None
    scored = np.isfinite(moved.score)
    assert moved.factor[scored][0] == pytest.approx(FACTOR)
    assert set(plain.factor[scored]) == {1.0}
    expected = bundle.manifest.threshold.score(moved.statistic[scored] / moved.factor[scored])
    np.testing.assert_allclose(moved.score[scored], expected)
    assert moved.alarm.sum() < plain.alarm.sum()


def test_switched_off_nothing_moves(bundle: Bundle) -> None:
    """Without the controller a surplus has no say, and there is no factor to tell of."""
    (plain,) = _fed(_opened(bundle, 0.0), 10_000)
    (off,) = _fed(_opened(bundle, SURPLUS, adaptive=False), 10_000)
    np.testing.assert_array_equal(off.score, plain.score)
    assert off.factor is None
    assert [event.time for event in off.events] == [event.time for event in plain.events]


@pytest.mark.parametrize("size", [1, 50])
def test_pieces_and_a_restart_change_nothing(bundle: Bundle, size: int) -> None:
    """In pieces, and with the state written and read back, factor, score and events are those of one call."""
    whole = _opened(bundle, SURPLUS)
    (expected,) = _fed(whole, 10_000)
    parts = list(_fed(_opened(bundle, SURPLUS), size, at_row=300))
    for name in ("factor", "score"):
        found = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-6)
    assert [event.time for part in parts for event in part.events] == [
        event.time for event in expected.events
    ]


def test_a_true_fault_is_forgiven(bundle: Bundle) -> None:
    """What the last alarm did to the threshold is taken back when an operator says that it was right."""
    detector = _opened(bundle, 2.5)
    before = detector.state.budget.surplus[0]
    (outcomes,) = _fed(detector, 10_000)
    assert any(event.kind == "start" for event in outcomes.events)
    assert detector.state.budget.surplus[0] > before
    detector.forgive(np.array([0]))
    assert detector.state.budget.surplus[0] < before


def test_the_board_keeps_the_last_factor_and_drift(bundle: Bundle) -> None:
    """Metrics show factor and drift of the last scored sample, and not those of a sample without a score."""
    board, detector = AssetBoard(2), _opened(bundle, SURPLUS)
    board.take_outcomes(detector.process(_samples(normal_values(100, 4))))
    later = Samples(np.array([0]), np.array([1_900_000_000]), normal_values(1, 4))
    board.take_outcomes(detector.process(later))
    state = board.snapshot(1)
    assert np.isnan(state.score[0])
    assert state.factor[0] == pytest.approx(FACTOR, rel=1e-3)
    assert state.drift[0] == 0.0
