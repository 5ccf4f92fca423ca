"""Laws of a study: it survives kill -9, goes on as if nothing had been, is shared, and is never mixed with another."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from edge_agent.contract.errors import ForewarnError, HistoryError, UsageError
from tests.postgres import PASSWORD, Server, running_server
from trainer.study import Judged, Report, Study, TrialRecord, without_password
from trainer.tune_space import Dimension, Space

SPACE: Space = {
    "learning_rate": Dimension(low=0.0, high=1.0),
    "units": Dimension(choices=((4,), (8, 4))),
    "epochs": Dimension(low=1, high=9, whole=True),
}
TRIALS = 7
# The judge of the process that is killed: the third trial says that it runs, and waits for its end.
KILLED = """
import sys, signal
from tests.test_study import SPACE, TRIALS, judge, study
from trainer.study import Judged
calls = []
def stops(parameters, report):
    calls.append(1)
    if len(calls) == 3:
        print("running", flush=True)
        signal.pause()
    return judge(parameters, report)
study(sys.argv[1]).run(TRIALS, 0, SPACE, stops, lambda number, records: None)
"""
# Of each place that it is told of, it says that it has begun a trial there, goes on when told to, and says how many it
# has finished.
TOGETHER = """
import sys
from tests.test_study import SPACE, TRIALS, judge, study
print("ready", flush=True)
for place in map(str.strip, sys.stdin):
    calls, met = [], []
    def meeting(parameters, report):
        if not met:
            met.append(place)
            print("begun", flush=True)
            sys.stdin.readline()
        return judge(parameters, report)
    def told(number, records):
        assert records[number].number == number
        calls.append(records[number].state in ("complete", "pruned"))
    study(place).run(TRIALS, 0, SPACE, meeting, told)
    print(sum(calls), flush=True)
"""


@contextlib.contextmanager
def _three() -> Iterator[Callable[[str], list[int]]]:
    """Three processes, which run a study together in each place that they are told of in the same moment."""
    with contextlib.ExitStack() as held:
        pipes = []
        for _ in range(3):
            process = held.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TOGETHER],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                )
            )  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            pipes.append((process.stdin, process.stdout))
        assert [said.readline() for _, said in pipes] == ["ready\n"] * 3

        def together(place: str) -> list[int]:
            for told, _ in pipes:
                told.write(f"{place}\n")
            assert [said.readline() for _, said in pipes] == ["begun\n"] * 3
            for told, _ in pipes:
                told.write("go on\n")
            return [int(said.readline() or -1) for _, said in pipes]

        yield together


def study(place: str, about: str = "this", pruner: str = "median") -> Study:
    """Open the study in a file, or in the database of an address."""
    url = place if "://" in place else f"sqlite:///{place}"
    return Study(url, "test", {"history": about}, pruner, 9)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL server."""
    with running_server() as running:
        yield running


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> str:
    """Return the address of an empty database of its own."""
    name = f"of_{request.node.name}"[:60]
    with psycopg.connect(server.url(PASSWORD), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.url(PASSWORD, name)


def judge(parameters: dict[str, Any], report: Report) -> Judged:
    """A cost that a person could compute; large learning rates are hopeless from their second epoch on."""
    for epoch in range(1, 4):
        report(epoch, parameters["learning_rate"] * epoch)
    return Judged(
        abs(parameters["learning_rate"] - 0.3) + len(parameters["units"]), {"seen": parameters["epochs"]}
    )


def _run(path: Path, trials: int = TRIALS) -> list[TrialRecord]:
    one = study(str(path))
    one.run(trials, 0, SPACE, judge, lambda number, records: None)
    return one.records()


def _finished(records: list[TrialRecord]) -> list[TrialRecord]:
    return [one for one in records if one.state in ("complete", "pruned")]


def test_a_study_goes_on_after_kill_9(tmp_path: Path) -> None:
    """Killed in its third trial, a study keeps the first two and ends with the trials of one that was never killed."""
    path = tmp_path / "killed.db"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGKILL)
    before = study(str(path)).records()
    assert [one.state for one in before] == ["complete", "complete", "running"]
    after = _run(path)
    assert after[:2] == before[:2]
    assert after[2].state == "failed"
    assert len(_finished(after)) == TRIALS
    whole = _run(tmp_path / "whole.db")
    assert [(one.parameters, one.cost, one.state) for one in _finished(after)] == [
        (one.parameters, one.cost, one.state) for one in whole
    ]


