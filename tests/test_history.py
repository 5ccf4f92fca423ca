"""Laws of reading history files: every bad input has a clear outcome, every layout gives the same history."""

import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import HistoryError
from edge_agent.history import History, HistoryFormat, read_history, write_parquet
from edge_agent.history_time import DateParts, choose_date_order, readings_of_dates

START = datetime(2024, 1, 13, tzinfo=UTC)
START_EPOCH = START.timestamp()
EPOCH = int(START_EPOCH)


def _read(
    tmp_path: Path, text: str | bytes, fmt: HistoryFormat | None = None, name: str = "pump.csv"
) -> History:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_history([path], fmt or HistoryFormat())


def _table(pattern: str, separator: str = ",", decimal: str = ".", rows: int = 40) -> str:
    """Return hourly rows of two sensors with times written by `pattern`."""
    lines = [separator.join(("time", "flow", "head"))]
    for row in range(rows):
        stamp = START + timedelta(hours=row)
        cells = [f"{row + 0.5:.2f}".replace(".", decimal), f"{-row / 4:.3f}".replace(".", decimal)]
        text = f"{stamp.timestamp():.0f}" if pattern == "epoch" else stamp.strftime(pattern)
        lines.append(separator.join((text, *cells)))
    return "\n".join(lines) + "\n"


def _is_the_table(history: History, rows: int = 40) -> None:
    assert history.sensors == ("flow", "head")
    np.testing.assert_array_equal(history.time, START_EPOCH + 3600.0 * np.arange(rows))
    np.testing.assert_array_equal(history.values[:, 0], np.arange(rows, dtype=np.float32) + 0.5)
    np.testing.assert_array_equal(history.values[:, 1], -np.arange(rows, dtype=np.float32) / 4)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_separator_and_decimal_mark_are_recognised(tmp_path: Path, separator: str, decimal: str) -> None:
    """Each separator with each decimal mark gives the same history, unless both are the same sign."""
    text = _table("%Y-%m-%d %H:%M:%S", separator, decimal)
    if separator == decimal:
        with pytest.raises(HistoryError, match="more cells than the header"):
            _read(tmp_path, text)
    else:
        _is_the_table(_read(tmp_path, text))


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "%Y-%m-%dT%H:%M:%SZ",
            "%Y-%m-%d %H:%M:%S.000",
            "%Y-%m-%dT%H:%M:%S+00:00",
            "%d/%m/%y %H",
            "%d.%m.%Y %H:%M",
        ),
        *("%m/%d/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%Y/%m/%d %H:%M", "epoch"),
    ],
)
def test_time_formats_are_recognised(tmp_path: Path, pattern: str) -> None:
    """ISO, day-first, month-first and epoch times of the same rows give the same seconds."""
    _is_the_table(_read(tmp_path, _table(pattern)))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_epoch_units_are_recognised_by_magnitude(tmp_path: Path, unit: str, factor: int) -> None:
    """The same instant in seconds, milli-, micro- and nanoseconds is the same time, recognised or given."""
    text = f"ts,x\n{1_700_000_000 * factor},1\n{1_700_000_001 * factor},2\n"
    for fmt in (HistoryFormat(), HistoryFormat(epoch_unit=unit)):
        assert _read(tmp_path, text, fmt).time.tolist() == pytest.approx(
            [1_700_000_000, 1_700_000_001], abs=1e-6
        )


def test_a_given_time_pattern_is_obeyed(tmp_path: Path) -> None:
    """A pattern with names of months and without minutes reads what cannot be recognised."""
    history = _read(
        tmp_path, "when,x\n01-Feb-2024 05,1\n", HistoryFormat(time_column="when", time_format="%d-%b-%Y %H")
    )
    assert history.time[0] == datetime(2024, 2, 1, 5, tzinfo=UTC).timestamp()


def test_a_zone_moves_the_time(tmp_path: Path) -> None:
    """A time with a zone is turned into UTC."""
    history = _read(tmp_path, "time,x\n2024-01-13T02:30:00+02:30,1\n2024-01-12T19:00:00-0500,2\n")
    assert history.time.tolist() == [START_EPOCH, START_EPOCH]


