"""Histories as columns of numbers: CSV, Parquet, line protocol, rows of a database (the one user of polars)."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32, Float64, Int64
from edge_agent.history_assembly import Assembly, History
from edge_agent.history_format import (
    MISSING_WORDS,
    Columns,
    Dialect,
    HistoryFormat,
    assign_columns,
    check_format,
    recognise_dialect,
)
from edge_agent.history_lines import LineReader, holds_lines
from edge_agent.history_options import add_history_options, history_format
from edge_agent.history_sql import DatabaseAddress, check_query, query_blocks
from edge_agent.history_text import text_blocks
from edge_agent.history_time import UNIT_SECONDS, DateParts, epoch_unit, readings_of_dates

__all__ = [
    "History",
    "HistoryFormat",
    "add_history_options",
    "align_columns",
    "history_format",
    "read_history",
    "write_parquet",
]

RECOGNISE = HistoryFormat()
ONLY_ASSET = "asset"
"""The name of the asset of a file without a column of assets."""
_TABLES, _LINES, _PLAIN = (".csv", ".tsv"), (".lp",), (".txt",)
SUFFIXES = (*(s + z for s in (*_TABLES, *_LINES, *_PLAIN) for z in ("", ".gz")), ".parquet", ".pq")
_HEAD_LINES = 1000
_HEAD_BYTES = 1 << 18
_NOTHING = ("the file has a header and no rows", "the query gives no rows")
_PARQUET_ROWS = 100_000
_DATE = (
    r"^\s*(?<a>\d{1,4})[-/.](?<b>\d{1,2})[-/.](?<c>\d{1,4})"
    r"(?:[T ]+(?<h>\d{1,2})(?::(?<m>\d{1,2}))?(?::(?<s>\d{1,2})(?:[.,](?<f>\d+))?)?)?"
    r"\s*(?<p>[AaPp])?[Mm]?\s*(?:Z|UTC|GMT|(?<zs>[+-])(?<zh>\d{2}):?(?<zm>\d{2})?)?\s*$"
)
_NORMAL_LABELS = ("0", "0.0", "false", "no", "normal", "ok", "none")


def read_history(paths: Sequence[Path | DatabaseAddress], fmt: HistoryFormat = RECOGNISE) -> History:
    """Read files, folders of files and databases as one history.

    A cell that is no number, infinite or beyond 1e15 is missing and counted; a row whose time cannot be read is left
    out and counted. A column without one number but with text is no sensor: a notice says so.

    Args:
        paths: CSV or line protocol (both also .gz) or Parquet files, folders that hold them, patterns such as
            `2026-*.csv`, and databases, in this order.
        fmt: what is known of the format; the rest is recognised.

    Raises:
        HistoryError: a file cannot be read or used; the text names file and rule.
        UsageError: `fmt` holds a word that means nothing, or a database has no query.
    """
    check_query(any(isinstance(path, DatabaseAddress) for path in paths), fmt.query)
    files = _files(paths)
    source = str(paths[0]) if len(paths) == 1 else f"{len(files)} files"
    check_format(fmt, source)
    gathered = Assembly(source, fmt.time_format)
    for path in files:
        rows = gathered.rows
        _read_one(gathered, path, fmt)
        if gathered.rows == rows:
            raise HistoryError(f"{path}: {_NOTHING[isinstance(path, DatabaseAddress)]}")
    return gathered.finish()


def _read_one(gathered: Assembly, path: Path | DatabaseAddress, fmt: HistoryFormat) -> None:
    """Add one file, or the rows of one database."""
    if isinstance(path, DatabaseAddress):
        with query_blocks(path, fmt) as (copied, blocks):
            _add_table(gathered, path, _csv_frames(blocks, path, copied, gathered.notices), copied)
        return
    if _ends(path, (".parquet", ".pq")):
        _add_table(gathered, path, _parquet_frames(path, fmt, gathered.notices), fmt)
        return
    blocks = text_blocks(path, gathered.notices)
    first = next(blocks, b"")
    blocks = chain([first], blocks)
    if _ends(path, _LINES) or (_ends(path, _PLAIN) and holds_lines(first[:_HEAD_BYTES])):
        _add_lines(gathered, path, blocks, fmt)
    else:
        _add_table(gathered, path, _csv_frames(blocks, path, fmt, gathered.notices), fmt)


def _ends(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(suffixes)


def _add_lines(gathered: Assembly, path: Path, blocks: Iterable[bytes], fmt: HistoryFormat) -> None:
    reader = LineReader(fmt, path.name, gathered.assets, gathered.sensors, ONLY_ASSET)
    for batch in reader.batches(blocks):
        gathered.repairs.update(batch.left_out)
        if len(batch.time):
            times = batch.time * UNIT_SECONDS[fmt.epoch_unit or epoch_unit(batch.time)]
            gathered.add_rows((times, times), batch.asset, None, batch.sensor)
            gathered.add_values(["value"], [(batch.value, 0)])


def align_columns(source: str, names: Sequence[str], values: Float32, wanted: Sequence[str]) -> Float32:
    """Return the columns of the wanted sensors, by name and in their order; a sensor that is not there is missing.

    Args:
        source: of the values, for the message.
        names: of the columns of `values`.
        values: (n, F) engineering units.
        wanted: names of the sensors of a bundle.

    Raises:
        HistoryError: none of the wanted sensors is there.
    """
    place = {name: number for number, name in enumerate(names)}
    if not any(name in place for name in wanted):
        raise HistoryError(
            f"{source}: has none of the bundle's sensors ({', '.join(list(wanted)[:4])}, …), "
            f"but {', '.join(list(names)[:4])}, …"
        )
    aligned = np.full((len(values), len(wanted)), np.nan, np.float32)
    for number, name in enumerate(wanted):
        if name in place:
            aligned[:, number] = values[:, place[name]]
    return aligned


def write_parquet(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write one wide table that `read_history` reads.

    Args:
        path: file to write; replaced where it exists.
        columns: (n,) arrays by name, in order; times as datetime64, which are marked as UTC. NaN and an empty text
            are missing cells, as they are in a CSV.

    Raises:
        HistoryError: the file cannot be written.
    """
    try:
        pl.DataFrame([_column(name, cells) for name, cells in columns.items()]).write_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise HistoryError(f"{path}: cannot be written, {reason}") from error


