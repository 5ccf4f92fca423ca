"""Walk-forward cross-validation of the forecast: MAE and RMSE by sensor, fold and horizon, against simple contenders.

In each fold the forecaster is fitted on what came before (its newest rows decide when training stops), and forecasts a
block that it has never seen, from whole windows. All contenders of a fold are judged on the very same cells: those that
were read while the machine ran, and of which each contender has a forecast. Exogenous quantities are not judged.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import Float32
from edge_agent.forecaster import Forecaster
from trainer.backend import keras
from trainer.blocks import Plan, make_plan
from trainer.cleaning import Cleaned
from trainer.crossval_figures import CrossValidation, FoldFigures
from trainer.dataset import SubSequences
from trainer.export import export_recurrent
from trainer.fit_options import FitOptions
from trainer.learning import Learnt, learn
from trainer.model import ForecasterWeights
from trainer.naive import recognise_season, season_ago
from trainer.network import build_window_model
from trainer.progress import Progress
from trainer.walk_forward import WalkForwardFold, walk_forward

OfWindows = Callable[[Float32], Float32]
MOST_ORIGINS = 20_000
"""Forecasts of a fold, evenly spaced: more would not change its figures."""
BATCH = 256
LEAST_SHARE = 0.5
"""Of a fold's cells of which a season ago must be known, or the seasonal contender takes no part in it."""


@dataclass(frozen=True)
class CrossvalOptions:
    """How to cross-validate.

    Attributes:
        folds: how many, at least 2.
        scheme: one of `walk_forward.SCHEMES`.
        season: ticks; None recognises a day or a week, 0 is none.
        horizons: ticks ahead, 1 to so many.
    """

    folds: int = 5
    scheme: str = "expanding"
    season: int | None = None
    horizons: int = 1


def cross_validate(
    cleaned: Cleaned, options: FitOptions, wanted: CrossvalOptions, progress: Progress | None = None
) -> CrossValidation:
    """Cross-validate a forecaster.

    Args:
        cleaned: the history; nothing of it is joined over a gap.
        options: how to fit.
        wanted: how to cross-validate.
        progress: told how it goes.

    Raises:
        HistoryError: the history is too short for so many folds.
    """
    progress = progress or Progress()
    whole = make_plan(cleaned, options, calibrated=False)
    window, chosen = whole.spec.window_length, whole.layout.forecast
    options = replace(options, window_length=window)
    folds = list(walk_forward(cleaned, wanted.folds, window, wanted.scheme))
    season = wanted.season or None
    if wanted.season is None:
        # On the first fold's training rows: no contender may know the rows that judge it.
        season = recognise_season(folds[0].train, chosen)
    found = [_judge(fold, cleaned, options, wanted, season, progress) for fold in folds]
    return CrossValidation(tuple(cleaned.sensors[place] for place in chosen), season, tuple(found))


def _judge(
    fold: WalkForwardFold,
    cleaned: Cleaned,
    options: FitOptions,
    wanted: CrossvalOptions,
    season: int | None,
    progress: Progress,
) -> FoldFigures:
    """Fit the contenders of one fold, and forecast its test block with each."""
    progress.stage(f"fold {fold.number} of {wanted.folds}", (options.epochs if options.units else 0) + 2)
    keras.utils.clear_session()  # a process fits many models
    plan = make_plan(_long_enough(fold, options), options, calibrated=False)
    plan = replace(plan, spec=replace(plan.spec, horizons=wanted.horizons))

    def on_epoch(_epoch: int, loss: float, later: float) -> None:
        progress.advance(1, f"loss {loss:.4f}, later block {later:.4f}")

    learnt = _learn(plan, options, on_epoch)
    ridge = _learn(replace(plan, spec=plan.spec.ridge), options, on_epoch)
    block = _Block(fold, plan, wanted.horizons)
    forecasts: list[Float32 | None] = []
    for one in (learnt, ridge):
        forecasts.append(block.forecast(one))
        progress.advance()
    forecasts.append(np.repeat(block.newest[:, None], wanted.horizons, axis=1))
    forecasts.append(None if season is None else block.season_ago(cleaned, season))
    return block.figures(
        forecasts, len(plan.segments(lambda cuts: [(0, cuts.rows)])), learnt.record["best_epoch"]
    )


def _long_enough(fold: WalkForwardFold, options: FitOptions) -> Cleaned:
    """Return the assets that have as much history before the fold as a window needs."""
    least = 2 * (options.window_length or 0) + 20
    kept = tuple(one for one in fold.train.series if len(one.ticks) >= least)
    if not kept:
        raise HistoryError(
            f"history too short: before fold {fold.number} no asset has {least} samples to fit on"
        )
    return replace(fold.train, series=kept)


def _learn(plan: Plan, options: FitOptions, on_epoch: Any) -> Learnt:
    fit = plan.segments(lambda cuts: cuts.fitted(0, cuts.stop))
    later = plan.segments(lambda cuts: cuts.fitted(cuts.stop, cuts.held))
    return learn(plan.spec, fit, later, options, on_epoch)


