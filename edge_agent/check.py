"""Says what would go wrong before it does: packages, bundle, password, broker, metrics address, clock."""

import importlib.metadata
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.contract.errors import ConfigurationError, ForewarnError
from edge_agent.detector import load_detector
from edge_agent.feedback_file import feedback_directory
from edge_agent.mqtt_errands import try_broker
from edge_agent.settings import Settings
from edge_agent.web import Pages, WebServer

BROKER_SECONDS = 5.0
# 2025-01-01: this program did not exist before, so an earlier clock has not been set.
_EARLIEST_CLOCK = 1_735_689_600.0
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "ai-edge-litert")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: its name, whether it passed, one line on it, and the exit code if it failed."""

    name: str
    passed: bool
    text: str
    exit_code: int = 0

    def line(self) -> str:
        """Return the finding as it is printed."""
        return f"{'ok' if self.passed else 'failed':<7} {self.name}: {self.text}"


def inspect(settings: Settings, now: float, broker_seconds: float = BROKER_SECONDS) -> list[Finding]:
    """Try everything that a start needs, and return what was found; nothing is changed.

    Args:
        settings: checked already.
        now: the device's clock, seconds since the epoch.
        broker_seconds: how long to wait for the broker.
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("packages", lambda: _packages(_installed())),
        ("bundle", lambda: _bundle(settings)),
        ("clock", lambda: _clock(now)),
        ("feedback", lambda: _feedback(settings)),
        ("metrics", lambda: _metrics(settings)),
        ("broker", lambda: _broker(settings, broker_seconds)),
    )
    workers = f", {settings.agent.workers} workers" if settings.agent.workers > 1 else ""
    configuration = Finding("configuration", True, f"{len(settings.mqtt.inputs)} input(s){workers}")
    return [configuration, *(_tried(name, attempt) for name, attempt in checks)]


def check(settings: Settings) -> int:
    """Print one line for each finding; returns 0, or the exit code of the first that failed."""
    findings = inspect(settings, time.time())
    for finding in findings:
        print(finding.line())
    return next((finding.exit_code for finding in findings if not finding.passed), 0)


def _tried(name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, attempt())
    except ForewarnError as error:
        return Finding(name, False, str(error), error.exit_code)


def _installed() -> dict[str, str]:
    """Return the versions of the runtimes' distributions that are installed."""
    versions: dict[str, str] = {}
    for name in _RUNTIMES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _packages(installed: dict[str, str]) -> str:
    if {"onnxruntime", "onnxruntime-gpu"} <= set(installed):
        raise ConfigurationError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install one of the extras `cpu` and `gpu`"
        )
    return (
        ", ".join(f"{name} {version}" for name, version in installed.items())
        or "ONNX Runtime of another name"
    )


def _bundle(settings: Settings) -> str:
    chosen = settings.bundle
    inference = None if chosen.inference == "auto" else chosen.inference
    detector = load_detector(
        chosen.path,
        inference,
        chosen.provider,
        settings.quality.rules,
        settings.alarms.changes,
        runtime=None if chosen.runtime == "auto" else chosen.runtime,
    )
    manifest, forecaster = detector.bundle.manifest, detector.forecaster
    return (
        f"{manifest.name} {manifest.version}, {len(manifest.sensors)} sensors every "
        f"{manifest.sampling_interval_seconds:g} s, {forecaster.inference} with {forecaster.runtime} "
        f"on {forecaster.provider}"
    )


def _clock(now: float) -> str:
    shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < _EARLIEST_CLOCK:
        raise ConfigurationError(
            f"{shown} is in the past: readings would be rejected as future; set the clock"
        )
    return shown


def _feedback(settings: Settings) -> str:
    directory = feedback_directory(settings)
    if directory is None:
        return "not kept, control is off"
    # What does not exist is made at the start; whether it can be, the nearest that exists says.
    standing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{directory}: feedback.directory: cannot be written to")
    return f"{directory}, control is {'on' if settings.control.enabled else 'off'}"


def _metrics(settings: Settings) -> str:
    nothing = Pages(bytes, "text/plain", str, str, str)
    server = WebServer(settings.metrics.host, settings.metrics.port, nothing)
    address = server.address
    server.stop()
    return address


def _broker(settings: Settings, seconds: float) -> str:
    try_broker(settings.mqtt, seconds)
    return f"{settings.mqtt.host}:{settings.mqtt.port}"
