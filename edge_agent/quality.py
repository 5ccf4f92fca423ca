"""The gate: a reading that cannot be true is masked and counted by reason; the rest of its row goes on."""

from collections import Counter

import numpy as np

from edge_agent.contract.types import Bool, Float64, Rows

TOO_LARGE = 1e15
"""Beyond this a float32 has no fraction left and squares of it overflow; the history reader draws the same line."""


class QualityGate:
    """Masks impossible readings.

    Args:
        max_future_seconds: how far ahead of the agent's clock a reading may be stamped.
    """

    def __init__(self, max_future_seconds: float = 60.0) -> None:
        self.max_future_seconds = max_future_seconds
        self.rejected: Counter[str] = Counter()
        """Readings masked so far, by reason."""

    def check(self, rows: Rows, now: float) -> Rows:
        """Return the rows with impossible readings masked, without rows that have nothing left.

        Args:
            rows: as decoded.
            now: the agent's clock, seconds since the epoch; infinite in replay, where no time is in the future.
        """
        values = rows.values
        if (np.abs(values) <= TOO_LARGE).all() and _timely(rows.time, now + self.max_future_seconds).all():
            return rows
        infinite = np.isinf(values)
        large = ~infinite & (np.abs(values) > TOO_LARGE)
        if infinite.any() or large.any():
            self._count("infinite", infinite)
            self._count("too_large", large)
            values = np.where(infinite | large, np.float32(np.nan), values)
        timely = _timely(rows.time, now + self.max_future_seconds)
        known = np.isfinite(values)
        if not timely.all():
            self._count("future", known & ~timely[:, None])
        kept = timely & known.any(axis=1)
        if kept.all() and values is rows.values:
            return rows
        return Rows(rows.asset[kept], rows.time[kept], values[kept])

    def _count(self, reason: str, cells: Bool) -> None:
        found = int(cells.sum())
        if found:
            self.rejected[reason] += found


def _timely(time: Float64, latest: float) -> Bool:
    return np.asarray(np.isfinite(time) & (time <= latest))
