"""Small forecasters of every architecture that `trainer fit` can make, with random weights that all count."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.types import Float32
from trainer.heads import Head
from trainer.model import ForecasterWeights, ModelSpec
from trainer.network import build_model, weights_of

WINDOW = 8
SENSORS = 3
STATES = (-1.0, 0.5, 2.0)


def _spec(**fields: Any) -> ModelSpec:
    return ModelSpec(SENSORS, WINDOW, **{"units": (5, 3)} | fields)


ARCHITECTURES = {
    "stacked LSTM beside the highway": _spec(),
    "four layers without the highway": _spec(units=(5, 4, 4, 3), highway=False),
    "causal convolution": _spec(convolution=(4, 5)),
    "attention": _spec(attention_heads=1),
    "multi-head attention": _spec(units=(5, 4), attention_heads=2),
    "batch normalisation": _spec(normalisation="batch"),
    "layer normalisation": _spec(normalisation="layer"),
    "commands and calendar beside the sensors": _spec(context=2),
    "Gaussian head": _spec(head=Head("gaussian")),
    "quantile head, three horizons": _spec(head=Head("quantile", (0.5, 0.1, 0.9)), horizons=3),
    "softmax head": _spec(head=Head("softmax", state_sensor=1, state_values=STATES)),
    "one layer, convolution of one tick, batch normalisation, Gaussian head, two horizons": _spec(
        units=(4,), convolution=(4, 1), normalisation="batch", head=Head("gaussian"), horizons=2
    ),
    "convolution and layer normalisation, commands and calendar beside the sensors": _spec(
        convolution=(4, 3), normalisation="layer", context=2
    ),
    "convolution, layer normalisation, attention, softmax head, two horizons": _spec(
        convolution=(4, 2),
        normalisation="layer",
        attention_heads=2,
        head=Head("softmax", state_sensor=1, state_values=STATES),
        horizons=2,
    ),
}


ROUNDED = ModelSpec(SENSORS, WINDOW, units=(24, 12), horizons=2)
"""Large enough for TFLite to round its weights: it leaves arrays of under 1024 numbers as they are."""


@dataclass(frozen=True)
class Example:
    """A forecaster, where its graphs are, and what the form in which it is trained says of some windows.

    Attributes:
        weights: of the forecaster.
        directory: of the graphs.
        windows: (n, T, I).
        forecast: (n, H, F, P).
        probability: (n, H, C) of the head `softmax`, None of others.
    """

    weights: ForecasterWeights
    directory: Path
    windows: Float32
    forecast: Float32
    probability: Float32 | None


def random_model(spec: ModelSpec, seed: int = 0) -> Any:
    """Return the model that is trained, with random weights in every layer; variances are above 0."""
    rng = np.random.default_rng(seed)
    model = build_model(spec, np.zeros((spec.highway_rows, spec.outputs), np.float32))
    for layer in model.layers:
        drawn = [rng.normal(0.0, 0.5, array.shape).astype(np.float32) for array in layer.get_weights()]
        if len(drawn) == 4 and layer.name.startswith("norm_"):
            drawn[3] = np.abs(drawn[3]) + np.float32(0.1)
        layer.set_weights(drawn)
    return model


def random_example(spec: ModelSpec, directory: Path) -> Example:
    """Return an example whose graphs are still to be written into a directory, which is made."""
    directory.mkdir()
    model = random_model(spec)
    windows = random_windows(spec, 5)
    return Example(weights_of(model, spec), directory, windows, *_forecast_of(model, spec, windows))


def random_windows(spec: ModelSpec, count: int, seed: int = 1) -> Float32:
    """Return (count, T, I) values, masks and context."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, spec.window_length, spec.sensors))
    context = rng.normal(size=(count, spec.window_length, spec.context))
    return np.concatenate([values, rng.random(values.shape) < 0.1, context], axis=2).astype(np.float32)


def _forecast_of(model: Any, spec: ModelSpec, windows: Float32) -> tuple[Float32, Float32 | None]:
    """Return forecast and state probabilities at the last step, read out in NumPy."""
    raw = np.asarray(model(windows))[:, -1]
    if spec.head.kind != "softmax":
        return raw.reshape(-1, spec.horizons, spec.sensors, spec.parameters), None
    shaped = raw.reshape(-1, spec.horizons, spec.sensors + len(STATES))
    odds = np.exp(shaped[..., spec.sensors :])
    probability = odds / odds.sum(axis=-1, keepdims=True)
    forecast = shaped[..., : spec.sensors].copy()
    forecast[..., spec.head.state_sensor] = probability @ np.asarray(STATES, np.float32)
    return forecast[..., None], probability
