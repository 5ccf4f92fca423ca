"""What a cross-validation found: MAE and RMSE of each contender, and whether the LSTM is worth it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Float64, Int64

CONTENDERS = ("forecaster", "ridge", "persistence", "seasonal")
LEAST_GAIN = 0.01
"""Of the ridge regression's RMSE: what an LSTM must save to be worth its training and its cost at the edge."""
SURE = 2.0
"""Standard errors over the folds by which the gain must stand above 0."""


@dataclass(frozen=True)
class FoldFigures:
    """What one fold found.

    Attributes:
        number: from 1.
        trained, judged: samples that were fitted on and forecasts that were judged.
        first_time, last_time: of the judged block, seconds since the epoch.
        best_epoch: kept; 0 is the ridge regression alone.
        cells: (H, F) how many counted.
        square, absolute: (C, H, F) sums over the cells, engineering units; NaN for a contender that took no part.
        scale: (F,) engineering units of a scaled unit.
    """

    number: int
    trained: int
    judged: int
    first_time: float
    last_time: float
    best_epoch: int
    cells: Int64
    square: Float64
    absolute: Float64
    scale: Float64

    def rmse(self, contender: int) -> float | None:
        """Return a contender's RMSE over all sensors and horizons, scaled units; None where it took no part."""
        return _root((self.square[contender] / self.scale**2).sum(), int(self.cells.sum()))

    def mae(self, contender: int) -> float | None:
        """Return a contender's MAE likewise."""
        return _mean((self.absolute[contender] / self.scale).sum(), int(self.cells.sum()))


@dataclass(frozen=True)
class CrossValidation:
    """All folds.

    Attributes:
        sensors: names of those that are forecast.
        season: ticks, None where there is none.
        folds: oldest first.
    """

    sensors: tuple[str, ...]
    season: int | None
    folds: tuple[FoldFigures, ...]

    @property
    def gains(self) -> list[float]:
        """Return by what part of the ridge regression's RMSE the forecaster's is lower, fold by fold."""
        pairs = [(fold.rmse(0), fold.rmse(1)) for fold in self.folds]
        return [1.0 - ours / ridge for ours, ridge in pairs if ours is not None and ridge]

    @property
    def worth_it(self) -> bool:
        """Return whether the LSTM gains at least `LEAST_GAIN`, and that surely, see `SURE`."""
        gain, spread = _mean_and_spread(self.gains)
        if gain is None or gain < LEAST_GAIN:
            return False
        return spread is None or gain > SURE * spread / math.sqrt(len(self.gains))

    def verdict(self) -> str:
        """Return in a sentence whether the LSTM is worth it, with its figure and the spread over the folds."""
        gain, spread = _mean_and_spread(self.gains)
        if gain is None:
            return "nothing could be judged"
        size = f"{abs(gain):.1%}" + (f" ± {spread:.1%}" if spread is not None else "")
        side = "lower" if gain >= 0 else "higher"
        found = f"over {len(self.gains)} folds the LSTM's RMSE is {size} {side} than that of the ridge regression alone"
        if self.worth_it:
            said = f"The LSTM is worth it: {found}."
        else:
            said = f"The LSTM is not worth it here: {found}; at least {LEAST_GAIN:.0%} would be needed" + (
                f", {SURE:g} standard errors above 0." if gain >= LEAST_GAIN else "."
            )
        better = [f"{name} ({rmse:.4g})" for name, rmse in self._simpler_and_better()]
        ours = self._overall(0)["rmse"]
        return said + (f" Better than its {ours:.4g}: {', '.join(better)}." if better else "")

    def _simpler_and_better(self) -> list[tuple[str, float]]:
        """Return the contenders without a model whose mean RMSE is lower than the forecaster's."""
        means = {name: self._overall(place)["rmse"] for place, name in enumerate(CONTENDERS)}
        ours = means["forecaster"]
        simple = ((name, means[name]) for name in ("persistence", "seasonal"))
        return [
            (name, rmse) for name, rmse in simple if rmse is not None and ours is not None and rmse < ours
        ]

    def record(self) -> dict[str, Any]:
        """Return the record that `--json` prints."""
        gain, spread = _mean_and_spread(self.gains)
        overall = {name: self._overall(place) for place, name in enumerate(CONTENDERS)}
        return {
            "rmse": overall["forecaster"]["rmse"],
            "mae": overall["forecaster"]["mae"],
            "persistence_rmse": overall["persistence"]["rmse"],
            "contenders": overall,
            "lstm_gain": gain,
            "lstm_gain_spread": spread,
            "lstm_worth_it": self.worth_it,
            "verdict": self.verdict(),
            "season_ticks": self.season,
            "sensors": list(self.sensors),
            "folds": [self._fold_record(fold) for fold in self.folds],
        }

    def _overall(self, place: int) -> dict[str, float | None]:
        """Return the means over the folds and their spread."""
        rmse, rmse_spread = _mean_and_spread([fold.rmse(place) for fold in self.folds])
        mae, mae_spread = _mean_and_spread([fold.mae(place) for fold in self.folds])
        return {"rmse": rmse, "rmse_spread": rmse_spread, "mae": mae, "mae_spread": mae_spread}

    def _fold_record(self, fold: FoldFigures) -> dict[str, Any]:
        return {
            "fold": fold.number,
            "trained_samples": fold.trained,
            "judged_forecasts": fold.judged,
            "first_time": fold.first_time,
            "last_time": fold.last_time,
            "best_epoch": fold.best_epoch,
            **{
                name: {"rmse": fold.rmse(place), "mae": fold.mae(place), "sensors": self._cells(fold, place)}
                for place, name in enumerate(CONTENDERS)
            },
        }

    def _cells(self, fold: FoldFigures, place: int) -> list[dict[str, Any]]:
        """Return a contender's figures by horizon and sensor, engineering units."""
        return [
            {
                "sensor": sensor,
                "horizon": horizon + 1,
                "samples": int(fold.cells[horizon, column]),
                "rmse": _root(fold.square[place, horizon, column], int(fold.cells[horizon, column])),
                "mae": _mean(fold.absolute[place, horizon, column], int(fold.cells[horizon, column])),
            }
            for horizon in range(fold.cells.shape[0])
            for column, sensor in enumerate(self.sensors)
        ]


def _root(total: float, count: int) -> float | None:
    mean = _mean(total, count)
    return None if mean is None else math.sqrt(mean)


def _mean(total: float, count: int) -> float | None:
    return float(total) / count if count and math.isfinite(total) else None


def _mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else None
