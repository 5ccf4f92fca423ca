"""What several workers know, as one: counts add up, assets stand side by side."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from edge_agent.board import AssetBoard, BoardState
from edge_agent.metrics import AgentMetrics, Facts, Latency
from edge_agent.tally import Tally


@dataclass(frozen=True, slots=True)
class Part:
    """All that one worker's metrics are made of.

    Attributes:
        assets: their ids.
        state: a row for each.
        tally, rejected, quality, latency: see `AgentMetrics`.
    """

    assets: list[str]
    state: BoardState
    tally: Tally
    rejected: dict[str, int]
    quality: dict[str, int]
    latency: Latency


def united_exposition(
    facts: Facts, own: Tally, parts: Sequence[Part], order: Iterable[str], workers: Sequence[int]
) -> bytes:
    """Return the metrics of all workers in Prometheus' text format.

    Args:
        facts: of any of them.
        own: what was counted before the workers: connection, outbox, messages that no worker got.
        parts: of each worker.
        order: in which the assets have their turn, for only the first get series.
        workers: ids of their processes.
    """
    tally = Tally()
    tally.add(own)
    rejected, quality = Counter[str](), Counter[str]()
    for part in parts:
        tally.add(part.tally)
        rejected.update(part.rejected)
        quality.update(part.quality)
    assets, board = _side_by_side(parts, order)
    metrics = AgentMetrics(facts, tally, board, assets, lambda: rejected, lambda: quality, workers)
    for part in parts:
        metrics.latency.add(part.latency)
    return metrics.exposition()


def _side_by_side(parts: Sequence[Part], order: Iterable[str]) -> tuple[list[str], AssetBoard]:
    place = {asset: row for row, asset in enumerate(asset for part in parts for asset in part.assets)}
    assets = [asset for asset in order if asset in place]
    rows = np.array([place[asset] for asset in assets], np.int64)
    columns = [
        np.concatenate([getattr(part.state, item.name) for part in parts])[rows]
        for item in fields(BoardState)
    ]
    return assets, AssetBoard.of(BoardState(*columns))


def summary(assets: int, active: int) -> str:
    """Return in a line how many assets there are, and how many in alarm."""
    return f"assets {assets}, in alarm {active}"
