"""Histories through the sensor gate alone: a manifest from normal rows, and what the gate makes of others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from edge_agent.contract.bundle import Manifest, SensorSpec
from edge_agent.contract.grid import Axis
from edge_agent.contract.inputs import InputLayout
from edge_agent.contract.quality_state import QualityState
from edge_agent.contract.scaling import fit_scaling
from edge_agent.contract.sensor_gate import SensorGate
from edge_agent.contract.threshold import Threshold
from edge_agent.contract.types import Float32, Int64, QualityEvent
from trainer.habits import sensor_habits


def manifest_of(
    names: Sequence[str], units: Sequence[str], normal: Sequence[Float32], interval: float = 1.0
) -> Manifest:
    """Return a manifest that knows the sensors from normal tables (n, F), one of each asset."""
    scaling = fit_scaling(np.concatenate(normal))
    habits = sensor_habits(normal)
    layout = InputLayout(names, (), (), Axis(interval))
    sensors = tuple(
        SensorSpec(
            name, unit, float(scaling.minimum[i]), float(scaling.maximum[i]), float(scaling.centre[i]),
            float(scaling.scale[i]), bool(scaling.constant[i]), **asdict(habits[i]),
        )
        for i, (name, unit) in enumerate(zip(names, units, strict=True))
    )  # fmt: skip
    return Manifest(
        name="gate", version="1", asset_class="test", sensors=sensors, sampling_interval_seconds=interval,
        phase_seconds=0.0, window_length=8, horizons=(1,), inputs=layout.names, head="point", architecture={},
        state_size=1, inference="step", warmup_ticks=8, max_gap_ticks=10,
        threshold=Threshold("margin", 1.0, 1.0, 1.0),
    )  # fmt: skip


@dataclass(frozen=True)
class Gated:
    """What came out of the gate: tables (n, A, F) of evidence and fed, events in order, the counts, the state."""

    values: Float32
    fed: Float32
    events: list[QualityEvent]
    found: dict[str, int]
    state: QualityState

    def facts(self, asset: int = 0) -> list[tuple[str, float, list[tuple[str | None, str]]]]:
        """Return phase, time and (sensor, reason) of each event of one asset."""
        return [
            (event.phase, event.time, [(one.name, one.reason) for one in event.sensors])
            for event in self.events
            if event.asset == asset
        ]


def run_gate(
    gate: SensorGate, values: Float32, ticks: Int64 | None = None, watch: bool = False, size: int = 1
) -> Gated:
    """Run tables (n, A, F) of A assets side by side through the gate.

    Args:
        gate: its counts are added to.
        values: row k holds the k-th sample of each asset.
        ticks: (n,) of the rows; 0, 1, 2… by default.
        watch: look at every sample with all checks, whether there is a reason or not.
        size: rows of one call.
    """
    state = QualityState.zero(values.shape[1], values.shape[2])
    assets = np.arange(values.shape[1])
    masked, fed = values.copy(), values.copy()
    events: list[QualityEvent] = []
    ticks = np.arange(len(values)) if ticks is None else ticks
    for first in range(0, len(values), size):
        part = slice(first, first + size)
        if watch:
            state.watched[:] = True
        tick = np.tile(ticks[part], (len(assets), 1))
        passed = gate.check(state, assets, tick, values[part].swapaxes(0, 1))
        masked[part], fed[part] = passed.values.swapaxes(0, 1), passed.fed.swapaxes(0, 1)
        events += [event for _, _, event in sorted(passed.events, key=lambda one: one[1])]
    return Gated(masked, fed, events, dict(gate.found), state)
