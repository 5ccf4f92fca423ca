"""Laws of line protocol: every point that can be written is read as it was meant, and no two series are mixed."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import HistoryError
from edge_agent.history import HistoryFormat, read_history

START = 1_767_225_600
EXPORT = f"""# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262-04-11T23:47:16Z
# DDL
CREATE DATABASE plant WITH NAME autogen
# DML
# CONTEXT-DATABASE:plant
pump,machine=p1,site=north flow=1.5 {START}000000000
pump,machine=p1,site=north pressure=2i,running=t,note="a, b=\\"c\\" d" {START}000000000
pump,machine=p2,site=north flow=3,pressure=4u {START}000000000

pump,machine=p1,site=north flow=-1e2 {START + 1}000000000
level,machine=p1,site=north value=7 {START + 1}000000000
pump,machine=p1,site=north flow=broken {START + 2}000000000
pump,machine=p1,site=north flow=9
"""


def _read(path: Path, text: str, fmt: HistoryFormat | None = None) -> dict[tuple[str, float, str], float]:
    """Return every reading by asset, time and sensor."""
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    history = read_history([path], fmt or HistoryFormat())
    return {
        (history.assets[asset], time, sensor): float(cell)
        for asset, time, row in zip(
            history.asset.tolist(), history.time.tolist(), history.values, strict=True
        )
        for sensor, cell in zip(history.sensors, row, strict=True)
        if np.isfinite(cell)
    }


@pytest.mark.parametrize("name", ["export.lp", "export.txt", "export.lp.gz", "export.txt.gz"])
def test_an_export_of_a_database_is_a_history(name: str, tmp_path: Path) -> None:
    """Fields are sensors, a tag names the asset, comments and orders are passed over, the rest is counted."""
    assert _read(tmp_path / name, EXPORT) == {
        ("p1", START, "flow"): 1.5, ("p1", START, "pressure"): 2, ("p1", START, "running"): 1,
        ("p2", START, "flow"): 3, ("p2", START, "pressure"): 4,
        ("p1", START + 1, "flow"): -100, ("p1", START + 1, "level"): 7,
    }  # fmt: skip
    repairs = read_history([tmp_path / name]).repairs
    assert repairs == {"line not readable": 1, "text in a number column": 1, "time not readable": 1}


_WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters='\\"#\x85'),
    min_size=1,
    max_size=8,
).map(lambda word: f"w{word}w")


def _escaped(word: str, signs: str) -> str:
    return "".join(f"\\{sign}" if sign in signs else sign for sign in word)


@given(
    measurement=_WORDS,
    asset=_WORDS,
    fields=st.dictionaries(_WORDS, st.floats(-1e9, 1e9, width=32), min_size=1, max_size=4),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_names_with_signs_of_the_syntax_are_read_back(
    measurement: str, asset: str, fields: dict[str, float], tmp_path: Path
) -> None:
    """Commas, spaces and equals signs, escaped as the specification says, are part of the name."""
    told = ",".join(f"{_escaped(name, ', =')}={value!r}" for name, value in fields.items())
    line = f"{_escaped(measurement, ', ')},machine={_escaped(asset, ', =')} {told} {START}000000000\n"
    fmt = HistoryFormat(asset_column="machine")
    found = _read(tmp_path / "one.lp", line, fmt)
    assert found == {(asset.strip(), START, name.strip()): value for name, value in fields.items()}


@pytest.mark.parametrize(("unit", "digits"), [("s", 1), ("ms", 1000), ("us", 10**6), ("ns", 10**9)])
def test_the_unit_of_times_is_recognised_or_given(unit: str, digits: int, tmp_path: Path) -> None:
    """Whatever precision was written, the same time is read."""
    lines = "".join(f"m f={n} {(START + n) * digits}\n" for n in range(30))
    for fmt in (HistoryFormat(), HistoryFormat(epoch_unit=unit)):
        assert _read(tmp_path / "a.lp", lines, fmt)["asset", START + 7, "f"] == 7


@pytest.mark.parametrize(
    ("lines", "fmt", "rule"),
    [
        (
            "a f=1 1\nb f=2 1\n",
            HistoryFormat(),
            "f is a field of a and of b; give --sensor-name measurement.field",
        ),
        ("a,core=0 f=1 1\na,core=1 f=2 1\n", HistoryFormat(), "more than one core; name the asset by"),
        ("a f=1 1\n", HistoryFormat(label_column="fault"), "label column fault: line protocol has no labels"),
        ("a f=\n\n", HistoryFormat(), "no rows"),
    ],
)
def test_series_are_not_mixed(lines: str, fmt: HistoryFormat, rule: str, tmp_path: Path) -> None:
    """Two series that would become one sensor are refused with the option that tells them apart."""
    with pytest.raises(HistoryError, match=rule):
        _read(tmp_path / "a.lp", lines, fmt)


def test_options_tell_series_apart(tmp_path: Path) -> None:
    """Named by measurement and field, by a tag as asset, or without a tag that does not matter, both are read."""
    by_name = _read(tmp_path / "a.lp", "a f=1 1\nb f=2 1\n", HistoryFormat(sensor_name="measurement.field"))
    assert by_name == {("asset", 1, "a.f"): 1, ("asset", 1, "b.f"): 2}
    lines = "a,core=0 f=1 1\na,core=1 f=2 2\n"
    assert set(_read(tmp_path / "b.lp", lines, HistoryFormat(asset_column="core"))) == {
        ("0", 1, "f"),
        ("1", 2, "f"),
    }
    assert len(_read(tmp_path / "c.lp", lines, HistoryFormat(ignore_columns=("core",)))) == 2


def test_a_table_in_a_text_file_stays_a_table(tmp_path: Path) -> None:
    """A `.txt` that is no line protocol is read as the table that it is."""
    rows = "".join(f"{START + n};{n},5\n" for n in range(30))
    assert _read(tmp_path / "a.txt", f"time;flow\n{rows}")["asset", START + 3, "flow"] == 3.5
