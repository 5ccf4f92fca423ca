"""What a contender got wrong in a case, by row and minute: the first false alarm, and how much of each fault it saw."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.benchmark.cases import Case, Verdict, runs_of

WORST = 5
HALF = 0.5
_SHOWN = 4


@dataclass(frozen=True)
class Seen:
    """One fault.

    Attributes:
        first, last: rows of the test part, both inside.
        minute: from the first row of the test part to the first of the fault.
        kind: where the data names it.
        in_alarm: share of its rows; 0 is a missed fault.
    """

    first: int
    last: int
    minute: float
    kind: str
    in_alarm: float


@dataclass(frozen=True)
class Mistakes:
    """What went wrong in one case.

    Attributes:
        false_alarms: alarms that begin at a row that is normal and counts.
        first_false_alarm: row of the first of them.
        first_false_minute: from the first row of the test part.
        faults: in order; windows where the protocol has them, otherwise labelled stretches.
    """

    false_alarms: int
    first_false_alarm: int | None
    first_false_minute: float | None
    faults: tuple[Seen, ...]


def mistakes_of(case: Case, verdict: Verdict) -> Mistakes:
    """Return what a verdict got wrong."""

    def minute(row: int) -> float:
        return float((case.test_ticks[row] - case.test_ticks[0]) * case.interval / 60.0)

    begun = np.array([first for first, _ in runs_of(verdict.alarm)], np.int64)
    normal = case.scored & (case.labels == 0)
    false = begun[normal[begun]]
    spans = [(one.first, one.last, one.kind) for one in case.windows] or [
        (first, end - 1, "") for first, end in runs_of(case.labels > 0)
    ]
    faults = tuple(
        Seen(first, last, minute(first), kind, float(verdict.alarm[first : last + 1].mean()))
        for first, last, kind in spans
    )
    first = int(false[0]) if len(false) else None
    return Mistakes(len(false), first, None if first is None else minute(first), faults)


def record_of(mistakes: Mistakes) -> dict[str, Any]:
    """Return the mistakes as `--json` prints them: of the faults, those of which less than half was in alarm."""
    fields = asdict(mistakes)
    fields["faults"] = [asdict(one) for one in mistakes.faults if one.in_alarm < HALF]
    return {"mistakes": fields}


def worst_table(cases: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the worst cases: where to look first."""
    return (
        [
            "worst cases",
            "false alarms",
            "first at row (minute)",
            "faults less than half in alarm: rows (minute) share",
        ],
        [[one["name"], *_told(one["mistakes"])] for one in cases],
    )


def _told(mistakes: dict[str, Any]) -> list[str]:
    row, minute = mistakes["first_false_alarm"], mistakes["first_false_minute"]
    faults = [
        f"{one['first']}-{one['last']} ({one['minute']:.0f}) {one['in_alarm']:.0%} {one['kind']}".strip()
        for one in mistakes["faults"]
    ]
    more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    return [
        str(mistakes["false_alarms"]),
        "-" if row is None else f"{row} ({minute:.0f})",
        "; ".join([*faults[:_SHOWN], *more]) or "-",
    ]
