"""Whether the agent works, for those who watch over it: systemd, probes, and whoever opens its first page."""

import threading
import time
from collections.abc import Callable

from edge_agent import systemd
from edge_agent.connection import MqttClient
from edge_agent.metrics import CONTENT_TYPE
from edge_agent.settings import MqttSettings
from edge_agent.version import VERSION
from edge_agent.web import Pages

_SILENT_SECONDS = 30.0


class Watch:
    """The main loop's heartbeat and what follows from it.

    Args:
        settings: the broker's address.
        client: the connection to it.
        bundle: the first page's words on the bundle and where it runs.
        summary: gives its words on the assets.
    """

    def __init__(
        self, settings: MqttSettings, client: MqttClient, bundle: str, summary: Callable[[], str]
    ) -> None:
        self._address = f"{settings.host}:{settings.port}"
        self._client = client
        self._bundle = bundle
        self._summary = summary
        self._beat = time.monotonic()
        self.started = threading.Event()

    def beat(self) -> None:
        """Note that the main loop goes round, and tell systemd."""
        self._beat = time.monotonic()
        systemd.alive(self._summary())

    def pages(self, metrics: Callable[[], bytes]) -> Pages:
        """Return what the web pages show."""
        return Pages(metrics, CONTENT_TYPE, self.unhealthy, self.unready, self._first_page)

    def unhealthy(self) -> str:
        """Return why the agent is not working, or an empty text."""
        silent = time.monotonic() - self._beat
        return f"the main loop has been silent for {silent:.0f} s" if silent > _SILENT_SECONDS else ""

    def unready(self) -> str:
        """Return why the agent is not serving yet, or an empty text."""
        if not self.started.is_set():
            return "starting"
        if not self._client.subscribed.is_set():
            return f"not subscribed at the broker ({self._client.last_error or 'connecting'})"
        return ""

    def _first_page(self) -> str:
        return (
            f"Forewarn edge agent {VERSION}\n"
            f"bundle {self._bundle}\n"
            f"broker {self._address}: {self.unready() or 'connected'}\n"
            f"{self._summary()}\n"
            "pages: /metrics /-/healthy /-/ready\n"
        )
