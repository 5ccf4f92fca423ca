"""The agent's pages: metrics, health, readiness. Plain HTTP from the standard library, bound to this device."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_agent.contract.errors import ConfigurationError

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Pages:
    """What the pages show; each is called on request, in the request's thread.

    Attributes:
        metrics: the exposition; raises TimeoutError where it cannot be had now.
        metrics_type: its content type.
        unhealthy: why the agent is not working, or an empty text.
        unready: why it is not serving yet, or an empty text.
        summary: the text of the first page.
    """

    metrics: Callable[[], bytes]
    metrics_type: str
    unhealthy: Callable[[], str]
    unready: Callable[[], str]
    summary: Callable[[], str]

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and body of a path."""
        if path == "/metrics":
            try:
                return HTTPStatus.OK, self.metrics_type, self.metrics()
            except TimeoutError as error:
                return _verdict(str(error), "")
        if path == "/-/healthy":
            return _verdict(self.unhealthy(), "healthy")
        if path == "/-/ready":
            return _verdict(self.unready(), "ready")
        if path == "/":
            return HTTPStatus.OK, _TEXT, self.summary().encode()
        return HTTPStatus.NOT_FOUND, _TEXT, b"not found\n"


def _verdict(reason: str, good: str) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
    return status, _TEXT, f"{reason or good}\n".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    pages: Pages

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing when a visitor hangs up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        """Answer one request."""
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        """Answer one request without its body."""
        self._send(with_body=False)

    def _send(self, with_body: bool) -> None:
        status, kind, body = self.server.pages.answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Keep scrapes out of the log."""


class WebServer:
    """Serves the pages from threads of its own.

    Args:
        host: address to bind.
        port: TCP port; 0 for a free one.
        pages: what to show.

    Raises:
        ConfigurationError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        try:
            self._server = _Server((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"metrics.host, metrics.port: {host}:{port} cannot be bound ({error})"
            ) from error
        self._server.pages = pages
        self.host = host
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="web", daemon=True
        )

    @property
    def address(self) -> str:
        """Return the address of the metrics."""
        return f"http://{self.host}:{self.port}/metrics"

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
