"""The script that everybody writes first, to stand beside the daemon: keep a window, forecast, compare, warn.

It scores each sample against the forecast from the window before it, with a window of one through the model each
time. It has no grid, no quality gate, no statistics over time, no alarm state and no metrics.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.bundle import Manifest, read_bundle
from edge_agent.contract.types import Float32
from tests.benchmarks.agent_process import peak_megabytes

_WARN_AT = 6.0
Predict = Callable[[Float32], Float32]


class PlainScript:
    """Scores one sample at a time.

    Args:
        manifest: names, scales and the length of the window.
        predict: (1, T, I) scaled windows → forecast with F numbers.
    """

    def __init__(self, manifest: Manifest, predict: Predict) -> None:
        self._predict = predict
        self._centre = manifest.scaling.centre.astype(np.float32)
        self._scale = manifest.scaling.scale.astype(np.float32)
        self._length = manifest.window_length
        self._width = len(manifest.inputs)
        self._windows: dict[str, Float32] = {}
        self._seen: dict[str, int] = {}

    def score(self, asset: str, values: Float32) -> float:
        """Return the largest deviation of values (F,) from the forecast; NaN until the window is full."""
        scaled = (values - self._centre) / self._scale
        window = self._windows.setdefault(asset, np.zeros((self._length, self._width), np.float32))
        seen = self._seen.get(asset, 0)
        worst = np.nan
        if seen >= self._length:
            worst = float(np.abs(scaled - self._predict(window[None]).ravel()).max())
        # The other half of the inputs is the mask of what is missing: nothing is.
        window[:-1] = window[1:]
        window[-1, : len(scaled)] = scaled
        self._seen[asset] = seen + 1
        return worst


def onnx_window(directory: Path) -> Predict:
    """Return the bundle's window graph on ONNX Runtime, with one thread and no spinning as the daemon has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        str(directory / "window.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def predict(window: Float32) -> Float32:
        forecast: Float32 = session.run(["forecast"], {"window": window})[0]
        return forecast

    return predict


class _Subscriber:
    """Scores what arrives, and says what the samples after the first `skip` cost."""

    def __init__(self, bundle: Path, skip: int, samples: int) -> None:
        manifest = read_bundle(bundle).manifest
        self._sensors = manifest.sensor_names
        self._script = PlainScript(manifest, onnx_window(bundle))
        self._skip, self._last = skip, skip + samples
        self._arrived = 0
        self._begun = 0.0

    def on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        """Decode one message and score its samples."""
        asset = message.topic.rpartition("/")[2]
        content = json.loads(message.payload)
        for item in content if isinstance(content, list) else [content]:
            if self._arrived == self._skip:
                self._begun = time.process_time()
            self._arrived += 1
            values = np.array([item[name] for name in self._sensors], np.float32)
            if self._script.score(asset, values) > _WARN_AT:
                client.publish("script/warning", asset)
        if self._arrived >= self._last:
            client.disconnect()

    def report(self) -> dict[str, float]:
        """Return the samples scored, the CPU time of them and the peak memory."""
        return {
            "samples": self._arrived - self._skip,
            "cpu_seconds": time.process_time() - self._begun,
            "peak_megabytes": peak_megabytes(),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Say `ready` once subscribed, score the promised samples, print the report as JSON and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--skip", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    options = parser.parse_args(arguments)
    subscriber = _Subscriber(options.bundle, options.skip, options.samples)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_rest: client.subscribe("plant/+", 0)
    client.on_subscribe = lambda *_arguments: print("ready", flush=True)
    client.on_message = subscriber.on_message
    client.connect("127.0.0.1", options.port)
    client.loop_forever()
    print(json.dumps(subscriber.report()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
