"""Laws of a replay: a file through the pipeline is the detector over the file's grid, in whatever pieces it is read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_agent import replay as replaying
from edge_agent.contract.grid_history import grid_history
from edge_agent.contract.types import AlarmEvent, Samples
from edge_agent.detector import load_detector
from edge_agent.history import History
from edge_agent.pipeline import Pipeline
from edge_agent.replay import ReplayResult, replay
from tests.tiny_machine import INTERVAL, PHASE, SENSORS, START, TINY_BUNDLE, faulty_values

COUNT = 160
FAULTS = ((60, 90), (110, 130))
Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Asset, time and values of rows in the order of the file."""


def _rows() -> Rows:
    """Return two assets whose rows alternate; each has a fault of its own."""
    time = START + np.arange(COUNT, dtype=np.float64)
    values = [faulty_values(COUNT, *span, sensor=place, seed=place + 3) for place, span in enumerate(FAULTS)]
    table = np.stack(values, axis=1).reshape(-1, len(SENSORS))
    return np.tile(np.arange(2), COUNT), np.repeat(time, 2), table


def _history(rows: Rows) -> History:
    asset, time, values = rows
    return History("file.csv", SENSORS, ("one", "two"), asset, time, values, None, (), {})


def _pick(rows: Rows, places: np.ndarray[Any, Any]) -> Rows:
    asset, time, values = rows
    return asset[places], time[places], values[places]


def _jittered(rows: Rows) -> Rows:
    shift = np.random.default_rng(1).uniform(-0.3, 0.3, len(rows[1]))
    return rows[0], rows[1] + shift, rows[2]


def _holed(rows: Rows) -> Rows:
    values = rows[2].copy()
    values[np.random.default_rng(2).random(values.shape) < 0.1] = np.nan
    return rows[0], rows[1], values


def _without(first: int, last: int) -> Callable[[Rows], Rows]:
    """Return an edit that takes the rows of some seconds away."""
    return lambda rows: _pick(rows, np.flatnonzero((rows[1] < START + first) | (rows[1] >= START + last)))


def _doubled(rows: Rows) -> Rows:
    return _pick(rows, np.repeat(np.arange(len(rows[0])), 2))


def _swapped(rows: Rows) -> Rows:
    """Let every fifth tick arrive after the next one, which the allowed lateness still waits for."""
    places = np.arange(len(rows[0])).reshape(-1, 2)
    for tick in range(4, len(places) - 1, 5):
        places[[tick, tick + 1]] = places[[tick + 1, tick]]
    return _pick(rows, places.reshape(-1))


def _asset_by_asset(rows: Rows) -> Rows:
    return _pick(rows, np.argsort(rows[0], kind="stable"))


EDITS: dict[str, Callable[[Rows], Rows]] = {
    "as it is": lambda rows: rows,
    "times beside the grid": _jittered,
    "missing cells": _holed,
    "short gap": _without(70, 76),
    "long gap": _without(20, 50),
    "gap inside an alarm": _without(75, 100),
    "duplicates": _doubled,
    "out of order": _swapped,
    "asset by asset": _asset_by_asset,
    "all at once": lambda rows: _doubled(_holed(_jittered(_without(30, 45)(_swapped(rows))))),
}


def _on_the_grid(rows: Rows) -> tuple[list[AlarmEvent], int, int]:
    """Return events, samples and scored samples of the detector over the whole grid of each asset."""
    asset, time, values = rows
    parts = []
    for number in range(2):
        mine = asset == number
        ticks, table, _ = grid_history(time[mine], values[mine], INTERVAL, PHASE)
        parts.append(Samples(np.full(len(ticks), number), ticks, table))
    outcomes = load_detector(TINY_BUNDLE).process(Samples.concatenate(parts, len(SENSORS)))
    return outcomes.events, len(outcomes), int(np.isfinite(outcomes.score).sum())


def _facts(events: list[AlarmEvent]) -> list[tuple[int, float, float, str, str]]:
    return sorted(
        (event.asset, event.time, event.onset_time, event.severity, event.sensors[0].name) for event in events
    )


def _replayed(rows: Rows) -> tuple[ReplayResult, Pipeline]:
    pipeline = Pipeline(load_detector(TINY_BUNDLE))
    return replay(pipeline, _history(rows)), pipeline


@pytest.mark.parametrize("edit", EDITS)
def test_replay_is_the_detector_over_the_grid(edit: str) -> None:
    """Gaps, missing cells, duplicates, rows out of order and two assets: alarms are those of the regular history."""
    rows = EDITS[edit](_rows())
    events, samples, scored = _on_the_grid(rows)
    result, _ = _replayed(rows)
    assert (result.samples, result.scored) == (samples, scored)
    starts = [event for event in events if event.kind == "start"]
    assert {event.asset for event in starts} == {0, 1}
    assert _facts([alarm.start for alarm in result.alarms]) == _facts(starts)
    ends = [alarm.end for alarm in result.alarms if alarm.end is not None]
    assert _facts(ends) == _facts([event for event in events if event.kind == "end"])
    found = sorted(event.peak_score for event in ends)
    np.testing.assert_allclose(
        found, sorted(event.peak_score for event in events if event.kind == "end"), rtol=1e-6
    )


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_file_in_pieces_has_the_same_alarms(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are read at once, the records of the alarms and the counts are the same."""
    rows = EDITS["all at once"](_rows())
    expected, whole = _replayed(rows)
    monkeypatch.setattr(replaying, "CHUNK_ROWS", size)
    done: list[int] = []
    pipeline = Pipeline(load_detector(TINY_BUNDLE))
    found = replay(pipeline, _history(rows), done.append)
    assert (max(done), sum(done)) == (size, len(rows[0]))
    assert (found.samples, found.scored) == (expected.samples, expected.scored)
    assert sum(pipeline.rejected.values()) == sum(whole.rejected.values())
    for one, other in zip(found.alarms, expected.alarms, strict=True):
        assert _rounded(one.record()) == _rounded(other.record())


def _rounded(record: Any) -> Any:
    """Return a record with numbers to six digits: batches of another size round differently."""
    if isinstance(record, dict):
        return {key: _rounded(value) for key, value in record.items()}
    if isinstance(record, list):
        return [_rounded(value) for value in record]
    return float(f"{record:.5g}") if isinstance(record, float) else record


def test_rows_that_come_too_late_change_nothing_but_their_count() -> None:
    """Rows later than the grid waits are counted cell by cell, and the alarms are those of the file without them."""
    rows = _rows()
    late = np.arange(40, 60)
    order = np.concatenate([np.arange(80), late, np.arange(80, 2 * COUNT)])
    asset, time, values = _pick(rows, order)
    values[80 : 80 + len(late)] += np.float32(100.0)
    expected, _ = _replayed(rows)
    found, pipeline = _replayed((asset, time, values))
    assert pipeline.rejected["late"] == len(late) * len(SENSORS)
    assert [alarm.record() for alarm in found.alarms] == [alarm.record() for alarm in expected.alarms]
    assert (found.samples, found.scored) == (expected.samples, expected.scored)


def test_the_end_of_a_file_closes_its_last_tick() -> None:
    """A last row that lacks a cell waits for nobody: it is a sample of the file as any other."""
    asset, time, values = _rows()
    values[-2:, 1] = np.nan
    result, _ = _replayed((asset, time, values))
    assert result.samples == 2 * COUNT