def test_dates_that_fit_both_ways_go_by_the_order_of_time(tmp_path: Path) -> None:
    """Without a component above 12 the reading wins in which time goes on evenly, and a notice says so."""
    lines = [f"{(START.replace(day=1) + timedelta(hours=h)):%m/%d/%Y %H:%M},{h}" for h in range(0, 240, 4)]
    history = _read(tmp_path, "time,x\n" + "\n".join(lines))
    assert np.all(np.diff(history.time) == 4 * 3600)
    assert "read month-first" in history.notices[0]


@settings(max_examples=40, deadline=None)
@given(start=st.datetimes(datetime(1971, 1, 1), datetime(2068, 1, 1)), days=st.integers(32, 400))
def test_a_month_of_days_always_decides(start: datetime, days: int) -> None:
    """Daily dates over more than a month are read right, whichever way they were written."""
    dates = [start.date() + timedelta(days=day) for day in range(days)]
    day, month, year = (
        np.asarray([getattr(d, part) for d in dates], float) for part in ("day", "month", "year")
    )
    zero = np.zeros(days)
    expected = [(d - datetime(1970, 1, 1).date()).days * 86400.0 for d in dates]
    for first, second in ((day, month), (month, day)):
        time, _, certain = choose_date_order(*readings_of_dates(DateParts(first, second, year, zero, zero)))
        assert certain
        assert time.tolist() == expected


def test_blanks_around_header_names_are_no_part_of_them(tmp_path: Path) -> None:
    """Names are matched and given without the blanks that a file has around them."""
    history = _read(tmp_path, " time , flow,head \n2024-01-13,1,2\n", HistoryFormat(ignore_columns=("head",)))
    assert history.sensors == ("flow",)


def test_duplicate_column_names_are_told_apart(tmp_path: Path) -> None:
    """The second column of the same name is a sensor of its own, and a notice names it."""
    history = _read(tmp_path, "time,x,x\n2024-01-13,1,2\n")
    assert (history.sensors, history.values.tolist()) == (("x", "x_2"), [[1, 2]])
    assert "x_2" in history.notices[0]


def test_text_in_a_number_column_is_missing_and_counted(tmp_path: Path) -> None:
    """Words among numbers become missing and are counted; words for missing are only missing."""
    history = _read(
        tmp_path, "time,x\n2024-01-13,1\n2024-01-14,error\n2024-01-15,NA\n2024-01-16,\n2024-01-17, 5 \n"
    )
    np.testing.assert_array_equal(history.values[:, 0], [1, np.nan, np.nan, np.nan, 5])
    assert history.repairs == {"text in a number column": 1}


def test_a_column_of_text_is_no_sensor(tmp_path: Path) -> None:
    """A column without one number is ignored with a notice, and its cells are not counted as repairs."""
    history = _read(tmp_path, "time,mode,x\n2024-01-13,on duty,1\n2024-01-14,resting,2\n")
    assert (history.sensors, history.repairs) == (("x",), {})
    assert any("mode is text" in notice for notice in history.notices)


