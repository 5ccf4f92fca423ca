"""Samples in, outcomes out: the sensor gate, the forecast chain, the scorer and the alarms, state in arrays.

The gate masks what says nothing of the machine before anything else sees a sample. A sample is scored against the
forecast that was pending, then remembered, then the next forecast is made: a sample is never in the window that
forecasts it. This very object is what the trainer calibrates and evaluates. It knows no clock, network, metrics or log.
"""

import io
import json
import zipfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.alarms import AlarmState, Transitions, follow_alarms, forget_alarms
from edge_agent.contract.bundle import Bundle, read_bundle, read_golden
from edge_agent.contract.errors import BundleError
from edge_agent.contract.grid import UNSET, rounds_of
from edge_agent.contract.maintenance import MaintenanceState, in_maintenance
from edge_agent.contract.quality_state import QualityState
from edge_agent.contract.scoring import Scorer, ScoringState
from edge_agent.contract.sensor_gate import QualityRules, SensorGate
from edge_agent.contract.signature import ReportedState, changed, directions
from edge_agent.contract.threshold import CLEAR_RATIO
from edge_agent.contract.types import (
    AlarmEvent,
    Bool,
    Float32,
    Float64,
    Int64,
    Outcomes,
    QualityEvent,
    Samples,
    SensorShare,
)
from edge_agent.forecaster import Forecaster

STATE_VERSION = 3
GOLDEN_TOLERANCE = 1e-4
RECALL = 0.99
"""Of a dead sensor's forecast each sample: forgotten within hundreds of samples, as it has nothing to go by."""


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
        scoring, alarms, quality, maintenance, reported: see there.
    """

    last_tick: Int64
    seen: Int64
    ring: Float32
    cursor: Int64
    hidden: Float32
    pending: Float32
    scoring: ScoringState
    alarms: AlarmState
    quality: QualityState
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
            ScoringState.zero(assets, len(bundle.scoring.spans), width),
            AlarmState.zero(assets),
            QualityState.zero(assets, width),
            MaintenanceState.zero(assets),
            ReportedState.zero(assets, width),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array by a flat name; writing into them changes the state."""
        own = {item.name: getattr(self, item.name) for item in fields(self)}
        for part in ("scoring", "alarms", "quality", "maintenance", "reported"):
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


@dataclass
class _Block:
    """Scored samples of one call, collected round by round and judged together."""

    asset: list[Int64] = field(default_factory=list)
    position: list[Int64] = field(default_factory=list)
    present: list[Bool] = field(default_factory=list)
    scoring: list[ScoringState] = field(default_factory=list)
    scaled: list[Float32] = field(default_factory=list)
    forecast: list[Float32] = field(default_factory=list)
    quality: list[QualityEvent] = field(default_factory=list)


