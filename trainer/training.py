"""The training loop: loss at every time step, early stopping on a later block, best weights kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.backend import keras
from trainer.dataset import Segments, SubSequences, mask_cells
from trainer.model import ModelSpec

OnEpoch = Callable[[int, float, float], None]
"""Called after each epoch with its number (from 1), the training loss and the loss on the later block."""

# The averages of the highway start a sub-sequence at zero; the first steps would teach the LSTM to undo that start.
_UNCOUNTED_STEPS = 5


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: at most so many; 0 leaves the ridge regression.
        batch_size: sub-sequences in a step.
        learning_rate: of Adam.
        patience: epochs without improvement before it stops.
        clipnorm: bound of each gradient's norm.
        windows_per_epoch: sub-sequences drawn in an epoch, at most.
        masked_ratio: share of input cells hidden in training, so that a missing cell is nothing new.
        seed: of the draws.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    patience: int = 5
    clipnorm: float = 1.0
    windows_per_epoch: int = 2048
    masked_ratio: float = 0.03
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What training did.

    Attributes:
        losses: weighted mean square, scaled units, of each epoch.
        stop_losses: the same on the later block; the first entry is epoch 0, the ridge regression alone.
        best_epoch: the epoch whose weights were kept; 0 is the ridge regression alone.
        epochs: epochs that were run.
    """

    losses: tuple[float, ...]
    stop_losses: tuple[float, ...]
    best_epoch: int
    epochs: int


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Cuts batches out of the samples; draws anew after each epoch when `masked_ratio` is given."""

    def __init__(self, source: SubSequences, options: TrainingOptions, drawn: bool) -> None:
        super().__init__()
        self._source = source
        self._options = options
        self._rng = np.random.default_rng(options.seed) if drawn else None
        self._count = min(len(source), options.windows_per_epoch)
        self._numbers = np.linspace(0, len(source) - 1, self._count).astype(np.int64)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return math.ceil(self._count / self._options.batch_size)

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        """Return inputs (B, T, 2F + X), and targets beside their weights (B, T, 2 * H * F)."""
        size = self._options.batch_size
        numbers = self._numbers[index * size : (index + 1) * size]
        inputs = self._source.inputs(numbers)
        if self._rng is not None:
            sensors = self._source.segments.values.shape[1]
            inputs = mask_cells(inputs, self._options.masked_ratio, self._rng, sensors)
        targets, weights = self._source.targets(numbers)
        weights[:, : min(_UNCOUNTED_STEPS, self._source.length // 2)] = 0.0
        return inputs, np.concatenate([targets, weights], axis=2)

    def on_epoch_end(self) -> None:
        """Draw the sub-sequences of the next epoch."""
        if self._rng is not None:
            self._numbers = self._rng.choice(len(self._source), self._count, replace=False)


class _KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Stops when the later block no longer improves, and puts the best weights back, those of epoch 0 included."""

    def __init__(
        self, untrained_loss: float, untrained: list[Float32], patience: int, on_epoch: OnEpoch | None
    ) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.stop_losses = [untrained_loss]
        self.best_epoch = 0
        self._best = untrained
        self._patience = patience
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Compare the epoch with the best one so far."""
        logs = logs or {}
        self.losses.append(float(logs["loss"]))
        self.stop_losses.append(float(logs["val_loss"]))
        if self.stop_losses[-1] < self.stop_losses[self.best_epoch]:
            self.best_epoch = epoch + 1
            self._best = self.model.get_weights()
        if epoch + 1 - self.best_epoch >= self._patience:
            self.model.stop_training = True
        if self._on_epoch is not None:
            self._on_epoch(epoch + 1, self.losses[-1], self.stop_losses[-1])

    def restore(self) -> None:
        """Put the best weights back."""
        self.model.set_weights(self._best)


def train(
    model: Any,
    spec: ModelSpec,
    fit: Segments,
    stop: Segments,
    options: TrainingOptions,
    on_epoch: OnEpoch | None = None,
) -> TrainingRecord:
    """Train a model from `build_model` in place and leave it with its best weights.

    Args:
        model: the model.
        spec: its shape; training knows the point head only (`parameters == 1`).
        fit: samples to learn from.
        stop: later samples that decide which epoch is kept.
        options: how to train.
        on_epoch: told of every epoch.

    Returns:
        the losses and which epoch was kept.

    Raises:
        HistoryError: a block has no stretch as long as a window and its horizon.
        ValueError: the head is no point forecast.
    """
    if spec.parameters != 1:
        raise ValueError(f"parameters is {spec.parameters}: training knows the point head (1) only")
    learned = _Batches(SubSequences(fit, spec.window_length, spec.horizons), options, drawn=True)
    later = _Batches(SubSequences(stop, spec.window_length, spec.horizons), options, drawn=False)
    model.compile(
        optimizer=keras.optimizers.Adam(options.learning_rate, clipnorm=options.clipnorm),
        loss=_weighted_square,
        # Compiled by XLA, TensorFlow's LSTM is slow to start on a CPU and loses cuDNN on a GPU; JAX needs it.
        jit_compile=keras.backend.backend() == "jax",
    )
    untrained = float(model.evaluate(later, verbose=0))
    keep = _KeepBest(untrained, model.get_weights(), options.patience, on_epoch)
    if options.epochs > 0:
        model.fit(
            learned, validation_data=later, epochs=options.epochs, callbacks=[keep], shuffle=False, verbose=0
        )
        keep.restore()
    return TrainingRecord(tuple(keep.losses), tuple(keep.stop_losses), keep.best_epoch, len(keep.losses))


def retrain(model: Any, spec: ModelSpec, samples: Segments, options: TrainingOptions, epochs: int) -> None:
    """Train a model that `train` has compiled once more, on other samples and for a given number of epochs.

    What the optimizer remembers is forgotten first; the weights are the caller's to reset.

    Args:
        model: the model, changed in place.
        spec: its shape.
        samples: to learn from.
        options: how; patience does not count.
        epochs: how many; 0 leaves the weights as they are.

    Raises:
        HistoryError: there is no stretch as long as a window and its horizon.
    """
    if not epochs:
        return
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(keras.ops.zeros_like(variable))
    learned = _Batches(SubSequences(samples, spec.window_length, spec.horizons), options, drawn=True)
    model.fit(learned, epochs=epochs, shuffle=False, verbose=0)


def _weighted_square(packed: Any, forecast: Any) -> Any:
    """Return the mean square over the cells that count; `packed` holds targets, then weights, on its last axis."""
    ops = keras.ops
    targets, weights = ops.split(packed, 2, axis=-1)
    return ops.sum(weights * ops.square(targets - forecast)) / ops.maximum(ops.sum(weights), 1.0)
