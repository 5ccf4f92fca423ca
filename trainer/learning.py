"""From blocks of samples to the weights of a forecaster; with a short history, of one for each fold as well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.dataset import Segments
from trainer.fit_options import FitOptions
from trainer.highway import RIDGES, fit_highway, square_residual
from trainer.model import ForecasterWeights, ModelSpec, build_model, weights_of
from trainer.training import TrainingOptions, retrain, train

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


def training_options(options: FitOptions) -> TrainingOptions:
    """Return the part of the options that training knows."""
    return TrainingOptions(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        patience=options.patience,
        windows_per_epoch=options.windows_per_epoch,
        seed=options.seed,
    )


def learn(spec: ModelSpec, fit: Segments, later: Segments, options: FitOptions, on_epoch: OnEpoch) -> Learnt:
    """Fit on one block and let a later one choose penalty and epoch.

    Args:
        spec: the shape; without LSTM layers the ridge regression is all there is.
        fit: samples to fit on.
        later: samples that choose.
        options: how.
        on_epoch: told of every epoch.
    """
    ridge, _ = _choose_ridge([fit], [later], spec.horizons)
    learner = _Learner(spec, _highway(fit, ridge, spec, options), options)
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
    """
    ridge, highways = _choose_ridge(history.rest, history.held, spec.horizons)
    learner = _Learner(spec, _highway(history.fit, ridge, spec, options), options)
    record = learner.choose_epoch(history.fit, history.later, on_epoch)
    folds = []
    for samples, highway in zip(history.rest, highways, strict=True):
        learner.again(samples, highway if options.parts.highway else np.zeros_like(highway))
        folds.append(learner.weights())
        on_fold()
    learner.again(history.whole, _highway(history.whole, ridge, spec, options))
    record |= {"ridge": ridge, "folds": len(folds)}
    return Learnt(learner.model, learner.weights(), tuple(folds), record)


class _Learner:
    """The ridge regression with or without an LSTM beside it, trained as often as there are blocks."""

    def __init__(self, spec: ModelSpec, highway: Float32, options: FitOptions) -> None:
        self._spec = spec
        self._highway = highway
        self._options = training_options(options)
        self._epochs = 0
        self.model = build_model(spec, highway, options.seed) if spec.units else None
        self._untrained = self.model.get_weights() if self.model is not None else []

    def choose_epoch(self, fit: Segments, later: Segments, on_epoch: OnEpoch) -> dict[str, Any]:
        """Train until the later block is forecast no better, and remember how long that was."""
        if self.model is None:
            loss = square_residual(self._highway, later, self._spec.horizons)
            return {"best_epoch": 0, "epochs": 0, "losses": [], "stop_losses": [loss]}
        record = train(self.model, self._spec, fit, later, self._options, on_epoch)
        self._epochs = record.best_epoch
        return {
            "best_epoch": record.best_epoch,
            "epochs": record.epochs,
            "losses": list(record.losses),
            "stop_losses": list(record.stop_losses),
        }

    def again(self, samples: Segments, highway: Float32) -> None:
        """Train anew on other samples, for as many epochs as were chosen."""
        self._highway = highway
        if self.model is not None:
            self.model.set_weights(self._untrained)
            self.model.get_layer("highway").set_weights([highway])
            retrain(self.model, self._spec, samples, self._options, self._epochs)

    def weights(self) -> ForecasterWeights:
        """Return what has been learnt."""
        if self.model is not None:
            return weights_of(self.model, self._spec)
        outputs = self._spec.outputs
        nothing = np.zeros((self._spec.inputs, outputs), np.float32)
        return ForecasterWeights(self._spec, (), nothing, np.zeros(outputs, np.float32), self._highway)


def _highway(samples: Segments, ridge: float, spec: ModelSpec, options: FitOptions) -> Float32:
    """Return the highway's weights; all 0 where it takes no part."""
    weights = fit_highway(samples, ridge, spec.horizons)
    return weights if options.parts.highway else np.zeros_like(weights)


def _choose_ridge(
    fit: Sequence[Segments], later: Sequence[Segments], horizons: int
) -> tuple[float, list[Float32]]:
    """Return the penalty that forecasts later or held rows best, and the highways fitted with it.

    A long history wants almost no penalty; one of a few hundred rows, with as many weights as tens of rows, does.
    """
    fitted = [[fit_highway(part, ridge, horizons) for part in fit] for ridge in RIDGES]
    losses = [
        sum(square_residual(weights, part, horizons) for weights, part in zip(of_one, later, strict=True))
        for of_one in fitted
    ]
    best = int(np.argmin(losses))
    return RIDGES[best], fitted[best]
