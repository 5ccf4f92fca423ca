"""The bundle: a released model in one directory, written by one function and read by one function.

`manifest.json` is the contract record, `scoring.npz` holds the matrices of the scoring model, the graphs stand beside
them, and `golden.npz` holds inputs with what they must give. The manifest names the SHA-256 of every other file.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import AlarmRules
from edge_agent.contract.contradiction import ContradictionModel
from edge_agent.contract.drift import DriftModel
from edge_agent.contract.errors import BundleError
from edge_agent.contract.fusion import Fusion
from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.off_condition import OffCondition, broken_off_condition
from edge_agent.contract.scaling import Scaling
from edge_agent.contract.scoring_model import ASPECTS, ScoringModel
from edge_agent.contract.shape_novelty import WINDOW, ShapeModel
from edge_agent.contract.tail import Tail
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.trailing import BLOCKS, LEAST_BLOCK, POLICIES
from edge_agent.contract.variance import VarianceModel

CONTRACT_VERSION = 2
MANIFEST = "manifest.json"
SCORING = "scoring.npz"
GOLDEN = "golden.npz"
_ENDINGS = {"onnx": "onnx", "litert": "tflite"}
RUNTIMES = tuple(_ENDINGS)
PRECISIONS = ("float32", "int8")


def graph_file(inference: str, runtime: str = "onnx", precision: str = "float32") -> str:
    """Return the name of a graph in a bundle, such as `step.onnx` or `window.int8.tflite`.

    Args:
        inference: `step`, `window` or `chunk`.
        runtime: one of `RUNTIMES`.
        precision: one of `PRECISIONS`.
    """
    return f"{inference}{'' if precision == 'float32' else f'.{precision}'}.{_ENDINGS[runtime]}"


CHUNK = graph_file("chunk")
"""Many steps in one run. Where a bundle has none, as its architecture has no such form, steps are run one by one."""


@dataclass(frozen=True)
class SensorSpec:
    """One sensor: its name, unit, the range seen in training, its scaling, and how its readings behave.

    The last seven come from the whole history; 0 is unknown and switches the check off that needs it.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    centre: float
    scale: float
    constant: bool = False
    longest_hold: int = 0
    """Equal readings in a row, at most; see `frozen.py`."""
    longest_hold_low: int = 0
    """Those at the minimum."""
    longest_hold_high: int = 0
    """Those at the maximum."""
    longest_absence: int = 0
    """Samples in a row without a reading, at most; see `stale.py`."""
    largest_step: float = 0.0
    """Between two readings, single spikes taken out; see `unit_jump.py`."""
    usual_step: float = 0.0
    """Between two readings, the median; see `unit_jump.py`."""
    usual_spike: float = 0.0
    """How far readings stand out and return, twice within 100 readings, at most; see `spike.py`."""


