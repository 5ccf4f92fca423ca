"""Laws of every contender: causal, blind to labels, and with a threshold from the history alone."""

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.contract.alarms import AlarmRules, AlarmState, follow_alarms
from tests.tiny_benchmarks import tiny_case
from tests.tiny_machine import SENSORS
from trainer.benchmark.cases import Contender, Verdict
from trainer.benchmark.floor_alarms import follow_rows
from trainer.benchmark.floors import CLOCK_SHARE, AllPositive, Clock, Random, all_floors
from trainer.benchmark.forewarn import Forewarn, ForewarnOptions, fit_detector

RIDGE = ForewarnOptions("ridge")
CONTENDERS: list[Contender] = [*all_floors(), Forewarn(RIDGE)]
WITH_MODEL = [one for one in CONTENDERS if one.name not in ("all-positive", "random", "clock")]
SHARPEST = [one for one in WITH_MODEL if one.name in ("PCA T²+Q", "ridge VAR", "forewarn")]


def _name(contender: Contender) -> str:
    return contender.name


def _same(one: Verdict, other: Verdict, rows: int) -> None:
    np.testing.assert_array_equal(one.score[:rows], other.score[:rows])
    np.testing.assert_array_equal(one.alarm[:rows], other.alarm[:rows])
    assert one.starts[one.starts < rows].tolist() == other.starts[other.starts < rows].tolist()


@pytest.mark.parametrize("contender", CONTENDERS, ids=_name)
def test_what_comes_later_changes_nothing(contender: Contender) -> None:
    """The verdict on the first rows is the same whatever the later rows hold."""
    case = tiny_case()
    values = case.test_values.copy()
    values[150:] += 7.0
    _same(contender.judge(case, 0), contender.judge(replace(case, test_values=values), 0), 150)


@pytest.mark.parametrize("contender", CONTENDERS, ids=_name)
def test_labels_change_nothing(contender: Contender) -> None:
    """The verdict is the same whatever the labels say."""
    case = tiny_case()
    blind = replace(case, labels=1 - case.labels, windows=(), scored=~case.scored)
    _same(contender.judge(case, 0), contender.judge(blind, 0), len(case.labels))


@pytest.mark.parametrize("contender", CONTENDERS, ids=_name)
def test_the_same_seed_gives_the_same_verdict(contender: Contender) -> None:
    """A contender draws from its seed alone, and says so by `seeded` if another seed gives another verdict."""
    case = tiny_case()
    first = contender.judge(case, 3)
    _same(first, contender.judge(case, 3), len(case.labels))
    if not contender.seeded:
        _same(first, contender.judge(case, 4), len(case.labels))


@pytest.mark.parametrize("contender", WITH_MODEL, ids=_name)
def test_a_history_that_stands_still_can_be_learnt_from(contender: Contender) -> None:
    """Constant sensors give finite scores, and no alarm while they stay where they are."""
    case = tiny_case()
    still = replace(
        case,
        history_values=np.full_like(case.history_values, 5.0),
        test_values=np.full_like(case.test_values, 5.0),
    )
    verdict = contender.judge(still, 0)
    assert np.isfinite(verdict.score).all()
    assert not verdict.alarm.any()


@pytest.mark.parametrize("contender", WITH_MODEL, ids=_name)
def test_missing_cells_are_judged_by_the_others(contender: Contender) -> None:
    """A sensor that is silent for a while leaves no row without a score."""
    case = tiny_case()
    values = case.test_values.copy()
    values[50:80, 1] = np.nan
    assert np.isfinite(contender.judge(replace(case, test_values=values), 0).score).all()


@pytest.mark.parametrize("contender", SHARPEST, ids=_name)
def test_an_open_fault_is_found_and_blamed(contender: Contender) -> None:
    """A sensor that steps by six deviations raises an alarm while it does, which names it first."""
    case = tiny_case()
    verdict = contender.judge(case, 0)
    (fault,) = case.windows
    inside = np.flatnonzero((verdict.starts >= fault.first) & (verdict.starts <= fault.last))
    assert len(inside)
    assert verdict.sensors is not None
    assert verdict.sensors[inside[0]][0] == SENSORS[0]
    assert sorted(verdict.sensors[inside[0]]) == sorted(SENSORS)


def test_floors_without_a_model_are_what_they_say() -> None:
    """All-positive flags all rows, random half of them, and the clock all from a quarter on."""
    case = tiny_case(test=4000)
    assert AllPositive().judge(case, 0).alarm.all()
    assert Random().judge(case, 0).alarm.mean() == pytest.approx(0.5, abs=0.05)
    clock = Clock().judge(case, 0)
    assert np.flatnonzero(clock.alarm).tolist() == list(range(int(CLOCK_SHARE * 4000), 4000))
    assert clock.starts.tolist() == [int(CLOCK_SHARE * 4000)]


@pytest.mark.parametrize("seed", range(5))
def test_alarms_of_all_rows_at_once_are_those_of_the_daemon(seed: int) -> None:
    """`follow_rows` opens and closes alarms at the same rows as the contract's own rules, one row at a time."""
    rng = np.random.default_rng(seed)
    score = np.abs(np.convolve(rng.normal(size=3000), np.ones(6) / 2.0, mode="same")) ** 1.5
    quiet = score < 0.8
    state, row = AlarmState.zero(1), np.zeros(1, np.int64)
    expected = []
    for at in range(len(score)):
        follow_alarms(state, row, np.array([float(at)]), score[at : at + 1], quiet[at : at + 1], AlarmRules())
        expected.append(bool(state.active[0]))
    found = follow_rows(score, quiet)
    assert 0 < sum(expected) < len(expected)
    assert found.tolist() == expected


def test_a_detector_is_fresh_and_stands_without_its_files() -> None:
    """The fitted detector has seen nothing yet, carries a threshold, and works after its directory is gone."""
    case = tiny_case()
    detector = fit_detector(case, 0, RIDGE)
    assert len(detector.state.last_tick) == 0
    assert not detector.bundle.directory.exists()
    assert 0.0 < detector.bundle.manifest.threshold.value < 100.0


def test_the_lstm_is_trained_by_its_seed() -> None:
    """With the LSTM another seed gives other scores, nearly those of the ridge regression that it starts from."""
    contender = Forewarn(ForewarnOptions("lstm", epochs=1, units=(4,)))
    assert contender.seeded
    case = tiny_case(history=200, test=60, fault=(30, 40))
    first, other = (contender.judge(case, seed).score for seed in (0, 1))
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(first, Forewarn(RIDGE).judge(case, 0).score, rtol=0.5, atol=0.5)
