"""What a command line can say of history files: one list of options for every command that reads them.

It stands apart from the reader so that the daemon's command line can be parsed without the extra `history`.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from edge_agent.history_format import EPOCH_UNITS, LAYOUTS, SENSOR_NAMINGS, HistoryFormat
from edge_agent.history_sql import DatabaseAddress, is_database


def add_history_options(parser: argparse.ArgumentParser) -> None:
    """Add `--history` and all that can be said of the files' format."""
    group = parser.add_argument_group("history", "What is not given is recognised.")
    group.add_argument(
        "--history",
        nargs="+",
        type=history_source,
        required=True,
        metavar="PATH",
        help="CSV, Parquet or InfluxDB line protocol: files, folders, patterns; or postgresql://user@host/database",
    )
    group.add_argument("--query", metavar="SQL", help="of a database: the rows of this query are the history")
    group.add_argument("--time-column", metavar="NAME")
    group.add_argument("--asset-column", metavar="NAME")
    group.add_argument(
        "--label-column", metavar="NAME", help="1 where the machine was not normal; never a sensor"
    )
    group.add_argument("--sensor-column", metavar="NAME", help="of long files")
    group.add_argument("--value-column", metavar="NAME", help="of long files")
    group.add_argument("--sensor-name", choices=SENSOR_NAMINGS, help="of line protocol (default field)")
    group.add_argument("--ignore-column", action="append", default=[], metavar="NAME", help="may be repeated")
    group.add_argument("--separator", metavar="CHARACTER", help="one character, or the word tab")
    group.add_argument("--decimal", choices=(".", ","))
    group.add_argument(
        "--time-format",
        metavar="FORMAT",
        help="iso, day-first, month-first, epoch, or a pattern such as %%d/%%m/%%y %%H",
    )
    group.add_argument("--epoch-unit", choices=EPOCH_UNITS)
    group.add_argument("--layout", choices=LAYOUTS)


def history_source(text: str) -> Path | DatabaseAddress:
    """Return the address of a database, or a path."""
    return DatabaseAddress(text) if is_database(text) else Path(text)


def history_format(options: argparse.Namespace) -> HistoryFormat:
    """Return what the parsed options say."""
    names = {field.name for field in fields(HistoryFormat)} - {"ignore_columns"}
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if given.get("separator") in ("tab", "\\t"):
        given["separator"] = "\t"
    return HistoryFormat(ignore_columns=tuple(options.ignore_column), **given)
