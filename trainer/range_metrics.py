"""Range-based precision, recall and F1 (Tatbul et al., "Precision and Recall for Time Series", NeurIPS 2018)."""

import numpy as np

from edge_agent.contract.types import Bool, Float64, Int64
from trainer.scored_rows import ScoredRows, f_score, overlaps


def range_figures(rows: ScoredRows, existence_weight: float = 0.0) -> dict[str, float | None]:
    """Judge whole ranges: how much of each fault was in alarm, and how much of each alarm was faulty.

        recall    = mean over faults of α·[met by any alarm] + (1 - α)·share of its rows in alarm / max(1, alarms met)
        precision = mean over alarms of                          share of its rows faulty   / max(1, faults met)

    The share is the flat positional bias; the quotient is the paper's cardinality factor γ(x) = 1/x, which
    punishes one fault found in pieces. An alarm that never stops has a recall of 1, and as precision the share of
    faulty rows over the number of faults.

    Args:
        rows: of all assets; the means are over the ranges of all of them together.
        existence_weight: α, from 0 (the paper's default: only the overlap counts) to 1 (only being found counts).

    Returns:
        `range_precision` (`None` without an alarm), `range_recall` and `range_f1` (`None` without a fault).
    """
    reward = _overlap_reward(rows.faults, rows.alarm, rows.alarms)
    found = overlaps(rows.faults, rows.alarms) > 0
    recall = _mean(existence_weight * found + (1 - existence_weight) * reward)
    precision = _mean(_overlap_reward(rows.alarms, rows.faulty, rows.faults))
    return {"range_precision": precision, "range_recall": recall, "range_f1": f_score(precision, recall)}


def _overlap_reward(ranges: Int64, flag: Bool, others: Int64) -> Float64:
    """Return (k,): the share of each range's rows that have the flag, over how many of the others it meets."""
    flagged = np.concatenate([[0], np.cumsum(flag)])
    first, last = ranges.T
    share = (flagged[last] - flagged[first]) / (last - first)
    return np.asarray(share / np.maximum(1, overlaps(ranges, others)), np.float64)


def _mean(rewards: Float64) -> float | None:
    return float(rewards.mean()) if len(rewards) else None
