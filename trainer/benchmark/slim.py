"""The record of a benchmark without its cases: small enough to be kept beside the documents."""

from typing import Any

from edge_agent.version import VERSION

_LEFT_OUT = ("cases",)


def slim(record: dict[str, Any]) -> dict[str, Any]:
    """Return all but the cases, the worst of which stay, and the version of the program."""
    return {"version": VERSION} | {key: value for key, value in record.items() if key not in _LEFT_OUT}
