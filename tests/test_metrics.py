"""Laws of the metrics: every promised name, arrays read at scrape time, capped; and of the pages that show them."""

import re
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from edge_agent.board import AssetBoard
from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Outcomes, QualityEvent, Rows, SensorQuality
from edge_agent.events import BundleIdentity
from edge_agent.metrics import CONTENT_TYPE, AgentMetrics, Facts
from edge_agent.tally import Tally
from edge_agent.web import Pages, WebServer

DEPLOY = Path(__file__).parent.parent / "deploy"
SENSORS = ("flow", "pressure")
FACTS = Facts(BundleIdentity("pump", "1", "ab"), "cpu", SENSORS, 3.5, 10.0, 1000.0, 2)


def _outcomes(score: float, forecast: float) -> Outcomes:
    return Outcomes(
        asset=np.array([0]),
        tick=np.array([5]),
        time=np.array([50.0]),
        score=np.array([score]),
        statistic=np.array([score]),
        alarm=np.array([score > 1]),
        forecast=np.full((1, 2), forecast, np.float32),
        events=[],
    )


def _rows(asset: int, flow: float, pressure: float = float("nan")) -> Rows:
    return Rows(np.array([asset]), np.array([50.0]), np.array([[flow, pressure]], np.float32))


def _dead(asset: int, phase: str = "start") -> QualityEvent:
    """Return the event of a frozen pressure in a silent asset."""
    frozen = SensorQuality(1, "pressure", "bar", "frozen", 40.0, 7.0)
    return QualityEvent(phase, asset, 50.0, 50.0, (SensorQuality(-1, None, "", "silent", 40.0, None), frozen))


