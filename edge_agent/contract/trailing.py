"""What is usual of late: the high quantile of recent block maxima, by which a statistic is divided before it is judged.

Machines change: a statistic that was rare in the history may be common months later, and one alarm a day for it helps
nobody. Of each block of rows the maximum is kept (Gumbel 1958, Statistics of Extremes: the extremes of a process are
those of its blocks), for the last 60 blocks; the 0.95 quantile of these is the normaliser. It takes more than three
blocks out of sixty to move it, so that a short excursion does not hide the next, and no row that is part of an alarm is
taken at all, unless the operator's policy is `automatic`.
"""

import math
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64, Int64

LEAST_BLOCK = 50
"""Rows, about the longest span of the averages: maxima of neighbouring blocks are then hardly of one excursion."""
BLOCKS = 60
QUANTILE = 0.95
POLICIES = ("frozen", "trailing", "automatic")
"""Nothing adapts; what is usual follows recent rows outside of alarms; the same with those inside, which ends an alarm
that stays for good."""


def block_rows(days: float, interval: float) -> int:
    """Return the rows of a block, so that all of them span so many days of samples every `interval` seconds."""
    return max(LEAST_BLOCK, round(days * 86_400.0 / (interval * BLOCKS)))


@dataclass
class TrailingState:
    """Block maxima of all assets, one row per asset, G aspects.

    Attributes:
        maxima: (A, N, G) of the last blocks, the next to be replaced at `cursor`.
        filled: (A,) blocks kept.
        cursor: (A,).
        running: (A, G) maximum of the block that is not full yet.
        rows: (A,) rows in it.
        normaliser: (A, G).
    """

    maxima: Float32
    filled: Int64
    cursor: Int64
    running: Float64
    rows: Int64
    normaliser: Float64

    @staticmethod
    def start(assets: int, recent: Float32, least: Float64) -> "TrailingState":
        """Return the state of assets that begin with the block maxima of the history.

        Args:
            assets: how many.
            recent: (R, G) the newest last, R at most `BLOCKS`.
            least: (G,) a normaliser is never smaller.
        """
        aspects = recent.shape[1]
        maxima = np.zeros((assets, BLOCKS, aspects), np.float32)
        maxima[:, : len(recent)] = recent
        known = len(recent)
        return TrailingState(
            maxima,
            np.full(assets, known),
            np.full(assets, known % BLOCKS),
            np.zeros((assets, aspects)),
            np.zeros(assets, np.int64),
            np.tile(_normaliser(recent[None], least), (assets, 1)),
        )


def follow_blocks(
    state: TrailingState, assets: Int64, aspects: Float64, learn: Bool, length: int, least: Float64
) -> None:
    """Take L rows of each of the assets, named once each, into its block, which only the last may fill.

    Args:
        state: changed in place.
        assets: (B,).
        aspects: (B, L, G) finite.
        learn: (B, L) rows that are taken.
        length: rows of a block.
        least: (G,) a normaliser is never smaller.
    """
    counted = learn.sum(axis=1)
    if not learn.all():
        some = counted > 0
        assets, counted = assets[some], counted[some]
        # What is not taken is no maximum.
        aspects = np.where(learn[some][..., None], aspects[some], -np.inf)
    state.running[assets] = np.maximum(state.running[assets], aspects.max(axis=1))
    state.rows[assets] += counted
    full = assets[state.rows[assets] >= length]
    if not len(full):
        return
    state.maxima[full, state.cursor[full]] = state.running[full]
    state.cursor[full] = (state.cursor[full] + 1) % BLOCKS
    state.filled[full] = np.minimum(state.filled[full] + 1, BLOCKS)
    state.running[full] = 0.0
    state.rows[full] = 0
    for asset in full:
        kept = state.maxima[asset : asset + 1, : state.filled[asset]]
        state.normaliser[asset] = _normaliser(kept, least)[0]


def normalisers_of(aspects: Float64, length: int, least: Float64) -> tuple[Float64, Float32]:
    """Run over the rows of one asset's history, as `follow_blocks` does with an asset that knows the history already.

    Each block is held against the ones before it, of which those at the end of the history come before its first: an
    asset in service begins with these (`TrailingState.start`). Held against the few that there are before them, more
    of the first rows would stand out than ever do again, and the threshold would be that of a beginning.

    Args:
        aspects: (n, G) finite, in order.
        length: rows of a block.
        least: (G,) a normaliser is never smaller.

    Returns:
        Normalisers (n, G), and the maxima (R, G) of the last blocks.
    """
    blocks = len(aspects) // length
    first = 0, *range(length, blocks * length, length)
    maxima = np.maximum.reduceat(aspects[: max(blocks, 1) * length], first, axis=0).astype(np.float32)
    found = np.empty(aspects.shape)
    for number in range(-(-len(aspects) // length)):
        known = min(BLOCKS, len(maxima) - (number < len(maxima)))
        before = maxima[np.arange(number - known, number)] if known else maxima
        found[number * length : (number + 1) * length] = _normaliser(before[None], least)
    return found, maxima[-BLOCKS:]


def _normaliser(maxima: Float32, least: Float64) -> Float64:
    """Return (A, G) of block maxima (A, R, G)."""
    count = maxima.shape[1]
    if not count:
        return np.tile(least, (len(maxima), 1))
    at = max(math.ceil(QUANTILE * count) - 1, 0)
    return np.asarray(np.maximum(np.partition(maxima, at, axis=1)[:, at], least), np.float64)
