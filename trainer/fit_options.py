"""What `trainer fit` can be told; apart from fitting itself, which takes seconds to import."""

import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import ConfigurationError, UsageError
from trainer.parts import Parts

_LEAST = {
    "window_length": 2,
    "max_gap_ticks": 0,
    "epochs": 0,
    "batch_size": 1,
    "learning_rate": 1e-9,
    "patience": 1,
    "windows_per_epoch": 1,
    "seed": 0,
    "alarms_per_week": 1e-6,
}
_FRACTIONS = ("learning_rate", "alarms_per_week")
_LARGEST = 2**31 - 1
"""Seeds and counts travel through 32-bit integers."""
_INFERENCE = ("step", "window")


@dataclass(frozen=True)
class FitOptions:
    """What `trainer fit` can be told.

    Attributes:
        name: of the bundle.
        window_length: T, ticks; None is 60, or a tenth of a short history.
        units: of the LSTM layers.
        max_gap_ticks: a longer gap starts over.
        epochs, batch_size, learning_rate, patience, windows_per_epoch, seed: of training.
        alarms_per_week: the alarm budget of one asset.
        inference: `step` or `window`, the mode that is calibrated and deployed.
        units_of_sensors: engineering unit of each sensor, by name.
        parts: of the detector that take part; no key of a file, as it serves measurements only.
    """

    name: str = "model"
    window_length: int | None = None
    units: tuple[int, ...] = (128, 64, 32)
    max_gap_ticks: int = 60
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    patience: int = 5
    windows_per_epoch: int = 2048
    seed: int = 0
    alarms_per_week: float = 1.0
    inference: str = "step"
    units_of_sensors: tuple[tuple[str, str], ...] = ()
    parts: Parts = field(default_factory=Parts, metadata={"key": False})


def broken_rule(key: str, value: Any) -> str | None:
    """Return the rule that a value breaks, as the end of a sentence; None where it breaks none.

    Args:
        key: field of `FitOptions`.
        value: as a person wrote it, of any type.
    """
    if key in _LEAST:
        return _broken_number(value, _LEAST[key], whole=key not in _FRACTIONS)
    if key == "units":
        return _broken_units(value)
    if key == "units_of_sensors":
        pairs = isinstance(value, dict) and all(isinstance(unit, str) for unit in value.values())
        return None if pairs else "must be a table of units by the names of the sensors"
    if not isinstance(value, str) or not value.strip():
        return "must be text"
    if key == "inference" and value not in _INFERENCE:
        return f"is {value!r}, known are {' and '.join(_INFERENCE)}"
    return None


def _broken_number(value: Any, least: float, whole: bool) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or (whole and isinstance(value, float)):
        return f"is {value!r}, must be a {'whole ' if whole else ''}number"
    if not value >= least:
        return f"is {value}, at least {least:g} is needed"
    if value > _LARGEST or not math.isfinite(value):
        return f"is {value}, at most {_LARGEST} is possible"
    return None


def _broken_units(value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not value:
        return "must be a list of whole numbers, one for each layer"
    broken = (_broken_number(units, 1, whole=True) for units in value)
    return next((f"a layer {rule}" for rule in broken if rule), None)


def check_out(out: Path) -> None:
    """Refuse a place for a bundle that holds something else.

    Raises:
        UsageError: it is a file, or a directory that is neither empty nor a bundle.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "manifest.json").is_file())):
        raise UsageError(f"--out {out}: exists and is no bundle; it is not overwritten")


def read_options(path: Path) -> dict[str, Any]:
    """Return the fields of `FitOptions` that a TOML file sets under `[fit]`.

    Raises:
        ConfigurationError: `file: field: rule` in one line.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as reason:
        raise ConfigurationError(f"{path}: file: {reason.strerror or reason}") from reason
    except ValueError as reason:
        raise ConfigurationError(f"{path}: not readable as TOML ({reason})") from reason
    foreign = sorted(set(content) - {"fit"})
    if foreign:
        raise ConfigurationError(f"{path}: {foreign[0]}: unknown section; known is fit")
    section = content.get("fit", {})
    if not isinstance(section, dict):
        raise ConfigurationError(f"{path}: fit: must be a table")
    known = sorted(one.name for one in fields(FitOptions) if one.metadata.get("key", True))
    for key, value in section.items():
        if key not in known:
            raise ConfigurationError(f"{path}: fit.{key}: unknown key; known are {', '.join(known)}")
        rule = broken_rule(key, value)
        if rule:
            raise ConfigurationError(f"{path}: fit.{key}: {rule}")
    if "units" in section:
        section["units"] = tuple(section["units"])
    if "units_of_sensors" in section:
        section["units_of_sensors"] = tuple(section["units_of_sensors"].items())
    return section
