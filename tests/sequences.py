"""Rows for the tests of the metrics of sequences, written as text: `#` is a true row, `|` begins another asset."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from edge_agent.contract.types import Bool, Int64
from trainer.scored_rows import ScoredRows, asset_breaks, scored_rows


def flags(text: str) -> Bool:
    """Return one flag per row."""
    return np.array([sign == "#" for sign in text if sign != "|"], np.bool_)


def breaks(text: str) -> Int64:
    """Return the rows at which another asset begins."""
    parts = text.split("|")
    asset = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return asset_breaks(asset, len(asset))


def rows(fault: str, alarm: str, score: Sequence[float] | None = None) -> ScoredRows:
    """Return rows with these faults and alarms, scored 1 in alarm and 0 out of it unless told otherwise."""
    raised = flags(alarm)
    scores = raised.astype(np.float64) if score is None else np.array(score, np.float64)
    return scored_rows(scores, raised, flags(fault), breaks(fault))


def series(most: int = 24) -> st.SearchStrategy[tuple[str, str]]:
    """Return faults and alarms of one asset."""
    signs = st.lists(st.tuples(st.sampled_from(".#"), st.sampled_from(".#")), min_size=1, max_size=most)
    return signs.map(lambda pairs: ("".join(pair[0] for pair in pairs), "".join(pair[1] for pair in pairs)))
