"""The training loop: loss at every time step, early stopping on a later block, best weights kept."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.backend import keras
from trainer.checkpoint import Slot, TrainingState
from trainer.dataset import Segments, SubSequences
from trainer.device_series import Batches, Cut, Drawn, SeriesModel
from trainer.fast_lstm import kernel_at_work
from trainer.losses import build_loss
from trainer.model import ModelSpec
from trainer.watch import Watch

OnEpoch = Callable[[int, float, float], None]
"""Called after each epoch with its number (from 1), the training loss and the loss on the later block."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: at most so many; 0 leaves the ridge regression.
        batch_size: sub-sequences in a step.
        learning_rate: of Adam.
        patience: epochs without improvement before it stops.
        clipnorm: bound of each gradient's norm; 0 is none.
        clipvalue: bound of each number of a gradient, which comes first; 0 is none.
        schedule: of the learning rate, `constant`, `cosine` or `plateau`.
        loss: of points, see `build_loss`.
        windows_per_epoch: sub-sequences drawn in an epoch, at most.
        masked_ratio: share of input cells hidden in training, so that a missing cell is nothing new.
        seed: of the draws.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    patience: int = 5
    clipnorm: float = 1.0
    clipvalue: float = 0.0
    schedule: str = "constant"
    loss: str = "auto"
    windows_per_epoch: int = 2048
    masked_ratio: float = 0.03
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What training did.

    Attributes:
        losses: of each epoch, of cells in scaled units, penalties on weights included.
        stop_losses: on the later block, without penalties; the first entry is epoch 0, the ridge regression alone.
        best_epoch: the epoch whose weights were kept; 0 is the ridge regression alone.
        epochs: epochs that were run.
        rates: the learning rate of each.
        interrupted: whether it was asked to end before it had to.
        backends: of Keras that the epochs ran on, the first one first.
    """

    losses: tuple[float, ...]
    stop_losses: tuple[float, ...]
    best_epoch: int
    epochs: int
    rates: tuple[float, ...] = ()
    interrupted: bool = False
    backends: tuple[str, ...] = ()


class _Adam(keras.optimizers.Adam):  # type: ignore[misc]
    """Adam that bounds each number of a gradient before its norm; Keras's own knows only one of the two."""

    def __init__(self, learning_rate: float, clipnorm: float, clipvalue: float, **kwargs: Any) -> None:
        super().__init__(learning_rate, clipnorm=clipnorm or None, name="adam", **kwargs)
        self._largest = clipvalue

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        """Apply gradients."""
        if self._largest:
            grads = [
                None if grad is None else keras.ops.clip(grad, -self._largest, self._largest)
                for grad in grads
            ]
        return super().apply(grads, trainable_variables)


@contextlib.contextmanager
def precision_policy(mixed: bool) -> Iterator[None]:
    """Let layers that are built within compute in bfloat16, with weights in float32, if that is wanted.

    Bfloat16 has the range of float32, so that gradients need no scaling, which float16 does.
    """
    before = keras.config.dtype_policy()
    if mixed:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _schedule(options: TrainingOptions) -> list[Any]:
    """Return the callbacks that set the learning rate of each epoch."""
    if options.schedule == "cosine":

        def cosine(epoch: int, _rate: float) -> float:
            return options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * epoch / options.epochs))

        return [keras.callbacks.LearningRateScheduler(cosine)]
    if options.schedule == "plateau":
        patience = max(1, options.patience // 2)
        return [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=patience, min_delta=0.0)]
    return []


class _KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops when the later block no longer improves, and puts the best weights back, those of epoch 0 included."""

    def __init__(self, forecaster: Any, untrained_loss: float, patience: int) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.rates: list[float] = []
        self.stop_losses = [untrained_loss]
        self.backends: list[str] = []
        self.best_epoch = 0
        self.best = forecaster.get_weights()
        self._forecaster = forecaster
        self._patience = patience

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the learning rate, and what computes."""
        if keras.backend.backend() not in self.backends:
            self.backends.append(keras.backend.backend())
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare the epoch with the best one so far."""
        logs = logs or {}
        self.losses.append(float(logs["loss"]))
        self.stop_losses.append(float(logs["val_loss"]) - _penalty(self._forecaster))
        if self.stop_losses[-1] < self.stop_losses[self.best_epoch]:
            self.best_epoch = epoch + 1
            self.best = self._forecaster.get_weights()
        if epoch + 1 - self.best_epoch >= self._patience:
            self.model.stop_training = True

    @property
    def finished(self) -> bool:
        """Return whether the later block has stopped improving."""
        return len(self.losses) - self.best_epoch >= self._patience

    def facts(self) -> dict[str, Any]:
        """Return what is to be remembered of the epochs so far."""
        return {
            "losses": self.losses,
            "stop_losses": self.stop_losses,
            "rates": self.rates,
            "best_epoch": self.best_epoch,
            "backends": self.backends,
        }

    def take_up(self, state: TrainingState) -> None:
        """Go on from what was remembered."""
        self.losses, self.rates = state.facts["losses"], state.facts["rates"]
        self.stop_losses, self.best_epoch = state.facts["stop_losses"], state.facts["best_epoch"]
        self.backends = state.facts["backends"]
        self.best = state.groups["best"]

    def restore(self) -> None:
        """Put the best weights back."""
        self._forecaster.set_weights(self.best)


class _Draw(keras.callbacks.Callback):  # type: ignore[misc]
    """Draws the sub-sequences of each epoch; where the series is too long for the device, their rows go there."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draw."""
        self._batches.begin(epoch)
        if not self._batches.drawn.whole:
            self.model.learn_from(self._batches.drawn.rows(epoch))


