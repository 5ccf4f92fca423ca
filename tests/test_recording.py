"""Laws of recorded files: what was added is read back, a file is whole or not there, and nothing is lost in silence."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_agent.recording
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32, Rows
from edge_agent.history import read_history, write_parquet
from edge_agent.recording import WAITING_FILES, Recording

START = 1_767_225_600
ASSETS, SENSORS = ["pump-1", "p/2"], ["flow", "time", "pressure"]
Reading = tuple[int, int, int, float]
READINGS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 2), st.integers(-99, 99).map(float)),
    min_size=1,
    max_size=40,
    unique_by=lambda one: one[:3],
)


def _rows(readings: list[Reading]) -> Rows:
    """Return one row a reading, as topics that name the sensor give them."""
    values = np.full((len(readings), len(SENSORS)), np.nan, np.float32)
    for row, (_, _, sensor, value) in enumerate(readings):
        values[row, sensor] = value
    assets, times = (np.array([one[place] for one in readings], np.int64) for place in (0, 1))
    return Rows(assets, START + times.astype(np.float64), values)


def _read(directory: Path) -> set[Reading]:
    history = read_history([directory])
    names = {name: place for place, name in enumerate(["flow", "sensor time", "pressure"])}
    return {
        (ASSETS.index(history.assets[asset]), int(time) - START, names[sensor], float(cell))
        for asset, time, row in zip(
            history.asset.tolist(), history.time.tolist(), history.values, strict=True
        )
        for sensor, cell in zip(history.sensors, row, strict=True)
        if np.isfinite(cell)
    }


@given(readings=READINGS, cut=st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_what_was_added_is_read_back(readings: list[Reading], cut: int) -> None:
    """Every reading comes back with its asset, time and sensor, whatever file it went into; a time has one row."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        recording = Recording(directory, 1000)
        for part in (readings[:cut], readings[cut:]):
            recording.add(_rows(part))
            recording.write(ASSETS, SENSORS)
        assert _read(directory) == set(readings)
        assert recording.written == len(readings)
        assert recording.waiting == recording.lost == 0
        assert len(read_history([directory]).time) <= len({one[:2] for one in readings}) * 2


def test_times_keep_their_microseconds(tmp_path: Path) -> None:
    """A time comes back to the microsecond."""
    recording = Recording(tmp_path, 10)
    recording.add(Rows(np.zeros(1, np.int64), np.array([START + 0.123456]), np.ones((1, 3), np.float32)))
    recording.write(ASSETS, SENSORS)
    assert read_history([tmp_path]).time[0] == pytest.approx(START + 0.123456, abs=1e-7)


def test_a_new_life_goes_on_beside_the_old_files(tmp_path: Path) -> None:
    """Files are never overwritten, though they begin at the same time; what a crash left half is taken away."""
    for _ in range(3):
        recording = Recording(tmp_path, 10)
        recording.add(_rows([(0, 5, 0, 1.0)]))
        recording.write(ASSETS, SENSORS)
        (tmp_path / ".readings-1.parquet.part").write_bytes(b"half")
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    assert Recording(tmp_path, 10).files == 0
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_written_of_nothing(tmp_path: Path) -> None:
    """Without a reading there is no file."""
    recording = Recording(tmp_path, 10)
    recording.add(_rows([]))
    assert recording.write(ASSETS, SENSORS) is None
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every file is written to a device without room."""

    def write(path: Path, columns: dict[str, Any]) -> None:
        path.symlink_to("/dev/full")
        write_parquet(path, columns)

    monkeypatch.setattr(edge_agent.recording, "write_parquet", write)
    return monkeypatch


def test_a_full_disk_loses_nothing_that_there_is_room_for(
    tmp_path: Path, full_disk: pytest.MonkeyPatch
) -> None:
    """While the disk is full readings wait, no half file stands there, and all are written when there is room again."""
    recording = Recording(tmp_path, 10)
    readings = [(0, second, 0, float(second)) for second in range(20)]
    recording.add(_rows(readings))
    with pytest.raises(HistoryError, match="No space left"):
        recording.write(ASSETS, SENSORS)
    assert list(tmp_path.iterdir()) == []
    assert (recording.waiting, recording.lost) == (20, 0)
    full_disk.undo()
    recording.write(ASSETS, SENSORS)
    assert _read(tmp_path) == set(readings)


def test_memory_is_bounded_and_what_is_lost_is_counted(tmp_path: Path, full_disk: pytest.MonkeyPatch) -> None:
    """With the disk full for long, a few files' worth waits; the rest is counted, reading by reading."""
    recording, added = Recording(tmp_path, 10), 0
    for second in range(0, 200, 5):
        part = [(0, second + one, 0, 1.0) for one in range(5)]
        recording.add(_rows(part))
        added += len(part)
        assert recording.is_full == (added >= 10)
        if recording.is_full:
            with pytest.raises(HistoryError):
                recording.write(ASSETS, SENSORS)
    assert recording.waiting == WAITING_FILES * 10
    assert recording.waiting + recording.lost == added


def test_a_row_may_hold_every_sensor(tmp_path: Path) -> None:
    """A message of all sensors is one row of the file; a cell that is missing stays missing."""
    values: Float32 = np.array([[1.0, 2.0, np.nan], [4.0, np.nan, 6.0]], np.float32)
    recording = Recording(tmp_path, 10)
    recording.add(Rows(np.array([0, 1]), np.array([START, START + 1.0]), values))
    recording.write(ASSETS, SENSORS)
    history = read_history([tmp_path])
    assert len(history.time) == 2
    order = [history.sensors.index(name) for name in ("flow", "sensor time", "pressure")]
    np.testing.assert_array_equal(history.values[:, order], values)
