"""Laws of calibration: a long history, run side by side in lanes, measures what the daemon would."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.types import Samples
from edge_agent.detector import open_detector
from tests.small_bundle import make_small_bundle, normal_values
from trainer import calibrate
from trainer.calibrate import measure

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