def _column(name: str, cells: NDArray[Any]) -> pl.Series:
    if cells.dtype.kind == "M":
        return pl.Series(name, cells).dt.replace_time_zone("UTC")
    if cells.dtype.kind == "U":
        return pl.Series(name, [text or None for text in cells.tolist()], pl.String)
    return pl.Series(name, cells, nan_to_null=True)


def sensor_notices(source: str, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return a sentence each on sensors that a bundle wants and a history lacks, and the other way round.

    Args:
        source: of the history, for the message.
        names: sensors of the history.
        wanted: names of the sensors of a bundle.
    """
    lacking = [name for name in wanted if name not in names]
    unknown = [name for name in names if name not in wanted]
    notices = []
    if lacking:
        notices.append(f"{source}: lacks sensors of the bundle, they count as missing: {', '.join(lacking)}")
    if unknown:
        notices.append(f"{source}: has sensors that the bundle does not know, not used: {', '.join(unknown)}")
    return notices


def _files(paths: Sequence[Path | DatabaseAddress]) -> list[Path | DatabaseAddress]:
    files: list[Path | DatabaseAddress] = []
    for path in paths:
        files += [path] if isinstance(path, DatabaseAddress) else _files_of(path)
    if not files:
        raise HistoryError("no history file was given")
    return files


def _files_of(path: Path) -> list[Path]:
    """Return the file, those of the folder, or those that fit the pattern; in the order of their names."""
    if path.is_file():
        return [path]
    if path.exists():
        # A hidden file is one that is still being written.
        found = sorted(
            p
            for p in path.rglob("*")
            if p.name.lower().endswith(SUFFIXES) and p.is_file() and not p.name.startswith(".")
        )
        if not found:
            raise HistoryError(f"{path}: the folder holds no CSV or Parquet or line protocol file")
        return found
    named: list[Path] = []
    if set(str(path)) & set("*?["):
        named = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    if not named:
        raise HistoryError(f"{path}: there is no such file or folder")
    return [file for one in named for file in _files_of(one)]


def _add_table(
    gathered: Assembly,
    path: Path | DatabaseAddress,
    frames: Iterator[tuple[Columns, pl.DataFrame]],
    fmt: HistoryFormat,
) -> None:
    """Add batches of rows, the columns of a batch by position."""
    try:
        for columns, frame in frames:
            _add(gathered, columns, frame, fmt)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        kind = path.suffix[1:] if isinstance(path, Path) else ""
        raise HistoryError(f"{path}: the file cannot be read as {kind or 'CSV'}: {reason}") from error


def _parquet_frames(
    path: Path, fmt: HistoryFormat, notices: list[str]
) -> Iterator[tuple[Columns, pl.DataFrame]]:
    columns: Columns | None = None
    try:
        for frame in pl.scan_parquet(path, glob=False).collect_batches(chunk_size=_PARQUET_ROWS):
            if columns is None:
                head = frame.head(_HEAD_LINES).select(pl.all().cast(pl.String, strict=False))
                columns = assign_columns(
                    frame.columns, [s.to_list() for s in head.get_columns()], fmt, path.name
                )
                notices += columns.notices
            yield columns, frame
    except OSError as error:
        raise HistoryError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    if columns is None:
        raise HistoryError(f"{path}: the file has no rows")


def _csv_frames(
    blocks: Iterable[bytes], source: Path | DatabaseAddress, fmt: HistoryFormat, notices: list[str]
) -> Iterator[tuple[Columns, pl.DataFrame]]:
    name = source.name if isinstance(source, Path) else str(source)
    dialect: Dialect | None = None
    columns: Columns | None = None
    for block in blocks:
        if dialect is None:
            block = block.lstrip()
            if not block:
                continue
            lines = block[:_HEAD_BYTES].decode(errors="replace").splitlines()[:_HEAD_LINES]
            dialect = recognise_dialect(lines, fmt, name)
            cells = list(csv.reader(lines[1:], delimiter=dialect.separator))
            first = [[row[i] if i < len(row) else None for row in cells] for i in range(len(dialect.header))]
            columns = assign_columns(dialect.header, first, fmt, name)
            notices += columns.notices
            block = block[block.find(b"\n") + 1 :] if b"\n" in block else b""
        if columns is not None and block.strip():
            yield columns, _cells(block, dialect)
    if dialect is None:
        raise HistoryError(f"{source}: the file is empty")


def _cells(block: bytes, dialect: Dialect) -> pl.DataFrame:
    frame = pl.read_csv(
        io.BytesIO(block),
        has_header=False,
        separator=dialect.separator,
        schema={f"c{index}": pl.String for index in range(len(dialect.header))},
        truncate_ragged_lines=True,
    )
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    if dialect.decimal == ",":
        frame = frame.with_columns(pl.all().str.replace(",", ".", literal=True))
    return frame


def _add(gathered: Assembly, columns: Columns, frame: pl.DataFrame, fmt: HistoryFormat) -> None:
    """Turn one batch into numbers."""
    series = frame.get_columns()
    if columns.asset is None:
        asset = np.full(frame.height, gathered.assets.setdefault(ONLY_ASSET, len(gathered.assets)))
    else:
        asset = _codes(series[columns.asset], gathered.assets)
    labels = None if columns.label is None else _label_flags(series[columns.label])
    tag = None if columns.sensor is None else _codes(series[columns.sensor], gathered.sensors)
    gathered.add_rows(_times(series[columns.time], fmt), asset, labels, tag)
    names = [columns.names[index] for index in columns.sensors]
    gathered.add_values(names, [_numbers(series[index]) for index in columns.sensors])


def _numbers(series: pl.Series) -> tuple[Float64, int]:
    """Return the cells as numbers, NaN where missing, and how many of them are text."""
    numbers = series.cast(pl.Float64, strict=False)
    result = np.array(numbers.to_numpy(), np.float64)
    if series.dtype != pl.String or numbers.null_count() == series.null_count():
        return result, 0
    left = np.flatnonzero((numbers.is_null() & series.is_not_null()).to_numpy())
    words = series.gather(left).str.strip_chars().str.to_lowercase()
    words = words.replace({"true": "1", "false": "0"})
    result[left] = words.cast(pl.Float64, strict=False).to_numpy()
    text = words.cast(pl.Float64, strict=False).is_null() & ~words.is_in(sorted(MISSING_WORDS))
    return result, int(text.sum())


def _codes(series: pl.Series, known: dict[str, int]) -> Int64:
    """Return the place of each name in `known`, which grows; -1 where no name stands."""
    names = series.cast(pl.String).str.strip_chars()
    for name in names.unique(maintain_order=True).to_list():
        if name:
            known.setdefault(name, len(known))
    codes = names.replace_strict(list(known), list(known.values()), default=-1, return_dtype=pl.Int64)
    return codes.fill_null(-1).to_numpy().astype(np.int64)


def _label_flags(series: pl.Series) -> NDArray[np.int8]:
    """Return 1 where the cell is neither zero nor missing nor a word for normal."""
    numbers, _ = _numbers(series)
    flags = np.nan_to_num(numbers) != 0
    if series.dtype == pl.String:
        words = series.str.strip_chars().str.to_lowercase().fill_null("")
        normal = words.is_in([*_NORMAL_LABELS, *sorted(MISSING_WORDS)]).to_numpy()
        flags |= np.isnan(numbers) & ~normal
    result: NDArray[np.int8] = flags.astype(np.int8)
    return result


def _times(series: pl.Series, fmt: HistoryFormat) -> tuple[Float64, Float64]:
    """Return the times (n,) read day first and month first; the very same array where that is no question."""
    if series.dtype in (pl.Date, pl.Datetime):
        stamps = series.cast(pl.Datetime("us")).cast(pl.Int64).cast(pl.Float64).to_numpy() / 1e6
        return stamps, stamps
    pattern = fmt.time_format if fmt.time_format and "%" in fmt.time_format else None
    if pattern is not None:
        padding = (
            (" 00:00", " %H:%M")
            if "%H" not in pattern
            else (" 00", " %M")
            if "%M" not in pattern
            else ("", "")
        )
        texts = series.cast(pl.String).str.strip_chars() + padding[0]
        parsed = texts.str.to_datetime(pattern + padding[1], strict=False, time_unit="us")
        stamps = parsed.cast(pl.Int64).cast(pl.Float64).to_numpy() / 1e6
        return stamps, stamps
    numbers, text = _numbers(series)
    if not text:
        stamps = numbers * UNIT_SECONDS[fmt.epoch_unit or epoch_unit(numbers)]
        return stamps, stamps
    return readings_of_dates(_date_parts(series.cast(pl.String)))


def _date_parts(series: pl.Series) -> DateParts:
    groups = series.str.extract_groups(_DATE).struct.unnest()
    found = groups["a"].is_not_null().to_numpy()

    def number(name: str, prefix: str = "") -> Float64:
        text = prefix + groups[name] if prefix else groups[name]
        return np.array(text.cast(pl.Float64, strict=False).fill_null(0.0).to_numpy(), np.float64)

    hour = number("h")
    half = groups["p"].str.to_lowercase()
    hour = np.where((half == "p").fill_null(False).to_numpy() & (hour < 12), hour + 12, hour)
    hour = np.where((half == "a").fill_null(False).to_numpy() & (hour == 12), 0, hour)
    minute, second = number("m"), number("s")
    seconds = np.where(
        (hour <= 24) & (minute < 60) & (second <= 60), hour * 3600 + minute * 60 + second, np.nan
    )
    seconds = np.where(found, seconds + number("f", "0."), np.nan)
    sign = np.where((groups["zs"] == "-").fill_null(False).to_numpy(), -1.0, 1.0)
    offset = sign * (number("zh") * 3600 + number("zm") * 60)
    return DateParts(number("a"), number("b"), number("c"), seconds, offset)
