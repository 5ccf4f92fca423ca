"""A study of many trials in a database (the one user of Optuna): it can be interrupted, resumed and shared.

A trial's proposal depends on the seed, its place among the trials that did not fail, and what those found; nothing
of that is changed by an interruption: after kill -9 the same command goes on as if it had never stopped.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.trial import FrozenTrial, Trial, TrialState

from edge_agent.contract.errors import ForewarnError, HistoryError, UsageError
from trainer.tune_space import Dimension, Space

PRUNERS = ("median", "hyperband", "none")
STARTUP_TRIALS = 10
"""Drawn at random before the sampler has something to go by (tree-structured Parzen: Bergstra et al. 2011)."""
UNPRUNED_TRIALS = 4
"""Finished before the median of an epoch means anything."""
LOCK_SECONDS = 60
_OPENING = 0x666F7265
"""Key of the advisory lock of PostgreSQL under which tables are made."""
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

Report = Callable[[int, float], None]
"""Told of each epoch and its loss, lower is better; ends the trial by an exception where it is hopeless."""


@dataclass(frozen=True)
class Judged:
    """What a trial found.

    Attributes:
        cost: lower is better.
        facts: kept beside it.
    """

    cost: float
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """A trial as it is kept: `state` is complete, pruned, failed or running; `cost` is None unless complete."""

    number: int
    state: str
    cost: float | None
    parameters: dict[str, Any]
    facts: dict[str, Any]


class Study:
    """A study.

    Args:
        storage: URL of the database, `sqlite:///PATH` or `postgresql://…`.
        name: of the study in it.
        about: what the trials depend on; a study of something else is refused.
        pruner: one of `PRUNERS`, which ends trials whose loss is hopeless.
        epochs: of a trial, at most.

    Raises:
        UsageError: the database cannot be used, or holds a study of something else under this name.
    """

    def __init__(self, storage: str, name: str, about: Mapping[str, Any], pruner: str, epochs: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._storage = storage
        with _storage_trouble(storage), _one_at_a_time(storage):
            self._study = optuna.create_study(
                storage=_database(storage), study_name=name, load_if_exists=True, direction="minimize",
                pruner=_pruner(pruner, epochs),
            )  # fmt: skip
            kept = self._study.user_attrs.get("about")
            if kept is None:
                self._study.set_user_attr("about", dict(about))
        if kept is not None and kept != dict(about):
            differing = sorted(key for key in {*kept, *about} if kept.get(key) != about.get(key))
            raise UsageError(
                f"--study {name}: in this storage it is of another {' and '.join(differing)}; give another name"
            )

    def run(
        self,
        trials: int,
        seed: int,
        space: Space,
        judge: Callable[[dict[str, Any], Report], Judged],
        on_trial: Callable[[int, list[TrialRecord]], None],
    ) -> None:
        """Run trials until so many are finished, those of earlier runs and of other processes included.

        Args:
            trials: complete or pruned.
            seed: of the proposals.
            space: what is tried.
            judge: runs a trial with its parameters.
            on_trial: told of each trial that this process ran, by its number, and of all that there are.

        Raises:
            ForewarnError: the database went away; the trials in it are kept.
        """
        try:
            while self._finished() < trials:
                self._bury_the_dead()
                trial = self._proposed(seed)
                self._run_one(trial, space, judge)
                on_trial(trial.number, self.records())
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as reason:
            raise ForewarnError(_told(self._storage, reason)) from reason

    def _proposed(self, seed: int) -> Trial:
        """Return a new trial, of this process and with a sampler of its own."""
        trial = self._study.ask()
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self._seed_of(trial, seed), n_startup_trials=STARTUP_TRIALS
        )
        trial.set_user_attr("process", [socket.gethostname(), os.getpid()])
        return trial

    def _run_one(self, trial: Trial, space: Space, judge: Callable[[dict[str, Any], Report], Judged]) -> None:
        def report(epoch: int, loss: float) -> None:
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            found = judge(
                {key: _suggested(trial, key, dimension) for key, dimension in space.items()}, report
            )
        except optuna.TrialPruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        except HistoryError as refused:
            # Such as a window that is too long for the history: another trial may do.
            trial.set_user_attr("facts", {"refused": str(refused)})
            self._study.tell(trial, state=TrialState.PRUNED)
        except BaseException:
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        else:
            trial.set_user_attr("facts", found.facts)
            self._study.tell(trial, found.cost)

    def records(self) -> list[TrialRecord]:
        """Return all trials in order."""
        return [_record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def _finished(self) -> int:
        return len(self._study.get_trials(deepcopy=False, states=_FINISHED))

    def _seed_of(self, trial: Trial, seed: int) -> int:
        """Return a seed of its own for each trial: by its place among those before it that have not failed."""
        before = self._study.get_trials(deepcopy=False, states=(*_FINISHED, TrialState.RUNNING))
        place = sum(one.number < trial.number for one in before)
        return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])

    def _bury_the_dead(self) -> None:
        """Note trials as failed whose process, on this machine, is gone: they are running no more."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            host, process = trial.user_attrs.get("process", ("", 0))
            if host == socket.gethostname() and not _alive(int(process)):
                self._study.tell(trial.number, state=TrialState.FAIL)


