"""One contender of the training benchmark: `python -m tests.benchmarks.training_contenders NAME TASK`.

*Forewarn* learns by the code of `trainer fit`, with the ridge highway beside the LSTM and without it. *The tutorial* is
what everybody writes first: every window as an array of its own, the loss at the last step, `model.fit`.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.learning_curve import STRIDE, Curve, EnoughError, Task, Values
from trainer.backend import keras
from trainer.checkpoint import Slot
from trainer.dataset import Segments
from trainer.fit_options import FitOptions
from trainer.learning import Supervision, learn
from trainer.model import ModelSpec
from trainer.watch import Watch

_ENDLESS = 1_000_000


class _Judged(keras.callbacks.Callback):  # type: ignore[misc]
    """Judges every `STRIDE` windows, or after each epoch where that is not longer.

    Args:
        curve: notes it.
        batch: windows in a step.
        forecast: model and (n, T, F) scaled windows → (n, F).
    """

    def __init__(self, curve: Curve, batch: int, forecast: Callable[[Any, Values], Values]) -> None:
        super().__init__()
        self._curve, self._batch, self._forecast = curve, batch, forecast
        self._seen = self._epoch = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Judge what is there before anything is trained."""
        self._note()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note when it begins."""
        self._epoch = self._seen
        self._curve.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Judge within a long epoch."""
        self._seen += self._batch
        # What ends with the epoch is judged there, after what the contender itself does at its end.
        if (batch + 1) * self._batch % STRIDE == 0 and (batch + 1) < self.params["steps"]:
            self._note()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judge."""
        self._curve.end_epoch(self._seen - self._epoch)
        self._note()

    def _note(self) -> None:
        self._curve.note(self._seen, lambda windows: self._forecast(self.model, windows))


class _JudgedWatch(Watch):
    """Lets the judge look into Forewarn's own training."""

    def __init__(self, judged: _Judged) -> None:
        super().__init__(lambda _note: None)
        self._judged = judged

    def callbacks(self, slot: Slot | None) -> list[Any]:
        """Return the judge."""
        return [self._judged]


def forewarn(task: Task, curve: Curve, highway: bool) -> None:
    """Train as `trainer fit` does, until time is over instead of until the later block gets no better."""
    spec = ModelSpec(task.fit.shape[1], task.window, task.units, highway=highway)
    options = FitOptions(
        units=task.units, window_length=task.window, epochs=_ENDLESS, patience=_ENDLESS,
        batch_size=task.batch, windows_per_epoch=STRIDE, seed=task.seed, highway=highway,
    )  # fmt: skip

    def forecast(series: Any, windows: Values) -> Values:
        inputs = np.concatenate([windows, np.zeros_like(windows)], axis=2)
        # Compiled: called as it is, the model would be traced anew by JAX for every judgement.
        found = series.forecaster.predict_on_batch(inputs)
        return np.asarray(found[:, -1, : spec.sensors], np.float32)

    watch = _JudgedWatch(_Judged(curve, task.batch, forecast))
    fit, later = (
        Segments(part, np.zeros(part.shape, np.bool_), np.zeros(1, np.int64))
        for part in (task.fit, task.later)
    )
    learn(spec, fit, later, options, lambda *_: None, Supervision(watch))


def tutorial(task: Task, curve: Curve) -> None:
    """Train as the tutorials do; the samples are float32 already, which theirs seldom are."""
    keras.utils.set_random_seed(task.seed)
    window, sensors = task.window, task.fit.shape[1]
    x, y = [], []
    for row in range(len(task.fit) - window):
        x.append(task.fit[row : row + window])
        y.append(task.fit[row + window])
    windows, targets = np.array(x), np.array(y)
    *below, last = task.units
    layers = [keras.layers.LSTM(units, return_sequences=True) for units in below]
    model = keras.Sequential(
        [keras.Input((window, sensors)), *layers, keras.layers.LSTM(last), keras.layers.Dense(sensors)]
    )
    model.compile(optimizer="adam", loss="mse")

    def forecast(model: Any, shown: Values) -> Values:
        return np.asarray(model.predict_on_batch(shown), np.float32)

    judged = _Judged(curve, task.batch, forecast)
    model.fit(windows, targets, epochs=_ENDLESS, batch_size=task.batch, verbose=0, callbacks=[judged])


CONTENDERS: dict[str, Callable[[Task, Curve], None]] = {
    "tutorial": tutorial,
    "forewarn_alone": lambda task, curve: forewarn(task, curve, False),
    "forewarn": lambda task, curve: forewarn(task, curve, True),
}


def main() -> int:
    """Train one contender and print its curve."""
    name, path = sys.argv[1:]
    task = Task.load(Path(path))
    curve = Curve(task)
    curve.start()
    try:
        CONTENDERS[name](task, curve)
    except EnoughError:
        print(json.dumps(curve.report()))
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