class _Save(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves where the training stands after each epoch."""

    def __init__(self, slot: Slot, keep: _KeepBest | None, schedule: Sequence[Any]) -> None:
        super().__init__()
        self._slot, self._keep = slot, keep
        self._plateau = next((one for one in schedule if hasattr(one, "cooldown_counter")), None)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save."""
        facts: dict[str, Any] = {"epoch": epoch + 1}
        groups = {"variables": _values(self.model)}
        if self._keep is not None:
            facts |= self._keep.facts()
            groups["best"] = self._keep.best
        if self._plateau is not None:
            facts["plateau"] = [float(self._plateau.best), self._plateau.wait, self._plateau.cooldown_counter]
        self._slot.save(facts, groups)

    def take_up(self, state: TrainingState) -> int:
        """Go on from what was saved, and return the epochs that are done."""
        for variable, value in zip(_variables(self.model), state.groups["variables"], strict=True):
            variable.assign(value)
        if self._keep is not None:
            self._keep.take_up(state)
        return int(state.facts["epoch"])

    def take_up_schedule(self, state: TrainingState) -> None:
        """Put back what the schedule remembers, which begins anew with each training."""
        if self._plateau is not None and "plateau" in state.facts:
            self._plateau.best, self._plateau.wait, self._plateau.cooldown_counter = state.facts["plateau"]


class _Tell(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells of every epoch."""

    def __init__(self, keep: _KeepBest, on_epoch: OnEpoch) -> None:
        super().__init__()
        self._keep, self._on_epoch = keep, on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Tell."""
        self._on_epoch(epoch + 1, self._keep.losses[-1], self._keep.stop_losses[-1])


class Trainer:
    """Trains a model from `build_model`, once or, for the folds of a short history, again and again.

    What is compiled once serves all stages.

    Args:
        model: the model; its weights are changed in place.
        spec: its shape.
        options: how to train.
        most: the largest block that it will be given; None is the first one.
        watch: may end training early, and keeps its logs.
    """

    def __init__(
        self,
        model: Any,
        spec: ModelSpec,
        options: TrainingOptions,
        most: Segments | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._model, self._spec, self._options = model, spec, options
        self._most, self._watch = most, watch
        self._series: SeriesModel | None = None

    @kernel_at_work()
    def train(
        self, fit: Segments, stop: Segments, on_epoch: OnEpoch | None = None, slot: Slot | None = None
    ) -> TrainingRecord:
        """Train until a later block is forecast no better, and leave the model with its best weights.

        Args:
            fit: samples to learn from.
            stop: later samples that decide which epoch is kept.
            on_epoch: told of every epoch.
            slot: where it is saved after each epoch, and goes on from.

        Returns:
            the losses and which epoch was kept.

        Raises:
            HistoryError: a block has no stretch as long as a window and its horizon.
        """
        options = self._options
        learned, later = self._drawn(fit, options.seed), self._drawn(stop, None)
        series = self._prepared(learned, later)
        series.later.assign(later.rows(0))
        shown = Batches(later, options.batch_size)
        untrained = float(series.evaluate(shown, verbose=0)) - _penalty(self._model)
        keep = _KeepBest(self._model, untrained, options.patience)
        if options.epochs > 0:
            stage = _Stage(series, options.epochs, _schedule(options), keep, slot)
            stage.run(Batches(learned, options.batch_size), self._watch, shown, on_epoch)
            keep.restore()
        interrupted = self._watch is not None and self._watch.interrupted
        return TrainingRecord(
            tuple(keep.losses), tuple(keep.stop_losses), keep.best_epoch, len(keep.losses), tuple(keep.rates),
            interrupted, tuple(keep.backends),
        )  # fmt: skip

    @kernel_at_work()
    def retrain(self, samples: Segments, rates: Sequence[float], slot: Slot | None = None) -> None:
        """Train from the present weights on other samples; what the optimizer remembers is forgotten first.

        Args:
            samples: to learn from.
            rates: the learning rate of each epoch; none leaves the weights as they are.
            slot: where it is saved after each epoch, and goes on from.

        Raises:
            HistoryError: there is no stretch as long as a window and its horizon.
        """
        if not rates:
            return
        learned = self._drawn(samples, self._options.seed)
        scheduled = keras.callbacks.LearningRateScheduler(lambda epoch: rates[epoch])
        stage = _Stage(self._prepared(learned), len(rates), [scheduled], None, slot)
        stage.run(Batches(learned, self._options.batch_size), self._watch)

    def _drawn(self, samples: Segments, seed: int | None) -> Drawn:
        source = SubSequences(samples, self._spec.window_length, self._spec.horizons)
        return Drawn(source, self._options.windows_per_epoch, seed)

    def _prepared(self, learned: Drawn, later: Drawn | None = None) -> SeriesModel:
        """Return the model that cuts its own sub-sequences out of rows to learn from, at the start of a stage."""
        series, options = self._series, self._options
        if series is None or later is not None or learned.shape[0] > series.learned.shape[0]:
            self._series = series = self._compiled(learned, later)
        for variable in series.optimizer.variables:
            if "learning_rate" not in variable.path:
                # Of a variable itself the JAX backend makes no zeros.
                variable.assign(np.zeros(variable.shape))
        series.random.state.assign(keras.random.SeedGenerator(options.seed).state)
        series.learn_from(learned.rows(0))
        return series

    def _compiled(self, learned: Drawn, later: Drawn | None) -> SeriesModel:
        spec, options = self._spec, self._options
        cut = Cut(spec.window_length, spec.horizons, spec.sensors, options.masked_ratio, options.seed)
        most = learned.shape if self._most is None else self._drawn(self._most, None).shape
        rows = max(most[0], learned.shape[0])
        series = SeriesModel(
            self._model,
            cut,
            build_loss(spec, options.loss),
            (rows, learned.shape[1]),
            None if later is None else later.shape,
        )
        series.compile(
            optimizer=_Adam(options.learning_rate, options.clipnorm, options.clipvalue),
            # Compiled by XLA, TensorFlow's LSTM is slow to start on a CPU and loses cuDNN on a GPU; JAX needs it.
            jit_compile=keras.backend.backend() == "jax",
        )
        series.optimizer.build(self._model.trainable_variables)
        return series


class _Stage:
    """Some epochs of one training, those that an interrupted one has done left out."""

    def __init__(
        self, series: SeriesModel, epochs: int, schedule: list[Any], keep: _KeepBest | None, slot: Slot | None
    ) -> None:
        self._series, self._epochs, self._schedule = series, epochs, schedule
        self._keep, self._slot = keep, slot

    def run(
        self,
        batches: Batches,
        watch: Watch | None = None,
        shown: Batches | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        """Train."""
        keep = self._keep
        callbacks: list[Any] = [_Draw(batches), *self._schedule, *([keep] if keep is not None else [])]
        done = self._take_up(callbacks)
        if keep is not None and on_epoch is not None:
            callbacks.append(_Tell(keep, on_epoch))
            for epoch in range(done):
                on_epoch(epoch + 1, keep.losses[epoch], keep.stop_losses[epoch + 1])
        if done >= self._epochs or (keep is not None and keep.finished):
            return
        callbacks += [] if watch is None else watch.callbacks(self._slot)
        self._series.fit(
            batches,
            validation_data=shown,
            initial_epoch=done,
            epochs=self._epochs,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )

    def _take_up(self, callbacks: list[Any]) -> int:
        """Return how many epochs are done, and add what saves the others."""
        if self._slot is None:
            return 0
        save = _Save(self._slot, self._keep, self._schedule)
        save.set_model(self._series)
        state = self._slot.load()
        callbacks += [save] if state is None else [_AtBegin(save, state), save]
        return 0 if state is None else save.take_up(state)


class _AtBegin(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts back what the schedule remembered, after it has begun."""

    def __init__(self, save: _Save, state: TrainingState) -> None:
        super().__init__()
        self._save, self._state = save, state

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put it back."""
        self._save.take_up_schedule(self._state)


def _variables(series: SeriesModel) -> list[Any]:
    """Return what training changes: weights, what is drawn at random, and what the optimizer remembers."""
    return [*series.forecaster.variables, series.random.state, *series.optimizer.variables]


def _values(series: SeriesModel) -> list[Any]:
    return [keras.ops.convert_to_numpy(variable) for variable in _variables(series)]


def _penalty(model: Any) -> float:
    """Return what the weights themselves add to the loss, which says nothing of how good the forecast is."""
    return float(sum(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses))