def _database(url: str) -> optuna.storages.BaseStorage:
    """Open a database; SQLite lets one process write at a time, and the others wait."""
    address = _address(url)
    # Of a server, a connection may be gone after a trial of many minutes; it is tried before it is used.
    chosen: dict[str, Any] = {"pool_pre_ping": True}
    if address.get_backend_name() == "sqlite":
        chosen = {"connect_args": {"timeout": LOCK_SECONDS}}
    return optuna.storages.RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=chosen)


def _address(url: str) -> sqlalchemy.URL:
    """Return an address; where it names no driver of PostgreSQL, psycopg, whatever SQLAlchemy would take."""
    address = sqlalchemy.make_url(url)
    if address.drivername in ("postgres", "postgresql"):
        return address.set(drivername="postgresql+psycopg")
    return address


@contextlib.contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Let other processes wait that open the same database: of two that make its tables one would fail."""
    address = _address(url)
    with contextlib.ExitStack() as held:
        if address.get_backend_name() == "postgresql":
            engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
            # It is the server's, and goes with the connection.
            connection = held.enter_context(engine.connect())
            connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_OPENING)))
        elif address.get_backend_name() == "sqlite" and address.database:
            # Of the folder, so that no file of locks is left behind.
            folder = os.open(Path(address.database).parent, os.O_RDONLY)
            held.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=1)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=max(epochs, 1))
    return optuna.pruners.NopPruner()


def _suggested(trial: Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices:
        # A database holds text and numbers: a list is kept as its JSON.
        chosen = json.loads(trial.suggest_categorical(key, [json.dumps(one) for one in dimension.choices]))
        return tuple(chosen) if isinstance(chosen, list) else chosen
    if dimension.whole:
        step = int(dimension.step or 1)
        return trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _record(trial: FrozenTrial) -> TrialRecord:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    parameters = {
        key: json.loads(value) if isinstance(value, str) else value for key, value in trial.params.items()
    }
    cost = trial.value if trial.state == TrialState.COMPLETE else None
    facts = trial.user_attrs.get("facts", {})
    return TrialRecord(trial.number, states.get(trial.state, "running"), cost, parameters, facts)


@contextlib.contextmanager
def _storage_trouble(url: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as reason:
        if reason.name != "psycopg":
            raise UsageError(_told(url, reason)) from reason
        raise UsageError(
            f"--storage {without_password(url)}: psycopg is not installed: pip install 'forewarn[postgres]'"
        ) from reason
    except (
        sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, OSError, ValueError,
    ) as reason:  # fmt: skip
        raise UsageError(_told(url, reason)) from reason


def _told(url: str, reason: Exception) -> str:
    """Return in a line what is wrong with a database: of what lies behind it, the driver's own words."""
    while isinstance(reason, optuna.exceptions.OptunaError) and isinstance(reason.__cause__, Exception):
        reason = reason.__cause__
    first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    return f"--storage {without_password(url)}: {without_password(first)}"


def without_password(text: str) -> str:
    """Return a text with what may be a password in an address hidden."""
    return re.sub(r"(\w+://[^\s:/@]*):\S*@", r"\1:***@", text)
