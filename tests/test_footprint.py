"""Laws of the daemon's footprint: what it loads, and how much memory the default model takes with one asset."""

import json
import subprocess
import sys
from pathlib import Path

from edge_agent.bench.daemon import Daemon
from tests.benchmarks.default_bundle import SENSORS, WINDOW, make_default_bundle, normal_values
from tests.broker import Broker, Listener, broker
from tests.tiny_machine import TINY_BUNDLE

__all__ = ["broker"]
FOREIGN = ("tensorflow", "keras", "pandas", "scipy", "polars", "matplotlib", "sklearn")
MOST_MEGABYTES = 100.0
ROWS = 600
START = 1_700_000_000


def test_importing_the_daemon_loads_no_training_library() -> None:
    """All that `run` imports brings in neither TensorFlow nor any other library of the trainer, though installed."""
    program = (
        "import json, sys; import edge_agent.cli, edge_agent.agent; from pathlib import Path;"
        f"edge_agent.turns.load_detector(Path({str(TINY_BUNDLE)!r}));"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert "onnxruntime" in loaded
    assert [name for name in FOREIGN if name in loaded] == []


def test_the_default_model_with_one_asset_takes_less_than_100_megabytes(
    broker: Broker, tmp_path: Path
) -> None:
    """From its start until it has scored one asset's readings the daemon never takes 100 MB, nor maps TensorFlow."""
    bundle = make_default_bundle(tmp_path / "bundle").directory
    with (
        Daemon({"bundle.path": str(bundle), "mqtt.port": broker.port}) as agent,
        Listener(broker.port, "forewarn/#") as listener,
    ):
        agent.wait_for_metric("forewarn_mqtt_connected", 1)
        for first in range(0, ROWS, 100):
            listener.publish("plant/pump-1", _payload(first, first + 100))
        agent.wait_for_metric("forewarn_samples_scored_total", ROWS - WINDOW - 10)
        assert agent.peak_megabytes() < MOST_MEGABYTES
        mapped = agent.libraries()
    assert "onnxruntime" in mapped
    assert [name for name in FOREIGN if f"/{name}" in mapped] == []


def _payload(first: int, last: int) -> bytes:
    rows = normal_values(ROWS, seed=2)[first:last]
    return json.dumps(
        [
            {"time": START + first + row, **dict(zip(SENSORS, map(float, cells), strict=True))}
            for row, cells in enumerate(rows)
        ]
    ).encode()
