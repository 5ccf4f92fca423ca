"""What a benchmark is made of: cases to judge, contenders that judge them, and suites that score the verdicts.

A contender learns from a case's history alone and passes over its test rows once, in order: nothing that it says of a
row may depend on a later row or on a label.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Bool, Float32, Float64, Int64

ALARMS_PER_WEEK = 1.0
"""The alarm budget that every contender is given, in every benchmark."""

Labels = NDArray[np.int8]
Figures = dict[str, float | None]


@dataclass(frozen=True)
class Window:
    """One labelled stretch of the test rows.

    Attributes:
        first, last: rows of the test part, both inside.
        kind: of the fault, where the data names it.
        blamed: the sensors that an alarm should name, where the data knows them.
    """

    first: int
    last: int
    kind: str = ""
    blamed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One machine: what may be learnt from, and what is judged.

    Tick k stands at `phase + k * interval` seconds since the epoch. A tick that is not there is a gap of the source:
    it has no row, so it is never scored, and a contender that follows the time axis sees it as missing.

    Attributes:
        name: of the case.
        sensors: names of the F sensors.
        interval, phase: seconds.
        history_ticks: (m,) strictly ascending.
        history_values: (m, F) NaN where missing.
        test_ticks: (n,) strictly ascending, all after the history's.
        test_values: (n, F) NaN where missing.
        labels: (n,) 1 where the machine is not normal.
        scored: (n,) rows that count.
        windows: labelled stretches, where the protocol is about them.
        changepoints: ticks, where the protocol is about them.
    """

    name: str
    sensors: tuple[str, ...]
    interval: float
    phase: float
    history_ticks: Int64
    history_values: Float32
    test_ticks: Int64
    test_values: Float32
    labels: Labels
    scored: Bool
    windows: tuple[Window, ...] = ()
    changepoints: tuple[int, ...] = ()


@dataclass(frozen=True)
class SensorReport:
    """One sensor that a data-quality event newly names.

    Attributes:
        row: of the test part, at which the event comes.
        sensor: its name.
        reason: why its readings cannot be trusted.
    """

    row: int
    sensor: str
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What a contender makes of the test rows of a case.

    Attributes:
        score: (n,) larger is stranger, 1.0 is the contender's threshold; NaN where it does not judge.
        alarm: (n,) whether there is an alarm after the row.
        starts: (k,) rows at which an alarm event begins.
        onsets: (k,) rows at which what the machine does changes abruptly, starts of alarms among them; None where the
            contender tells only the starts.
        sensors: of each event the sensors to blame, first the most; None where the contender blames none.
        quality: what data-quality events report; None where the contender has no such events.
        forecast: (n, F) of each row from those before it, NaN where there is none; None where the contender forecasts
            nothing.
    """

    score: Float64
    alarm: Bool
    starts: Int64
    sensors: tuple[tuple[str, ...], ...] | None = None
    onsets: Int64 | None = None
    quality: tuple[SensorReport, ...] | None = None
    forecast: Float32 | None = None

    @property
    def changes(self) -> Int64:
        """Return the rows at which the machine is said to change."""
        return self.starts if self.onsets is None else self.onsets

    @property
    def ranks(self) -> Float64:
        """Return the scores with the lowest of all for rows that were not judged: silence is no alarm."""
        return np.nan_to_num(self.score, nan=-np.inf)


class Contender(Protocol):
    """Judges cases.

    Attributes:
        name: for the table.
        seeded: whether another seed gives another verdict.
    """

    name: str
    seeded: bool

    def judge(self, case: Case, seed: int) -> Verdict:
        """Learn from the history and judge the test rows, causally and in one pass."""


@dataclass(frozen=True)
class Plan:
    """A case that is yet to be made, small enough to be sent to another process.

    Attributes:
        name: of the case.
        make: gives the case for a seed; a case that was recorded is the same for every seed.
        drawn: whether another seed gives another case.
    """

    name: str
    make: Callable[[int], Case]
    drawn: bool = False


@dataclass(frozen=True)
class Published:
    """A result that others published.

    Attributes:
        name: of the method, and what to know of it.
        figures: by key, as ratios or scores like our own.
    """

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)


class Suite(ABC):
    """A benchmark: its cases and the protocol that scores them.

    Attributes:
        name: as on the command line.
        keys: of the figures, in the order of the table.
        published: results of others under the same protocol.
        remarks: what a reader of the table must know, a sentence each.
        simulated: whether a case is another one for every seed.
        seeds: as many as are run if nobody says how many.
    """

    name: str
    keys: tuple[str, ...]
    published: tuple[Published, ...] = ()
    remarks: tuple[str, ...] = ()
    simulated: bool = False
    seeds: int = 3

    @abstractmethod
    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return the cases; `quick` takes a few small ones.

        Raises:
            HistoryError: the data is not there.
        """

    @abstractmethod
    def tally(self, case: Case, verdict: Verdict) -> Any:
        """Return what the figures need of one case, small enough to be sent between processes."""

    @abstractmethod
    def figures(self, tallies: Sequence[Any]) -> Figures:
        """Return the figures of one run over all cases, one for each of `keys`."""

    def case_figures(self, tally: Any) -> Figures:
        """Return the figures of one case, which show what failed."""
        return self.figures([tally])

    @abstractmethod
    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return how bad the figures of a case are, by which the worst cases are found; larger is worse."""

    def pooled(self, tallies: Sequence[Any]) -> dict[str, Any]:
        """Return what is only defined over all seeds together."""
        return {}


def ratio(part: float, whole: float) -> float | None:
    """Return the quotient, or None where there is nothing to divide by."""
    return float(part / whole) if whole > 0 else None


def known(value: float | None, otherwise: float = 0.0) -> float:
    """Return a figure, or another one where it is not defined."""
    return otherwise if value is None else value


def need_folder(folder: Path, suite: str) -> Path:
    """Return the folder of a set.

    Raises:
        HistoryError: it is not there.
    """
    if not folder.is_dir():
        raise HistoryError(f"{folder}: no such folder; benchmark {suite} reads the public data from it")
    return folder


def runs_of(flag: Bool) -> list[tuple[int, int]]:
    """Return (first, one past last) of each run of true rows."""
    edges = np.flatnonzero(np.diff(np.r_[False, flag, False].astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
