"""How the samples of one call are cut into tiles: B assets, each with its next L samples.

A round of many assets is a tile of one tick, a chunk of one asset a tile of one row; what lies between is both at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge_agent.contract.types import Int64, Places

MOST_ASSETS = 1024
"""Of a tile: more would not fit a processor's cache, and calls are few enough by then."""
MOST_ASSETS_ON_DEVICE = 4096
"""Where a GPU forecasts, for which a thousand rows are little to do and each call has a price of its own."""
MOST_SAMPLES = 2048
MOST_TICKS = 1024


@dataclass(frozen=True, slots=True)
class Tile:
    """The next L samples of each of B assets.

    Attributes:
        asset: (B,) row indices, ascending.
        position: (B, L) places of the samples among those of the call.
    """

    asset: Int64
    position: Int64


def tiles_of(asset: Int64, most_assets: int = MOST_ASSETS) -> Iterator[Tile]:
    """Cut samples into tiles, so that the samples of each asset come in their order.

    Args:
        asset: (n,) row indices, in order of arrival.
        most_assets: of a tile.
    """
    count = len(asset)
    if count == 1:
        yield Tile(asset, np.zeros((1, 1), np.int64))
        return
    steps = asset[1:] - asset[:-1]
    if steps.min() > 0:
        yield from _cut(asset, np.arange(count)[:, None], most_assets)
        return
    if not np.count_nonzero(steps):
        yield from _cut(asset[:1], np.arange(count)[None], most_assets)
        return
    order = np.argsort(asset, kind="stable")
    ordered = asset[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, count])
    first = 0
    for end in np.unique(counts).tolist():
        some = starts[counts >= end]
        yield from _cut(ordered[some], order[some[:, None] + np.arange(first, end)], most_assets)
        first = end


def _cut(asset: Int64, position: Int64, most_assets: int) -> Iterator[Tile]:
    """Yield a tile in pieces that are not too large."""
    count, ticks = position.shape
    rows = min(count, most_assets)
    columns = max(1, min(MOST_TICKS, MOST_SAMPLES // rows))
    for at in range(0, count, rows):
        for tick in range(0, ticks, columns):
            yield Tile(asset[at : at + rows], position[at : at + rows, tick : tick + columns])


def places_of(asset: Int64) -> Places:
    """Return ascending row indices (B,) as a slice where there is no gap in them."""
    first, last = int(asset[0]), int(asset[-1])
    return slice(first, last + 1) if last - first + 1 == len(asset) else asset