@dataclass(frozen=True)
class Manifest:
    """The contract record of a bundle.

    Attributes:
        name, version: of the bundle.
        asset_class: what kind of machine it is for.
        sensors: in the order of the model's inputs; live data is matched by name.
        unused: names that live data may have beside them, as the history had, and that are passed over.
        sampling_interval_seconds, phase_seconds: the grid.
        window_length: T, ticks.
        horizons: ticks ahead, ascending; scoring uses the first.
        inputs: in order, each `sensor:NAME`, `missing:NAME`, `exogenous:NAME` or `calendar:NAME`, see `inputs.py`.
        head: what the outputs mean: `point`, `gaussian`, `quantile` or `softmax`; the first number of each sensor is
            the forecast that is scored.
        architecture: facts on the network, for people; `parameters` names the numbers of each sensor, `step_form` is
            false where only windows can be run.
        state_size: width of the step graph's packed state.
        inference: the mode it was calibrated in, `step` or `window`.
        runtime, precision: of the graph that it was calibrated with, see `graph_file`.
        warmup_ticks: samples before the first score.
        max_gap_ticks: a longer gap starts over.
        adaptation: what is usual of late, one of `trailing.POLICIES`.
        block_rows: samples of a block of what is usual of late.
        threshold: the alarm threshold.
        alarm_rules: when alarms open and close.
        off_condition: when the machine is off and has no score; None where it always has.
        drift: batches of normal operation, by which drift is judged; None where the history was too short.
        time_zone: whose clock the calendar inputs follow.
        trained: training range, rows, fingerprint of the data, versions.
        metrics: on held-out data.
        parity: largest deviation of each graph from the trained model, scaled units.
        sizes: bytes of each graph.
        files: SHA-256 of every other file, by name.
        contract_version: of this record.
    """

    name: str
    version: str
    asset_class: str
    sensors: tuple[SensorSpec, ...]
    sampling_interval_seconds: float
    phase_seconds: float
    window_length: int
    horizons: tuple[int, ...]
    inputs: tuple[str, ...]
    head: str
    architecture: dict[str, Any]
    state_size: int
    inference: str
    warmup_ticks: int
    max_gap_ticks: int
    threshold: Threshold
    runtime: str = "onnx"
    precision: str = "float32"
    adaptation: str = "frozen"
    block_rows: int = LEAST_BLOCK
    alarm_rules: AlarmRules = field(default_factory=AlarmRules)
    off_condition: OffCondition | None = None
    drift: DriftModel | None = None
    unused: tuple[str, ...] = ()
    time_zone: str = "UTC"
    trained: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    parity: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    contract_version: int = CONTRACT_VERSION

    @property
    def axis(self) -> Axis:
        """Return the model's time axis."""
        return Axis(self.sampling_interval_seconds, self.phase_seconds)

    @property
    def scaling(self) -> Scaling:
        """Return the sensors' scaling as arrays."""
        sensors = self.sensors
        return Scaling(
            centre=np.array([sensor.centre for sensor in sensors], np.float64),
            scale=np.array([sensor.scale for sensor in sensors], np.float64),
            minimum=np.array([sensor.minimum for sensor in sensors], np.float64),
            maximum=np.array([sensor.maximum for sensor in sensors], np.float64),
            constant=np.array([sensor.constant for sensor in sensors], np.bool_),
        )

    @property
    def sensor_names(self) -> tuple[str, ...]:
        """Return the sensors' names in order."""
        return tuple(sensor.name for sensor in self.sensors)

    @property
    def layout(self) -> InputLayout:
        """Return what the forecaster reads; sensors that are exogenous are neither forecast nor scored.

        Raises:
            ValueError: `inputs` are not what this program lays out.
        """
        try:
            return InputLayout.read(self.inputs, self.sensor_names, self.axis, self.time_zone)
        except ValueError as error:
            raise ValueError(f"inputs: {error}") from error


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: the record, the scoring model, and where its graphs are."""

    directory: Path
    manifest: Manifest
    scoring: ScoringModel
    sha256: str = ""
    """SHA-256 of the manifest, which names the hashes of all other files."""


def write_bundle(bundle: Bundle, golden: dict[str, np.ndarray[Any, Any]]) -> Bundle:
    """Complete the directory, in which the graphs already stand, and return the bundle with its hashes.

    The manifest is written last and renamed into place: a directory without one is not a bundle.
    """
    directory = bundle.directory
    np.savez(directory / SCORING, **_scoring_arrays(bundle.scoring))
    np.savez(directory / GOLDEN, **golden)  # type: ignore[arg-type]  # numpy types **kwds as the allow_pickle flag
    files = {
        path.name: _sha256(path)
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }
    record = asdict(bundle.manifest) | {"files": files}
    text = json.dumps(record, indent=1, allow_nan=False)
    draft = directory / f".{MANIFEST}"
    draft.write_text(text, encoding="utf-8")
    draft.replace(directory / MANIFEST)
    return read_bundle(directory)


def read_bundle(directory: Path) -> Bundle:
    """Read a bundle and hold every file against its hash.

    Raises:
        BundleError: the directory is no bundle, of another contract version, incomplete or damaged.
    """
    path = directory / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as reason:
        raise BundleError(f"{path}: no bundle there ({reason.strerror})") from reason
    manifest = _parse(path, text)
    for name, expected in manifest.files.items():
        held = directory / name
        if Path(name).name != name or not held.is_file():
            raise BundleError(f"{held}: the manifest names this file, and it is missing")
        if _sha256(held) != expected:
            raise BundleError(
                f"{held}: SHA-256 differs from the manifest's; the file is damaged or was changed"
            )
    # Not every bundle has chunks, but one that lies there would be run: it must be held against a hash too.
    chunk = (CHUNK,) if (directory / CHUNK).exists() else ()
    graph = graph_file(manifest.inference, manifest.runtime, manifest.precision)
    for name in (SCORING, GOLDEN, graph, *chunk):
        if name not in manifest.files:
            raise BundleError(f"{path}: files: {name} must be listed")
    return Bundle(directory, manifest, _read_scoring(directory, manifest), hashlib.sha256(text).hexdigest())


def read_golden(bundle: Bundle) -> dict[str, np.ndarray[Any, Any]]:
    """Return the golden arrays: `values`, `forecast`, `statistic` of one asset's first samples."""
    with np.load(bundle.directory / GOLDEN, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _parse(path: Path, text: bytes) -> Manifest:
    try:
        record = json.loads(text)
        version = record["contract_version"]
    except (ValueError, KeyError, TypeError) as reason:
        raise BundleError(f"{path}: contract_version: not a manifest ({reason})") from reason
    if version != CONTRACT_VERSION:
        raise BundleError(f"{path}: contract_version: is {version}, this program reads {CONTRACT_VERSION}")
    if not isinstance(record.get("files"), dict):
        raise BundleError(f"{path}: files: must give the SHA-256 of every file by its name")
    try:
        limits = record["threshold"]
        tail = limits["tail"]
        if tail is not None:
            tail = Tail(**tail | {"levels": tuple(tail["levels"]), "rates": tuple(tail["rates"])})
        drift = record.get("drift")
        if drift is not None:
            drift = DriftModel(**drift | {key: tuple(drift[key]) for key in ("centre", "scale")})
        manifest = Manifest(
            **record
            | {
                "off_condition": _off_condition(record),
                "sensors": tuple(SensorSpec(**sensor) for sensor in record["sensors"]),
                "horizons": tuple(record["horizons"]),
                "inputs": tuple(record["inputs"]),
                "unused": tuple(record.get("unused", ())),
                "threshold": Threshold(**limits | {"tail": tail}),
                "alarm_rules": changed_rules(
                    AlarmRules(), record["alarm_rules"], [sensor["name"] for sensor in record["sensors"]]
                ),
                "drift": drift,
            }
        )
        _check(manifest)
    except (KeyError, TypeError, ValueError) as reason:
        raise BundleError(f"{path}: the record breaks the contract ({reason})") from reason
    return manifest


def _off_condition(record: dict[str, Any]) -> OffCondition | None:
    written = record.get("off_condition")
    if written is None:
        return None
    condition = OffCondition(**written)
    broken = broken_off_condition(condition)
    if broken is None and condition.sensor not in [sensor["name"] for sensor in record["sensors"]]:
        broken = f"names {condition.sensor!r}, which is no sensor of the bundle"
    if broken is not None:
        raise ValueError(f"off_condition: {broken}")
    return condition


def _check(manifest: Manifest) -> None:
    """Raise ValueError if a field, which people may have edited, could not be worked with."""
    threshold = manifest.threshold
    parts: list[Any] = [manifest, *manifest.sensors, threshold]
    for part in parts if threshold.tail is None else [*parts, threshold.tail]:
        for item in fields(part):
            _check_type(item.name, item.type, getattr(part, item.name))
    for name, value in (
        ("sampling_interval_seconds", manifest.sampling_interval_seconds),
        ("window_length", manifest.window_length),
        ("state_size", manifest.state_size),
        ("sensors", len(manifest.sensors)),
        ("scale", min((sensor.scale for sensor in manifest.sensors), default=1.0)),
        ("value", threshold.value),
        ("alarms_per_week", threshold.alarms_per_week),
        ("block_rows", manifest.block_rows),
        ("max_gap_ticks + 1", manifest.max_gap_ticks + 1),
    ):
        if value <= 0:
            raise ValueError(f"{name}: must be above 0")
    _ = manifest.layout
    for name, chosen, known in (
        ("adaptation", manifest.adaptation, POLICIES),
        ("inference", manifest.inference, ("step", "window")),
        ("runtime", manifest.runtime, RUNTIMES),
        ("precision", manifest.precision, PRECISIONS),
    ):
        if chosen not in known:
            raise ValueError(f"{name}: must be one of {', '.join(known)}")
    if manifest.drift is not None:
        _check_drift(manifest.drift, len(manifest.sensors))


def _check_drift(drift: DriftModel, sensors: int) -> None:
    if not (
        isinstance(drift.batch_ticks, int) and isinstance(drift.least_samples, int) and drift.batch_ticks > 0
    ):
        raise ValueError("drift.batch_ticks: must be a whole number above 0")
    for name, values in (("centre", drift.centre), ("scale", drift.scale)):
        for value in values:
            _check_type(f"drift.{name}", float, value)
        if len(values) != 2 * sensors or (name == "scale" and min(values) <= 0):
            raise ValueError(f"drift.{name}: must be two numbers for each sensor, scales above 0")


def _check_type(name: str, wanted: Any, value: Any) -> None:
    """Raise ValueError unless a plain field holds what it is declared to hold."""
    if wanted is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{name}: must be a number")
    if wanted is float and not math.isfinite(value):
        raise ValueError(f"{name}: must be finite")
    if wanted is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{name}: must be a whole number")
    if wanted in (str, bool) and not isinstance(value, wanted):
        raise ValueError(f"{name}: must be {'text' if wanted is str else 'true or false'}")


_ARRAYS = (
    "residual_centre", "residual_scale", "residual_correlation", "level_centre", "level_scale",
    "level_correlation", "centres", "low", "high", "judged", "normalisers", "recent",
)  # fmt: skip


def _scoring_arrays(model: ScoringModel) -> dict[str, Any]:
    return {name: getattr(model, name) for name in _ARRAYS} | {
        "spans": np.asarray(model.spans),
        "fusion": np.asarray(json.dumps(asdict(model.fusion))),
        **{f"shapes.{item.name}": getattr(model.shapes, item.name) for item in fields(ShapeModel)},
        **{f"variance.{item.name}": getattr(model.variance, item.name) for item in fields(VarianceModel)},
        "contradiction.usual": model.contradiction.usual,
        "contradiction.balance": np.asarray(model.contradiction.balance),
    }


def _read_scoring(directory: Path, manifest: Manifest) -> ScoringModel:
    path = directory / SCORING
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _ARRAYS}
            spans = tuple(int(span) for span in stored["spans"])
            fusion = Fusion(**json.loads(str(stored["fusion"]))) if "fusion" in stored.files else Fusion()
            shapes = ShapeModel(
                **{name: stored[f"shapes.{name}"] for name in ("sensors", "references", "scale")},
                # Before windows could keep their means, none did.
                absolute=stored["shapes.absolute"]
                if "shapes.absolute" in stored.files
                else np.zeros(len(stored["shapes.sensors"]), np.bool_),
            )
            # Before contradictions were judged, there was nothing usual of them either.
            contradiction = ContradictionModel.none()
            if "contradiction.usual" in stored.files:
                contradiction = ContradictionModel(
                    stored["contradiction.usual"], float(stored["contradiction.balance"])
                )
            else:
                arrays["normalisers"] = np.insert(arrays["normalisers"], 2 * len(spans), 1.0)
                arrays["recent"] = np.insert(arrays["recent"], ASPECTS - 1, 1.0, axis=1)
            squares = [int(span) for span in stored["variance.spans"]]
            variance = VarianceModel(
                (squares[0], squares[1]), stored["variance.centre"], stored["variance.scale"]
            )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as reason:
        raise BundleError(f"{path}: not a scoring model ({reason})") from reason
    width = len(manifest.sensors)
    if arrays["level_centre"].shape != (width,) or not all(
        math.isfinite(float(np.sum(array)))
        for array in (*arrays.values(), shapes.references, variance.centre)
    ):
        raise BundleError(f"{path}: must hold finite arrays for {width} sensors")
    known = len(shapes.sensors)
    if shapes.references.shape[::2] != (known, WINDOW) or {shapes.scale.shape, shapes.absolute.shape} != {
        (known,)
    }:
        raise BundleError(
            f"{path}: shapes: must hold windows of {WINDOW} samples for each sensor that it names"
        )
    if arrays["recent"].shape[1:] != (ASPECTS,) or len(arrays["recent"]) > BLOCKS:
        raise BundleError(f"{path}: recent: must hold at most {BLOCKS} maxima of {ASPECTS} aspects")
    if (
        variance.centre.shape != (2, width)
        or variance.scale.shape != (2, width)
        or variance.scale.min() <= 0.0
    ):
        raise BundleError(f"{path}: variance: must hold two centres, and scales above 0, for {width} sensors")
    usual = contradiction.usual
    if contradiction and not (
        usual.shape == (width,) and np.all(usual > 0.0) and 0.0 < contradiction.balance < math.inf
    ):
        raise BundleError(
            f"{path}: contradiction: must hold a usual one above 0 for {width} sensors, and a balance"
        )
    return ScoringModel(
        spans=spans, fusion=fusion, shapes=shapes, variance=variance, contradiction=contradiction, **arrays
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
