"""What the tests of both commands share: files with one thing wrong each, and what a command said about them."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.tiny_machine import SENSORS, START, faulty_values, normal_values

ROWS = 80
Main = Callable[[Sequence[str]], int]
Table = list[list[str]]


def table(rows: int = ROWS, fault: tuple[int, int] = (0, 0)) -> Table:
    """Return a header and rows of the tiny bundle's machine, one a second."""
    values = faulty_values(rows, *fault, seed=5) if fault[1] else normal_values(rows, 5)
    body = [[str(START + row), *(f"{cell:.4f}" for cell in line)] for row, line in enumerate(values)]
    return [["time", *SENSORS], *body]


def text(rows: Table) -> bytes:
    """Return the rows as CSV."""
    return "".join(",".join(row) + "\n" for row in rows).encode()


def edited(edit: Callable[[Table], object]) -> bytes:
    """Return the machine's rows after an edit."""
    rows = table()
    edit(rows)
    return text(rows)


def column(place: int, cell: str) -> Callable[[Table], object]:
    """Return an edit that writes one cell into every row of a column."""

    def put(rows: Table) -> None:
        for row in rows[1:]:
            row[place] = cell

    return put


def cells(*changes: tuple[int, int, str]) -> Callable[[Table], object]:
    """Return an edit that writes single cells, each given by row, column and content."""

    def put(rows: Table) -> None:
        for row, place, cell in changes:
            rows[row][place] = cell

    return put


def two_assets(rows: Table) -> None:
    """Edit the rows of one asset into those of two, `a` after `b` at every time."""
    rows[0].insert(1, "asset")
    rows[1:] = [[row[0], asset, *row[1:]] for row in rows[1:] for asset in "ba"]


def _everywhere(cell: str) -> bytes:
    return edited(lambda rows: [column(place, cell)(rows) for place in (1, 2, 3)])


def _one_more(rows: Table) -> None:
    for row in rows:
        row.append("level" if row[0] == "time" else row[1])


UNUSABLE = {
    "empty": (b"", "the file is empty"),
    "header only": (text(table(0)), "has a header and no rows"),
    "not text": (bytes(range(256)), "is not text"),
    "wrong encoding": ("time,x\n1,2\n".encode("utf-32"), "is not text"),
    "broken encoding": (b"\xff\xfe\x00\xd8\x00abc", "cannot be read"),
    "no times": (edited(column(0, "noon")), "time that cannot be read"),
    "all text": (_everywhere("bad valve"), "no column holds numbers"),
}
"""Contents of files that no command can use, each with the rule that its refusal names."""
UNMEASURED = _everywhere("")
SPOILT: dict[str, tuple[bytes, str, dict[str, int]]] = {
    "lacking sensor": (edited(lambda rows: [row.pop() for row in rows]), "count as missing: flow", {}),
    "unknown sensor": (edited(_one_more), "the bundle does not know, not used: level", {}),
    "text in a number column": (
        edited(cells((40, 2, "valve stuck"))),
        "1 × text in a number column",
        {"text in a number column": 1},
    ),
    "infinity": (
        edited(cells((41, 1, "inf"), (42, 2, "-Infinity"))),
        "2 × infinite value",
        {"infinite value": 2},
    ),
    "huge integers": (
        edited(cells((41, 1, "9" * 40), (42, 2, "9223372036854775807"))),
        "2 × value too large",
        {"value too large": 2},
    ),
    "windows encoding": (
        text(table()).replace(b"flow", b"fl\xb0w"),
        "is not UTF-8, it is read as Windows-1252",
        {},
    ),
}
"""Contents of files that are used all the same, each with the notice given and the cells counted."""


class Said:
    """What one command said and how it ended."""

    def __init__(self, code: int, captured: pytest.CaptureFixture[str]) -> None:
        self.code = code
        self.out, self.err = captured.readouterr()

    def refusal(self) -> str:
        """Return the one line on standard error, with nothing on standard output."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()

    def record(self) -> dict[str, Any]:
        """Return the one JSON object on standard output."""
        assert self.out.count("\n") == 1
        found: dict[str, Any] = json.loads(self.out, parse_constant=pytest.fail)
        return found


def run(main: Main, capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    """Run a command in this process."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    return Said(code, capsys)