class Detector:
    """Scores samples of many assets with one bundle.

    Args:
        bundle: the model.
        forecaster: its graphs.
        rules: of the sensor gate.

    Raises:
        ConfigurationError: a rule names a sensor that the bundle does not have.
    """

    def __init__(self, bundle: Bundle, forecaster: Forecaster, rules: QualityRules | None = None) -> None:
        self.bundle = bundle
        self.forecaster = forecaster
        self.gate = SensorGate(bundle.manifest, rules)
        self.scorer = Scorer(bundle.scoring)
        self.state = DetectorState.zero(0, bundle)
        self._scaling = bundle.manifest.scaling
        self._sensor_count = len(bundle.manifest.sensors)
        # A history too short for a claim of rarity has not seen the sensors' whole range either: leaving it proves
        # nothing, except for a sensor that never moved.
        short = bundle.manifest.threshold.basis == "margin"
        self._guarded = self._scaling.constant | (not short)

    def ensure_assets(self, count: int) -> None:
        """Make room for `count` assets; room grows by at least a half, so that growing is rare."""
        have = len(self.state.last_tick)
        if count <= have:
            return
        grown = DetectorState.zero(max(count, have + have // 2), self.bundle)
        for name, array in grown.arrays().items():
            array[:have] = self.state.arrays()[name]
        self.state = grown

    def process(self, samples: Samples) -> Outcomes:
        """Score samples in order; the k-th sample of each asset goes in the k-th round."""
        block, forecast = self._run(samples)
        return self._judge(samples, block, forecast)

    def hear(self, assets: Int64, now: float) -> None:
        """Note that readings of some assets arrived at `now`, on the clock that `advance` is called with."""
        self.gate.hear(self.state.quality, assets, now)

    def advance(self, now: float) -> list[QualityEvent]:
        """Let time pass: report the assets of which nothing was heard for too long."""
        return self.gate.advance(self.state.quality, now)

    def maintain(self, assets: Int64, since: Float64, until: Float64) -> None:
        """Note that assets (B,) are worked on in [since, until) (B,), seconds since the epoch.

        In that time they are scored, raise no alarm, and teach nothing; an open alarm ends with the reason
        `maintenance`. Afterwards the averages start from zero.
        """
        self.state.maintenance.since[assets], self.state.maintenance.until[assets] = since, until

    def end_alarms(self, assets: Int64) -> None:
        """End the alarms of assets (B,) without an event: whoever asks for it says so."""
        forget_alarms(self.state.alarms, assets)

    def reset(self, assets: Int64) -> None:
        """Start everything of assets (B,) over, as after an overhaul: they warm up again, with no alarm open."""
        self.end_alarms(assets)
        self._start_over(assets)
        self.state.last_tick[assets] = UNSET
        self.state.quality.put(assets, QualityState.zero(len(assets), self._sensor_count))

    def accept_as_normal(self, assets: Int64) -> None:
        """Take the present level of assets (B,) as normal from now on; an open alarm ends without an event."""
        self.end_alarms(assets)
        self.state.scoring.put(assets, self.scorer.accept(self.state.scoring.take(assets)))

    def gated(self, samples: Samples) -> Samples:
        """Return the samples as the gate lets them through, without scoring them."""
        if not len(samples):
            return samples
        self.ensure_assets(int(samples.asset.max()) + 1)
        values = samples.values.copy()
        for chosen in rounds_of(samples.asset):
            asset, tick = samples.asset[chosen], samples.tick[chosen]
            values[chosen] = self.gate.check(self.state.quality, asset, tick, values[chosen]).values
        return Samples(samples.asset, samples.tick, values)

    def measure(self, samples: Samples) -> tuple[Float32, Float64]:
        """Run the forecasts and the statistics alone, as calibration needs them; alarms stay as they are.

        Returns:
            Forecasts (n, F) in engineering units and statistics (n, 2S + 1) before they are divided by their
            normalisers; NaN while warming up.
        """
        block, forecast = self._run(samples)
        statistics = np.full((len(samples), len(self.bundle.scoring.normalisers)), np.nan)
        if block.asset:
            position = np.concatenate(block.position)
            statistics[position] = self.scorer.statistics(_join(block.scoring), np.concatenate(block.present))
        return forecast, statistics

    def _run(self, samples: Samples) -> tuple[_Block, Float32]:
        if len(samples):
            self.ensure_assets(int(samples.asset.max()) + 1)
        block = _Block()
        forecast = np.full((len(samples), self._sensor_count), np.nan, np.float32)
        for chosen in rounds_of(samples.asset) if len(samples) else []:
            self._observe(
                samples.asset[chosen], samples.tick[chosen], samples.values[chosen], chosen, block, forecast
            )
        return block, forecast

    def _observe(
        self,
        asset: Int64,
        tick: Int64,
        values: Float32,
        position: Int64,
        block: _Block,
        forecast: Float32,
    ) -> None:
        """Score one sample of each asset against the pending forecast, remember it, forecast the next."""
        state, manifest = self.state, self.bundle.manifest
        passed = self.gate.check(state.quality, asset, tick, values)
        block.quality += passed.events
        self._restart_after_gaps(asset, tick)
        scaled = self._scaling.apply(passed.values)
        present = np.isfinite(scaled)
        warm = state.seen[asset] >= manifest.warmup_ticks
        self._leave_maintenance(asset, tick)
        if warm.any():
            self._follow(asset[warm], scaled[warm], present[warm], position[warm], block)
            forecast[position[warm]] = self._scaling.invert(state.pending[asset[warm]])
        if passed.fed is not passed.values:
            scaled = self._scaling.apply(passed.fed)
            present = np.isfinite(scaled)
        self._remember(asset, self._filled(asset, scaled, present), present)
        state.last_tick[asset] = tick

    def _filled(self, asset: Int64, scaled: Float32, present: Bool) -> Float32:
        """Return the inputs with missing cells filled by the forecast, which for a dead sensor is held back.

        Fed with its own forecasts for long, a slow sensor's runs away, and those of the others with it.
        """
        if present.all():
            return scaled
        pending, model = self.state.pending[asset], self.scorer.model
        dead = self.state.quality.reason[asset] > 0
        held = np.clip(RECALL * pending, model.low, model.high)
        return np.where(present, scaled, np.where(dead, held, pending)).astype(np.float32)

    def _follow(self, asset: Int64, scaled: Float32, present: Bool, position: Int64, block: _Block) -> None:
        pending = self.state.pending[asset]
        level = scaled.astype(np.float64)
        before = self.state.scoring.take(asset)
        followed = self.scorer.follow(before, level - pending, level, present)
        taught = ~self.state.maintenance.last[asset]
        if not taught.all():
            followed.bias = np.where(taught[:, None, None], followed.bias, before.bias)
        self.state.scoring.put(asset, followed)
        block.asset.append(asset)
        block.position.append(position)
        block.present.append(present)
        block.scoring.append(followed)
        block.scaled.append(scaled)
        block.forecast.append(pending)

    def _leave_maintenance(self, asset: Int64, tick: Int64) -> None:
        """Note whether samples are in maintenance; the averages of assets that just left it start from zero."""
        maintenance = self.state.maintenance
        if not np.isfinite(maintenance.until[asset]).any():
            return
        now = in_maintenance(maintenance, asset, self.bundle.manifest.axis.time_of(tick))
        left = asset[maintenance.last[asset] & ~now]
        maintenance.last[asset] = now
        if len(left):
            fresh = ScoringState.zero(len(left), len(self.bundle.scoring.spans), self._sensor_count)
            fresh.bias = self.state.scoring.bias[left]
            self.state.scoring.put(left, fresh)

    def _restart_after_gaps(self, asset: Int64, tick: Int64) -> None:
        """Start over after a gap that is too long.

        Ticks of a shorter one are no samples: nothing arrived, nothing is remembered. Feeding them with forecasts of
        forecasts was measured to forecast worse (docs/decisions/0002).
        """
        last = self.state.last_tick[asset]
        known = last != UNSET
        gap = np.where(known, tick - np.where(known, last, tick) - 1, 0)
        lost = asset[gap > self.bundle.manifest.max_gap_ticks]
        if len(lost):
            self._start_over(lost)

    def _start_over(self, asset: Int64) -> None:
        state = self.state
        for array in (state.seen, state.ring, state.cursor, state.hidden, state.pending):
            array[asset] = 0
        empty = ScoringState.zero(len(asset), len(self.bundle.scoring.spans), self._sensor_count)
        state.scoring.put(asset, empty)

    def _remember(self, asset: Int64, filled: Float32, present: Bool) -> None:
        """Put inputs into the ring, advance the forecaster and keep its next forecast."""
        state, manifest = self.state, self.bundle.manifest
        inputs = np.concatenate([filled, (~present).astype(np.float32)], axis=1)
        state.ring[asset, state.cursor[asset]] = inputs
        state.cursor[asset] = (state.cursor[asset] + 1) % manifest.window_length
        state.seen[asset] += 1
        if self.forecaster.inference == "step":
            ahead, state.hidden[asset] = self.forecaster.step(inputs, state.hidden[asset])
        else:
            ahead = self._forecast_window(asset)
        state.pending[asset] = ahead[:, 0, :, 0]

    def _forecast_window(self, asset: Int64) -> Float32:
        """Forecast from the ring; assets whose ring is not full yet keep a zero forecast."""
        state, length = self.state, self.bundle.manifest.window_length
        ahead = np.zeros((len(asset), 1, self._sensor_count, 1), np.float32)
        full = state.seen[asset] >= length
        if full.any():
            order = (state.cursor[asset[full], None] + np.arange(length)) % length
            ahead[full] = self.forecaster.window(state.ring[asset[full, None], order])[:, :1]
        return ahead

    def _judge(self, samples: Samples, block: _Block, forecast: Float32) -> Outcomes:
        """Turn collected averages into scores at once, then follow the alarms round by round."""
        count = len(samples)
        statistic, score = np.full(count, np.nan), np.full(count, np.nan)
        time = self.bundle.manifest.axis.time_of(samples.tick)
        alarm = np.zeros(count, np.bool_)
        events: list[AlarmEvent] = []
        if block.asset:
            threshold = self.bundle.manifest.threshold
            together = _join(block.scoring)
            present = np.concatenate(block.present)
            position = np.concatenate(block.position)
            statistic[position] = self.scorer.fuse(self.scorer.statistics(together, present))
            guard = self.scorer.guard(together, self._guarded)
            statistic[position] = np.maximum(statistic[position], guard * threshold.value)
            score[position] = threshold.score(statistic[position])
            offset = 0
            for number, rows in enumerate(block.asset):
                at = block.position[number]
                heeded = score[at], statistic[at]
                held = in_maintenance(self.state.maintenance, rows, time[at])
                if held.any():
                    events += self._end_for_maintenance(held, block, number, time[at], score[at])
                    heeded = np.where(held, 0.0, score[at]), np.where(held, 0.0, statistic[at])
                happened = self._follow_alarms(rows, time[at], *heeded)
                happened = self._tell_of_changes(happened, rows, together, offset, score[at])
                offset += len(rows)
                alarm[at] = self.state.alarms.active[rows]
                if happened.any():
                    events += self._events(happened, block, number, time[at], score[at])
        unscored = ~np.isfinite(score)
        alarm[unscored] = self.state.alarms.active[samples.asset[unscored]]
        return Outcomes(
            samples.asset, samples.tick, time, score, statistic, alarm, forecast, events, block.quality
        )

    def _follow_alarms(self, rows: Int64, time: Float64, score: Float64, statistic: Float64) -> Transitions:
        manifest = self.bundle.manifest
        quiet = statistic < CLEAR_RATIO * manifest.threshold.value
        return follow_alarms(self.state.alarms, rows, time, score, quiet, manifest.alarm_rules)

    def _end_for_maintenance(
        self, held: Bool, block: _Block, number: int, time: Float64, score: Float64
    ) -> list[AlarmEvent]:
        """End the alarms that are open in maintenance; the events say why."""
        rows, none = block.asset[number], np.zeros(len(held), np.bool_)
        ended = held & self.state.alarms.active[rows]
        events = self._events(Transitions(none, none, ended), block, number, time, score)
        self.end_alarms(rows[ended])
        return [replace(event, end_reason="maintenance") for event in events]

    def _tell_of_changes(
        self, happened: Transitions, rows: Int64, together: ScoringState, offset: int, score: Float64
    ) -> Transitions:
        """Add an update for each open alarm that became much stronger than, or turned away from, what was told last."""
        open_now = self.state.alarms.active[rows]
        if not open_now.any():
            return happened
        active = np.flatnonzero(open_now)
        toward = directions(self.scorer, together.take(offset + active))
        told = (happened.started | happened.updated)[active]
        news = changed(self.state.reported, rows[active], toward, score[active], told)
        updated = happened.updated.copy()
        updated[active[news & ~told]] = True
        return replace(happened, updated=updated)

    def _events(
        self, happened: Transitions, block: _Block, number: int, time: Float64, score: Float64
    ) -> list[AlarmEvent]:
        events = []
        for kind, which in (
            ("end", happened.ended),
            ("start", happened.started),
            ("update", happened.updated),
        ):
            for at in np.flatnonzero(which):
                sensors = self._blame(block, number, int(at))
                event = self._event(
                    kind, int(block.asset[number][at]), float(time[at]), float(score[at]), sensors
                )
                toward = directions(self.scorer, block.scoring[number].take(np.array([at])))[0]
                events.append(replace(event, signature=tuple(toward.tolist())))
        return events

    def _event(
        self, kind: str, asset: int, time: float, score: float, sensors: tuple[SensorShare, ...]
    ) -> AlarmEvent:
        alarms = self.state.alarms
        return AlarmEvent(
            kind=kind,
            alarm_number=int(alarms.number[asset]),
            asset=asset,
            time=time,
            onset_time=float(alarms.onset_time[asset]),
            start_time=float(alarms.start_time[asset]),
            severity="critical" if alarms.critical[asset] else "warning",
            score=score,
            peak_score=float(alarms.peak_score[asset]),
            peak_time=float(alarms.peak_time[asset]),
            score_basis=self.bundle.manifest.threshold.basis,
            sensors=sensors,
        )

    def _blame(self, block: _Block, number: int, at: int) -> tuple[SensorShare, ...]:
        """Return every sensor's share of the score, largest first, in engineering units."""
        one = block.scoring[number].take(np.array([at]))
        present = block.present[number][at : at + 1]
        shares = self.scorer.shares(one, present)[0]
        expected = self._expected(one, block.forecast[number][at], present[0])
        actual = self._scaling.invert(block.scaled[number][at])
        trend = one.level[0, -1] - one.level[0, min(2, one.level.shape[1] - 2)]
        return tuple(
            self._share(int(i), float(shares[i]), float(actual[i]), float(expected[i]), float(trend[i]))
            for i in np.argsort(-shares, kind="stable")
        )

    def _expected(self, one: ScoringState, forecast: Float32, present: Bool) -> Float32:
        """Return (F,) what should have been read, engineering units.

        The forecast speaks for a sudden change; for a lasting one, which a forecaster follows, the other sensors do.
        """
        sudden = np.abs(one.residual[0, 0]) >= np.abs(one.residual[0, :-1]).max(axis=0) - 1e-12
        lasting = np.abs(one.level[0, -1]) > np.abs(one.residual[0, 0])
        others = self.scorer.expected_level(one)[0].astype(np.float32)
        return self._scaling.invert(np.where(lasting | ~sudden, others, forecast))

    def _share(self, index: int, share: float, actual: float, expected: float, trend: float) -> SensorShare:
        sensor = self.bundle.manifest.sensors[index]
        missing = not np.isfinite(actual)
        direction = "missing" if missing else "above" if actual >= expected else "below"
        moving = "rising" if trend > 0.25 else "falling" if trend < -0.25 else "steady"
        return SensorShare(
            sensor.name, sensor.unit, share, None if missing else actual, expected, direction, moving
        )


def _join(states: list[ScoringState]) -> ScoringState:
    return ScoringState(
        np.concatenate([state.residual for state in states]),
        np.concatenate([state.level for state in states]),
        np.concatenate([state.excess for state in states]),
        np.concatenate([state.bias for state in states]),
    )


def open_detector(bundle: Bundle, inference: str | None = None, provider: str = "cpu") -> Detector:
    """Return a detector on a bundle that is in memory, without running its golden samples."""
    manifest = bundle.manifest
    mode = inference or manifest.inference
    return Detector(bundle, Forecaster(bundle.directory, mode, manifest.state_size, provider))


def load_detector(
    directory: Path,
    inference: str | None = None,
    provider: str = "cpu",
    rules: QualityRules | None = None,
) -> Detector:
    """Read a bundle, hold it against its hashes, run its golden samples, and return its detector.

    Args:
        directory: the bundle.
        inference: `step` or `window`; None takes the mode it was calibrated in.
        provider: see `edge_agent.forecaster.OnnxGraph`.
        rules: of the sensor gate; the golden samples are run without them.

    Raises:
        BundleError: the bundle is damaged or does not give what its golden samples say.
        ConfigurationError: a rule names a sensor that the bundle does not have.
    """
    bundle = read_bundle(directory)
    detector = open_detector(bundle, inference, provider)
    check_golden(detector)
    return Detector(bundle, detector.forecaster, rules)


def check_golden(detector: Detector) -> None:
    """Run the golden samples and compare.

    Raises:
        BundleError: a forecast or statistic differs by more than 1e-4 (window mode: forecasts only by the mode's own).
    """
    bundle = detector.bundle
    golden = read_golden(bundle)
    mode = detector.forecaster.inference
    outcomes = detector.process(golden_samples(golden["values"]))
    scale = bundle.manifest.scaling.scale
    for name, found in (("forecast", outcomes.forecast / scale), ("statistic", outcomes.statistic)):
        expected = golden[f"{mode}_{name}"]
        expected = expected / scale if name == "forecast" else expected
        difference = np.abs(found - expected)
        same_nan = np.array_equal(np.isnan(found), np.isnan(expected))
        if not same_nan or np.nanmax(difference, initial=0.0) > GOLDEN_TOLERANCE * max(
            1.0, float(np.nanmax(np.abs(expected), initial=0.0))
        ):
            raise BundleError(f"{bundle.directory}: golden.npz: {mode} {name} is not reproduced")


def golden_samples(values: Float32) -> Samples:
    """Return golden values (n, F) as samples of one asset from tick 0."""
    return Samples(np.zeros(len(values), np.int64), np.arange(len(values)), values)
