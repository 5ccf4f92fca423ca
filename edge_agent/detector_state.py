"""What the detector remembers of the assets, in arrays, and the record of what one call scored.

Of one call's samples the k-th of each asset goes in the k-th round, so that a round names no asset twice.
"""

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
from edge_agent.contract.scoring import ScoringState
from edge_agent.contract.signature import ReportedState
from edge_agent.contract.trailing import TrailingState
from edge_agent.contract.types import Bool, Float32, Int64, QualityEvent

_PARTS = ("scoring", "trailing", "alarms", "onsets", "quality", "budget", "drift", "maintenance", "reported")
STATE_VERSION = 4


@dataclass
class DetectorState:
    """Everything that is remembered of the assets, one row per asset.

    Attributes:
        last_tick: (A,) tick of the last sample, `UNSET` before the first.
        seen: (A,) samples since the last start or long gap.
        ring: (A, T, I) scaled inputs of the last T samples, newest at `cursor - 1`.
        cursor: (A,) next place in the ring.
        hidden: (A, S) packed state of the step graph.
        pending: (A, F) forecast of the next sample, scaled.
        off: (A,) whether the machine is off.
        settling: (A,) samples after its start that are still to have no score.
        scoring, trailing, alarms, onsets, quality, budget, drift, maintenance, reported: see there.
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

    @staticmethod
    def zero(assets: int, bundle: Bundle) -> "DetectorState":
        """Return the state of assets that have sent nothing."""
        manifest = bundle.manifest
        width = len(manifest.sensors)
        return DetectorState(
            np.full(assets, UNSET),
            np.zeros(assets, np.int64),
            np.zeros((assets, manifest.window_length, len(manifest.inputs)), np.float32),
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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by a flat name; writing into them changes the state."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        for part in _PARTS:
            inner = own.pop(part)
            own |= {f"{part}.{item.name}": getattr(inner, item.name) for item in fields(inner)}
        return own

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
                assets = len(arrays["last_tick"])
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as reason:
            raise BundleError(f"detector state: not readable ({reason})") from reason
        if version != STATE_VERSION:
            raise BundleError(f"detector state: version {version}, this program reads {STATE_VERSION}")
        state = DetectorState.zero(assets, bundle)
        for name, array in state.arrays().items():
            if arrays.get(name, np.empty(0)).shape != array.shape:
                raise BundleError(f"detector state: {name}: does not fit the bundle")
            array[...] = arrays[name]
        return state


@dataclass(frozen=True, slots=True)
class ScoredRound:
    """One sample of each of B assets, held against the forecast that was pending.

    Attributes:
        asset: (B,) row index of the asset, each named once.
        position: (B,) place of the sample among those of the call.
        present: (B, F) which cells count.
        scaled: (B, F) readings.
        pending: (B, F) what was forecast of them, scaled.
        averages: those of the assets with this sample in them, B rows.
    """

    asset: Int64
    position: Int64
    present: Bool
    scaled: Float32
    pending: Float32
    averages: ScoringState


@dataclass
class ScoredSamples:
    """What the forecast chain found in the n samples of one call, collected round by round and judged together.

    Attributes:
        forecast: (n, F) what was forecast of each sample, engineering units; NaN where it has no score.
        rounds: the samples that have a score.
        quality: data-quality events, in order.
        resting: positions of samples that have no score because the machine is off or settling.
        stopped: assets that went off and the ticks at which they did, each with how many rounds were scored before.
    """

    forecast: Float32
    rounds: list[ScoredRound] = field(default_factory=list)
    quality: list[QualityEvent] = field(default_factory=list)
    resting: list[Int64] = field(default_factory=list)
    stopped: list[tuple[int, Int64, Int64]] = field(default_factory=list)

    def position(self) -> Int64:
        """Return (m,) the positions of the samples that have a score, round by round, of which there is one."""
        return np.concatenate([one.position for one in self.rounds])

    def present(self) -> Bool:
        """Return (m, F) which of their cells count."""
        return np.concatenate([one.present for one in self.rounds])

    def averages(self) -> ScoringState:
        """Return their averages, m rows."""
        return ScoringState.concatenate([one.averages for one in self.rounds])
