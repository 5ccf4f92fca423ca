"""PostgreSQL and TimescaleDB: the rows of a query as blocks of CSV (the door to psycopg).

The server streams them by COPY, so neither it nor this process holds the whole result; the transaction may only read.
The password comes from where libpq looks for it (PGPASSWORD, PGPASSFILE, ~/.pgpass, a service file, the address) and is
never in a message.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.history_format import TIME_NAMES, HistoryFormat
from edge_agent.history_text import BLOCK_BYTES

SCHEMES = ("postgresql://", "postgres://")
_SECRET = ("password", "sslpassword")
_TIMESTAMPS = (1114, 1184, 1082)
"""Type numbers of timestamp, timestamp with time zone and date (PostgreSQL's pg_type.dat), fixed since ever."""
_BOOLEAN = 16
_PATIENCE_SECONDS = 15


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """`postgresql://user@host:port/database`, as libpq reads it; its text has no password."""

    url: str

    def __repr__(self) -> str:
        """Return the address without its password."""
        return str(self)

    def __str__(self) -> str:
        """Return the address without its password."""
        try:
            parts = urlsplit(self.url)
            user, at, host = parts.netloc.rpartition("@")
            kept = [(key, value) for key, value in parse_qsl(parts.query) if key not in _SECRET]
            place = f"{user.partition(':')[0]}{at}{host}"
            return urlunsplit((parts.scheme, place, parts.path, urlencode(kept), ""))
        except ValueError:
            return SCHEMES[0] + "…"


def is_database(text: str) -> bool:
    """Return whether the text is the address of a database and no path."""
    return text.startswith(SCHEMES)


def check_query(addressed: bool, query: str | None) -> None:
    """Refuse a database without a query, and a query without a database.

    Raises:
        UsageError: one is there without the other.
    """
    if addressed and not (query or "").strip(" ;\n\t"):
        raise UsageError("--query: a database needs one, such as --query 'SELECT time, flow FROM readings'")
    if query is not None and not addressed:
        raise UsageError("--query: no --history is the address of a database, postgresql://…")


@contextmanager
def query_blocks(
    address: DatabaseAddress, fmt: HistoryFormat
) -> Iterator[tuple[HistoryFormat, Iterator[bytes]]]:
    """Run the query of `fmt`; give how its CSV is to be read, and its blocks, which begin with the header.

    Raises:
        HistoryError: the server cannot be reached or refuses the query; the text names the rule, and no secret.
    """
    psycopg = _driver()
    try:
        psycopg.conninfo.conninfo_to_dict(address.url)
    except psycopg.Error:
        # Its words may hold a part of a password that is not written as a URL wants it.
        raise HistoryError(f"{address}: is no address of a database that libpq understands") from None
    query = (fmt.query or "").strip().rstrip(";")
    try:
        with psycopg.connect(address.url, connect_timeout=_PATIENCE_SECONDS) as connection:
            connection.read_only = True
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM (\n{query}\n) AS history LIMIT 0".encode())
                names = [(column.name, column.type_code) for column in cursor.description]
                time = _time_column(names, fmt)
                chosen = ", ".join(_as_number(name, kind, name == time) for name, kind in names)
                statement = (
                    f"COPY (SELECT {chosen} FROM (\n{query}\n) AS history) TO STDOUT (FORMAT csv, HEADER)"
                )
                with cursor.copy(statement.encode()) as copy:
                    yield _format_of_copy(fmt, names, time), _blocks(copy)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise HistoryError(f"{address}: {_without_secret(reason[0], psycopg, address)}") from None


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise HistoryError(
            "postgresql: its driver is not installed; pip install 'forewarn[postgres]'"
        ) from error
    return psycopg


def _time_column(names: Sequence[tuple[str, int]], fmt: HistoryFormat) -> str | None:
    """Return the column of times: the one that was named, one of a usual name, or the first of a type of time."""
    if fmt.time_column is not None:
        return fmt.time_column
    usual = [name for known in TIME_NAMES for name, _ in names if name.lower() == known]
    return next(iter([*usual, *(name for name, kind in names if kind in _TIMESTAMPS)]), None)


def _as_number(name: str, kind: int, is_time: bool) -> str:
    """Return a column as what the reader takes for a number, whatever the session's time zone."""
    quoted = '"' + name.replace('"', '""') + '"'
    if kind == _BOOLEAN:
        return f"history.{quoted}::int AS {quoted}"
    if is_time and kind in _TIMESTAMPS:
        return f"extract(epoch FROM history.{quoted}) AS {quoted}"
    return f"history.{quoted}"


def _format_of_copy(fmt: HistoryFormat, names: Sequence[tuple[str, int]], time: str | None) -> HistoryFormat:
    copied = replace(fmt, time_column=time, separator=",", decimal=".")
    stamped = any(name == time and kind in _TIMESTAMPS for name, kind in names)
    return replace(copied, time_format=None, epoch_unit="s") if stamped else copied


def _blocks(copy: Any) -> Iterator[bytes]:
    """Yield whole rows in blocks; psycopg gives a row at a time."""
    parts: list[bytes] = []
    size = 0
    for row in copy:
        parts.append(bytes(row))
        size += len(row)
        if size >= BLOCK_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
    yield b"".join(parts)


def _without_secret(text: str, psycopg: Any, address: DatabaseAddress) -> str:
    password = psycopg.conninfo.conninfo_to_dict(address.url).get("password")
    return text.replace(str(password), "…") if password else text
