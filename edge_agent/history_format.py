"""What a history file looks like, recognised from its first lines: separator, decimal mark, and what each column is.

Pure text and names in, decisions out; reading the file itself is the work of `edge_agent.history`.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.contract.errors import HistoryError, UsageError

TIME_NAMES = (
    *(
        "time",
        "timestamp",
        "datetime",
        "date_time",
        "date time",
        "date",
        "ts",
        "time_stamp",
        "epoch",
        "unixtime",
    ),
    *("unix_time", "event_time", "utc", "zeit", "zeitstempel", "datum", "time_utc", "time_epoch"),
)
ASSET_NAMES = (
    "asset",
    "asset_id",
    "assetid",
    "machine",
    "machine_id",
    "machineid",
    "device",
    "device_id",
    "unit_id",
)
LABEL_NAMES = ("label", "labels", "anomaly", "is_anomaly", "anomaly_label")
LABEL_COMPANIONS = ("changepoint", "fault")
SENSOR_NAMES = (
    "sensor",
    "sensor_id",
    "sensor_name",
    "tag",
    "tag_name",
    "channel",
    "signal",
    "variable",
    "metric",
)
VALUE_NAMES = ("value", "reading", "val", "measurement")
SEPARATORS = (";", "\t", "|", ",")
EPOCH_UNITS = ("s", "ms", "us", "ns")
LAYOUTS = ("wide", "long")
SENSOR_NAMINGS = ("field", "measurement.field")
TIME_FORMATS = ("iso", "day-first", "month-first", "epoch")
MISSING_WORDS = frozenset(
    {"", "na", "n/a", "#n/a", "nan", "null", "none", "nil", "-", "--", "?", "missing", "bad", "-nan", "nat"}
)
_TIME_TEXT = re.compile(r"^\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?$")
_COMMA_NUMBER = re.compile(r"^\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*$")
_POINT_NUMBER = re.compile(r"^\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*$")


@dataclass(frozen=True)
class HistoryFormat:
    """How to read a history file; None and empty mean: recognise it.

    Attributes:
        time_column: name of the column of times.
        asset_column: name of the column that tells the assets apart.
        label_column: name of the column of labels; any value but zero is a fault.
        ignore_columns: names of columns that are no sensors.
        separator: the sign between two cells, one character such as `,` `;` `|` or a tab.
        decimal: the decimal mark, `.` or `,`.
        time_format: `iso`, `day-first`, `month-first`, `epoch`, or a pattern such as `%d/%m/%y %H`.
        epoch_unit: `s`, `ms`, `us` or `ns`, for times that are numbers.
        layout: `wide` (a column per sensor) or `long` (a row per reading).
        sensor_column: long layout, name of the column of sensor names.
        value_column: long layout, name of the column of values.
        sensor_name: line protocol, what a sensor is called, one of `SENSOR_NAMINGS`; None is `field`.
        query: SQL whose rows are the history, of databases.
    """

    time_column: str | None = None
    asset_column: str | None = None
    label_column: str | None = None
    ignore_columns: tuple[str, ...] = ()
    separator: str | None = None
    decimal: str | None = None
    time_format: str | None = None
    epoch_unit: str | None = None
    layout: str | None = None
    sensor_column: str | None = None
    value_column: str | None = None
    sensor_name: str | None = None
    query: str | None = None


def check_format(fmt: HistoryFormat, source: str) -> None:
    """Refuse words of a format that mean nothing, before a file is read with them.

    Args:
        fmt: what the user said.
        source: the file or files, for the message.

    Raises:
        UsageError: names the field, what it holds and what it can hold.
    """
    for field, value, known in (
        ("epoch_unit", fmt.epoch_unit, EPOCH_UNITS),
        ("layout", fmt.layout, LAYOUTS),
        ("decimal", fmt.decimal, (".", ",")),
        ("sensor_name", fmt.sensor_name, SENSOR_NAMINGS),
    ):
        if value is not None and value not in known:
            raise UsageError(f"{source}: {field}: is {value!r}, known are {', '.join(known)}")
    if fmt.separator is not None and (
        len(fmt.separator) != 1 or not fmt.separator.isascii() or fmt.separator in '"\r\n'
    ):
        raise UsageError(
            f"{source}: separator: is {fmt.separator!r}, must be one ASCII character and no quote"
        )
    if fmt.time_format is not None and fmt.time_format not in TIME_FORMATS and "%" not in fmt.time_format:
        raise UsageError(
            f"{source}: time_format: is {fmt.time_format!r}, known are {', '.join(TIME_FORMATS)} "
            "and patterns with % such as %d/%m/%y %H"
        )


@dataclass(frozen=True)
class Columns:
    """What each column of one file is, by its index."""

    names: tuple[str, ...]
    time: int
    asset: int | None
    label: int | None
    sensor: int | None
    """Long layout only."""
    sensors: tuple[int, ...]
    """Wide: the columns of the sensors. Long: the one column of values."""
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Dialect:
    """How the text of one file is cut into cells."""

    separator: str
    decimal: str
    header: tuple[str, ...]


def recognise_dialect(lines: Sequence[str], fmt: HistoryFormat, source: str) -> Dialect:
    """Recognise separator and decimal mark from the first lines of a file, of which the first is its header.

    Raises:
        HistoryError: the first line names no columns, or most rows have more cells than it.
    """
    separator = fmt.separator or max(SEPARATORS, key=lambda sign: len(_cells(lines[:1], sign)[0]))
    table = _cells(lines, separator)
    header, rows = table[0], table[1:]
    if all(_is_number(cell) for cell in header if cell.strip()):
        raise HistoryError(f"{source}: the first line has no column names, it must name every column")
    longer = sum(any(cell.strip() for cell in row[len(header) :]) for row in rows)
    if rows and longer * 2 > len(rows):
        raise HistoryError(
            f"{source}: the rows have more cells than the header has names ({len(header)}); "
            f"is {separator!r} both separator and decimal mark?"
        )
    return Dialect(separator, fmt.decimal or _decimal_mark(rows, separator), tuple(header))


def _cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    return [row for row in csv.reader(lines, delimiter=separator) if row] or [[""]]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _decimal_mark(rows: Sequence[Sequence[str]], separator: str) -> str:
    if separator == ",":
        return "."
    commas = any(_COMMA_NUMBER.match(cell) for row in rows for cell in row)
    points = any(_POINT_NUMBER.match(cell) for row in rows for cell in row)
    return "," if commas and not points else "."


def assign_columns(
    header: Sequence[str], first: Sequence[Sequence[str | None]], fmt: HistoryFormat, source: str
) -> Columns:
    """Decide what each column is.

    Args:
        header: the names as they stand in the file.
        first: the first rows as text, per column.
        fmt: what the user said.
        source: the file, for messages.

    Raises:
        HistoryError: a named column is not there, there is no time column, or nothing is left for a sensor.
    """
    notices: list[str] = []
    names = _unique_names(header, notices)
    time = _time_index(names, first, fmt, source)
    ignored = {_named(names, name, "ignored", source) for name in fmt.ignore_columns}
    taken = {time} | ignored
    asset = _role(names, fmt.asset_column, ASSET_NAMES, "asset", taken, source)
    label = _role(names, fmt.label_column, LABEL_NAMES, "label", taken, source)
    if label is not None and fmt.label_column is None:
        notices.append(f"column {names[label]} is read as labels, not as a sensor")
    if label is not None:
        for index, name in enumerate(names):
            if index not in taken and name.lower() in (*LABEL_NAMES, *LABEL_COMPANIONS):
                taken.add(index)
                notices.append(f"column {name} belongs to the labels and is ignored")
    sensor, value = _long_columns(names, fmt, taken, source)
    rest = tuple(index for index in range(len(names)) if index not in taken)
    if sensor is None and not rest:
        raise HistoryError(f"{source}: no column is left for a sensor beside {', '.join(names)}")
    sensors = rest if value is None else (value,)
    return Columns(names, time, asset, label, sensor, sensors, tuple(notices))


def _unique_names(header: Sequence[str], notices: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    names: list[str] = []
    for index, raw in enumerate(header):
        name = raw.strip().strip("\ufeff") or f"column_{index + 1}"
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            fresh = f"{name}_{seen[name]}"
            notices.append(f"column {name} appears more than once, the later one is called {fresh}")
            name = fresh
        names.append(name)
    return tuple(names)


def _named(names: Sequence[str], wanted: str, role: str, source: str) -> int:
    if wanted.strip() in names:
        return names.index(wanted.strip())
    raise HistoryError(f"{source}: {role} column {wanted} is not in the file, which has {', '.join(names)}")


def _role(
    names: Sequence[str], wanted: str | None, known: Sequence[str], role: str, taken: set[int], source: str
) -> int | None:
    """Return the column of a role and mark it as taken; None where the file has none."""
    found = None if wanted is None else _named(names, wanted, role, source)
    lower = [name.lower() for name in names]
    if found is None:
        found = next(
            (lower.index(name) for name in known if name in lower and lower.index(name) not in taken), None
        )
    if found is not None:
        taken.add(found)
    return found


def _long_columns(
    names: Sequence[str], fmt: HistoryFormat, taken: set[int], source: str
) -> tuple[int | None, int | None]:
    """Return the columns of sensor name and value where the file is long, else None twice."""
    if fmt.layout == "wide":
        return None, None
    found = set(taken)
    sensor = _role(names, fmt.sensor_column, SENSOR_NAMES, "sensor", found, source)
    value = _role(names, fmt.value_column, VALUE_NAMES, "value", found, source)
    if sensor is not None and value is not None:
        taken |= found
        return sensor, value
    if fmt.layout == "long" or fmt.sensor_column or fmt.value_column:
        missing = "sensor" if sensor is None else "value"
        raise HistoryError(f"{source}: the long layout needs a {missing} column, give its name")
    return None, None


def _time_index(
    names: Sequence[str], first: Sequence[Sequence[str | None]], fmt: HistoryFormat, source: str
) -> int:
    if fmt.time_column is not None:
        return _named(names, fmt.time_column, "time", source)
    lower = [name.lower() for name in names]
    for known in TIME_NAMES:
        if known in lower and known not in (name.lower() for name in fmt.ignore_columns):
            return lower.index(known)
    for index, cells in enumerate(first):
        filled = [cell for cell in cells if cell]
        if filled and all(_TIME_TEXT.match(cell) for cell in filled):
            return index
    raise HistoryError(f"{source}: no time column among {', '.join(names)}; name it with --time-column")
