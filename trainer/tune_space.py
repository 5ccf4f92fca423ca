"""The search space of `trainer tune`: which keys of `FitOptions` are tried, over which values."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import ConfigurationError
from trainer.fit_options import FitOptions, broken_rule

KEYS = tuple(item.name for item in fields(FitOptions) if item.metadata.get("key", True))
_UNTRIED = (
    "name",
    "labels",
    "units_of_sensors",
    "alarms",
    "alarms_per_week",
    "off_when",
    "settle_ticks",
    "inference",
)
"""What a machine is, and what is wanted of an alarm, is no matter of search; trials are run step by step."""
_DEFAULTS: Mapping[str, Any] = {
    "units": [[32], [64], [64, 32], [128, 64, 32]],
    "window_length": {"low": 16, "high": 96},
    "learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "batch_size": [32, 64, 128],
    "dropout": {"low": 0.0, "high": 0.3},
}
_RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Dimension:
    """What is tried of one key: `choices`, or a range.

    Attributes:
        choices: values; empty for a range.
        low, high: of a range, both included.
        log: whether the range is searched on a logarithmic scale.
        step: between two values of the range; None is 1 for whole numbers and nothing for others.
        whole: whether the range is of whole numbers.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False


Space = dict[str, Dimension]


def default_space() -> Space:
    """Return what is tried where the configuration says nothing, of the keys that there are."""
    return {key: _dimension(key, value) for key, value in _DEFAULTS.items() if key in KEYS}


def read_space(path: Path | None) -> Space:
    """Return the space under `[tune.space]` of a TOML file, or the default one.

    Raises:
        ConfigurationError: `file: field: rule` in one line.
    """
    if path is None:
        return default_space()
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("tune", {})
    except OSError as reason:
        raise ConfigurationError(f"{path}: file: {reason.strerror or reason}") from reason
    except ValueError as reason:
        raise ConfigurationError(f"{path}: not readable as TOML ({reason})") from reason
    if not isinstance(section, dict) or set(section) - {"space"}:
        raise ConfigurationError(f"{path}: tune: must be a table with the one key space")
    written = section.get("space")
    if written is None:
        return default_space()
    if not isinstance(written, dict) or not written:
        raise ConfigurationError(f"{path}: tune.space: must be a table of keys of [fit]")
    try:
        return {key: _dimension(key, value) for key, value in written.items()}
    except ValueError as reason:
        raise ConfigurationError(f"{path}: tune.space.{reason}") from reason


def _dimension(key: str, written: Any) -> Dimension:
    """Return what is tried of a key.

    Raises:
        ValueError: `key: rule`.
    """
    if key not in KEYS or key in _UNTRIED:
        known = ", ".join(name for name in KEYS if name not in _UNTRIED)
        raise ValueError(f"{key}: cannot be searched; what can is {known}")
    if isinstance(written, list) and written:
        for choice in written:
            _hold(key, choice)
        return Dimension(choices=tuple(tuple(one) if isinstance(one, list) else one for one in written))
    if (
        not isinstance(written, dict)
        or set(written) - set(_RANGE_KEYS)
        or not {"low", "high"} <= set(written)
    ):
        raise ValueError(f"{key}: must be a list of values, or a table of low, high and maybe log or step")
    low, high, log, step = (written.get(name) for name in _RANGE_KEYS)
    for value in (low, high):
        _hold(key, value)
    if (
        isinstance(low, bool)
        or not isinstance(low, int | float)
        or not isinstance(high, int | float)
        or high < low
    ):
        raise ValueError(f"{key}: low and high must be numbers, high no lower than low")
    if not isinstance(log, bool | None) or (log and (low <= 0 or step is not None)):
        raise ValueError(f"{key}: log must be true or false; with true, low is above 0 and there is no step")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int | float) or step <= 0):
        raise ValueError(f"{key}: step must be a number above 0")
    return Dimension((), low, high, bool(log), step, isinstance(low, int) and isinstance(high, int))


def _hold(key: str, value: Any) -> None:
    rule = broken_rule(key, value)
    if rule:
        raise ValueError(f"{key}: {rule}")
