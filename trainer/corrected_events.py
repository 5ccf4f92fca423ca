"""Corrected event-wise F0.5 (Kotowski et al., "European Space Agency Benchmark …", arXiv 2406.17826, 2024)."""

import numpy as np

from trainer.scored_rows import ScoredRows, f_score, overlaps


def corrected_event_f_score(rows: ScoredRows, beta: float = 0.5) -> float | None:
    """Count events, and let precision fall with every nominal row in alarm.

        precision = TP / (TP + FP) · TNR,   recall = TP / (TP + FN),   F = (1 + β²)·P·R / (β²·P + R)

    TP are faults met by any alarm, FN faults met by none, FP alarms that meet no fault, and TNR is the share of nominal
    rows that were not in alarm (the correction of Sehili and Zhang, arXiv 2308.13068): without it an alarm that
    never stops would have a precision of 1; with it, 0.

    Args:
        rows: of all assets; events and nominal rows are counted over all of them together.
        beta: weight of recall; the benchmark takes 0.5, for false alarms cost operators more.

    Returns:
        From 0 to 1; `None` without a fault, or without a nominal row.
    """
    nominal = int((~rows.faulty).sum())
    if not len(rows.faults) or not nominal:
        return None
    found = int((overlaps(rows.faults, rows.alarms) > 0).sum())
    false = int((overlaps(rows.alarms, rows.faults) == 0).sum())
    quiet = 1 - int(np.sum(rows.alarm & ~rows.faulty)) / nominal
    precision = found / (found + false) * quiet if found else 0.0
    return f_score(precision, found / len(rows.faults), beta)
