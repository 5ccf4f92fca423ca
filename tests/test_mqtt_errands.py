"""Laws of short errands at the broker; `ask` has its journeys in test_feedback_cli.py."""

from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.errors import BrokerError, ConfigurationError
from edge_agent.mqtt_errands import try_broker
from edge_agent.settings import MqttSettings
from tests.broker import Broker, broker, free_port

__all__ = ["broker"]


def _settings(port: int, **more: Any) -> MqttSettings:
    return MqttSettings.model_validate({"port": port, **more})


def test_trial_says_what_is_wrong(broker: Broker, tmp_path: Path) -> None:
    """A trial passes at a broker, names one that is not there, and names a certificate that is not."""
    try_broker(_settings(broker.port), 10.0)
    port = free_port()
    with pytest.raises(BrokerError, match=f"127.0.0.1:{port}: not reached"):
        try_broker(_settings(port), 5.0)
    absent = tmp_path / "ca.pem"
    with pytest.raises(ConfigurationError, match=r"ca\.pem: mqtt\.tls\.ca_file"):
        try_broker(_settings(broker.port, tls={"enabled": True, "ca_file": absent}), 5.0)
    absent.write_text("no certificate")
    with pytest.raises(ConfigurationError, match=r"mqtt\.tls: certificates cannot be used"):
        try_broker(_settings(broker.port, tls={"enabled": True, "ca_file": absent}), 5.0)
