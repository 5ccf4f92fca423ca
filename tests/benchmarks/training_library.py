"""The LSTM of the forecasting library darts: `python -m tests.benchmarks.training_library TASK`.

Runs in an environment of its own (`requirements/bench-training.lock`), where nothing of Forewarn is installed. The
library's `RNNModel` learns from every step of a window, keeps the series as it is and cuts windows from it when asked
for them. Its own network has layers of one width; that of the others is given to it as a module.
"""

import json
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from darts import TimeSeries
from darts.models import RNNModel
from pytorch_lightning.callbacks import Callback

from tests.benchmarks.learning_curve import STRIDE, Curve, EnoughError, Task, Values
from tests.benchmarks.training_stack import Stack

_ENDLESS = 1_000_000


def train(task: Task, curve: Curve) -> None:
    """Train until time is over."""

    class Judged(Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._seen = self._epoch = 0

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self._note(module)

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            self._epoch = self._seen
            curve.begin_epoch()

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self._seen += task.batch
            last = batch_idx + 1 == trainer.num_training_batches
            if last:
                curve.end_epoch(self._seen - self._epoch)
            if last or (batch_idx + 1) * task.batch % STRIDE == 0:
                self._note(module)

        def _note(self, module: Any) -> None:
            def forecast(windows: Values) -> Values:
                with torch.no_grad():
                    shown = torch.from_numpy(windows).to(module.device)
                    found: Values = module.steps(shown)[:, -1].cpu().numpy()
                return found

            module.eval()
            curve.note(self._seen, forecast)
            module.train()

    quiet = {
        "accelerator": "gpu" if task.on_gpu else "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    model = RNNModel(
        input_chunk_length=task.window,
        training_length=task.window,
        model=Stack.of(task.units),
        hidden_dim=task.units[-1],
        n_rnn_layers=len(task.units),
        batch_size=task.batch,
        n_epochs=_ENDLESS,
        optimizer_kwargs={"lr": 1e-3},
        random_state=task.seed,
        pl_trainer_kwargs={**quiet, "callbacks": [Judged()]},
    )
    model.fit(TimeSeries.from_values(task.fit), verbose=False)


def main() -> int:
    """Train and print the curve with the library's release."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "darts"):
        logging.getLogger(name).setLevel(logging.ERROR)
    task = Task.load(Path(sys.argv[1]))
    curve = Curve(task)
    curve.start()
    try:
        train(task, curve)
    except EnoughError:
        print(
            json.dumps({**curve.report(), "library": f"darts {version('darts')}, torch {version('torch')}"})
        )
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