def _series(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def _metrics(board: AssetBoard, assets: list[str], tally: Tally | None = None) -> AgentMetrics:
    return AgentMetrics(
        FACTS, tally or Tally(), board, assets, lambda: {"late": 2}, lambda: {"spike": 3, "late": 2}
    )


def test_every_metric_that_deploy_names_is_exposed() -> None:
    """Alert rules and dashboard name no metric that the agent does not expose."""
    board = AssetBoard(2)
    board.take_rows(_rows(0, 1.0), 100.0)
    board.take_quality(_dead(0))
    tally = Tally(unscored=Counter(warming_up=1), alarm_events=Counter([("warning", "start")]))
    exposed = set(_series(_metrics(board, ["p1"], tally).exposition().decode()))
    names = {series.partition("{")[0] for series in exposed}
    files = [*DEPLOY.glob("prometheus/alerts.yml"), *DEPLOY.glob("grafana/dashboards/*.json")]
    wanted = {name for path in files for name in re.findall(r"forewarn_[a-z_]+[a-z]", path.read_text())}
    assert wanted
    assert wanted - names - {"forewarn_score_latency_seconds"} == set()


def test_assets_are_read_at_scrape_time() -> None:
    """A scrape shows the last score, reading and forecast of each asset, without anything kept per label."""
    board, assets = AssetBoard(2), ["p1"]
    metrics = _metrics(board, assets)
    board.take_rows(_rows(0, 1.0, 7.0), 100.0)
    board.take_rows(_rows(0, 2.0), 101.0)
    board.take_outcomes(_outcomes(1.5, 3.0))
    series = _series(metrics.exposition().decode())
    assert series['forewarn_asset_score{asset="p1"}'] == 1.5
    assert series['forewarn_alarm_active{asset="p1"}'] == 1
    assert series['forewarn_asset_last_sample_timestamp_seconds{asset="p1"}'] == 50
    assert series['forewarn_asset_sensor_value{asset="p1",sensor="flow"}'] == 2
    assert series['forewarn_asset_sensor_value{asset="p1",sensor="pressure"}'] == 7
    assert series['forewarn_asset_sensor_expected{asset="p1",sensor="flow"}'] == 3
    assert series['forewarn_readings_rejected_total{reason="late"}'] == 2
    assert series['forewarn_inference_provider_info{provider="cpu"}'] == 1
    assert series["forewarn_statistic_threshold"] == 3.5


def test_dead_sensors_have_a_series_as_long_as_they_are_dead() -> None:
    """Sensor and reason are labels, the whole asset has no sensor, and what came back is gone; counts stay."""
    board = AssetBoard(2)
    metrics = _metrics(board, ["p1", "p2"])
    board.take_quality(_dead(1))
    series = _series(metrics.exposition().decode())
    name = "forewarn_data_quality_active"
    assert {key: value for key, value in series.items() if key.startswith(name)} == {
        f'{name}{{asset="p2",reason="frozen",sensor="pressure"}}': 1.0,
        f'{name}{{asset="p2",reason="silent",sensor=""}}': 1.0,
    }
    assert series['forewarn_data_quality_events_total{reason="spike"}'] == 3
    board.take_quality(_dead(1, "end"))
    assert name not in " ".join(_series(metrics.exposition().decode()))


def test_asset_series_are_capped() -> None:
    """Beyond the cap an asset has no series, and the missing ones are counted, those of dead sensors too."""
    board, assets = AssetBoard(2), [f"p{number}" for number in range(40)]
    board.take_rows(_rows(39, 1.0), 100.0)
    board.take_quality(_dead(39))
    board.take_quality(_dead(1))
    series = _series(_metrics(board, assets).exposition().decode())
    assert series["forewarn_assets"] == 40
    assert sum(name.startswith("forewarn_asset_score") for name in series) == 2
    assert sum(name.startswith("forewarn_data_quality_active") for name in series) == 2
    assert series["forewarn_asset_series_dropped"] == 38 * 13 + 2


def test_not_scoring_is_noticed() -> None:
    """Readings without a score are noticed after the grace, and no longer once a score follows."""
    board = AssetBoard(2)
    board.take_rows(_rows(0, 1.0), 100.0)
    board.take_outcomes(_outcomes(float("nan"), float("nan")))
    assert (board.warming_up(), board.not_scoring(10.0)) == (1, 0)
    board.take_rows(_rows(0, 1.0), 111.0)
    assert board.not_scoring(10.0) == 1
    board.take_outcomes(_outcomes(0.1, 1.0))
    assert (board.warming_up(), board.not_scoring(10.0)) == (0, 0)


def test_a_machine_that_is_off_is_neither_warming_up_nor_forgotten() -> None:
    """Off, an asset has no score on purpose: it is shown as off, and not as one that is not scored."""
    board = AssetBoard(2)
    board.take_rows(_rows(0, 1.0), 100.0)
    board.take_outcomes(replace(_outcomes(float("nan"), float("nan")), off=np.array([True])))
    board.take_rows(_rows(0, 1.0), 101.0)
    assert (board.warming_up(), board.not_scoring(10.0)) == (0, 0)
    tally = Tally(held_back=Counter(cool_down=3))
    series = _series(_metrics(board, ["p0"], tally).exposition().decode())
    assert series['forewarn_asset_off{asset="p0"}'] == 1
    assert series['forewarn_alarms_held_back_total{reason="cool_down"}'] == 3
    board.take_outcomes(_outcomes(0.1, 1.0))
    assert _series(_metrics(board, ["p0"]).exposition().decode())['forewarn_asset_off{asset="p0"}'] == 0


def _get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_pages_tell_the_state() -> None:
    """Health and readiness answer 200 or 503 with the reason; metrics and the first page are served."""
    reasons = {"unready": "broker not connected"}
    metrics = Mock(return_value=b"forewarn_assets 1\n")
    pages = Pages(
        metrics,
        CONTENT_TYPE,
        lambda: "",
        lambda: reasons["unready"],
        lambda: "hello\n",
    )
    server = WebServer("127.0.0.1", 0, pages)
    server.start()
    root = f"http://127.0.0.1:{server.port}"
    try:
        assert _get(f"{root}/-/healthy") == (200, "healthy\n")
        assert _get(f"{root}/-/ready") == (503, "broker not connected\n")
        reasons["unready"] = ""
        assert _get(f"{root}/-/ready") == (200, "ready\n")
        assert _get(f"{root}/metrics") == (200, "forewarn_assets 1\n")
        metrics.side_effect = TimeoutError("a worker does not answer")
        assert _get(f"{root}/metrics") == (503, "a worker does not answer\n")
        assert _get(f"{root}/")[1] == "hello\n"
        assert _get(f"{root}/none")[0] == 404
        with pytest.raises(ConfigurationError, match=r"metrics\.port"):
            WebServer("127.0.0.1", server.port, pages)
    finally:
        server.stop()
