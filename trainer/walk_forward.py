"""Walk-forward folds of a history: each fold is fitted on what came before its test block, with a gap between.

Cut at ticks that hold for all assets, so that nothing that happened after the beginning of a test block, at any
asset, has been seen. The cuts are those of scikit-learn's `TimeSeriesSplit` over the ticks at which there is a sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from sklearn.model_selection import TimeSeriesSplit

from edge_agent.contract.errors import HistoryError
from trainer.cleaning import Cleaned, Series

SCHEMES = ("expanding", "rolling")


@dataclass(frozen=True)
class WalkForwardFold:
    """One fold.

    Attributes:
        number: from 1.
        train: what is fitted on; the assets that have samples there.
        test: the test block with the gap before it, which is read and not judged.
        first_tick: first tick that is judged.
    """

    number: int
    train: Cleaned
    test: Cleaned
    first_tick: int


def walk_forward(cleaned: Cleaned, folds: int, gap: int, scheme: str) -> Iterator[WalkForwardFold]:
    """Yield the folds, oldest first.

    Args:
        cleaned: the history.
        folds: how many.
        gap: ticks with a sample between what is fitted on and what is judged: a window, so that no forecast that is
            judged reads a sample that was fitted on.
        scheme: `expanding` fits on all that came before, `rolling` on the newest part, as long as a test block times
            the folds, that all folds have.

    Raises:
        HistoryError: the history is too short for so many folds.
    """
    ticks = np.unique(np.concatenate([series.ticks for series in cleaned.series]))
    block = len(ticks) // (folds + 1)
    if block < 2 * gap:
        raise HistoryError(
            f"history too short: {len(ticks)} ticks make {folds} folds of {block}, and each needs at least {2 * gap} "
            "(twice the window); give more history, fewer --folds or a smaller --window"
        )
    longest = len(ticks) - folds * block - gap if scheme == "rolling" else None
    split = TimeSeriesSplit(n_splits=folds, gap=gap, max_train_size=longest)
    for number, (train, test) in enumerate(split.split(ticks), 1):
        first, last = int(ticks[test[0]]), int(ticks[test[-1]])
        read_from = int(ticks[test[0] - gap])
        yield WalkForwardFold(
            number,
            between(cleaned, int(ticks[train[0]]), int(ticks[train[-1]])),
            between(cleaned, read_from, last),
            first,
        )


def between(cleaned: Cleaned, first_tick: int, last_tick: int) -> Cleaned:
    """Return the samples from one tick to another, both included, of the assets that have any there."""
    series = (_between(one, first_tick, last_tick) for one in cleaned.series)
    return replace(cleaned, series=tuple(one for one in series if len(one.ticks)))


def _between(series: Series, first_tick: int, last_tick: int) -> Series:
    """Return the rows of a series between two ticks: of every array that has one entry a row."""
    rows = slice(
        int(np.searchsorted(series.ticks, first_tick)),
        int(np.searchsorted(series.ticks, last_tick, side="right")),
    )
    whole = len(series.ticks)
    arrays = {item.name: getattr(series, item.name) for item in fields(series)}
    cut: dict[str, Any] = {
        name: array[rows]
        for name, array in arrays.items()
        if isinstance(array, np.ndarray) and len(array) == whole
    }
    return replace(series, **cut)
