"""The one door to Keras: sets the backend and quietens its start before the first import.

Model and training are backend-neutral; `KERAS_BACKEND` may name another one than TensorFlow.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Keras hands PyTorch the weights of an LSTM one by one, as its layers have them; nobody can do anything about it.
warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")


@contextlib.contextmanager
def quiet_native_output() -> Iterator[None]:
    """Swallow what native libraries write to stderr.

    TensorFlow writes its greetings before its log level is in force, so the file descriptor itself is turned away;
    a Python exception is still printed, since that happens afterwards.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@contextlib.contextmanager
def _without_jax() -> Iterator[None]:
    """Let TensorFlow, which reads JAX wherever that is installed, save the second and the 100 MB."""
    if "jax" in sys.modules or os.environ["KERAS_BACKEND"] == "jax":
        yield
        return
    sys.modules["jax"] = None  # type: ignore[assignment]  # Python's own sign for what is not to be found
    try:
        yield
    finally:
        del sys.modules["jax"]


with quiet_native_output(), _without_jax():
    import keras

__all__ = ["keras", "quiet_native_output"]
