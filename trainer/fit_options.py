"""What `trainer fit` can be told; apart from fitting itself, which takes seconds to import."""

import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.calendar_inputs import CALENDAR, find_zone
from edge_agent.contract.errors import ConfigurationError, HistoryError, UsageError
from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.off_condition import OffCondition, parse_off_condition
from edge_agent.contract.scaling import METHODS
from edge_agent.contract.trailing import POLICIES
from trainer.dataset import FILLINGS
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
    "usual_days": 1e-3,
    "settle_ticks": 0,
    "fill_limit": 1,
}
_FRACTIONS = ("learning_rate", "alarms_per_week", "usual_days")
_LARGEST = 2**31 - 1
"""Seeds and counts travel through 32-bit integers."""
ADAPTATIONS = ("auto", *POLICIES)
_CHOICES = {
    "inference": ("step", "window"),
    "adaptation": ADAPTATIONS,
    "scaling": METHODS,
    "missing": FILLINGS,
}
_NAMES = ("exogenous", "calendar")


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
        adaptation: what is usual of late, one of `trailing.POLICIES`; `auto` is `trailing` for a history that spans
            `usual_days` and `frozen` for a shorter one, which has not seen what is usual.
        usual_days: how far back what is usual of late looks.
        labels: file of what operators marked, see `edge_agent.contract.labels`.
        units_of_sensors: engineering unit of each sensor, by name.
        off_when: when the machine is off, as `sensor comparison value`; empty is never.
        settle_ticks: samples after a start that have no score either.
        scaling: of the sensors, one of `scaling.METHODS`.
        missing, fill_limit: what the forecaster is told of missing cells while it is fitted, see `dataset.Filling`.
        exogenous: names of commands and set points: read by the forecaster, neither forecast nor scored.
        calendar: parts of the calendar that the forecaster reads, keys of `calendar_inputs.CALENDAR`.
        time_zone: whose clock the calendar follows.
        alarms: what differs from the default alarm rules.
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
    adaptation: str = "auto"
    usual_days: float = 14.0
    labels: str | None = None
    units_of_sensors: tuple[tuple[str, str], ...] = ()
    off_when: str = ""
    settle_ticks: int = 0
    scaling: str = "standard"
    missing: str = "mask"
    fill_limit: int = 5
    exogenous: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    time_zone: str = "UTC"
    alarms: Mapping[str, Any] = field(default_factory=dict)

    def layout(self, sensors: Sequence[str], axis: Axis) -> InputLayout:
        """Return what the forecaster reads.

        Raises:
            HistoryError: there is no such sensor, or none is left to forecast.
        """
        calendar = [name for part in self.calendar for name in CALENDAR[part]]
        try:
            return InputLayout(sensors, self.exogenous, calendar, axis, self.time_zone)
        except ValueError as error:
            raise HistoryError(f"exogenous: {error}; there are {', '.join(sensors)}") from error

    def off_condition(self, sensors: Collection[str]) -> OffCondition | None:
        """Return when the machine is off, None where it never is.

        Raises:
            HistoryError: there is no such sensor.
        """
        if not self.off_when:
            return None
        condition = parse_off_condition(self.off_when, self.settle_ticks)
        if condition.sensor not in sensors:
            raise HistoryError(
                f"no sensor {condition.sensor}, by which the machine would be off; there are {', '.join(sensors)}"
            )
        return condition

    def alarm_rules(self, sensors: Collection[str]) -> AlarmRules:
        """Return the alarm rules of the bundle.

        Raises:
            HistoryError: a rule is for a sensor that there is not.
        """
        try:
            return changed_rules(AlarmRules(), self.alarms, sensors)
        except ValueError as error:
            raise HistoryError(f"alarms.{error}") from error

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
    if key == "alarms":
        return _broken_alarms(value)
    if key in _NAMES:
        return _broken_names(key, value)
    if not isinstance(value, str) or not value.strip():
        return "must be text"
    if value not in _CHOICES.get(key, (value,)):
        return f"is {value!r}, known are {' and '.join(_CHOICES[key])}"
    if key == "off_when":
        return _broken_off_condition(value)
    return _broken_zone(value) if key == "time_zone" else None


def _broken_names(key: str, value: Any) -> str | None:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one.strip() for one in value):
        return "must be a list of names"
    unknown = [one for one in value if one not in CALENDAR] if key == "calendar" else []
    return f"is {unknown[0]!r}, known are {' and '.join(CALENDAR)}" if unknown else None


def _broken_zone(value: str) -> str | None:
    try:
        find_zone(value)
    except ValueError as error:
        return str(error)
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


def _broken_alarms(value: Any) -> str | None:
    if not isinstance(value, dict):
        return "must be a table"
    tables = value.get("sensors")
    try:
        changed_rules(AlarmRules(), value, tables if isinstance(tables, dict) else ())
    except ValueError as error:
        return f"broken by {error}"
    return None


def _broken_off_condition(value: str) -> str | None:
    try:
        parse_off_condition(value)
    except ValueError as error:
        return str(error)
    return None


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
    foreign = sorted(set(content) - {"fit", "tune"})
    if foreign:
        raise ConfigurationError(f"{path}: {foreign[0]}: unknown section; known are fit and tune")
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
    if "labels" in section:
        # Against the file that names it, not against where the program was started.
        section["labels"] = str(path.parent / section["labels"])
    for key in ("units", *_NAMES):
        if key in section:
            section[key] = tuple(section[key])
    if "units_of_sensors" in section:
        section["units_of_sensors"] = tuple(section["units_of_sensors"].items())
    return section
