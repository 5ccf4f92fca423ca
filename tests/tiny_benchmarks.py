"""Tiny sets in the formats of the public ones, of a made-up machine, and cases without a file."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from edge_agent.contract.types import Bool, Int64
from tests.tiny_machine import SENSORS, faulty_values, normal_values
from trainer.benchmark.cases import Case, Verdict, Window

SKAB_ROWS = 620
SKAB_FAULT = (500, 560)
"""Rows of the source, the second after the last."""
SKAB_GAP = 450
"""From this row on, times are three seconds later."""
SMAP_ROWS = (400, 300)
NAB_ROWS = 1200
NAB_WINDOW = (700, 799)
_BEGIN = datetime(2020, 3, 1, tzinfo=UTC)


def write_skab(data: Path) -> None:
    """Write two files of SKAB's format, each with one fault, a changepoint at both its ends, and a gap."""
    for number, folder in enumerate(("valve1", "other")):
        values = faulty_values(SKAB_ROWS, *SKAB_FAULT, seed=number)
        lines = [";".join(("datetime", *SENSORS, "anomaly", "changepoint"))]
        for row, cells in enumerate(values):
            stamp = _BEGIN + timedelta(seconds=row + (3 if row >= SKAB_GAP else 0))
            faulty, change = float(SKAB_FAULT[0] <= row < SKAB_FAULT[1]), float(row in SKAB_FAULT)
            numbers = ";".join(f"{cell:.5f}" for cell in cells)
            lines.append(f"{stamp:%Y-%m-%d %H:%M:%S};{numbers};{faulty};{change}")
        _write(data / "skab" / folder / f"{number}.csv", lines)


def write_smap(data: Path) -> None:
    """Write two channels of the format of SMAP, one of which the labels name twice."""
    folder = data / "smap_msl"
    for part, rows in zip(("train", "test"), SMAP_ROWS, strict=True):
        (folder / part).mkdir(parents=True)
        for number, name in enumerate(("A-1", "B-1")):
            values = np.concatenate(
                [faulty_values(rows, 200, 230, seed=number)[:, :1], np.zeros((rows, 2))], axis=1
            )
            np.savez(folder / part / f"{name}.npz", values=values.astype(np.float32))
    lines = [
        "chan_id,spacecraft,anomaly_sequences,class,num_values",
        'A-1,SMAP,"[[200, 229]]",[point],300',
        'B-1,SMAP,"[[200, 229]]",[point],300',
        'B-1,SMAP,"[[205, 235]]",[point],300',
    ]
    _write(folder / "labeled_anomalies.csv", lines)


def write_nab(data: Path) -> None:
    """Write two files of NAB's format, one with a window and one, with a time that comes twice, without."""
    windows = {}
    for number, name in enumerate(("real/faulty.csv", "real/sound.csv")):
        first, last = NAB_WINDOW
        values = faulty_values(NAB_ROWS, *((first, last + 1) if number == 0 else (0, 0)), seed=number)[:, 0]
        stamps = [
            _BEGIN + timedelta(minutes=5 * (row - int(number and row > 900))) for row in range(NAB_ROWS)
        ]
        texts = [f"{stamp:%Y-%m-%d %H:%M:%S}" for stamp in stamps]
        rows = [f"{text},{value:.5f}" for text, value in zip(texts, values, strict=True)]
        _write(data / "nab" / "data" / name, ["timestamp,value", *rows])
        windows[name] = [[f"{texts[first]}.000000", f"{texts[last]}.000000"]] if number == 0 else []
    _write(data / "nab" / "labels" / "combined_windows.json", [json.dumps(windows)])


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def tiny_case(
    history: int = 500, test: int = 300, fault: tuple[int, int] = (200, 240), seed: int = 0
) -> Case:
    """Return a case of the made-up machine, one sample a second; the fault is in rows of the test part."""
    values = faulty_values(test, *fault, seed=seed + 1)
    labels = np.zeros(test, np.int8)
    labels[fault[0] : fault[1]] = 1
    ticks = np.arange(history + test)
    return Case(
        "tiny", SENSORS, 1.0, 0.0, ticks[:history], normal_values(history, seed), ticks[history:], values, labels,
        np.ones(test, np.bool_), (Window(fault[0], fault[1] - 1, "step", (SENSORS[0],)),),
    )  # fmt: skip


def labelled_case(
    labels: list[int], changepoints: tuple[int, ...] = (), windows: tuple[Window, ...] = ()
) -> Case:
    """Return a case of which only the labels matter; its ticks are its rows."""
    rows = np.arange(len(labels))
    nothing = np.zeros((len(labels), 1), np.float32)
    return Case(
        "labelled", ("x",), 1.0, 0.0, rows[:0], nothing[:0], rows, nothing, np.array(labels, np.int8),
        np.ones(len(labels), np.bool_), windows, changepoints,
    )  # fmt: skip


def said(alarm: list[int]) -> Verdict:
    """Return a verdict whose score is its alarm."""
    flags: Bool = np.array(alarm, np.bool_)
    starts: Int64 = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0) == 1)
    return Verdict(flags.astype(np.float64), flags, starts)
