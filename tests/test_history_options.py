"""Laws of what a command line can say of history files: every command that reads them says the same."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.errors import UsageError
from edge_agent.history import HistoryFormat, read_history
from edge_agent.history_options import add_history_options, history_format


def _said(*words: str) -> HistoryFormat:
    parser = argparse.ArgumentParser()
    add_history_options(parser)
    return history_format(parser.parse_args(["--history", "a.csv", *words]))


def test_nothing_said_is_everything_recognised() -> None:
    """Without options the format is empty, so that all of it is recognised."""
    assert _said() == HistoryFormat()


def test_every_field_of_a_format_can_be_said() -> None:
    """Each option arrives in the field of its name; `--ignore-column` may be repeated."""
    words: dict[str, Any] = {
        "time_column": "t",
        "asset_column": "a",
        "label_column": "l",
        "sensor_column": "s",
        "value_column": "v",
        "separator": ";",
        "decimal": ",",
        "time_format": "%d/%m/%y %H",
        "epoch_unit": "ms",
        "layout": "long",
        "sensor_name": "measurement.field",
        "query": "SELECT 1",
    }
    given = [text for name, word in words.items() for text in (f"--{name.replace('_', '-')}", word)]
    expected = replace(HistoryFormat(ignore_columns=("x", "y")), **words)
    assert _said(*given, "--ignore-column", "x", "--ignore-column", "y") == expected
    assert set(words) | {"ignore_columns"} == set(HistoryFormat.__dataclass_fields__)


@pytest.mark.parametrize("word", ["tab", "\\t", "\t"])
def test_a_tab_can_be_typed(word: str) -> None:
    """A tab is hard to type in a shell, so its name and its escape are read as one."""
    assert _said("--separator", word).separator == "\t"


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("epoch_unit", "minutes"),
        ("layout", "tall"),
        ("decimal", ";"),
        ("separator", ""),
        ("separator", ";;"),
        ("separator", "\n"),
        ("separator", '"'),
        ("separator", "·"),
        ("time_format", "iso8601"),
        ("time_format", ""),
        ("sensor_name", "tag"),
    ],
)
def test_a_word_that_means_nothing_is_refused_in_one_line(field: str, word: str, tmp_path: Path) -> None:
    """The reader refuses a bad word of a format by file, field, what it is and what it can be."""
    path = tmp_path / "pump.csv"
    path.write_text("time,x\n1700000000,1\n", encoding="utf-8")
    said: dict[str, Any] = {field: word}
    with pytest.raises(UsageError, match=rf"pump\.csv: {field}: is .*(known are|must be)") as refusal:
        read_history([path], replace(HistoryFormat(), **said))
    assert "\n" not in str(refusal.value)
