"""What `trainer fit` can be told of the network, its training and its export: fields, rules and flags."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.bundle import PRECISIONS, RUNTIMES
from edge_agent.contract.errors import UsageError

HEADS = ("point", "gaussian", "quantile", "softmax")
NORMALISATIONS = ("none", "batch", "layer")
LOSSES = ("auto", "mse", "huber")
SCHEDULES = ("constant", "cosine", "plateau")
INFERENCE = ("auto", "step", "window")
LARGEST_LAYER = 2**16
MANY_LAYERS = 4
"""With more of them over-fitting is likely."""

_CHOICES = {
    "inference": INFERENCE,
    "head": HEADS,
    "normalisation": NORMALISATIONS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "runtime": RUNTIMES,
}
_SHARES = ("dropout", "lstm_dropout", "recurrent_dropout")
_PENALTIES = ("kernel_l2", "recurrent_l2", "clip_norm", "clip_value")
_COUNTS = {"attention_heads": 0, "horizons": 1}
_SWITCHES = ("highway", "mixed_precision")


@dataclass(frozen=True)
class ModelOptions:
    """The part of `FitOptions` on the network.

    Attributes:
        units: of the LSTM layers, first to last.
        inference: `step` or `window`, the mode that is calibrated and deployed; `auto` is `step` where the
            architecture has one.
        horizons: H, forecasts 1 to H ticks ahead; scoring uses the first.
        highway: forecast what is linear by the ridge regression; without it the LSTM forecasts alone.
        convolution: filters and kernel size of a causal convolution before the LSTM; empty is none.
        attention_heads: heads of the self-attention after the LSTM; 0 is none. It has no step form.
        normalisation: after each LSTM layer: `none`, `batch` or `layer`.
        dropout, lstm_dropout, recurrent_dropout, kernel_l2, recurrent_l2: see `trainer.network.Regularisation`.
        head: what is forecast of each sensor: `point`, `gaussian`, `quantile`, or `softmax` of an operating state.
        quantiles: of the head `quantile`.
        state_sensor: of the head `softmax`, the sensor that holds the operating state.
        loss: of points, `mse` (also by `auto`) or `huber`; the other heads have their own.
        clip_norm, clip_value: bounds of each gradient's norm and of each of its numbers; 0 is none.
        schedule: of the learning rate: `constant`, `cosine` (down to 0 at the last epoch), or `plateau` (halved after
            half the patience without improvement).
        mixed_precision: compute in bfloat16, with weights in float32; worth it on a GPU only.
        precision: `float32` or `int8`, in which the bundle is calibrated and deployed.
        runtime: `onnx` or `litert`, with which it is.
    """

    units: tuple[int, ...] = (128, 64, 32)
    inference: str = "auto"
    horizons: int = 1
    highway: bool = True
    convolution: tuple[int, ...] = ()
    attention_heads: int = 0
    normalisation: str = "none"
    dropout: float = 0.0
    lstm_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    kernel_l2: float = 0.0
    recurrent_l2: float = 0.0
    head: str = "point"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    state_sensor: str = ""
    loss: str = "auto"
    clip_norm: float = 1.0
    clip_value: float = 0.0
    schedule: str = "constant"
    mixed_precision: bool = False
    precision: str = "float32"
    runtime: str = "onnx"

    @property
    def mode(self) -> str:
        """Return the mode of inference that is calibrated and deployed, `step` or `window`."""
        if self.inference != "auto":
            return self.inference
        return "window" if self.attention_heads else "step"


def broken_model_rule(key: str, value: Any) -> str | None:
    """Return the rule that the value of a field of `ModelOptions` breaks, as the end of a sentence.

    Args:
        key: of the field.
        value: as a person wrote it, of any type.
    """
    if key in _SWITCHES:
        return None if isinstance(value, bool) else f"is {value!r}, must be true or false"
    if key in _CHOICES:
        known = _CHOICES[key]
        return None if value in known else f"is {value!r}, known are {', '.join(known)}"
    if key == "state_sensor":
        return None if isinstance(value, str) and value.strip() else "must be text"
    if key == "quantiles":
        return _broken_quantiles(value)
    if key in ("convolution", "units"):
        return _broken_sizes(key, value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {value!r}, must be a number"
    if key in _COUNTS:
        least = _COUNTS[key]
        return (
            None
            if isinstance(value, int) and least <= value <= 1000
            else f"is {value}, must be {least} to 1000"
        )
    if key in _SHARES:
        return None if 0 <= value < 1 else f"is {value}, must be at least 0 and below 1"
    return None if value >= 0 and math.isfinite(value) else f"is {value}, must be 0 or more"


def _broken_quantiles(value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not all(
        isinstance(one, float) and 0 < one < 1 for one in value
    ):
        return "must be a list of numbers between 0 and 1"
    if 0.5 not in value or len(set(value)) != len(value):
        return "must hold 0.5, which the detector takes as the forecast, and none twice"
    return None


def _broken_sizes(key: str, value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not value:
        return "must be a list of whole numbers" + (", one for each layer" if key == "units" else "")
    for size in value:
        if isinstance(size, bool) or not isinstance(size, int):
            return f"a layer is {size!r}, must be a whole number"
        if not 1 <= size <= LARGEST_LAYER:
            return f"a layer is {size}, at least 1 is needed, at most {LARGEST_LAYER} is possible"
    if key == "convolution" and len(value) != 2:
        return "must be two numbers, filters and kernel size"
    return None


def check_together(options: ModelOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: naming both.
    """
    if options.attention_heads and options.inference == "step":
        raise UsageError(
            "--inference step: attention looks at the whole window and has no step form; use --inference window"
        )
    if options.attention_heads and not options.units:
        raise UsageError("--attention: follows LSTM layers, and there are none")
    if not options.highway and not options.units:
        raise UsageError("--no-highway: without LSTM layers nothing is left to forecast with")
    if options.loss != "auto" and options.head in ("gaussian", "quantile"):
        raise UsageError(f"--loss {options.loss}: the head {options.head} has a loss of its own")
    if (options.head == "softmax") != bool(options.state_sensor):
        raise UsageError("--state-sensor: goes with --head softmax, and that with it")


