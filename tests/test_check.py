"""Laws of `edge-agent check`: each thing that would go wrong is one failed line, before the start."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.check import Finding, _feedback, _packages, check, inspect
from edge_agent.contract.errors import ConfigurationError
from edge_agent.settings import ControlSettings, FeedbackSettings, Settings
from tests.broker import Broker, broker, free_port
from tests.small_bundle import make_small_bundle

__all__ = ["broker"]
NOW = 1.8e9


def _settings(bundle: Path, port: int, metrics_port: int = 0) -> Settings:
    content: dict[str, Any] = {
        "bundle": {"path": bundle},
        "mqtt": {"port": port},
        "metrics": {"port": metrics_port},
    }
    return Settings.model_validate(content)


def _failed(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.text for finding in findings if not finding.passed}


def test_all_is_well(broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With bundle, broker and clock in order every line says ok and the exit code is 0."""
    make_small_bundle(tmp_path / "bundle")
    assert check(_settings(tmp_path / "bundle", broker.port)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [
        "configuration:",
        "packages:",
        "bundle:",
        "clock:",
        "feedback:",
        "metrics:",
        "broker:",
    ]
    assert all(line.startswith("ok ") for line in lines)


def test_everything_wrong_is_said_at_once(
    broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing bundle, a wrong clock, a taken port and an absent broker are each one failed line."""
    settings = _settings(tmp_path / "none", free_port(), metrics_port=broker.port)
    failed = _failed(inspect(settings, 0.0, broker_seconds=2.0))
    assert set(failed) == {"bundle", "clock", "metrics", "broker"}
    assert "no bundle there" in failed["bundle"]
    assert "1970" in failed["clock"]
    assert check(settings) == 78
    assert "failed  bundle: " in capsys.readouterr().out


def test_absent_broker_alone_is_no_configuration_error(tmp_path: Path) -> None:
    """A broker that does not answer fails the check with exit code 1, because the configuration may be right."""
    make_small_bundle(tmp_path / "bundle")
    findings = inspect(_settings(tmp_path / "bundle", free_port()), NOW, broker_seconds=2.0)
    assert [(finding.name, finding.exit_code) for finding in findings if not finding.passed] == [
        ("broker", 1)
    ]


def test_control_without_a_place_is_noticed(tmp_path: Path) -> None:
    """What operators say needs a place that can be written to; one that is yet to be made will do, and is not made."""
    settings = _settings(tmp_path, 1)
    control = settings.model_copy(update={"control": ControlSettings(enabled=True)})
    with pytest.raises(ConfigurationError, match=r"control\.enabled: needs feedback\.directory"):
        _feedback(control)
    (tmp_path / "file").touch()
    for name, fails in (("made/later", False), ("file/below", True)):
        placed = control.model_copy(update={"feedback": FeedbackSettings(directory=tmp_path / name)})
        if fails:
            with pytest.raises(ConfigurationError, match=r"feedback\.directory: cannot be written to"):
                _feedback(placed)
        else:
            assert _feedback(placed).endswith("control is on")
    assert not (tmp_path / "made").exists()


def test_both_runtimes_are_noticed() -> None:
    """Two distributions that hold the same package are refused with the way out."""
    with pytest.raises(ConfigurationError, match="both installed"):
        _packages({"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"})
    assert _packages({"onnxruntime": "1.31"}) == "onnxruntime 1.31"
