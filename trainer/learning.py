"""From blocks of samples to the weights of a forecaster; with a short history, of one for each fold as well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Bool, Float32, Float64
from trainer.checkpoint import Slot
from trainer.dataset import Segments
from trainer.fit_options import FitOptions
from trainer.heads import Head
from trainer.highway import RIDGES, fit_highway, persistence, residual_variance, square_residual
from trainer.model import ForecasterWeights, ModelSpec
from trainer.network import Regularisation, build_model, set_start, weights_of
from trainer.training import Trainer, TrainingOptions, precision_policy
from trainer.watch import Watch
from trainer.workplace import Workplace

OnEpoch = Callable[[int, float, float], None]


@dataclass(frozen=True)
class Learnt:
    """A trained forecaster.

    Attributes:
        model: of Keras, whose weights they are; None where no LSTM was to be trained.
        weights: of the forecaster.
        folds: of one forecaster for each fold, fitted on the other folds; empty with a long history.
        record: epochs, losses and what was kept, for the manifest.
    """

    model: Any
    weights: ForecasterWeights
    folds: tuple[ForecasterWeights, ...]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Supervision:
    """What stands beside the training of a bundle that is released.

    Attributes:
        watch: may end it early, and keeps its logs.
        place: where each stage is saved, and goes on from.
    """

    watch: Watch | None = None
    place: Workplace | None = None

    def slot(self, stage: str) -> Slot | None:
        """Return where a stage is saved."""
        return None if self.place is None else self.place.slot(stage)


UNWATCHED = Supervision()


def training_options(options: FitOptions) -> TrainingOptions:
    """Return the part of the options that training knows."""
    return TrainingOptions(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        patience=options.patience,
        windows_per_epoch=options.windows_per_epoch,
        seed=options.seed,
        loss=options.loss,
        clipnorm=options.clip_norm,
        clipvalue=options.clip_value,
        schedule=options.schedule,
    )


def regularisation(options: FitOptions) -> Regularisation:
    """Return the part of the options that keeps training from over-fitting."""
    return Regularisation(
        options.dropout,
        options.lstm_dropout,
        options.recurrent_dropout,
        options.kernel_l2,
        options.recurrent_l2,
    )


def learn(
    spec: ModelSpec,
    fit: Segments,
    later: Segments,
    options: FitOptions,
    on_epoch: OnEpoch,
    supervision: Supervision = UNWATCHED,
) -> Learnt:
    """Fit on one block and let a later one choose penalty and epoch.

    Args:
        spec: the shape; without LSTM layers the ridge regression is all there is.
        fit: samples to fit on.
        later: samples that choose.
        options: how.
        on_epoch: told of every epoch.
        supervision: of the training.
    """
    ridge, (highway,) = _choose_ridge([fit], [later], spec.horizons, options.parts.ridge)
    learner = _Learner(spec, _start(spec, highway, fit), options, fit, supervision)
    record = learner.choose_epoch(fit, later, on_epoch)
    return Learnt(learner.model, learner.weights(), (), record | {"ridge": ridge})


@dataclass(frozen=True)
class FoldedHistory:
    """A short history, cut twice.

    Attributes:
        fit, later: all rows in two blocks; training on the first is stopped by the second.
        rest, held: of each fold, the other rows and its own.
        whole: all rows.
    """

    fit: Segments
    later: Segments
    rest: tuple[Segments, ...]
    held: tuple[Segments, ...]
    whole: Segments


def learn_in_folds(
    spec: ModelSpec,
    history: FoldedHistory,
    options: FitOptions,
    on_epoch: OnEpoch,
    on_fold: Callable[[], None],
    supervision: Supervision = UNWATCHED,
) -> Learnt:
    """Fit on all rows, and one forecaster for each fold on the others.

    The penalty is the one that forecasts the held folds best. The later block chooses the epoch, and all forecasters
    train for that many.

    Args:
        spec: the shape; without LSTM layers the ridge regression is all there is.
        history: in folds.
        options: how.
        on_epoch: told of every epoch.
        on_fold: told of every fold.
        supervision: of the training.
    """
    fitted = options.parts.ridge
    ridge, highways = _choose_ridge(history.rest, history.held, spec.horizons, fitted)
    first = _highway(history.fit, ridge, spec.horizons, fitted)
    learner = _Learner(spec, _start(spec, first, history.fit), options, history.whole, supervision)
    record = learner.choose_epoch(history.fit, history.later, on_epoch)
    folds = []
    for number, (samples, highway) in enumerate(zip(history.rest, highways, strict=True)):
        learner.again(samples, _start(spec, highway, samples), f"fold-{number}")
        folds.append(learner.weights())
        on_fold()
    final = _start(spec, _highway(history.whole, ridge, spec.horizons, fitted), history.whole)
    learner.again(history.whole, final, "whole")
    record |= {"ridge": ridge, "folds": len(folds)}
    return Learnt(learner.model, learner.weights(), tuple(folds), record)


@dataclass(frozen=True)
class _Start:
    """What a forecaster knows before it is trained.

    Attributes:
        points: (R, H * F) the ridge regression itself.
        highway: (highway_rows, outputs) the same, for all outputs of the head.
        head_bias: (outputs,) how sure it is.
        still: (I,) inputs of which nothing can be learnt, as they never move.
    """

    points: Float32
    highway: Float32
    head_bias: Float32
    still: Bool


def _start(spec: ModelSpec, points: Float32, samples: Segments) -> _Start:
    """Return what samples teach without training, given the ridge regression (R, H * F) fitted on them."""
    used = points if spec.highway else np.zeros_like(points)
    variance = np.ones((spec.horizons, spec.sensors))
    if spec.head.kind in ("gaussian", "quantile"):
        variance = residual_variance(used, samples, spec.horizons)
    bias = spec.head.initial_bias(variance, _state_shares(spec.head, samples))
    highway = (
        spec.head.spread(points, spec.sensors) if spec.highway else np.zeros((0, spec.outputs), np.float32)
    )
    return _Start(used, highway, bias, samples.still())


def _state_shares(head: Head, samples: Segments) -> Float64:
    """Return (C,) how often each state was measured."""
    values = np.asarray(head.state_values)
    measured = samples.values[~samples.missing[:, head.state_sensor], head.state_sensor]
    if not len(values):
        return values
    nearest = np.abs(measured[:, None] - values).argmin(axis=1)
    return np.bincount(nearest, minlength=len(values)) / max(len(measured), 1)


class _Learner:
    """The ridge regression with or without an LSTM beside it, trained as often as there are blocks."""

    def __init__(
        self, spec: ModelSpec, start: _Start, options: FitOptions, most: Segments, supervision: Supervision
    ) -> None:
        self._spec = spec
        self._start = start
        self._supervision = supervision
        self._rates: tuple[float, ...] = ()
        self.model = None
        if spec.units:
            with precision_policy(options.mixed_precision):
                self.model = build_model(
                    spec, start.highway, options.seed, start.head_bias, regularisation(options)
                )
        self._untrained = self.model.get_weights() if self.model is not None else []
        self._begin_at(start)
        self._trainer = Trainer(self.model, spec, training_options(options), most, supervision.watch)

    def choose_epoch(self, fit: Segments, later: Segments, on_epoch: OnEpoch) -> dict[str, Any]:
        """Train until the later block is forecast no better, and remember how long that was."""
        if self.model is None:
            loss = square_residual(self._start.points, later, self._spec.horizons)
            return {"best_epoch": 0, "epochs": 0, "losses": [], "stop_losses": [loss]}
        record = self._trainer.train(fit, later, on_epoch, self._supervision.slot("epochs"))
        self._rates = record.rates[: record.best_epoch]
        return {
            "best_epoch": record.best_epoch,
            "epochs": record.epochs,
            "losses": list(record.losses),
            "stop_losses": list(record.stop_losses),
            "interrupted": record.interrupted,
            "backends": list(record.backends),
        }

    def again(self, samples: Segments, start: _Start, stage: str) -> None:
        """Train anew on other samples, for as many epochs as were chosen."""
        self._start = start
        if self.model is not None:
            self.model.set_weights(self._untrained)
            self._begin_at(start)
            self._trainer.retrain(samples, self._rates, self._supervision.slot(stage))

    def _begin_at(self, start: _Start) -> None:
        if self.model is not None:
            set_start(self.model, start.highway, start.head_bias, start.still)

    def weights(self) -> ForecasterWeights:
        """Return what has been learnt."""
        if self.model is not None:
            return weights_of(self.model, self._spec)
        nothing = np.zeros((self._spec.inputs, self._spec.outputs), np.float32)
        return ForecasterWeights(self._spec, (), nothing, self._start.head_bias, self._start.highway)


def _choose_ridge(
    fit: Sequence[Segments], later: Sequence[Segments], horizons: int, fitted: bool
) -> tuple[float, list[Float32]]:
    """Return the penalty that forecasts later or held rows best, and the highways fitted with it.

    Not `fitted`, they are persistence, and the penalty is that of nothing.

    A long history wants almost no penalty; one of a few hundred rows, with as many weights as tens of rows, does.
    """
    if not fitted:
        return RIDGES[0], [persistence(part, horizons) for part in fit]
    fits = [[fit_highway(part, ridge, horizons) for part in fit] for ridge in RIDGES]
    losses = [
        sum(square_residual(weights, part, horizons) for weights, part in zip(of_one, later, strict=True))
        for of_one in fits
    ]
    best = int(np.argmin(losses))
    return RIDGES[best], fits[best]


def _highway(samples: Segments, ridge: float, horizons: int, fitted: bool) -> Float32:
    """Return the highway of samples: the ridge regression, or persistence where that is not to be fitted."""
    return fit_highway(samples, ridge, horizons) if fitted else persistence(samples, horizons)