def test_processes_share_one_study_from_nothing(database: str, tmp_path: Path) -> None:
    """Three that find an empty database, or no file, make its tables once, and no two begin with the same proposal."""
    with _three() as together:
        run = {place: together(place) for place in (database, *(f"{tmp_path}/{n}.db" for n in range(8)))}
    for place, counts in run.items():
        records = study(place).records()
        assert min(counts) > 0
        assert sum(counts) == len(records)
        assert TRIALS <= len(_finished(records)) <= TRIALS + 2
        assert len({str(sorted(one.parameters.items())) for one in records}) == len(records)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.db" for n in range(8)]


def test_a_killed_process_on_postgresql_is_gone_on_from(database: str) -> None:
    """What a killed process left running is failed by the next on the same machine, and its trials are kept."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, database], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGKILL)
    one = study(database)
    assert [trial.state for trial in one.records()] == ["complete", "complete", "running"]
    one.run(TRIALS, 0, SPACE, judge, lambda number, records: None)
    assert [trial.state for trial in one.records()][:3] == ["complete", "complete", "failed"]
    assert len(_finished(one.records())) == TRIALS


def test_a_server_that_goes_away_is_one_line() -> None:
    """A server that stops within a trial ends the run with one line, without its password."""
    with contextlib.ExitStack() as running:
        url = running.enter_context(running_server()).url(PASSWORD)
        one = study(url)

        def stops(parameters: dict[str, Any], report: Report) -> Judged:
            running.close()
            return judge(parameters, report)

        with pytest.raises(ForewarnError, match=r"--storage postgresql://reader:\*\*\*@") as refused:
            one.run(2, 0, SPACE, stops, lambda number, records: None)
    assert refused.value.exit_code == 1
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    """Asked for as many trials as there are, nothing runs; asked for more, only the rest."""
    path = tmp_path / "study.db"
    first = _run(path, 3)
    assert _run(path, 3) == first
    assert _run(path, 5)[:3] == first


def test_hopeless_trials_are_pruned_and_impossible_ones_told(tmp_path: Path) -> None:
    """Trials whose loss is worse than the median's end early; what a history cannot carry is kept with its reason."""
    records = _run(tmp_path / "study.db", 14)
    pruned = [one for one in records if one.state == "pruned"]
    complete = [one for one in records if one.state == "complete"]
    assert pruned
    assert min(one.parameters["learning_rate"] for one in pruned) > min(
        one.parameters["learning_rate"] for one in complete
    )
    assert all(one.facts == {"seen": one.parameters["epochs"]} for one in complete)

    def refuses(parameters: dict[str, Any], report: Report) -> Judged:
        raise HistoryError("the window is too long")

    other = study(str(tmp_path / "other.db"))
    other.run(2, 0, SPACE, refuses, lambda number, records: None)
    assert [(one.state, one.facts) for one in other.records()] == [
        ("pruned", {"refused": "the window is too long"})
    ] * 2


def test_a_trial_that_breaks_is_failed_and_ends_the_run(tmp_path: Path) -> None:
    """What is no matter of the history is raised, and the trial does not count as finished."""

    def breaks(parameters: dict[str, Any], report: Report) -> Judged:
        raise ZeroDivisionError

    one = study(str(tmp_path / "study.db"))
    with pytest.raises(ZeroDivisionError):
        one.run(2, 0, SPACE, breaks, lambda number, records: None)
    assert [trial.state for trial in one.records()] == ["failed"]


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_every_pruner_finishes(pruner: str, tmp_path: Path) -> None:
    """The other pruners run as well; without one every trial is complete."""
    one = study(str(tmp_path / "study.db"), pruner=pruner)
    one.run(8, 0, SPACE, judge, lambda number, records: None)
    states = {trial.state for trial in one.records()}
    assert states == {"complete"} if pruner == "none" else states <= {"complete", "pruned"}


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    """Trials on another history are never compared with these."""
    _run(tmp_path / "study.db", 1)
    with pytest.raises(UsageError, match="of another history; give another name"):
        study(str(tmp_path / "study.db"), about="that")


@pytest.mark.parametrize(
    "storage", ["sqlite:////none/none/a.db", "mood://a", "postgresql://u:secret@127.0.0.1:1/x"]
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(storage: str) -> None:
    """A wrong address is one line, and what may be a password in it is hidden."""
    with pytest.raises(UsageError, match="--storage") as refused:
        Study(storage, "test", {}, "none", 1)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psycopg a study on PostgreSQL is refused with the extra that brings it."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"psycopg is not installed: pip install 'forewarn\[postgres\]'"):
        study("postgresql://reader@127.0.0.1/x")


def test_passwords_are_hidden_in_any_text() -> None:
    """Of an address in a text, the user stays and the password goes."""
    hidden = without_password("no postgresql+psycopg://me:a@b@host/x here")
    assert hidden == "no postgresql+psycopg://me:***@host/x here"