def model_notices(options: ModelOptions) -> list[str]:
    """Return what a person should know of the options before they are trained with."""
    notices = []
    if len(options.units) > MANY_LAYERS:
        notices.append(
            f"{len(options.units)} LSTM layers: over-fitting is likely above {MANY_LAYERS}; compare with fewer"
        )
    if options.attention_heads and options.inference == "auto":
        notices.append(
            "attention has no step form: the bundle is calibrated for windows (inference = window)"
        )
    if options.recurrent_dropout:
        notices.append("recurrent dropout rules cuDNN out: on a GPU training is several times slower")
    return notices


MODEL_FLAGS = {
    "horizons": "--horizons",
    "highway": "--no-highway",
    "convolution": "--convolution",
    "attention_heads": "--attention",
    "normalisation": "--normalisation",
    "dropout": "--dropout",
    "head": "--head",
    "quantiles": "--quantiles",
    "state_sensor": "--state-sensor",
    "loss": "--loss",
    "schedule": "--schedule",
    "precision": "--precision",
    "runtime": "--runtime",
}
"""Fields that have a flag; the others are keys of the configuration only."""


def add_model_options(parser: "argparse._ActionsContainer") -> None:
    """Add the flags of `ModelOptions`; what is not given stays None."""
    add = parser.add_argument
    add("--horizons", type=int, metavar="H", help="ticks ahead, 1 to H; the first is scored (default 1)")
    add("--no-highway", dest="highway", action="store_const", const=False, help="the LSTM forecasts alone")
    add(
        "--convolution", metavar="N,N", help="filters and kernel size of a causal convolution before the LSTM"
    )
    add(
        "--attention",
        dest="attention_heads",
        type=int,
        metavar="HEADS",
        help="self-attention after the LSTM; runs on windows",
    )
    add("--normalisation", choices=NORMALISATIONS, help="after each LSTM layer (default none)")
    add(
        "--dropout",
        type=float,
        metavar="SHARE",
        help="of outputs dropped between layers in training (default 0)",
    )
    add("--head", choices=HEADS, help="what is forecast of each sensor (default point)")
    add("--quantiles", metavar="Q,Q", help="of the head quantile (default 0.1,0.5,0.9)")
    add(
        "--state-sensor",
        metavar="NAME",
        help="of the head softmax: the sensor that holds the operating state",
    )
    add("--loss", choices=LOSSES, help="of points (default auto: mse)")
    add("--schedule", choices=SCHEDULES, help="of the learning rate (default constant)")
    add("--precision", choices=PRECISIONS, help="it is calibrated and deployed in (default float32)")
    add("--runtime", choices=RUNTIMES, help="it is calibrated and deployed with (default onnx)")


def parse_model_flags(given: dict[str, Any]) -> None:
    """Turn lists that were given as text into tuples, in place.

    Raises:
        UsageError: naming the flag.
    """
    for key, kind, what in (("convolution", int, "whole numbers"), ("quantiles", float, "numbers")):
        if key in given:
            given[key] = split_numbers(MODEL_FLAGS[key], given[key], kind, what)


def split_numbers(flag: str, text: str, kind: type[int] | type[float], what: str) -> tuple[Any, ...]:
    """Return the numbers of a text, separated by commas.

    Raises:
        UsageError: naming the flag.
    """
    parts: Sequence[str] = text.split(",")
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise UsageError(f"{flag}: is {text!r}, must be {what} separated by commas") from None
