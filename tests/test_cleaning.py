"""Laws of cleaning: repairs are counted, assets stay apart, and nothing that cannot be used goes on."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError
from edge_agent.history import History, read_history
from trainer.cleaning import clean


def _history(time: NDArray[np.floating[Any]], values: object = None, **fields: object) -> History:
    table = np.arange(len(time) * 2).reshape(-1, 2) if values is None else values
    known: dict[str, object] = {
        "source": "pump.csv",
        "sensors": ("flow", "head"),
        "assets": ("a",),
        "asset": np.zeros(len(time), np.int64),
        "time": np.asarray(time, np.float64),
        "values": np.asarray(table, np.float32),
        "labels": None,
        "notices": (),
        "repairs": {},
    }
    return History(**{**known, **fields})  # type: ignore[arg-type]


def test_a_regular_history_is_left_alone() -> None:
    """On a regular history nothing is repaired and every value stays."""
    history = _history(1000.0 + 10 * np.arange(50))
    cleaned = clean(history)
    assert (cleaned.interval, cleaned.phase, cleaned.repairs, cleaned.rows) == (10.0, 0.0, {}, 50)
    np.testing.assert_array_equal(cleaned.series[0].values, history.values)
    np.testing.assert_array_equal(cleaned.series[0].ticks, 100 + np.arange(50))


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(40)),
    interval=st.sampled_from([0.1, 1.0, 60.0, 3600.0]),
    phase=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_the_order_of_rows_does_not_matter(order: list[int], interval: float, phase: float) -> None:
    """Rows in any order give the same series, interval and phase; rows that step back are counted."""
    time = (np.arange(40) + 1000 + phase) * interval
    tidy = clean(_history(time))
    rows = np.asarray(order)
    shuffled = clean(_history(time[rows], tidy.series[0].values[rows]))
    np.testing.assert_array_equal(shuffled.series[0].values, tidy.series[0].values)
    np.testing.assert_array_equal(shuffled.series[0].ticks, tidy.series[0].ticks)
    assert (shuffled.interval, shuffled.phase) == (tidy.interval, tidy.phase)
    assert tidy.interval == pytest.approx(interval)
    assert tidy.phase == pytest.approx(phase * interval, abs=1e-5)
    assert shuffled.repairs.get("row out of order", 0) == int(np.sum(np.diff(rows) < 0))


def test_each_repair_is_counted() -> None:
    """Duplicates, jitter, gaps and missing cells are each counted under their own name."""
    time = np.arange(60.0)
    time[10] = 9.0
    time[20] = 20.2
    time[31] = 30.3
    values = np.arange(120.0).reshape(-1, 2)
    values[40, 1] = np.nan
    cleaned = clean(_history(time, values))
    assert cleaned.repairs == {
        "duplicate time": 1,
        "row merged into the tick of another": 1,
        "time moved to the grid": 2,
        "tick without a reading": 2,
        "missing value": 1,
    }


def test_two_assets_are_never_mixed() -> None:
    """Each asset is its own series, on one grid, with its own rows and no false repairs at their border."""
    time = np.concatenate([np.arange(30.0), np.arange(30.0)])
    history = _history(time, assets=("a", "b"), asset=np.repeat([1, 0], 30))
    cleaned = clean(history)
    assert ([one.asset for one in cleaned.series], cleaned.repairs) == (["a", "b"], {})
    np.testing.assert_array_equal(cleaned.series[0].values, history.values[30:])
    np.testing.assert_array_equal(cleaned.series[1].values, history.values[:30])


def test_a_sensor_that_is_missing_throughout_is_dropped_by_name() -> None:
    """The all-missing sensor is named in a notice and the others keep their values."""
    values = np.stack([np.full(30, np.nan), np.arange(30)], axis=1)
    cleaned = clean(_history(np.arange(30.0), values))
    assert cleaned.sensors == ("head",)
    assert any("dropped: flow" in notice for notice in cleaned.notices)
    assert cleaned.series[0].values[:, 0].tolist() == list(range(30))


def test_a_constant_sensor_is_kept_and_named() -> None:
    """A sensor that never changes stays among the sensors and a notice names it."""
    cleaned = clean(_history(np.arange(30.0), np.stack([np.full(30, 7), np.arange(30)], axis=1)))
    assert (cleaned.sensors, cleaned.constant) == (("flow", "head"), ("flow",))
    assert any("flow" in notice for notice in cleaned.notices)


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        (_history(np.arange(5.0)), "too short, it has 5 samples and needs 20"),
        (_history(np.zeros(0)), "too short"),
        (_history(np.zeros(40)), "all readings have the same time"),
        (_history(np.arange(40.0), np.full((40, 2), np.nan)), "every value of every sensor is missing"),
        (_history(np.cumsum(4.0 ** (np.arange(40) % 12))), "too irregular"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_rule(history: History, rule: str) -> None:
    """The refusal names the file and the rule it broke."""
    with pytest.raises(HistoryError, match=rf"pump\.csv: .*{rule}"):
        clean(history)


def test_a_given_interval_thins_the_history() -> None:
    """With a longer interval the last reading in each tick stands; a senseless one is refused."""
    cleaned = clean(_history(np.arange(100.0)), interval=2.0)
    assert len(cleaned.series[0].ticks) == 50
    assert cleaned.repairs["row merged into the tick of another"] == 50
    with pytest.raises(HistoryError, match="above 0"):
        clean(_history(np.arange(100.0)), interval=0.0)


def test_sensors_that_report_in_turn_come_together() -> None:
    """Where each row carries one sensor, the interval is that of a sensor and the rows of one tick are one sample."""
    time = np.repeat(np.arange(40.0), 2) + np.tile([0.0, 0.1], 40)
    values = np.where(np.tile([[1, 0], [0, 1]], (40, 1)) == 1, np.arange(80)[:, None], np.nan)
    cleaned = clean(_history(time, values))
    assert (cleaned.interval, len(cleaned.series[0].ticks)) == (1.0, 40)
    assert not np.isnan(cleaned.series[0].values).any()


def test_a_tick_is_labelled_if_one_of_its_rows_is() -> None:
    """Labels go with their rows onto the grid."""
    time = np.concatenate([np.arange(30.0), [5.1]])
    labels = np.zeros(31, np.int8)
    labels[[5, 7]] = 1
    series = clean(_history(time, labels=labels)).series[0]
    assert series.labels is not None
    assert np.flatnonzero(series.labels).tolist() == [5, 7]


def test_a_test_stand_with_gaps_of_a_second(tmp_path: Path) -> None:
    """A file sampled each second that skips some is cleaned at one second: public data where it is, else simulated."""
    folder = os.environ.get("FOREWARN_DATA")
    path = Path(folder, "skab", "valve1", "0.csv") if folder else tmp_path / "0.csv"
    if not folder:
        stamps = [f"2020-03-09 10:{second // 60:02}:{second % 60:02}" for second in range(600) if second % 9]
        rows = "".join(f"{stamp};{n % 7}.5;{n % 3};0.0;0.0\n" for n, stamp in enumerate(stamps))
        path.write_text("datetime;Current;Pressure;anomaly;changepoint\n" + rows)
    history = read_history([path])
    cleaned = clean(history)
    assert (cleaned.interval, cleaned.phase) == (1.0, 0.0)
    assert len(cleaned.series[0].ticks) == len(history.time)
    assert set(cleaned.repairs) == {"tick without a reading"}
    assert "anomaly" not in cleaned.sensors
