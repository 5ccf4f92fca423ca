"""Laws of the pipeline: replaying a file is living through it."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import ConfigurationError, HistoryError
from edge_agent.contract.types import AlarmEvent, Outcomes, Rows
from edge_agent.detector import load_detector
from edge_agent.history import History
from edge_agent.pipeline import Pipeline
from edge_agent.replay import replay
from tests.tiny_machine import SENSORS, START, TINY_BUNDLE, faulty_values, normal_values

COUNT = 120
NOW = float(START + COUNT)


def _pipeline(**options: int) -> Pipeline:
    return Pipeline(load_detector(TINY_BUNDLE), **options)


def _history() -> History:
    """Return two assets in one file, with jitter, missing cells and a fault of the second."""
    rng = np.random.default_rng(0)
    values = np.stack([normal_values(COUNT, 1), faulty_values(COUNT, 50, 90, seed=2)], axis=1).reshape(-1, 3)
    values[rng.random(values.shape) < 0.05] = np.nan
    time = np.repeat(START + np.arange(COUNT, dtype=np.float64), 2) + rng.uniform(-0.3, 0.3, 2 * COUNT)
    asset = np.tile(np.arange(2), COUNT)
    return History("file.csv", SENSORS, ("one", "two"), asset, time, values, None, (), {})


def _lived(history: History, cuts: list[int], now: float = NOW) -> tuple[list[AlarmEvent], list[Outcomes]]:
    """Return events and outcomes of the rows of a history that arrive in batches."""
    pipeline = _pipeline()
    rows_of = np.array([pipeline.asset_row(asset) for asset in history.assets])
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(history.time)}), len(history.time)]
    done = []
    for a, b in pairwise(edges):
        rows = Rows(rows_of[history.asset[a:b]], history.time[a:b], history.values[a:b])
        done.append(pipeline.feed(rows, now))
    done.append(pipeline.flush())
    return [event for one in done for event in one.events], done


def _facts(events: list[AlarmEvent]) -> list[tuple[int, str, float, float, str, str]]:
    return sorted(
        (event.asset, event.kind, event.time, event.onset_time, event.severity, event.sensors[0].name)
        for event in events
    )


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 2 * COUNT), max_size=30))
def test_live_rows_cut_anyhow_equal_the_whole(cuts: list[int]) -> None:
    """However arrival cuts the rows, each asset has the same ticks, statistics and events."""
    history = _history()
    events, done = _lived(history, cuts)
    expected_events, expected = _lived(history, [])
    assert {event.kind for event in expected_events} >= {"start", "end"}
    assert _facts(events) == _facts(expected_events)
    for asset in range(2):
        for name in ("tick", "statistic"):
            found, wanted = (
                np.concatenate([getattr(one, name)[one.asset == asset] for one in which])
                for which in (done, expected)
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_replay_raises_the_alarms_of_live_rows() -> None:
    """A file replayed has the alarms that its rows, arriving one by one, raised."""
    history = _history()
    events, done = _lived(history, list(range(2 * COUNT)))
    result = replay(_pipeline(), history)
    assert result.samples == sum(len(one) for one in done)
    assert result.scored == sum(int(np.isfinite(one.score).sum()) for one in done)
    starts = [event for event in events if event.kind == "start"]
    ends = [event for event in events if event.kind == "end"]
    assert [alarm.start.start_time for alarm in result.alarms] == [event.time for event in starts]
    assert [alarm.end.time for alarm in result.alarms if alarm.end] == [event.time for event in ends]
    assert {alarm.asset for alarm in result.alarms} == {"two"}
    assert result.alarms[0].record()["sensors"][0]["name"] == "pressure"


def test_replay_ignores_the_order_of_columns_and_foreign_ones() -> None:
    """Sensors are matched by name; columns that the bundle does not know change nothing."""
    history = _history()
    foreign = np.full((len(history.time), 1), 7.0, np.float32)
    values = np.concatenate([foreign, history.values[:, ::-1]], axis=1)
    other = replace(history, sensors=("noise", *reversed(SENSORS)), values=values)
    expected, found = replay(_pipeline(), history), replay(_pipeline(), other)
    assert [alarm.record() for alarm in found.alarms] == [alarm.record() for alarm in expected.alarms]


def test_replay_needs_a_sensor_of_the_bundle() -> None:
    """A file with none of the bundle's sensors is refused by its name."""
    other = replace(_history(), sensors=("a", "b", "c"))
    with pytest.raises(HistoryError, match=r"file\.csv"):
        replay(_pipeline(), other)


def test_an_alarm_open_at_the_end_of_a_file_has_no_end() -> None:
    """A file that stops inside a fault gives an alarm that has neither end nor duration."""
    history = _history()
    cut = slice(0, 2 * 80)
    short = replace(history, asset=history.asset[cut], time=history.time[cut], values=history.values[cut])
    (alarm,) = replay(_pipeline(), short).alarms
    record = alarm.record()
    assert (record["end"], record["duration_seconds"]) == (None, None)


