"""Laws of alarms: when they open, close and become critical."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.alarms import AlarmRules, AlarmState, follow_alarms, stop_alarms

RULES = AlarmRules(
    open_count=3,
    open_window=5,
    immediate_score=4.0,
    clear_samples=4,
    critical_score=2.0,
    critical_after_samples=20,
    update_samples=7,
    merge_samples=0,
)


@dataclass(frozen=True)
class Happened:
    """One transition of one asset."""

    kind: str
    time: float
    state: dict[str, float]


KINDS = ("ended", "started", "updated", "reopened", "cooled", "slight")


def _run(
    scores: list[float],
    quiet_below: float = 0.8,
    start: float = 1000.0,
    rules: AlarmRules = RULES,
    calm_below: float | None = None,
    permitted: Sequence[bool] | None = None,
) -> list[Happened]:
    """Return what happens to one asset, a second a sample."""
    state = AlarmState.zero(1)
    one = np.zeros(1, np.int64)
    happened = []
    for number, score in enumerate(scores):
        time = start + number
        quiet, calm = np.array([score < quiet_below]), np.array([score < (calm_below or quiet_below)])
        allowed = None if permitted is None else permitted[number]
        permit = None if allowed is None else lambda at, answer=allowed: np.full(len(at), answer)
        said = follow_alarms(state, one, np.array([time]), np.array([score]), quiet, rules, 1.0, calm, permit)
        for kind in KINDS:
            if getattr(said, kind)[0]:
                facts = {
                    name: float(getattr(state, name)[0])
                    for name in ("number", "onset_time", "start_time", "peak_score", "peak_time", "critical")
                }
                happened.append(Happened(kind, number, facts))
    return happened


def _kinds(
    scores: list[float], rules: AlarmRules = RULES, permitted: Sequence[bool] | None = None
) -> list[tuple[str, float]]:
    return [(one.kind, one.time) for one in _run(scores, rules=rules, permitted=permitted)]


MERGING = replace(RULES, merge_samples=6)
COOLING = replace(RULES, cool_down_samples=10)
ENDED = [5.0, 0.1, 0.1, 0.1, 0.1]
"""An alarm that opens at 0 and ends at 4."""


def test_an_alarm_that_comes_back_soon_goes_on() -> None:
    """Within `merge_samples` of its end an alarm is reopened by an update: its number, onset, start and peak stay."""
    happened = _run([*ENDED, 0.1, 4.0, 0.1, 0.1, 0.1, 0.1], rules=MERGING)
    assert [(one.kind, one.time) for one in happened] == [
        ("started", 0), ("ended", 4), ("updated", 6), ("reopened", 6), ("ended", 10),
    ]  # fmt: skip
    last = happened[-1].state
    assert (last["number"], last["onset_time"], last["start_time"]) == (1, 1000.0, 1000.0)
    assert (last["peak_score"], last["peak_time"], last["critical"]) == (5.0, 1000.0, 1.0)


@pytest.mark.parametrize(("gap", "kind"), [(6, "updated"), (7, "started")])
def test_merging_ends_after_its_samples(gap: int, kind: str) -> None:
    """The last sampling interval of `merge_samples` still merges, the next one opens a new alarm."""
    assert _kinds([*ENDED, *[0.1] * (gap - 1), 4.0], MERGING)[2] == (kind, 4 + gap)


def test_time_that_passes_without_samples_counts() -> None:
    """After a gap, what opens is a new alarm, however few samples came in between."""
    state, one = AlarmState.zero(1), np.zeros(1, np.int64)
    for time, score in zip((*range(5), 500), (*ENDED, 5.0), strict=True):
        said = follow_alarms(
            state, one, np.array([float(time)]), np.array([score]), np.array([score < 0.8]), MERGING
        )
    assert said.started[0]
    assert state.number[0] == 2


def test_cool_down_holds_back_and_counts_once() -> None:
    """For `cool_down_samples` nothing opens; the excursion is counted once, and opens when the time is over."""
    happened = _kinds([*ENDED, *[1.5] * 12], COOLING)
    assert happened == [("started", 0), ("ended", 4), ("cooled", 7), ("started", 15)]


def test_a_very_high_score_breaks_the_cool_down() -> None:
    """The immediate score opens during the cool-down."""
    assert _kinds([*ENDED, 1.5, 1.5, 1.5, 4.0], COOLING)[-1] == ("started", 8)


def test_merging_comes_before_the_cool_down() -> None:
    """What belongs to the last alarm is taken up at once, cool-down or not."""
    both = replace(COOLING, merge_samples=6)
    assert _kinds([*ENDED, 1.5, 1.5, 1.5], both)[2:] == [("updated", 7), ("reopened", 7)]


def test_what_is_not_permitted_opens_later() -> None:
    """A slight excursion is held back, counted once, and opens with the first sample that permits it."""
    permitted = [False] * 6 + [True] * 4
    assert _kinds([1.5] * 10, permitted=permitted)[:2] == [("slight", 2), ("started", 6)]
    again = [1.5] * 3 + [0.1] * 4 + [1.5] * 3
    assert _kinds(again, permitted=[False] * 10) == [("slight", 2), ("slight", 9)]


def test_the_onset_reaches_back_to_the_last_calm_sample() -> None:
    """The onset is where the statistic last was calm, though it was quiet in between, and never before an end."""
    start, *_ = _run([0.1, 0.6, 0.6, 1.2, 1.2, 1.2], calm_below=0.5)
    assert start.state["onset_time"] == 1001.0
    again = _run([5.0, *[0.6] * 4, 5.0], calm_below=0.5)[-1]
    assert (again.kind, again.state["onset_time"]) == ("started", 1005.0)


def test_what_is_not_watched_any_more_is_forgotten() -> None:
    """A stop ends the alarms there are, and what comes after it is a new alarm at once."""
    state, rows = AlarmState.zero(3), np.arange(3)
    score = np.array([5.0, 0.1, 1.5])
    follow_alarms(state, rows, np.full(3, 1.0), score, score < 0.8, MERGING)
    assert stop_alarms(state, rows[:2]).tolist() == [0]
    assert not state.active.any()
    said = follow_alarms(state, rows, np.full(3, 2.0), np.full(3, 5.0), np.zeros(3, np.bool_), MERGING)
    assert said.started.tolist() == [True, True, True]
    assert state.onset_time.tolist() == [2.0, 2.0, 1.0]


def test_three_of_five_open() -> None:
    """The third score over the threshold within five samples opens, the third within six does not."""
    assert _kinds([1.5, 0.9, 1.5, 0.9, 1.5]) == [("started", 4)]
    assert _kinds([1.5, 0.9, 0.9, 1.5, 0.9, 1.5]) == []


def test_a_very_high_score_opens_at_once() -> None:
    """One sample at the immediate score opens, one just below it does not."""
    assert _kinds([0.1, 4.0]) == [("started", 1)]
    assert _kinds([0.1, 3.9]) == []


def test_only_a_score_over_the_threshold_opens() -> None:
    """An alarm never opens on a sample that is itself below the threshold."""
    assert _kinds([0.9] * 50) == []


def test_hysteresis_holds_between_the_clearing_value_and_the_threshold() -> None:
    """An alarm stays open as long as the statistic is not below the clearing value for long enough in a row."""
    between = [5.0, *[0.9] * 6]
    assert _kinds(between) == [("started", 0)]
    interrupted = [5.0, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    assert [kind for kind, _ in _kinds(interrupted)] == ["started", "updated"]
    assert _kinds([5.0, 0.1, 0.1, 0.1, 0.1]) == [("started", 0), ("ended", 4)]


def test_scores_before_an_end_do_not_open_the_next_alarm() -> None:
    """After an end, three samples over the threshold are needed again."""
    scores = [5.0, 0.1, 0.1, 0.1, 0.1, 1.5, 1.5]
    assert [kind for kind, _ in _kinds(scores)] == ["started", "ended"]
    again = _run([*scores, 1.5])
    assert [one.kind for one in again] == ["started", "ended", "started"]
    assert again[-1].state["number"] == 2


def test_the_onset_is_the_first_sample_of_the_excursion() -> None:
    """The onset is where the statistic left the clearing value for the last time before the alarm opened."""
    (start,) = _run([0.1, 0.9, 0.1, 0.9, 1.2, 1.2, 1.2])
    assert (start.state["onset_time"], start.state["start_time"]) == (1003.0, 1006.0)


def test_the_onset_is_right_at_time_zero() -> None:
    """A history that begins at the epoch is no exception."""
    happened = _run([0.9, 1.2, 1.2, 1.2], start=0.0)
    assert happened[0].state["onset_time"] == 0.0


def test_severity_rises_once_and_stays() -> None:
    """A critical score makes the alarm critical, says so in an update, and lasts to the end."""
    happened = _run([1.2, 1.2, 1.2, 2.5, 1.2, 0.1, 0.1, 0.1, 0.1])
    assert [(one.kind, one.state["critical"]) for one in happened] == [
        ("started", 0.0),
        ("updated", 1.0),
        ("ended", 1.0),
    ]
    assert _run([5.0])[0].state["critical"] == 1.0


def test_a_lasting_alarm_becomes_critical() -> None:
    """An alarm that stays open for the configured number of samples is critical without a higher score."""
    happened = _run([1.2] * 30)
    first = next(one for one in happened if one.state["critical"])
    assert (first.kind, first.time) == ("updated", 2 + RULES.critical_after_samples)


def test_updates_come_regularly() -> None:
    """While nothing changes, an open alarm speaks every `update_samples` samples."""
    updates = [one.time for one in _run([5.0, *[1.2] * 30]) if one.kind == "updated"]
    assert updates == [7, 14, 21, 28]


def test_the_peak_is_the_highest_score_of_the_alarm() -> None:
    """Peak and its time are those of the open alarm, not of one before."""
    happened = _run([9.0, 0.1, 0.1, 0.1, 0.1, 4.5, 6.0, 5.0, 0.1, 0.1, 0.1, 0.1])
    last = happened[-1].state
    assert (last["number"], last["peak_score"], last["peak_time"]) == (2, 6.0, 1006.0)


SCORES = st.lists(st.one_of(st.floats(0.0, 1.2), st.floats(0.0, 6.0)), max_size=120)


@settings(max_examples=200, deadline=None)
@given(scores=SCORES, merge=st.integers(0, 12), cool=st.integers(0, 20))
def test_alarms_are_never_nested(scores: list[float], merge: int, cool: int) -> None:
    """Every start or reopening is followed by at most one end before the next, and updates stand only between."""
    active, number = False, 0
    happened = _run(scores, rules=replace(RULES, merge_samples=merge, cool_down_samples=cool))
    reopened = {one.time for one in happened if one.kind == "reopened"}
    for one in happened:
        if one.kind in ("reopened", "cooled", "slight"):
            continue
        if one.kind == "updated" and one.time in reopened:
            assert not active
            assert number
        elif one.kind == "started":
            assert not active
            number += 1
            assert one.state["onset_time"] <= one.state["start_time"]
        else:
            assert active
        active = one.kind != "ended"
        assert one.state["number"] == number
        assert one.state["peak_score"] >= 1.0


@settings(max_examples=60, deadline=None)
@given(scores=st.lists(st.tuples(*[st.floats(0.0, 6.0)] * 3), max_size=60))
def test_assets_do_not_mix(scores: list[tuple[float, float, float]]) -> None:
    """Three assets followed together have the alarms that each has alone."""
    state, rows = AlarmState.zero(4), np.array([3, 0, 2])
    found: list[list[tuple[str, float]]] = [[], [], []]
    for number, three in enumerate(scores):
        score = np.array(three)
        said = follow_alarms(state, rows, np.full(3, 1000.0 + number), score, score < 0.8, RULES)
        for kind in ("ended", "started", "updated"):
            for place in np.flatnonzero(getattr(said, kind)):
                found[int(place)].append((kind, number))
    for asset in range(3):
        assert found[asset] == _kinds([three[asset] for three in scores])
    assert not state.active[1]
