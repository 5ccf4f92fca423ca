"""Labels that operators gave: when an asset had a false alarm or a true fault, as a CSV file that both programs know.

Columns `asset,start,end,label,sensors,note`; times RFC 3339 or seconds since the epoch, both ends included; sensors
separated by semicolons, the most to blame first.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.contract.errors import HistoryError

COLUMNS = ("asset", "start", "end", "label", "sensors", "note")
NEEDED = COLUMNS[:4]
LABELS = ("false_alarm", "true_fault")


@dataclass(frozen=True, slots=True)
class LabelledInterval:
    """One asset from `start` to `end`, seconds since the epoch; `label` is one of `LABELS`."""

    asset: str
    start: float
    end: float
    label: str
    sensors: tuple[str, ...] = ()
    note: str = ""


def write_labels(path: Path, intervals: Iterable[LabelledInterval]) -> None:
    """Write intervals into a CSV file.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        for one in intervals:
            times = (datetime.fromtimestamp(second, UTC).isoformat() for second in (one.start, one.end))
            table.writerow([one.asset, *times, one.label, ";".join(one.sensors), one.note])


def read_labels(path: Path) -> tuple[LabelledInterval, ...]:
    """Read intervals from a CSV file.

    Raises:
        HistoryError: the file cannot be used; one line names file, line, field and rule.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            missing = [name for name in NEEDED if name not in (table.fieldnames or ())]
            if missing:
                raise HistoryError(f"{path}: line 1: {missing[0]}: the header must name this column")
            return tuple(_interval(row, f"{path}: line {table.line_num}") for row in table)
    except OSError as error:
        raise HistoryError(f"{path}: file: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}: file: must be UTF-8 text") from error
    except csv.Error as error:
        raise HistoryError(f"{path}: file: is no CSV ({error})") from error


def _interval(row: dict[str, str | None], place: str) -> LabelledInterval:
    cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
    if not cells["asset"]:
        raise HistoryError(f"{place}: asset: must be given")
    if cells["label"] not in LABELS:
        raise HistoryError(f"{place}: label: is {cells['label'][:40]!r}, known are {' and '.join(LABELS)}")
    start, end = (_moment(cells[name], f"{place}: {name}") for name in ("start", "end"))
    if end < start:
        raise HistoryError(f"{place}: end: is before the start")
    sensors = tuple(name for name in cells["sensors"].split(";") if name)
    return LabelledInterval(cells["asset"], start, end, cells["label"], sensors, cells["note"])


def _moment(text: str, place: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            parsed = None
        if parsed is None:
            raise HistoryError(
                f"{place}: is {text[:40]!r}, must be a time of RFC 3339 or seconds since the epoch"
            ) from None
        seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    if not abs(seconds) < 1e11:
        raise HistoryError(f"{place}: is {text[:40]!r}, must be in seconds since the epoch")
    return seconds