def test_every_reading_is_used_or_counted() -> None:
    """Readings that are not used are counted by reason: future, infinite, too large, late and duplicate."""
    pipeline = _pipeline()
    row = pipeline.asset_row("one")

    def feed(time: float, *values: float) -> Outcomes:
        rows = Rows(np.array([row]), np.array([time]), np.array([values], np.float32))
        return pipeline.feed(rows, NOW)

    nan, inf = float("nan"), float("inf")
    assert len(feed(START, 5.0, 60.0, 120.0)) == 1
    feed(START, 5.0, nan, nan)
    feed(NOW + 3600, 5.0, 60.0, nan)
    feed(START + 1, inf, 60.0, 1e20)
    feed(START + 1, nan, 61.0, nan)
    assert pipeline.rejected == {"late": 1, "future": 2, "infinite": 1, "too_large": 1, "duplicate": 1}
    assert len(pipeline.flush()) == 1
    found = {reason: count for reason, count in pipeline.quality.items() if count}
    assert found == {"late": 1, "future": 2, "duplicate": 1}
    assert {"stale", "frozen", "spike", "gap", "out_of_order"} <= set(pipeline.quality)


def test_the_clock_closes_what_no_message_completes() -> None:
    """A tick with a missing sensor is scored once it has waited long enough by the agent's clock."""
    pipeline = _pipeline(lateness_ticks=1)
    rows = Rows(
        np.array([pipeline.asset_row("one")]),
        np.array([float(START)]),
        np.array([[5, np.nan, 120]], np.float32),
    )
    assert len(pipeline.feed(rows, NOW)) == 0
    assert len(pipeline.advance(NOW + 1.9)) == 0
    assert pipeline.advance(NOW + 2.0).tick.tolist() == [START]


def test_assets_are_named_once_and_limited() -> None:
    """An asset keeps its row, and one asset too many is refused without harm to the others."""
    pipeline = _pipeline(max_assets=2)
    assert [pipeline.asset_row(name) for name in ("a", "b", "a")] == [0, 1, 0]
    with pytest.raises(ConfigurationError, match=r"agent\.max_assets: 2"):
        pipeline.asset_row("c")
    assert pipeline.assets == ["a", "b"]


def test_an_event_reaches_out_with_the_message_that_caused_it() -> None:
    """Rows that complete their tick are scored in the same call, without waiting for the next."""
    pipeline, values = _pipeline(), faulty_values(60, 40, 60, sensor=1)
    row = pipeline.asset_row("one")
    for number in range(60):
        rows = Rows(np.array([row]), np.array([float(START + number)]), values[number : number + 1])
        outcomes = pipeline.feed(rows, NOW)
        assert outcomes.tick.tolist() == [START + number]
        if outcomes.events:
            assert outcomes.events[0].time == START + number
            break
    assert 40 <= number < 59


def _spoilt() -> History:
    """Return the two assets with a gap of both, a sensor that sends nonsense, and one that falls away."""
    history = _history()
    values, tick = history.values.copy(), np.arange(2 * COUNT) // 2
    values[(history.asset == 0) & (tick >= 20) & (tick < 30), 1] = 65535.0
    values[(history.asset == 1) & (tick >= 30) & (tick < 110), 2] = np.nan
    return replace(history, time=history.time + 90.0 * (tick >= 100), values=values)


def test_replay_finds_the_bad_data_of_live_rows() -> None:
    """A file has the data-quality events that its rows, arriving one by one on a clock, have: times, sensors, order."""
    history, pipeline = _spoilt(), _pipeline()
    rows_of = np.array([pipeline.asset_row(asset) for asset in history.assets])
    live, clock = [], history.time[0]
    for at in range(len(history.time)):
        while clock + 1.0 < history.time[at]:
            clock += 1.0
            live += pipeline.advance(clock).quality
        part = slice(at, at + 1)
        rows = Rows(rows_of[history.asset[part]], history.time[part], history.values[part])
        live += pipeline.feed(rows, history.time[at]).quality
    live += pipeline.flush().quality
    whole = _pipeline()
    rows_of = np.array([whole.asset_row(asset) for asset in history.assets])
    replayed = [
        *whole.feed(Rows(rows_of[history.asset], history.time, history.values), np.inf).quality,
        *whole.flush().quality,
    ]
    for asset in range(2):
        found = [event for event in live if event.asset == asset]
        assert found == [event for event in replayed if event.asset == asset]
        assert {event.phase for event in found} == {"start", "update", "end"} - (
            {"update"} if asset == 0 else set()
        )
    records = [bad.record() for bad in replay(_pipeline(), history).quality]
    assert {one["reason"] for bad in records for one in bad["sensors"]} == {"out_of_range", "silent", "stale"}
    assert pipeline.quality == whole.quality


def test_an_asset_of_which_nothing_is_heard_is_reported_once_by_the_clock() -> None:
    """Time alone leads to the event, and the next reading to its end."""
    pipeline, values = _pipeline(), normal_values(2)
    row = pipeline.asset_row("one")

    def feed(at: int, now: float) -> Outcomes:
        rows = Rows(np.array([row]), np.array([now]), values[at : at + 1])
        return pipeline.feed(rows, now)

    feed(0, float(START))
    assert pipeline.advance(START + 60.0).quality == []
    (start,) = pipeline.advance(START + 61.0).quality
    assert (start.phase, start.time, start.sensors[0].reason) == ("start", START + 60.0, "silent")
    assert pipeline.advance(START + 500.0).quality == []
    (end,) = [*feed(1, START + 600.0).quality, *pipeline.flush().quality]
    assert (end.phase, end.time, end.start_time) == ("end", START + 600.0, start.time)
