"""Laws of trimming: a stretch that stands apart goes, normal operation and what recurs stays."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.fusion import Fusion
from edge_agent.contract.tail import LEAST_CLUSTERS
from edge_agent.contract.types import Float64, Samples
from tests.small_bundle import make_small_bundle, normal_values
from trainer import calibrate
from trainer.starts import Turns
from trainer.trimming import FALSE_SHARE, MARGIN, ordinary_rows

SOURCES = ("residual", "level", "novelty")


def _statistics(rows: int, seed: int) -> Float64:
    """Return log-normal statistics (n, 3), as normal operation gives them."""
    return np.asarray(np.exp(0.3 * np.random.default_rng(seed).normal(size=(rows, 3))))


@pytest.mark.parametrize("rows", [100, 400, 5000])
def test_normal_operation_is_left_whole(rows: int) -> None:
    """Of normal histories of any length about one in a hundred loses a row, as it says."""
    lost = [not ordinary_rows(_statistics(rows, seed), Fusion(), SOURCES).all() for seed in range(200)]
    assert np.mean(lost) <= 4 * FALSE_SHARE


@pytest.mark.parametrize("rows", [300, 4000])
def test_a_stretch_that_stands_apart_goes(rows: int) -> None:
    """The rows of a fault are left out with a margin, and no others."""
    statistics = _statistics(rows, 1)
    statistics[200:212] *= 6.0
    keep = ordinary_rows(statistics, Fusion(), SOURCES)
    assert not keep[200:212].any()
    gone = np.flatnonzero(~keep)
    assert gone[0] >= 200 - MARGIN - 1
    assert gone[-1] <= 211 + MARGIN + 1


def test_the_scale_of_a_statistic_does_not_matter() -> None:
    """Each statistic times its own factor loses the same rows."""
    statistics = _statistics(500, 2)
    statistics[100:110] *= 6.0
    scaled = statistics * np.array([0.01, 1.0, 300.0])
    np.testing.assert_array_equal(
        ordinary_rows(statistics, Fusion(), SOURCES), ordinary_rows(scaled, Fusion(), SOURCES)
    )


def test_what_recurs_is_how_the_machine_works() -> None:
    """As many strange stretches as a tail can be fitted on are left in, one fewer is not."""
    for count, stays in ((LEAST_CLUSTERS, True), (LEAST_CLUSTERS - 1, False)):
        statistics = _statistics(20_000, 3)
        for number in range(count):
            statistics[500 * (number + 1)] *= 20.0
        assert ordinary_rows(statistics, Fusion(), SOURCES).all() == stays


@pytest.mark.parametrize("sign", [1, -1], ids=["starts", "stops"])
@pytest.mark.parametrize(("strange", "stays"), [(3, True), (2, True), (1, False)])
def test_what_most_starts_or_stops_do_is_how_the_machine_works(strange: int, stays: bool, sign: int) -> None:
    """A stretch that begins near a start, or a stop, stays if at least half of them are strange; another one goes."""
    statistics, start = _statistics(4000, 6), np.zeros(4000, np.int64)
    for number in range(1, 5):
        start[900 * number : 900 * number + 60] = sign * number
    for number in range(1, strange + 1):
        statistics[900 * number + 10 : 900 * number + 30] *= 8.0
    statistics[400:420] *= 8.0
    keep = ordinary_rows(statistics, Fusion(), SOURCES, Turns(start, 3))
    assert keep[910:930].all() == stays
    assert not keep[400:420].any()
    assert not ordinary_rows(statistics, Fusion(), SOURCES)[910:930].any()


def test_what_is_too_short_for_an_alarm_lifts_no_threshold() -> None:
    """Near starts too a stretch of fewer rows than open an alarm goes, however many starts have one."""
    statistics, start = _statistics(4000, 6), np.zeros(4000, np.int64)
    for number in range(1, 5):
        start[900 * number : 900 * number + 60] = number
        statistics[900 * number + 10 : 900 * number + 12] *= 20.0
    keep = [ordinary_rows(statistics, Fusion(), SOURCES, Turns(start, least)) for least in (2, 4)]
    assert keep[0].all()
    assert not keep[1][[910, 911, 1810, 2711, 3611]].any()


def test_what_lasts_until_a_stop_is_not_of_the_start_after_it() -> None:
    """A stretch that is strange long before the machine stops goes as far as that, and what most starts do stays."""
    statistics, start = _statistics(4000, 7), np.zeros(4000, np.int64)
    for number in (1, 2):
        start[1500 * number - 60 : 1500 * number] = -number
        start[1500 * number : 1500 * number + 60] = number
        statistics[1500 * number : 1500 * number + 20] *= 8.0
    statistics[2900:3000] *= 8.0
    keep = ordinary_rows(statistics, Fusion(), SOURCES, Turns(start, 3))
    assert not keep[2900:3000].any()
    assert keep[3000 + MARGIN : 3020].all()
    assert keep[1500:1520].all()


def test_a_tenth_of_the_rows_is_no_outlier() -> None:
    """A regime that holds for more than a tenth of the history is left in, however strange it looks."""
    statistics = _statistics(1000, 4)
    statistics[300:410] *= 30.0
    assert ordinary_rows(statistics, Fusion(), SOURCES).all()


def test_rows_without_statistics_are_ordinary() -> None:
    """Warming up is no fault, and nothing at all loses nothing."""
    statistics = _statistics(300, 5)
    statistics[:60] = np.nan
    assert ordinary_rows(statistics, Fusion(), SOURCES)[:50].all()
    assert ordinary_rows(np.full((5, 3), np.nan), Fusion(), SOURCES).all()


def test_a_fault_in_the_history_lifts_the_threshold_less_when_trimmed(tmp_path: Path) -> None:
    """With faults hidden in the calibration block the trimmed model is near that of the clean history."""
    bundle = make_small_bundle(tmp_path / "bundle")
    rows = 4000
    clean = normal_values(rows, 3)
    faulty = clean.copy()
    faulty[3000:3030] += 8.0 * np.array([2.0, 0.3], np.float32)
    faulty[500:530] -= 8.0 * np.array([2.0, 0.3], np.float32)

    def learnt(
        values: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", trimming: bool
    ) -> calibrate.Calibrated:
        samples = Samples(np.zeros(rows, np.int64), np.arange(rows), values)
        history = calibrate.CalibrationHistory(samples, np.arange(rows) >= 2000)
        return calibrate.calibrate(bundle, history, 1.0, trimming=trimming)

    whole, trimmed, untrimmed = learnt(clean, True), learnt(faulty, True), learnt(faulty, False)
    assert untrimmed.trimmed_rows == 0
    assert 60 <= trimmed.trimmed_rows <= 300
    assert trimmed.scored_rows < untrimmed.scored_rows
    np.testing.assert_allclose(trimmed.scoring.level_scale, whole.scoring.level_scale, rtol=0.1)
    np.testing.assert_allclose(trimmed.scoring.high, whole.scoring.high, rtol=0.2)
    for name in ("level_scale", "residual_scale", "normalisers"):
        true, kept, spoilt = (getattr(one.scoring, name) for one in (whole, trimmed, untrimmed))
        assert np.abs(np.log(kept / true)).mean() < 0.3 * np.abs(np.log(spoilt / true)).mean(), name
