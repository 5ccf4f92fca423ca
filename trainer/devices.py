"""What the training runs on: the processors of the backend, one or all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.backend import keras


def _graphics() -> list[str]:
    """Return the graphics processors that the backend sees."""
    if keras.backend.backend() == "torch":
        # Of this backend Keras has no list.
        import torch

        return [f"gpu:{number}" for number in range(torch.cuda.device_count())]
    return [name for name in keras.distribution.list_devices() if not name.startswith("cpu")]


def training_device(recurrent_dropout: bool) -> str:
    """Return, for a person, what the training runs on and how its LSTM layers are computed.

    Args:
        recurrent_dropout: whether there is any; cuDNN has none.
    """
    backend, found = keras.backend.backend(), _graphics()
    if not found:
        return f"training on the CPU, {os.cpu_count()} cores ({backend}): no graphics processor is seen"
    many = f"{len(found)} graphics processors" if len(found) > 1 else "one graphics processor"
    if len(found) > 1 and backend != "tensorflow":
        many = f"one of {len(found)} graphics processors (all of them with KERAS_BACKEND=tensorflow)"
    how = "without cuDNN, which has no recurrent dropout" if recurrent_dropout else "with cuDNN's fast LSTM"
    return f"training on {many} ({backend}), {how}"


@contextmanager
def on_all_devices(devices: list[str] | None = None) -> Iterator[None]:
    """Train what is built within on all graphics processors at once, each with a part of every batch.

    TensorFlow only (`tf.distribute.MirroredStrategy`); with one device, or another backend, nothing changes.

    Args:
        devices: names as TensorFlow knows them; None is all graphics processors.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    names = [name.upper() for name in _graphics()] if devices is None else devices
    if len(names) < 2:
        yield
        return
    # By the whole package: `tensorflow.distribute` imported by name is not the public module.
    import tensorflow

    with tensorflow.distribute.MirroredStrategy(names).scope():
        yield


def replicas() -> int:
    """Return how many devices share each batch; each of them adds its part of the loss."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow

    return int(tensorflow.distribute.get_strategy().num_replicas_in_sync)


def computes_on_one_core() -> bool:
    """Return whether the backend is TensorFlow and has one core, no graphics processor and no other device."""
    # Not every system knows the cores that a process is kept to.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    alone = cores == 1 or os.environ.get("TF_NUM_INTRAOP_THREADS") == "1"
    return keras.backend.backend() == "tensorflow" and alone and not _graphics() and replicas() == 1
