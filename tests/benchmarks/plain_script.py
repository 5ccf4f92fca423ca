"""The script that everybody writes first, to stand beside the daemon: keep a window, forecast, compare, warn.

It scores each sample against the forecast from the window before it, with a window of one through the model each
time: on ONNX Runtime, with `keras.predict`, or with a `tf.function` that XLA compiled. Beside these River's
HalfSpaceTrees, an online detector without a network. None has a grid, a quality gate, statistics over time, an alarm
state or metrics. Each gets one thread and does not spin.
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

from edge_agent.bench.daemon import resident_megabytes
from edge_agent.contract.bundle import Manifest, read_bundle
from edge_agent.contract.types import Float32
from tests.benchmarks.payloads import PREFIX

_WARN_AT = 6.0
# Of HalfSpaceTrees: scores are between 0 and 1.
_STRANGE = 0.999
Predict = Callable[[Float32], Float32]
Score = Callable[[str, Float32], bool]
"""Asset and values (F,) of a sample → whether to warn."""


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

    def warns(self, asset: str, values: Float32) -> bool:
        """Return whether a sample (F,) is far from its forecast."""
        return self.score(asset, values) > _WARN_AT


class HalfSpaces:
    """River's HalfSpaceTrees, one model an asset as its manual has it: score a sample, then learn from it.

    Args:
        manifest: names and ranges of the sensors, which are the limits that the trees want.
    """

    def __init__(self, manifest: Manifest) -> None:
        # Only `make bench` installs it.
        from river.anomaly import HalfSpaceTrees

        self._make = HalfSpaceTrees
        self._names = manifest.sensor_names
        self._limits = {sensor.name: (sensor.minimum, sensor.maximum) for sensor in manifest.sensors}
        self._models: dict[str, Any] = {}

    def warns(self, asset: str, values: Float32) -> bool:
        """Return whether a sample (F,) is strange."""
        model = self._models.get(asset)
        if model is None:
            model = self._models[asset] = self._make(limits=self._limits, seed=0)
        sample = dict(zip(self._names, values.tolist(), strict=True))
        score: float = model.score_one(sample)
        model.learn_one(sample)
        return score > _STRANGE


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


def keras_predict(model: Any) -> Predict:
    """Return what the manual shows first: `model.predict`."""

    def predict(window: Float32) -> Float32:
        forecast: Float32 = model.predict(window, verbose=0)
        return forecast

    return predict


def xla_function(model: Any) -> Predict:
    """Return the model as a `tf.function` that XLA compiles for windows of one shape."""
    import tensorflow as tf

    compiled = tf.function(lambda window: model(window, training=False), jit_compile=True)

    def predict(window: Float32) -> Float32:
        forecast: Float32 = compiled(tf.constant(window)).numpy()
        return forecast

    return predict


SCRIPTS = ("onnx", "keras", "xla", "river")


def make_script(name: str, bundle: Path, weights: Path | None = None) -> Score:
    """Return one of the scripts, its model loaded, compiled and run once.

    Args:
        name: one of `SCRIPTS`.
        bundle: directory.
        weights: of the same model, for those that run in Keras.
    """
    manifest = read_bundle(bundle).manifest
    if name == "river":
        return HalfSpaces(manifest).warns
    if name == "onnx":
        predict = onnx_window(bundle)
    else:
        # Keras takes ten seconds to import, which the others need not wait.
        from trainer.model import ForecasterWeights
        from trainer.network import build_window_model

        assert weights is not None
        model = build_window_model(ForecasterWeights.load(weights))
        predict = {"keras": keras_predict, "xla": xla_function}[name](model)
    predict(np.zeros((1, manifest.window_length, len(manifest.inputs)), np.float32))
    return PlainScript(manifest, predict).warns


class _Subscriber:
    """Scores what arrives, and says what the samples after the first `skip` cost."""

    def __init__(self, sensors: tuple[str, ...], score: Score, skip: int, samples: int) -> None:
        self._sensors = sensors
        self._score = score
        self._skip, self._last = skip, skip + samples
        self._arrived = 0
        self._warned = 0
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
            if self._score(asset, values):
                self._warned += 1
                client.publish("script/warning", asset)
        if self._arrived >= self._last:
            client.disconnect()

    def report(self) -> dict[str, float]:
        """Return the samples scored, the CPU time of them, warnings in all and the peak memory."""
        return {
            "samples": self._arrived - self._skip,
            "cpu_seconds": time.process_time() - self._begun,
            "warned": self._warned,
            "peak_megabytes": resident_megabytes(field="VmHWM"),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Say `ready` once subscribed, score the promised samples, print the report as JSON and end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--skip", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    options = parser.parse_args(arguments)
    sensors = read_bundle(options.bundle).manifest.sensor_names
    score = make_script(options.script, options.bundle, options.weights)
    subscriber = _Subscriber(sensors, score, options.skip, options.samples)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_rest: client.subscribe(f"{PREFIX}/+", 0)
    client.on_subscribe = lambda *_arguments: print("ready", flush=True)
    client.on_message = subscriber.on_message
    client.connect("127.0.0.1", options.port, keepalive=3600)
    client.loop_forever()
    print(json.dumps(subscriber.report()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
