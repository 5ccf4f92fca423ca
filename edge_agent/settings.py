"""The agent's settings: a TOML file, overridden by environment variables `FOREWARN_…`, checked before anything starts.

Nested keys of the environment are joined with two underscores: `FOREWARN_MQTT__HOST`. The broker's password is
never a setting; it is read from a file, by preference a systemd credential.
"""

import math
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.sensor_gate import QualityRules
from edge_agent.topics import compile_template

ENVIRONMENT_PREFIX = "FOREWARN_"


def _topic_level_path(value: str) -> str:
    if not value or set(value) & set("+#\0") or value.startswith(("/", "$")) or value.endswith("/"):
        raise ValueError("must be a topic without wildcards and without a slash at either end")
    return value


def _template(value: str) -> str:
    try:
        compile_template(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return value


TopicPath = Annotated[str, AfterValidator(_topic_level_path)]
Template = Annotated[str, AfterValidator(_template)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgentSettings(_Section):
    """How the agent itself works."""

    workers: int = Field(default=1, ge=1, le=64)
    linger_milliseconds: float = Field(default=5.0, ge=0, le=1000)
    rest_milliseconds: float = Field(default=0.0, ge=0, le=1000)
    max_assets: int = Field(default=1000, ge=1, le=100_000)
    inbox_messages: int = Field(default=50_000, ge=100)
    inbox_megabytes: int = Field(default=32, ge=1)
    outbox_messages: int = Field(default=10_000, ge=10)
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class BundleSettings(_Section):
    """Which model runs, and how."""

    path: Path
    inference: Literal["auto", "step", "window"] = "auto"
    runtime: Literal["auto", "onnx", "litert"] = "auto"
    provider: Literal["auto", "cpu", "cuda"] = "auto"


class TlsSettings(_Section):
    """The encrypted connection to the broker."""

    enabled: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    verify_host_name: bool = True

    @model_validator(mode="after")
    def _pair(self) -> "TlsSettings":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class MqttInput(_Section):
    """One subscription and the way its payloads are written."""

    topic: Template
    qos: Literal[0, 1, 2] = 1
    asset: str | None = None
    time_key: str = "time"
    value_key: str = "value"
    values_key: str = "values"
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"

    @model_validator(mode="after")
    def _asset_known(self) -> "MqttInput":
        if self.asset is None and "{asset}" not in self.topic:
            raise ValueError("asset must be given where the topic has no {asset}")
        return self


class MqttSettings(_Section):
    """The broker, what is read from it and where events go."""

    host: str = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["3.1.1", "5"] = "5"
    reader: Literal["auto", "batched", "plain"] = "auto"
    client_id: str | None = None
    username: str | None = None
    password_file: Path | None = None
    keepalive_seconds: int = Field(default=30, ge=5, le=3600)
    persistent_session: bool = True
    session_expiry_seconds: int = Field(default=3600, ge=0)
    base_topic: TopicPath = "forewarn"
    node: str = Field(default="edge", min_length=1)
    qos: Literal[0, 1, 2] = 1
    tls: TlsSettings = TlsSettings()
    inputs: tuple[MqttInput, ...] = (MqttInput(topic="plant/{asset}"),)

    @model_validator(mode="after")
    def _consistent(self) -> "MqttSettings":
        if not self.inputs:
            raise ValueError("inputs must hold at least one topic")
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username")
        return self

    @property
    def effective_client_id(self) -> str:
        """Return the configured client id, or one made from the node, which keeps the session across restarts."""
        return self.client_id or f"forewarn-{self.node}"

    def read_password(self) -> str | None:
        """Return the password, or None where none is configured.

        A relative `password_file` is looked up among systemd's credentials first.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        if self.password_file is None:
            return None
        path = self.password_file
        credentials = os.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and not path.is_absolute() and (Path(credentials) / path).is_file():
            path = Path(credentials) / path
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: mqtt.password_file: must be readable text") from error


class GridSettings(_Section):
    """How readings become samples."""

    allowed_lateness_ticks: int = Field(default=1, ge=0, le=1000)


class QualitySettings(_Section):
    """What the gates let through."""

    max_future_seconds: float = Field(default=60.0, ge=0)
    stale_ticks: int = Field(default=10, ge=1)
    stale_seconds: float = Field(default=60.0, ge=0)
    ranges: dict[str, tuple[float, float]] = {}

    @model_validator(mode="after")
    def _ranges_hold_something(self) -> "QualitySettings":
        for name, (low, high) in self.ranges.items():
            if not (low < high and math.isfinite(low) and math.isfinite(high)):
                raise ValueError(f"ranges: {name}: must be two numbers, the lower first")
        return self

    @property
    def rules(self) -> QualityRules:
        """Return what the detector's gate is told."""
        return QualityRules(self.stale_ticks, self.stale_seconds, self.ranges)


class DeviationSettings(_Section):
    """The least deviation of one sensor that opens an alarm."""

    min_absolute: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    min_relative: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    direction: Literal["both", "above", "below"] = "both"


class AlarmSettings(_Section):
    """What differs from the alarm rules of the bundle; None is the bundle's."""

    open_count: int | None = Field(default=None, ge=1, le=63)
    open_window: int | None = Field(default=None, ge=1, le=63)
    immediate_score: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    clear_samples: int | None = Field(default=None, ge=1)
    critical_score: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    critical_after_samples: int | None = Field(default=None, ge=1)
    update_samples: int | None = Field(default=None, ge=1)
    cool_down_samples: int | None = Field(default=None, ge=0)
    merge_samples: int | None = Field(default=None, ge=0)
    sensors: dict[str, DeviationSettings] = {}

    @property
    def changes(self) -> dict[str, Any]:
        """Return what the detector's alarms are told."""
        return self.model_dump(exclude_none=True)


class AdaptationSettings(_Section):
    """What follows the machine after deployment."""

    budget_controller: bool = True


class MetricsSettings(_Section):
    """Where Prometheus finds the metrics."""

    host: str = "127.0.0.1"
    port: int = Field(default=9464, ge=0, le=65535)
    max_series_assets: int = Field(default=200, ge=0)


class ControlSettings(_Section):
    """Whether operators may command the agent over MQTT."""

    enabled: bool = False
    max_age_seconds: float = Field(default=300.0, gt=0)


class FeedbackSettings(_Section):
    """Where it is kept what operators said."""

    directory: Path | None = None

    @property
    def effective_directory(self) -> Path | None:
        """Return the configured directory, or the first of those that systemd made for the unit's state."""
        given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return self.directory or (Path(given) if given else None)


class Settings(BaseSettings):
    """Everything the agent is told; the environment wins over the file."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
    )
    agent: AgentSettings = AgentSettings()
    bundle: BundleSettings
    mqtt: MqttSettings = MqttSettings()
    grid: GridSettings = GridSettings()
    quality: QualitySettings = QualitySettings()
    alarms: AlarmSettings = AlarmSettings()
    adaptation: AdaptationSettings = AdaptationSettings()
    control: ControlSettings = ControlSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, strongest first; the file's content comes in as the arguments."""
        return env_settings, init_settings


def _place(location: tuple[int | str, ...], path: Path) -> tuple[str, str]:
    """Return (where it was written, field) of a wrong value."""
    field = ".".join(str(part) for part in location) or "settings"
    for length in range(len(location), 0, -1):
        variable = ENVIRONMENT_PREFIX + "__".join(str(part) for part in location[:length]).upper()
        if variable in os.environ:
            return f"environment variable {variable}", field
    return str(path), field


def _one_line(error: ValidationError, path: Path) -> str:
    # Values are left out on purpose: one of them may be a secret put in the wrong place.
    first, *others = error.errors(include_url=False, include_input=False, include_context=False)
    where, field = _place(first["loc"], path)
    rule = {"extra_forbidden": "is not a known key", "missing": "must be given"}.get(
        first["type"], first["msg"].removeprefix("Value error, ")
    )
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {field}: {rule}{more}".replace("\n", " ")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: file: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: file: must be UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: TOML: {error}") from error


def _anchored(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Resolve relative paths against the file that names them, not against where the daemon was started."""
    for section, key in (("bundle", "path"), ("feedback", "directory")):
        table = content.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str):
            content[section] = {**table, key: str(path.parent / table[key])}
    return content


def load_settings(path: Path, bundle_needed: bool = True) -> Settings:
    """Read and check the settings.

    Args:
        path: the TOML file.
        bundle_needed: False where nothing is scored, so that the file need not name a bundle.

    Raises:
        ConfigurationError: `file: field: rule` in one line; values are never in it.
    """
    content = _anchored(_read_file(path), path)
    if not bundle_needed:
        content.setdefault("bundle", {"path": str(path.parent)})
    try:
        return Settings(**content)
    except ValidationError as error:
        raise ConfigurationError(_one_line(error, path)) from None
    except ValueError as error:
        # pydantic-settings raises this for a variable that should hold JSON and does not.
        raise ConfigurationError(f"environment: {ENVIRONMENT_PREFIX}…: {error}".replace("\n", " ")) from None
