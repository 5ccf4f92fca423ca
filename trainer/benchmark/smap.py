"""SMAP and MSL: telemetry of two spacecraft, one model a channel, scored by sequences that overlap."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.types import Float32
from trainer.benchmark.cases import (
    Case,
    Figures,
    Plan,
    Published,
    Suite,
    Verdict,
    Window,
    known,
    need_folder,
    ratio,
    runs_of,
)
from trainer.benchmark.ranking import average_precision, mean_of_known

INTERVAL = 60.0
"""Seconds; the source says "about a minute"."""
DAY_TICKS = 1440
LABELS = "labeled_anomalies.csv"


@dataclass(frozen=True)
class SmapTally:
    """Counts of one channel.

    Attributes:
        found, missed: labelled sequences.
        false: predicted sequences that overlap none.
        normal_rows, normal_alarms: rows outside of every sequence, and those of them in alarm.
        average_precision: None where not defined.
    """

    found: int
    missed: int
    false: int
    normal_rows: int
    normal_alarms: int
    average_precision: float | None


class Smap(Suite):
    """Telemanom's protocol; the commands beside the telemetry value are not used.

    A channel that the labels name twice (P-2) is one case with the sequences of both lines; one that they do not
    name (T-10) is none.
    """

    name = "smap"
    keys = (
        "sequence_f1", "sequence_precision", "sequence_recall", "normal_in_alarm_ratio",
        "false_alarms_per_week", "average_precision",
    )  # fmt: skip
    published = (
        Published(
            "Telemanom (not causal)",
            {
                "sequence_f1": 0.849,
                "sequence_precision": 0.870,
                "sequence_recall": 0.829,
                "normal_in_alarm_ratio": 0.024,
                "false_alarms_per_week": 0.29,
            },
        ),
    )
    remarks = (
        "An alarm that never ends scores sequence_f1 1.000: read it only beside the share of normal rows in alarm.",
    )

    def plans(self, data: Path | None, quick: bool) -> list[Plan]:
        """Return one case for each channel that is labelled."""
        folder = need_folder((data or Path()) / "smap_msl", self.name)
        sequences = _sequences(folder / LABELS)
        names = sorted(sequences)
        chosen = names[:: max(1, len(names) // 4)] if quick else names
        return [Plan(name, partial(_make, folder, name, sequences[name])) for name in chosen]

    def tally(self, case: Case, verdict: Verdict) -> SmapTally:
        """Match predicted with labelled sequences of one channel."""
        alarms = runs_of(verdict.alarm)
        faulty = case.labels > 0
        found = sum(bool(verdict.alarm[one.first : one.last + 1].any()) for one in case.windows)
        return SmapTally(
            found,
            len(case.windows) - found,
            sum(not faulty[first:end].any() for first, end in alarms),
            int((~faulty).sum()),
            int((verdict.alarm & ~faulty).sum()),
            average_precision(verdict.ranks, faulty),
        )

    def figures(self, tallies: Sequence[SmapTally]) -> Figures:
        """Pool the counts over the channels; average precision is the mean over the channels."""
        found, missed, false, rows, alarms = (
            sum(getattr(one, name) for one in tallies)
            for name in ("found", "missed", "false", "normal_rows", "normal_alarms")
        )
        return {
            "sequence_f1": ratio(2 * found, 2 * found + false + missed),
            "sequence_precision": ratio(found, found + false),
            "sequence_recall": ratio(found, found + missed),
            "normal_in_alarm_ratio": ratio(alarms, rows),
            "false_alarms_per_week": ratio(false, rows * INTERVAL / WEEK_SECONDS),
            "average_precision": mean_of_known([one.average_precision for one in tallies]),
        }

    def badness(self, figures: Mapping[str, Any]) -> float:
        """Return the share of normal rows in alarm and of sequences missed."""
        return known(figures["normal_in_alarm_ratio"]) + 1.0 - known(figures["sequence_recall"], 1.0)


def _sequences(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Return the labelled sequences (first, last) of each channel."""
    found: dict[str, list[tuple[int, int]]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                pairs = [(int(first), int(last)) for first, last in json.loads(row["anomaly_sequences"])]
                found.setdefault(row["chan_id"], []).extend(pairs)
    except (OSError, KeyError, ValueError, TypeError) as reason:
        raise HistoryError(f"{path}: not the list of labelled sequences ({reason})") from reason
    return found


def _make(folder: Path, name: str, sequences: Sequence[tuple[int, int]], seed: int) -> Case:
    """Read one channel; training and test part are two recordings, so a day without readings is put between them."""
    learnt, judged = (_values(folder / part / f"{name}.npz") for part in ("train", "test"))
    labels = np.zeros(len(judged), np.int8)
    for first, last in sequences:
        labels[first : last + 1] = 1
    ticks = np.arange(len(learnt) + len(judged))
    ticks[len(learnt) :] += DAY_TICKS
    return Case(
        name,
        ("telemetry",),
        INTERVAL,
        0.0,
        ticks[: len(learnt)],
        learnt,
        ticks[len(learnt) :],
        judged,
        labels,
        np.ones(len(judged), np.bool_),
        tuple(Window(first, min(last, len(judged) - 1)) for first, last in sorted(sequences)),
    )


def _values(path: Path) -> Float32:
    """Return the telemetry value (n, 1) of a channel's file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return np.asarray(stored["values"][:, :1], np.float32)
    except (OSError, KeyError, ValueError) as reason:
        raise HistoryError(f"{path}: not a channel's values ({reason})") from reason
