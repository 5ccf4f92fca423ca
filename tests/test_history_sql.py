"""Laws of histories from a database, on a real PostgreSQL server."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.history import HistoryFormat, read_history
from edge_agent.history_options import history_source
from edge_agent.history_sql import DatabaseAddress
from tests.commands import run
from tests.postgres import PASSWORD, Server, running_server
from trainer.cli import main

START = 1_767_225_600
ROWS = 200_000
TABLES = f"""
CREATE TABLE readings AS SELECT to_timestamp({START} + n) AS time, 'pump-' || (n % 2) AS asset,
  n::double precision / 7 AS flow, CASE WHEN n % 5 > 0 THEN n::real END AS pressure, n % 3 = 0 AS running,
  'n' || n AS note, now() AS stored FROM generate_series(0, {ROWS - 1}) AS n;
CREATE TABLE long AS SELECT timestamp '2026-01-01' + n * interval '1 s' AS ts, tag, n + place AS value
  FROM generate_series(0, 99) AS n, (VALUES ('flow', 0), ('level', 1000)) AS tags(tag, place);
CREATE SEQUENCE steps;
CREATE TABLE epochs AS SELECT (1000::bigint * ({START} + n)) AS ts, n AS flow FROM generate_series(0, 99) AS n;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with tables of readings, whose clock is not that of UTC."""
    with running_server() as running:
        with psycopg.connect(running.url(PASSWORD)) as connection:
            connection.execute(TABLES)
        yield running


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is where libpq looks for it."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)


def _address(server: Server, password: str | None = None) -> DatabaseAddress:
    found = history_source(server.url(password))
    assert isinstance(found, DatabaseAddress)
    return found


def test_the_rows_of_a_query_are_a_history(server: Server) -> None:
    """Times to the second whatever the session's zone, numbers to the digit, NULL as missing, truth as 0 and 1."""
    query = "SELECT time, asset, flow, pressure, running, note FROM readings ORDER BY time;"
    history = read_history([_address(server)], HistoryFormat(query=query))
    assert history.sensors == ("flow", "pressure", "running")
    assert history.assets == ("pump-0", "pump-1")
    n = np.arange(ROWS)
    np.testing.assert_array_equal(history.time, START + n)
    np.testing.assert_array_equal(history.asset, n % 2)
    np.testing.assert_array_equal(history.values[:, 0], (n / 7).astype(np.float32))
    np.testing.assert_array_equal(history.values[:, 1], np.where(n % 5 > 0, n, np.nan).astype(np.float32))
    np.testing.assert_array_equal(history.values[:, 2], n % 3 == 0)
    assert any("note is text" in notice for notice in history.notices)


def test_a_time_that_is_no_clock_of_the_readings_is_no_sensor(server: Server) -> None:
    """Of two times the one of the usual name is the time, and the other is left out with a notice."""
    history = read_history(
        [_address(server)], HistoryFormat(query="SELECT stored, time, flow FROM readings LIMIT 9")
    )
    assert history.sensors == ("flow",)
    assert history.time[0] == START


@pytest.mark.parametrize(
    ("query", "sensors"),
    [("SELECT * FROM long", ("flow", "level")), ("SELECT * FROM epochs -- all", ("flow",))],
    ids=["long, time without a zone", "epoch numbers"],
)
def test_layouts_are_recognised_as_in_files(server: Server, query: str, sensors: tuple[str, ...]) -> None:
    """A long table and times that are numbers are read as those of a file are."""
    history = read_history([_address(server)], HistoryFormat(query=query))
    assert history.sensors == sensors
    np.testing.assert_array_equal(history.time, START + np.arange(100))
    assert history.values[42, 0] == 42


def test_the_password_may_stand_in_a_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PGPASSWORD the file that PGPASSFILE names is asked, as by every program of PostgreSQL."""
    monkeypatch.delenv("PGPASSWORD")
    secrets = tmp_path / "pgpass"
    secrets.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n", encoding="utf-8")
    secrets.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(secrets))
    assert len(read_history([_address(server)], HistoryFormat(query="SELECT * FROM epochs")).time) == 100


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("SELECT * FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT time FROM readings WHERE", "syntax error"),
        ("DELETE FROM readings RETURNING *", "syntax error"),
        ("SELECT nextval('steps') AS time, 1 AS flow", "read-only transaction"),
        ("SELECT time, flow FROM readings WHERE flow < 0", "the query gives no rows"),
        ("SELECT flow FROM readings", "no time column among flow"),
    ],
)
def test_what_the_server_refuses_is_one_line_without_a_secret(server: Server, query: str, rule: str) -> None:
    """A query that cannot run, would write, or gives no history is refused by its rule; no password is shown."""
    with pytest.raises(HistoryError) as refused:
        read_history([_address(server, PASSWORD)], HistoryFormat(query=query))
    text = str(refused.value)
    assert rule in text
    assert "\n" not in text
    assert PASSWORD not in text
    assert f"reader@127.0.0.1:{server.port}" in text


@pytest.mark.parametrize("secret", ["wrong", "wr@ng/#"])
def test_a_wrong_password_is_not_shown(
    server: Server,
    secret: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Who gives a wrong password, even one that breaks the address, is told so in one line that does not hold it."""
    monkeypatch.delenv("PGPASSWORD")
    words = ("fit", "--history", server.url(secret), "--query", "SELECT 1", "--out", tmp_path / "bundle")
    said = run(main, capsys, *words)
    assert said.code == 1
    assert secret not in said.refusal()
    assert said.refusal().startswith("trainer: postgresql://reader")


def test_a_server_that_is_away_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing listens the address and the reason are told."""
    url = "postgresql://reader@127.0.0.1:1/plant"
    said = run(main, capsys, "fit", "--history", url, "--query", "SELECT 1", "--out", tmp_path / "bundle")
    assert said.code == 1
    assert said.refusal().startswith(f"trainer: {url}: ")
    assert "refused" in said.refusal()


@pytest.mark.parametrize(
    ("sources", "query"),
    [(["postgresql://a@b/c"], None), (["postgresql://a@b/c"], " ;"), (["x.csv"], "SELECT 1")],
)
def test_a_database_and_a_query_go_together(sources: list[str], query: str | None) -> None:
    """One without the other is a matter of usage, told before anything is read."""
    with pytest.raises(UsageError, match="--query"):
        read_history([history_source(text) for text in sources], HistoryFormat(query=query))


def test_the_server_of_these_tests_is_their_own() -> None:
    """No test reaches for a database that the environment names."""
    assert not {"PGHOST", "PGHOSTADDR", "PGSERVICE"} & set(os.environ)
