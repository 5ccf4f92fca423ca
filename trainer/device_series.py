"""The series where the model computes: sub-sequences are cut out there, by index, while training runs.

A step of training is given the first rows of its sub-sequences and nothing else. Cutting windows in Python, one after
the other, is what leaves graphics processors idle; here they have all they need from the start. A series that is too
large to lie there is represented, epoch by epoch, by the stretches that the epoch draws.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32, Int64
from trainer.backend import keras
from trainer.dataset import SubSequences
from trainer.losses import Loss

RESIDENT_BYTES = 64 * 2**20
"""A longer series does not lie on the device as a whole: it would take several times the memory of the history. What
an epoch draws of it is a few megabytes, which go there in a moment."""
# The averages of the highway start a sub-sequence at zero; the first steps would teach the LSTM to undo that start.
_UNCOUNTED_STEPS = 5


class Drawn:
    """Sub-sequences of an epoch, and the rows (P, 3F + X) that they are cut out of.

    A row is the values, the missing mask, the context, and 1 where a value counts as a target. P stays the same.

    Args:
        source: all sub-sequences.
        count: how many an epoch has, at most.
        seed: of the draws; None takes the same ones each time, evenly spaced.
        resident: bytes that may lie on the device.
    """

    def __init__(
        self, source: SubSequences, count: int, seed: int | None, resident: int = RESIDENT_BYTES
    ) -> None:
        self.source = source
        self.count = min(len(source), count)
        self._seed = seed
        self._length = source.length + source.horizons
        width = 3 * source.segments.values.shape[1] + source.segments.context.shape[1]
        self.whole = 4 * width * len(source.segments) <= resident
        """Whether all rows of the series lie on the device."""
        rows = len(source.segments) if self.whole else self.count * self._length
        self.shape = (rows, width)

    def numbers(self, epoch: int) -> Int64:
        """Return (n,) the sub-sequences of an epoch: a resumed training draws what the first one would have."""
        if self._seed is None:
            return np.linspace(0, len(self.source) - 1, self.count).astype(np.int64)
        rng = np.random.default_rng([self._seed, epoch])
        return rng.choice(len(self.source), self.count, replace=False)

    def starts(self, epoch: int) -> Int64:
        """Return (n,) their first rows among those on the device."""
        if self.whole:
            return self.source.start_rows(self.numbers(epoch))
        return np.arange(self.count, dtype=np.int64) * self._length

    def rows(self, epoch: int) -> Float32:
        """Return (P, 3F + X) the rows that are on the device in an epoch."""
        if self.whole:
            return self._packed(slice(0, len(self.source.segments)))
        first = self.source.start_rows(self.numbers(epoch))
        return self._packed((first[:, None] + np.arange(self._length)).reshape(-1))

    def _packed(self, rows: Any) -> Float32:
        segments = self.source.segments
        counted = ~(segments.missing[rows] | segments.resting[rows][:, None])
        parts = (segments.values[rows], segments.missing[rows], segments.context[rows], counted)
        return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """First rows of sub-sequences, (B,) a batch.

    Args:
        drawn: the sub-sequences of each epoch.
        batch_size: B.
        epoch: the first.
    """

    def __init__(self, drawn: Drawn, batch_size: int, epoch: int = 0) -> None:
        super().__init__()
        self.drawn = drawn
        self._size = batch_size
        self.begin(epoch)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return math.ceil(self.drawn.count / self._size)

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the first rows (B,) of a batch."""
        return (self._starts[index * self._size : (index + 1) * self._size].astype(np.int32),)

    def begin(self, epoch: int) -> None:
        """Draw the sub-sequences of an epoch."""
        self._starts = self.drawn.starts(epoch)


@dataclass(frozen=True, slots=True)
class Cut:
    """How sub-sequences are cut and what is made of them.

    Attributes:
        length, horizons: of a sub-sequence.
        sensors: F that are forecast.
        masked_ratio: share of input cells hidden in training.
        seed: of what is hidden.
    """

    length: int
    horizons: int
    sensors: int
    masked_ratio: float
    seed: int