def test_nan_infinity_and_huge_integers_are_missing_and_counted(tmp_path: Path) -> None:
    """No value leaves the range of a sensor: NaN is missing, infinity and huge numbers are counted as well."""
    cells = [
        "nan",
        "inf",
        "-Infinity",
        "1e400",
        "99999999999999999999999999999999999999999",
        "9223372036854775807",
        "1",
    ]
    text = "time,x\n" + "".join(f"2024-01-{day:02},{cell}\n" for day, cell in enumerate(cells, 13))
    history = _read(tmp_path, text)
    np.testing.assert_array_equal(history.values[:, 0], [np.nan] * 6 + [1])
    assert history.repairs == {"infinite value": 3, "value too large": 2}


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    """Nothing, blank lines, and a header alone are each refused by the name of the file."""
    for text, rule in (("", "is empty"), ("\n\n  \n", "is empty"), ("time,x\n", "no rows")):
        with pytest.raises(HistoryError, match=rf"pump\.csv.*{rule}"):
            _read(tmp_path, text)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text, damaged gzip, damaged Parquet, a missing file and an empty folder are each refused."""
    for name, content in (
        ("a.csv", b"PK\x03\x04\0\0\0"),
        ("a.csv.gz", b"not gzip"),
        ("a.parquet", b"PAR1 not really"),
    ):
        with pytest.raises(HistoryError, match=name):
            _read(tmp_path, content, name=name)
    with pytest.raises(HistoryError, match="no such file"):
        read_history([tmp_path / "absent.csv"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(HistoryError, match="holds no CSV"):
        read_history([tmp_path / "folder"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_any_usual_encoding_gives_the_same_history(tmp_path: Path, encoding: str) -> None:
    """A header with a degree sign is read in each encoding; a notice tells of the wrong one."""
    history = _read(tmp_path, "time,temp °C\n2024-01-13,21.5\n".encode(encoding))
    assert (history.sensors, history.values.tolist()) == (("temp °C",), [[21.5]])
    assert bool(history.notices) == (encoding == "cp1252")


def test_a_file_without_times_is_refused(tmp_path: Path) -> None:
    """Without a time column, a header, or readable times the refusal names the rule."""
    for text, rule in (
        ("flow,head\n1,2\n", "no time column among flow, head"),
        ("2024,1\n2025,2\n", "no column names"),
        ("time,x\nyesterday,1\ntoday,2\n", "time that cannot be read"),
        ("time\n2024-01-13\n", "no column is left for a sensor"),
    ):
        with pytest.raises(HistoryError, match=rule):
            _read(tmp_path, text)


def test_a_row_with_a_bad_time_is_left_out_and_counted(tmp_path: Path) -> None:
    """One unreadable time, or a day that does not exist, costs its row and no more."""
    history = _read(tmp_path, "time,x\n2024-01-13,1\nbad,2\n2023-02-29,3\n2024-01-14,4\n2024-01-15,5\n")
    assert (history.values[:, 0].tolist(), history.repairs) == ([1, 4, 5], {"time not readable": 2})


def test_a_wrong_column_name_is_refused_by_name(tmp_path: Path) -> None:
    """A column that the user names and the file lacks is named in the refusal, with those it has."""
    for fmt in (
        HistoryFormat(time_column="nope"),
        HistoryFormat(asset_column="nope"),
        HistoryFormat(label_column="nope"),
        HistoryFormat(ignore_columns=("nope",)),
    ):
        with pytest.raises(HistoryError, match="column nope is not in the file, which has time, x"):
            _read(tmp_path, "time,x\n2024-01-13,1\n", fmt)


def test_two_assets_are_told_apart(tmp_path: Path) -> None:
    """The asset column gives each row its asset and is no sensor; the order of the file is kept."""
    history = _read(tmp_path, "time,machine,x\n2024-01-14,b,1\n2024-01-13,a,2\n2024-01-13,b,3\n")
    assert (history.assets, history.asset.tolist()) == (("b", "a"), [0, 1, 0])
    assert history.values[:, 0].tolist() == [1, 2, 3]


def test_any_label_but_zero_is_a_fault(tmp_path: Path) -> None:
    """Zero, empty and words for normal are 0; every other number or word is 1."""
    text = "time,x,state\n" + "".join(
        f"2024-01-13,1,{word}\n" for word in ("0", "0.0", "", "normal", "-1", "2", "leak")
    )
    history = _read(tmp_path, text, HistoryFormat(label_column="state"))
    assert history.labels is not None
    assert (history.sensors, history.labels.tolist()) == (("x",), [0, 0, 0, 0, 1, 1, 1])


def test_long_and_wide_give_the_same_history(tmp_path: Path) -> None:
    """A file with a row per reading gives the rows of the wide one, whether sorted by time or by sensor."""
    wide = _read(tmp_path, "time,asset,p,q\n1700000000,a,1,2\n1700000001,a,,4\n1700000000,b,5,6\n")
    readings = [(0, "a", "p", 1), (0, "a", "q", 2), (1, "a", "q", 4), (0, "b", "p", 5), (0, "b", "q", 6)]
    for rows in (readings, sorted(readings, key=lambda row: (row[2], row[1]))):
        lines = "".join(f"{1700000000 + t},{a},{s},{v}\n" for t, a, s, v in rows)
        long = _read(tmp_path, "time,asset,sensor,value\n" + lines)
        order = np.lexsort((long.time, long.asset))
        np.testing.assert_array_equal(long.values[order], wide.values)
        assert (long.sensors, long.assets) == (wide.sensors, wide.assets)


def test_a_repeated_reading_of_a_long_file_is_kept_in_order(tmp_path: Path) -> None:
    """Two readings of one sensor at one time are two rows, the later one after the earlier."""
    long = _read(tmp_path, "time,sensor,value\n1700000000,p,1\n1700000000,p,2\n1700000000,q,3\n")
    np.testing.assert_array_equal(long.values, [[1, 3], [2, np.nan]])


def test_gzip_and_parquet_give_the_same_history(tmp_path: Path) -> None:
    """The same table packed, as Parquet with times, and as Parquet with text is the same history."""
    text = _table("%Y-%m-%d %H:%M:%S")
    _is_the_table(_read(tmp_path, gzip.compress(text.encode()), name="pump.csv.gz"))
    frame = pl.read_csv(text.encode())
    frame.write_parquet(tmp_path / "text.parquet")
    _is_the_table(read_history([tmp_path / "text.parquet"]))
    frame.with_columns(pl.col("time").str.to_datetime()).write_parquet(tmp_path / "times.parquet")
    _is_the_table(read_history([tmp_path / "times.parquet"]))


def test_several_files_are_one_history(tmp_path: Path) -> None:
    """A folder is its files by name; a sensor that one file lacks is missing there."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "1.csv").write_text("time,x,y\n2024-01-13,1,2\n")
    (tmp_path / "parts" / "2.csv").write_text("time,y\n2024-01-14,3\n")
    history = read_history([tmp_path / "parts"])
    np.testing.assert_array_equal(history.values, [[1, 2], [np.nan, 3]])
    assert history.sensors == ("x", "y")


