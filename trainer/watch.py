"""What stands beside a training: it may be asked to end, keeps logs, and sees how busy the device is."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

from trainer.backend import keras
from trainer.checkpoint import Slot

_SAMPLING_SECONDS = 1.0
_QUERY = ("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


class Watch:
    """Ends training when asked, and writes its logs.

    Args:
        note: told what a person should know.
        logs: directory of TensorBoard's event files; None writes none.

    Attributes:
        interrupted: whether it was asked to end.
    """

    def __init__(self, note: Callable[[str], None], logs: Path | None = None) -> None:
        self.interrupted = False
        self._note = note
        self._logs = logs

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let Ctrl-C end the training that runs within, with what was learnt so far; a second one ends the program."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self._note("interrupted: training ends with the best weights so far; once more ends the program")

    def callbacks(self, slot: Slot | None) -> list[Any]:
        """Return the callbacks of one stage of training, whose state is saved in `slot`."""
        found: list[Any] = [_EndWhenAsked(self)]
        if self._logs is not None:
            found.append(_Log(self._logs / (slot.path.stem if slot is not None else "training")))
        return found


class _EndWhenAsked(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training after the batch in which it was asked for."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """End the epoch here."""
        if self._watch.interrupted:
            self.model.stop_training = True


class _Log(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes losses, learning rate and seconds of each epoch for TensorBoard.

    Keras's own callback needs TensorFlow as the backend.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        # Imported late: few ask for logs.
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory))
        self._begun = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self._begun = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write what is known of the epoch."""
        told = {"loss": "loss/training", "val_loss": "loss/later block"}
        for name, value in (logs or {}).items():
            if name in told:
                self._writer.add_scalar(told[name], float(value), epoch + 1)
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._writer.add_scalar("learning rate", rate, epoch + 1)
        self._writer.add_scalar("seconds", time.monotonic() - self._begun, epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Close the file."""
        self._writer.close()


class Utilisation:
    """How busy the graphics processors are, as their driver's own program says, second by second.

    Args:
        program: that tells it; None is nvidia-smi where there is one.
    """

    def __init__(self, program: str | None = None) -> None:
        self._program = program or shutil.which("nvidia-smi")
        self._seen: list[float] = []
        self._over = threading.Event()

    @property
    def percent(self) -> float | None:
        """Return the mean over all that was seen; None where nothing was."""
        return fmean(self._seen) if self._seen else None

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Look while what runs within goes on."""
        if self._program is None:
            yield
            return
        looking = threading.Thread(target=self._look, args=(self._program,), daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._over.set()
            looking.join()

    def _look(self, program: str) -> None:
        while True:
            with suppress(OSError, ValueError, subprocess.SubprocessError):
                told = subprocess.run(
                    [program, *_QUERY], capture_output=True, text=True, timeout=10, check=True
                ).stdout.split()
                self._seen.append(fmean(float(one) for one in told))
            if self._over.wait(_SAMPLING_SECONDS):
                return
