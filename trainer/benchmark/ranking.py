"""How well a score ranks rows, whatever its threshold."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_agent.contract.types import Bool, Float64

_LARGEST = 1e300


def roc_auc(ranks: Float64, faulty: Bool) -> float | None:
    """Return the area under the ROC curve, or None where all rows are of one kind; infinite ranks are allowed."""
    if faulty.all() or not faulty.any():
        return None
    return float(roc_auc_score(faulty, np.clip(ranks, -_LARGEST, _LARGEST)))


def average_precision(ranks: Float64, faulty: Bool) -> float | None:
    """Return the average precision, or None without a faulty row; infinite ranks are allowed."""
    if not faulty.any():
        return None
    return float(average_precision_score(faulty, np.clip(ranks, -_LARGEST, _LARGEST)))


def mean_of_known(values: "list[float | None]") -> float | None:
    """Return the mean of the defined values, or None where none is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