class SeriesModel(keras.Model):  # type: ignore[misc]
    """A forecaster that is trained by the first rows of sub-sequences of a series.

    Args:
        forecaster: (B, T, 2F + X) inputs to raw outputs at each step.
        cut: of the sub-sequences.
        loss: of targets packed with their weights, and raw outputs.
        learned: largest shape of the rows that are learnt from.
        later: shape of those that decide which epoch is kept; None where there are none.
    """

    def __init__(
        self,
        forecaster: Any,
        cut: Cut,
        loss: Loss,
        learned: tuple[int, int],
        later: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(name="series")
        self.forecaster = forecaster
        self._cut, self._measure = cut, loss
        self.random = keras.random.SeedGenerator(cut.seed)
        self.learned = self._place("learned", learned)
        self.later = self.learned if later is None else self._place("later", later)
        self.built = True

    def learn_from(self, rows: Float32) -> None:
        """Put rows (P, 3F + X) on the device; what is left of the place stays unused."""
        room = self.learned.shape[0] - len(rows)
        self.learned.assign(np.pad(rows, ((0, room), (0, 0))) if room else rows)

    def _place(self, name: str, shape: tuple[int, int]) -> Any:
        # Not computed with in half precision: targets are the measured values.
        return self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name=name, dtype="float32", autocast=False
        )

    def call(self, starts: Any, training: bool = False) -> Any:
        """Return raw outputs (B, T, outputs) of the sub-sequences that begin at rows `starts` (B,)."""
        sensors = self._cut.sensors
        rows = self._gathered(starts, self._cut.length, training)[..., :-sensors]
        if training and self._cut.masked_ratio > 0.0:
            rows = self._masked(rows)
        return self.forecaster(rows, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of raw outputs, with the penalties on the weights."""
        loss = self._measure(self._targets(x, training), keras.ops.cast(y_pred, "float32"))
        for penalty in self.losses:
            loss = loss + keras.ops.cast(penalty, "float32")
        return loss

    def _gathered(self, starts: Any, length: int, training: bool) -> Any:
        ops = keras.ops
        places = ops.expand_dims(starts, 1) + ops.arange(length, dtype="int32")
        return ops.take(self.learned if training else self.later, places, axis=0)

    def _targets(self, starts: Any, training: bool) -> Any:
        """Return (B, T, 2 * H * F) the values ahead of each step, packed with their weights."""
        ops, cut = keras.ops, self._cut
        rows = self._gathered(starts, cut.length + cut.horizons, training)
        ahead = [rows[:, h : h + cut.length] for h in range(1, cut.horizons + 1)]
        values = ops.concatenate([part[..., : cut.sensors] for part in ahead], axis=-1)
        weights = ops.concatenate([part[..., -cut.sensors :] for part in ahead], axis=-1)
        uncounted = min(_UNCOUNTED_STEPS, cut.length // 2)
        late = ops.cast(ops.arange(cut.length) >= uncounted, "float32")
        return ops.concatenate([values, weights * ops.reshape(late, (1, -1, 1))], axis=-1)

    def _masked(self, rows: Any) -> Any:
        """Return inputs of which a share of the cells is hidden, as missing cells are: held from before, and marked."""
        ops, cut = keras.ops, self._cut
        sensors = cut.sensors
        values, mask, context = ops.split(rows, [sensors, 2 * sensors], axis=-1)
        step = ops.reshape(ops.arange(cut.length, dtype="int32"), (1, -1, 1))
        chance = keras.random.uniform(ops.shape(values), seed=self.random)
        # There is nothing before the first row that could be held.
        hidden = ops.logical_and(chance < cut.masked_ratio, step > 0)
        source = _running_maximum(ops.where(hidden, ops.zeros_like(step), step), cut.length)
        held = ops.take_along_axis(values, source, axis=1)
        return ops.concatenate([held, ops.maximum(mask, ops.cast(hidden, "float32")), context], axis=-1)


def _running_maximum(values: Any, length: int) -> Any:
    """Return the maxima (B, T, F) of values (B, T, F) >= 0 up to each of T = `length` steps.

    Each round looks twice as far back. Keras's associative scan wants shapes that are known beforehand.
    """
    ops, back = keras.ops, 1
    while back < length:
        values = ops.maximum(values, ops.pad(values[:, :-back], ((0, 0), (back, 0), (0, 0))))
        back *= 2
    return values