class _Block:
    """The forecasts that judge one fold: origins in its test block, and what came after each.

    Attributes:
        newest: (n, F) the last sample that each forecast knows, scaled, held where missing.
    """

    def __init__(self, fold: WalkForwardFold, plan: Plan, horizons: int) -> None:
        self._fold = fold
        self._chosen = plan.layout.forecast
        self._scaling = plan.scaling
        segments = plan.over(fold.test).segments(lambda cuts: [(0, cuts.rows)])
        self._windows = SubSequences(segments, plan.spec.window_length, horizons)
        ticks = np.concatenate([one.ticks for one in fold.test.series])
        asset = np.repeat(np.arange(len(fold.test.series)), [len(one.ticks) for one in fold.test.series])
        numbers = np.arange(len(self._windows))
        origin = self._windows.start_rows(numbers) + plan.spec.window_length - 1
        judged = np.flatnonzero(ticks[origin + 1] >= fold.first_tick)
        if not len(judged):
            raise HistoryError(f"fold {fold.number} has no whole window without a gap; choose fewer --folds")
        chosen = judged[
            np.unique(np.linspace(0, len(judged) - 1, min(len(judged), MOST_ORIGINS)).astype(np.int64))
        ]
        self._numbers = numbers[chosen]
        self._origin = origin[chosen]
        self._target = ticks[self._origin[:, None] + 1 + np.arange(horizons)]
        self._asset = asset[self._origin]
        self.newest = segments.values[self._origin]

    def forecast(self, learnt: Learnt) -> Float32:
        """Return (n, H, F) scaled forecasts of a trained forecaster."""
        of_windows = _stepped(learnt.weights) if learnt.model is None else _at_once(learnt.weights)
        batches = (self._numbers[at : at + BATCH] for at in range(0, len(self._numbers), BATCH))
        return np.concatenate([of_windows(self._windows.inputs(batch))[..., 0] for batch in batches])

    def season_ago(self, cleaned: Cleaned, season: int) -> Float32:
        """Return (n, H, F) scaled: what was read a season before, NaN where nothing was."""
        whole = {series.asset: series for series in cleaned.series}
        found = np.full((*self._target.shape, self.newest.shape[1]), np.nan, np.float32)
        centre, scale = self._scaling.centre, self._scaling.scale
        for number, one in enumerate(self._fold.test.series):
            rows = np.flatnonzero(self._asset == number)
            for place in range(self._target.shape[1]):
                target = self._target[rows, place]
                before = season_ago(whole[one.asset], target, place + 1, season, centre, scale)
                found[rows, place] = before[:, self._chosen]
        return found

    def figures(self, forecasts: Sequence[Float32 | None], trained: int, best_epoch: int) -> FoldFigures:
        """Judge the forecasts (n, H, F) of the contenders, None of one that takes no part, on the same cells."""
        targets, counted = self._targets()
        least = LEAST_SHARE * counted.sum()
        forecasts = [
            None if one is None or np.isfinite(one)[counted].sum() < least else one for one in forecasts
        ]
        for one in forecasts:
            if one is not None:
                counted &= np.isfinite(one)
        scale = self._scaling.scale[self._chosen]
        shape = (len(forecasts), *targets.shape[1:])
        square, absolute = np.full(shape, np.nan), np.full(shape, np.nan)
        for place, one in enumerate(forecasts):
            if one is not None:
                difference = np.where(counted, one.astype(np.float64) - targets, 0.0) * scale
                square[place], absolute[place] = (difference**2).sum(axis=0), np.abs(difference).sum(axis=0)
        cleaned = self._fold.test
        times = cleaned.phase + cleaned.interval * np.array([self._target.min(), self._target.max()])
        return FoldFigures(
            self._fold.number, trained, len(self._numbers), float(times[0]), float(times[1]), best_epoch,
            counted.sum(axis=0), square, absolute, scale,
        )  # fmt: skip

    def _targets(self) -> tuple[Float32, Any]:
        """Return what came (n, H, F), scaled, and which of it was read while the machine ran."""
        values, counted = [], []
        for at in range(0, len(self._numbers), BATCH):
            found, weights = self._windows.targets(self._numbers[at : at + BATCH])
            values.append(found[:, -1])
            counted.append(weights[:, -1] > 0)
        shape = (len(self._numbers), self._target.shape[1], -1)
        return np.concatenate(values).reshape(shape), np.concatenate(counted).reshape(shape)


def _at_once(weights: ForecasterWeights) -> OfWindows:
    """Return what forecasts (B, H, F, P) from windows (B, T, I)."""
    model = build_window_model(weights)

    def of_windows(windows: Float32) -> Float32:
        found = model.predict_on_batch(windows)
        # With an operating state its probabilities come second.
        return np.asarray(found[0] if isinstance(found, list | tuple) else found, np.float32)

    return of_windows


def _stepped(weights: ForecasterWeights) -> OfWindows:
    """Return the same of the ridge regression alone, which has no window model: by the graph that carries state."""
    with tempfile.TemporaryDirectory() as directory:
        export_recurrent(weights, Path(directory))
        forecaster = Forecaster(Path(directory), "step", weights.spec.state_size)

    def of_windows(windows: Float32) -> Float32:
        state = np.zeros((len(windows), weights.spec.state_size), np.float32)
        return np.asarray(forecaster.advance(windows, state)[:, -1])

    return of_windows
