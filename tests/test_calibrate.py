"""Laws of calibration: a long history, run side by side in lanes, measures what the daemon would."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.types import Samples
from edge_agent.detector import open_detector
from tests.small_bundle import make_small_bundle, normal_values
from trainer import calibrate
from trainer.calibrate import CalibrationHistory, measure

ROWS = 8000


def test_lanes_measure_what_one_stream_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two assets cut into lanes give the forecasts and statistics of row after row, to a thousandth and less."""
    bundle = make_small_bundle(tmp_path / "bundle")
    rows = np.arange(ROWS)
    ticks = np.where(rows < ROWS // 2, rows, rows + 500)
    samples = Samples((rows >= 6500).astype(np.int64), ticks, normal_values(ROWS, 3))
    done: list[int] = []
    one_by_one = measure(open_detector(bundle), samples, done.append)
    monkeypatch.setattr(calibrate, "STREAM_ROWS", 1000)
    monkeypatch.setattr(calibrate, "LANE_ROWS", 1500)
    in_lanes = measure(open_detector(bundle), samples, done.append)
    assert sum(done) == 2 * ROWS
    for part in (0, 1):
        expected, found = (np.asarray(side[part], np.float64) for side in (one_by_one, in_lanes))
        assert np.array_equal(np.isnan(expected), np.isnan(found))
        assert np.isfinite(expected).any()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stream_rows", [50_000, 1000], ids=["one stream", "lanes"])
def test_what_the_gate_masks_teaches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream_rows: int
) -> None:
    """Impossible readings in a history widen no range: the model that is learnt is that of a history without them."""
    monkeypatch.setattr(calibrate, "STREAM_ROWS", stream_rows)
    bundle = make_small_bundle(tmp_path / "bundle")
    rows = np.arange(ROWS)
    values = normal_values(ROWS, 3)
    clean, wild = values.copy(), values.copy()
    clean[4000:4020, 0], wild[4000:4020, 0] = np.nan, -9999.0
    clean[4020:4024, 0] = np.nan  # until its fifth good reading a dead sensor is not believed
    found, expected = (
        calibrate.calibrate(
            bundle, CalibrationHistory(Samples(np.zeros(ROWS, np.int64), rows, table), rows >= 3000), 1.0
        )
        for table in (wild, clean)
    )
    np.testing.assert_allclose(found.scoring.low, expected.scoring.low)
    np.testing.assert_allclose(found.scoring.level_scale, expected.scoring.level_scale, rtol=1e-6)
    # The readings with which the sensor comes back feed the forecaster, so the rows after them differ a little.
    assert found.threshold.value == pytest.approx(expected.threshold.value, rel=1e-4)
