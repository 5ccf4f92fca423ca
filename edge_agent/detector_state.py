"""What the detector remembers of the assets, in arrays, and the records of what one call scored."""

import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.alarms import AlarmState
from edge_agent.contract.budget_controller import BudgetState
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.drift import DriftState
from edge_agent.contract.errors import BundleError
from edge_agent.contract.grid import UNSET
from edge_agent.contract.maintenance import MaintenanceState
from edge_agent.contract.onset import OnsetState
from edge_agent.contract.quality_state import QualityState
from edge_agent.contract.scoring_state import Averages, ScoringState
from edge_agent.contract.signature import ReportedState
from edge_agent.contract.trailing import TrailingState
from edge_agent.contract.types import Bool, Float32, Int64, Places, QualityEvent
from edge_agent.device_state import DeviceState
from edge_agent.forecaster import ResidentGraphs

_PARTS = ("scoring", "trailing", "alarms", "onsets", "quality", "budget", "drift", "maintenance", "reported")
STATE_VERSION = 7


@dataclass
class DetectorState:
    """Everything that is remembered of the assets, one row per asset.

    Attributes:
        last_tick: (A,) tick of the last sample, `UNSET` before the first.
        seen: (A,) samples since the last start or long gap.
        ring: (A, T, I) scaled inputs of the last T samples, the oldest at `cursor`; (A, 0, I) for the step, which
            needs none.
        cursor: (A,) next place in the ring.
        hidden: (A, S) packed state of the step graph; (A, 0) while it lies on a device.
        pending: (A, F) forecast of the next sample, scaled.
        off: (A,) whether the machine is off.
        settling: (A,) samples after its start that are still to have no score.
        scoring, trailing, alarms, onsets, quality, budget, drift, maintenance, reported: see there.
        device: the packed state where a device keeps it; None while it is `hidden`.
    """

    last_tick: Int64
    seen: Int64
    ring: Float32
    cursor: Int64
    hidden: Float32
    pending: Float32
    off: Bool
    settling: Int64
    scoring: ScoringState
    trailing: TrailingState
    alarms: AlarmState
    onsets: OnsetState
    quality: QualityState
    budget: BudgetState
    drift: DriftState
    maintenance: MaintenanceState
    reported: ReportedState
    device: DeviceState | None = None

    @staticmethod
    def zero(assets: int, bundle: Bundle, inference: str | None = None) -> "DetectorState":
        """Return the state of assets that have sent nothing, in the bundle's mode of inference or another."""
        manifest = bundle.manifest
        remembered = manifest.window_length if (inference or manifest.inference) == "window" else 0
        width = len(manifest.sensors)
        return DetectorState(
            np.full(assets, UNSET),
            np.zeros(assets, np.int64),
            np.zeros((assets, remembered, len(manifest.inputs)), np.float32),
            np.zeros(assets, np.int64),
            np.zeros((assets, manifest.state_size), np.float32),
            np.zeros((assets, width), np.float32),
            np.zeros(assets, np.bool_),
            np.zeros(assets, np.int64),
            ScoringState.zero(assets, bundle.scoring),
            TrailingState.start(assets, bundle.scoring.recent, bundle.scoring.least),
            AlarmState.zero(assets),
            OnsetState.zero(assets),
            QualityState.zero(assets, width),
            BudgetState.zero(assets),
            DriftState.zero(assets, width),
            MaintenanceState.zero(assets),
            ReportedState.zero(assets, width),
        )

    def on_device(self, graphs: ResidentGraphs) -> DeviceState:
        """Return the packed state on the device, moved there unless it is there already."""
        if self.device is None:
            self.device = DeviceState(graphs, self.hidden)
            self.hidden = np.zeros((len(self.hidden), 0), np.float32)
        return self.device

    def forget_hidden(self, asset: Int64) -> None:
        """Let the packed state of assets (B,) be zero, wherever it lies."""
        if self.device is None:
            self.hidden[asset] = 0
        else:
            self.device.forget(asset)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by a flat name; writing into them changes the state.

        What lies on a device comes back first, and goes there again when it is next advanced.
        """
        self._come_home()
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "device"}
        for part in _PARTS:
            inner = own.pop(part)
            own |= {f"{part}.{item.name}": getattr(inner, item.name) for item in fields(inner)}
        return own

    def append(self, more: "DetectorState") -> None:
        """Put the rows of another state behind these, array by array: two copies of all would be the peak of memory."""
        self._come_home()
        for name, array in more.arrays().items():
            part, _, field_name = name.rpartition(".")
            owner = getattr(self, part) if part else self
            setattr(owner, field_name, np.concatenate([getattr(owner, field_name), array]))

    def _come_home(self) -> None:
        if self.device is not None:
            self.hidden, self.device = self.device.to_host(), None

    def to_bytes(self) -> bytes:
        """Return the state as bytes that `from_bytes` of the same version reads."""
        stream = io.BytesIO()
        header = np.frombuffer(json.dumps({"version": STATE_VERSION}).encode(), np.uint8)
        np.savez(stream, header=header, **self.arrays())  # type: ignore[arg-type]  # see bundle.py
        return stream.getvalue()

    @staticmethod
    def from_bytes(stored: bytes, bundle: Bundle) -> "DetectorState":
        """Read a state back.

        Raises:
            BundleError: the bytes are of another version or do not fit the bundle.
        """
        try:
            with np.load(io.BytesIO(stored), allow_pickle=False) as archive:
                version = json.loads(archive["header"].tobytes())["version"]
                arrays = {name: archive[name] for name in archive.files if name != "header"}
                assets, inference = len(arrays["last_tick"]), "window" if arrays["ring"].shape[1] else "step"
        except (ValueError, KeyError, TypeError, IndexError, EOFError, OSError, zipfile.BadZipFile) as reason:
            raise BundleError(f"detector state: not readable ({reason})") from reason
        if version != STATE_VERSION:
            raise BundleError(f"detector state: version {version}, this program reads {STATE_VERSION}")
        state = DetectorState.zero(assets, bundle, inference)
        for name, array in state.arrays().items():
            if arrays.get(name, np.empty(0)).shape != array.shape:
                raise BundleError(f"detector state: {name}: does not fit the bundle")
            array[...] = arrays[name]
        return state


@dataclass(frozen=True, slots=True)
class ScoredTile:
    """L samples of each of B assets, held against the forecasts that were pending; n = B x L rows asset by asset.

    Attributes:
        rows: (B,) row indices of the assets, each named once.
        position: (B, L) places of the samples among those of the call.
        tick: (B, L).
        held: (B,) which assets are in maintenance; None is none.
        present: (n, F) which cells count; None is all.
        scaled: (n, F) readings.
        pending: (n, F) what was forecast of them, scaled.
        averages: with these samples in them, n rows.
    """

    rows: Places
    position: Int64
    tick: Int64
    held: Bool | None
    present: Bool | None
    scaled: Float32
    pending: Float32
    averages: Averages


@dataclass(frozen=True, slots=True)
class Stopped:
    """Assets (b,) that went off, the ticks and the positions of the samples that say so."""

    asset: Int64
    tick: Int64
    position: Int64


@dataclass
class Followed:
    """What the forecast chain says of the n samples of one call, beside those that have a score.

    Attributes:
        forecast: (n, F) what was forecast of each sample, engineering units; NaN where it has no score.
        off: (n,) which samples have no score because the machine is off or settling.
        quality: data-quality events, each with the position of its sample.
    """

    forecast: Float32
    off: Bool
    quality: list[tuple[int, QualityEvent]] = field(default_factory=list)

    @staticmethod
    def open(samples: int, sensors: int) -> "Followed":
        """Return that nothing has a score yet."""
        return Followed(np.full((samples, sensors), np.nan, np.float32), np.zeros(samples, np.bool_))