def test_day_first_hours_and_many_sensors_of_a_water_plant(tmp_path: Path) -> None:
    """A year of hourly day-first rows is read without editing the file: public data where it is, else simulated."""
    folder = os.environ.get("FOREWARN_DATA")
    if folder:
        history = read_history(
            [Path(folder, "batadal", "dataset03.csv")], HistoryFormat(ignore_columns=("ATT_FLAG",))
        )
    else:
        hours = [datetime(2014, 1, 6, tzinfo=UTC) + timedelta(hours=hour) for hour in range(8761)]
        rows = "".join(f"{hour:%d/%m/%y %H},{','.join(['1.5'] * 43)},0\n" for hour in hours)
        header = "DATETIME," + ",".join(f" L_T{n} " for n in range(43)) + ", ATT_FLAG\n"
        history = _read(tmp_path, header + rows, HistoryFormat(ignore_columns=("ATT_FLAG",)))
    assert (len(history.sensors), len(history.time), history.repairs) == (43, 8761, {})
    assert history.time[0] == datetime(2014, 1, 6, tzinfo=UTC).timestamp()
    assert np.all(np.diff(history.time) == 3600)


def test_a_folder_may_hold_files_of_every_kind(tmp_path: Path) -> None:
    """CSV, packed CSV and Parquet of one machine make one history; a hidden file, still being written, is not read."""
    table = "".join(f"{EPOCH + n},{n}\n" for n in range(10))
    (tmp_path / "a.csv").write_text("time,flow\n" + table, encoding="utf-8")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(("time,flow\n" + table).encode()))
    times = ((EPOCH + np.arange(10)) * 1000).astype("datetime64[ms]")
    write_parquet(tmp_path / "c.parquet", {"time": times, "flow": np.arange(10.0)})
    (tmp_path / ".d.parquet").write_bytes(b"half")
    (tmp_path / "notes.md").write_text("not a history", encoding="utf-8")
    history = read_history([tmp_path])
    assert history.sensors == ("flow",)
    assert history.values[:, 0].tolist() == 3 * list(range(10))


@pytest.mark.parametrize(
    ("pattern", "rows"), [("2026-0?.csv", 2), ("*.csv", 3), ("**/*.csv", 4), ("sub*", 1)]
)
def test_a_pattern_names_files(pattern: str, rows: int, tmp_path: Path) -> None:
    """A pattern stands for the files and folders that fit it, in the order of their names."""
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("2025-12.csv", "2026-01.csv", "2026-02.csv", "sub/2026-03.csv")):
        (tmp_path / name).write_text(f"time,flow\n{EPOCH + number},{number}\n", encoding="utf-8")
    history = read_history([tmp_path / pattern])
    assert len(history.time) == rows
    assert (np.diff(history.time) > 0).all()


def test_a_pattern_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    """What names no file is told as it was given."""
    with pytest.raises(HistoryError, match=r"none-\*\.csv: there is no such file or folder"):
        read_history([tmp_path / "none-*.csv"])
