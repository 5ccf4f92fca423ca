"""What training makes small: the loss of each head, over the cells that were measured.

Targets and their weights come packed on the last axis, (B, T, 2 * H * F); the raw outputs are (B, T, outputs).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.backend import keras
from trainer.model import ModelSpec

HUBER_DELTA = 1.0
"""Scaled units: beyond one standard deviation of the sensor an error counts by its size, not by its square."""
_LARGEST_LOG_VARIANCE = 20.0

Loss = Callable[[Any, Any], Any]


def build_loss(spec: ModelSpec, points: str = "auto") -> Loss:
    """Return the loss of a head.

    Args:
        spec: with its head: the likelihood for `gaussian` (Nix and Weigend 1994), the pinball loss for `quantile`
            (Koenker and Bassett 1978), for `softmax` the cross-entropy of the state, and points for the others.
        points: loss of a point: `mse`, also by `auto`, or `huber`.
    """
    per_cell = {"gaussian": _likelihood, "quantile": _pinball, "softmax": _cross_entropy}.get(
        spec.head.kind, _points
    )
    error = _huber if points == "huber" else _square

    def loss(packed: Any, raw: Any) -> Any:
        ops = keras.ops
        targets, weights = ops.split(packed, 2, axis=-1)
        shape = (-1, spec.window_length, spec.horizons, spec.sensors)
        cells = per_cell(spec, error, ops.reshape(targets, shape), raw)
        counted = ops.reshape(weights, shape)
        return ops.sum(counted * cells) / ops.maximum(ops.sum(counted), 1.0)

    return loss


def _square(error: Any) -> Any:
    return keras.ops.square(error)


def _huber(error: Any) -> Any:
    ops = keras.ops
    size = ops.abs(error)
    return ops.where(size <= HUBER_DELTA, ops.square(error), HUBER_DELTA * (2.0 * size - HUBER_DELTA))


def _points(_spec: ModelSpec, error: Any, targets: Any, raw: Any) -> Any:
    return error(targets - keras.ops.reshape(raw, keras.ops.shape(targets)))


def _likelihood(spec: ModelSpec, _error: Any, targets: Any, raw: Any) -> Any:
    """Return minus the logarithm of the density, without its constant."""
    ops = keras.ops
    both = ops.reshape(raw, (-1, spec.window_length, spec.horizons, spec.sensors, 2))
    # A variance of e^-20 would make a single cell weigh more than all others together.
    spread = ops.clip(both[..., 1], -_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)
    return 0.5 * (spread + ops.square(targets - both[..., 0]) * ops.exp(-spread))


def _pinball(spec: ModelSpec, _error: Any, targets: Any, raw: Any) -> Any:
    ops = keras.ops
    shape = (-1, spec.window_length, spec.horizons, spec.sensors, spec.parameters)
    above = ops.expand_dims(targets, -1) - ops.reshape(raw, shape)
    share = np.asarray(spec.head.quantiles, np.float32)
    return ops.mean(ops.maximum(share * above, (share - 1.0) * above), axis=-1)


def _cross_entropy(spec: ModelSpec, error: Any, targets: Any, raw: Any) -> Any:
    ops, head = keras.ops, spec.head
    both = ops.reshape(raw, (-1, spec.window_length, spec.horizons, spec.sensors + len(head.state_values)))
    logits = both[..., spec.sensors :]
    values = np.asarray(head.state_values, np.float32)
    # What was never seen in the rows that taught the values counts as the nearest of them.
    state = ops.argmin(ops.abs(ops.expand_dims(targets[..., head.state_sensor], -1) - values), axis=-1)
    chosen = ops.sum(ops.one_hot(state, len(values), dtype="float32") * logits, axis=-1)
    entropy = ops.expand_dims(ops.logsumexp(logits, axis=-1) - chosen, -1)
    place = np.zeros(spec.sensors, np.float32)
    place[head.state_sensor] = 1.0
    return place * entropy + (1.0 - place) * error(targets - both[..., : spec.sensors])
