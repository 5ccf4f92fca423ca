"""Samples in, outcomes out: the sensor gate, the forecast chain, the scorer and the alarms, state in arrays.

The gate masks what says nothing of the machine before anything else sees a sample. A sample is scored against the
forecast that was pending, then remembered, then the next forecast is made: a sample is never in the window that
forecasts it. This very object is what the trainer calibrates and evaluates. It knows no clock, network, metrics or log.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import (
    CLEARED,
    HELD_BACK,
    OFF,
    AlarmRules,
    AlarmState,
    Permit,
    Transitions,
    follow_alarms,
    forget_alarms,
    stop_alarms,
)
from edge_agent.contract.budget_controller import BudgetController, BudgetState
from edge_agent.contract.bundle import Bundle, read_bundle, read_golden
from edge_agent.contract.drift import LIMIT, DriftState, DriftWatch
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.grid import UNSET, rounds_of
from edge_agent.contract.maintenance import MaintenanceState, in_maintenance
from edge_agent.contract.minimum_deviation import MinimumDeviation
from edge_agent.contract.onset import OnsetState, follow_onsets
from edge_agent.contract.quality_state import QualityState, is_dead
from edge_agent.contract.scoring import ASPECTS, Scorer, ScoringState
from edge_agent.contract.sensor_gate import QualityRules, SensorGate
from edge_agent.contract.signature import ReportedState, changed, directions
from edge_agent.contract.threshold import CLEAR_RATIO, ONSET_RATIO
from edge_agent.contract.trailing import TrailingState, follow_blocks
from edge_agent.contract.types import (
    AlarmEvent,
    Bool,
    DriftEvent,
    Float32,
    Float64,
    Int64,
    Outcomes,
    QualityEvent,
    Samples,
    SensorDrift,
    SensorShare,
)
from edge_agent.forecaster import Forecaster

_PARTS = ("scoring", "trailing", "alarms", "onsets", "quality", "budget", "drift", "maintenance", "reported")
STATE_VERSION = 4
GOLDEN_TOLERANCE = 1e-4
RESUMING = 10
"""Samples without a score after a gap that starts over."""
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
    resting: list[Int64] = field(default_factory=list)
    """Positions of samples that have no score because the machine is off or settling."""
    stopped: list[tuple[int, Int64, Int64]] = field(default_factory=list)
    """Assets that went off and the ticks at which they did, each with how many rounds were scored before."""
    advice: list[DriftEvent] = field(default_factory=list)


class Detector:
    """Scores samples of many assets with one bundle.

    Args:
        bundle: the model.
        forecaster: its graphs.
        rules: of the sensor gate.
        alarm_rules: None takes those of the bundle.
        adaptive: whether the threshold follows the realised alarm rate, see `budget_controller.py`.

    Raises:
        ConfigurationError: a rule names a sensor that the bundle does not have.
    """

    def __init__(
        self,
        bundle: Bundle,
        forecaster: Forecaster,
        rules: QualityRules | None = None,
        alarm_rules: AlarmRules | None = None,
        adaptive: bool = True,
    ) -> None:
        self.bundle = bundle
        self.alarm_rules = bundle.manifest.alarm_rules if alarm_rules is None else alarm_rules
        self.held_back: Counter[str] = Counter(dict.fromkeys(HELD_BACK, 0))
        """How many excursions did not become an alarm at once, by the rule that held them back."""
        self._deviation = (
            MinimumDeviation(bundle.manifest.sensor_names, self.alarm_rules.sensors)
            if self.alarm_rules.sensors
            else None
        )
        self.forecaster = forecaster
        self._off = bundle.manifest.off_condition
        self._off_sensor = bundle.manifest.sensor_names.index(self._off.sensor) if self._off else -1
        self.gate = SensorGate(bundle.manifest, rules)
        self.scorer = Scorer(bundle.scoring)
        self.state = DetectorState.zero(0, bundle)
        self._scaling = bundle.manifest.scaling
        self._sensor_count = len(bundle.manifest.sensors)
        self._adapts = bundle.manifest.adaptation != "frozen"
        # A history too short for a claim of rarity has not seen the sensors' whole range either: leaving it proves
        # nothing, except for a sensor that never moved.
        short = bundle.manifest.threshold.basis == "margin"
        self._guarded = self._scaling.constant | (not short)
        budget = bundle.manifest.threshold.alarms_per_week
        interval = bundle.manifest.sampling_interval_seconds
        self._controller = BudgetController(budget, interval) if adaptive else None
        drift = bundle.manifest.drift
        self._drift = None if drift is None else DriftWatch(drift, bundle.scoring)

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

    def forgive(self, assets: Int64) -> None:
        """Take back what the last alarm of assets (B,), a true fault, did to their thresholds."""
        if self._controller is not None:
            self._controller.forgive(self.state.budget, assets)

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
        self._forget_drift(assets)

    def accept_as_normal(self, assets: Int64) -> None:
        """Take the present level of assets (B,) as normal from now on; an open alarm ends without an event."""
        self.end_alarms(assets)
        self.state.scoring.put(assets, self.scorer.accept(self.state.scoring.take(assets)))
        self._forget_drift(assets)

    def _forget_drift(self, assets: Int64) -> None:
        fresh = DriftState.zero(len(assets), self._sensor_count)
        for item in fields(fresh):
            getattr(self.state.drift, item.name)[assets] = getattr(fresh, item.name)

    def gated(self, samples: Samples) -> Samples:
        """Return the samples as the gate lets them through, without scoring them; NaN while the machine is off."""
        if not len(samples):
            return samples
        self.ensure_assets(int(samples.asset.max()) + 1)
        values = samples.values.copy()
        for chosen in rounds_of(samples.asset):
            asset, tick = samples.asset[chosen], samples.tick[chosen]
            passed = self.gate.check(self.state.quality, asset, tick, values[chosen]).values
            resting = self._follow_off(asset, passed)[0]
            values[chosen] = passed if resting is None else np.where(resting[:, None], np.nan, passed)
        return Samples(samples.asset, samples.tick, values)

    def measure(self, samples: Samples) -> tuple[Float32, Float64]:
        """Run the forecasts and the statistics alone, as calibration needs them; alarms stay as they are.

        Returns:
            Forecasts (n, F) in engineering units and statistics (n, 2S + 2) before they are divided by their
            normalisers; NaN while warming up.
        """
        block, forecast = self._run(samples)
        statistics = np.full((len(samples), len(self.bundle.scoring.normalisers)), np.nan)
        if block.asset:
            position = np.concatenate(block.position)
            statistics[position] = self.scorer.statistics(
                ScoringState.concatenate(block.scoring), np.concatenate(block.present)
            )
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
        resumed = self._restart_after_gaps(asset, tick)
        scaled = self._scaling.apply(passed.values)
        present = np.isfinite(scaled)
        warm = state.seen[asset] >= manifest.warmup_ticks
        resting = self._rest(asset, tick, passed.values, position, block)
        if resting is not None:
            self._forget_averages(asset[resting])
            warm &= ~resting
        self._leave_maintenance(asset, tick)
        if warm.any():
            self._follow(asset[warm], scaled[warm], present[warm], position[warm], block)
            forecast[position[warm]] = self._scaling.invert(state.pending[asset[warm]])
        if passed.fed is not passed.values:
            scaled = self._scaling.apply(passed.fed)
            present = np.isfinite(scaled)
        inputs = np.concatenate([self._filled(asset, scaled, present), (~present).astype(np.float32)], axis=1)
        if resumed.any():
            self._prime(asset[resumed], inputs[resumed])
        self._remember(asset, inputs)
        state.last_tick[asset] = tick

    def _filled(self, asset: Int64, scaled: Float32, present: Bool) -> Float32:
        """Return the inputs with missing cells filled by the forecast, which for a dead sensor is held back.

        Fed with its own forecasts for long, a slow sensor's runs away, and those of the others with it.
        """
        if present.all():
            return scaled
        pending, model = self.state.pending[asset], self.scorer.model
        dead = is_dead(self.state.quality.reason[asset])
        held = np.clip(RECALL * pending, model.low, model.high)
        return np.where(present, scaled, np.where(dead, held, pending)).astype(np.float32)

    def _follow_off(self, asset: Int64, values: Float32) -> tuple[Bool | None, Int64]:
        """Return (B,) whether each sample is to have no score, and the places of those that just went off."""
        if self._off is None:
            return None, np.empty(0, np.int64)
        state = self.state
        before = state.off[asset]
        state.off[asset], state.settling[asset], resting = self._off.follow(
            before, state.settling[asset], values[:, self._off_sensor]
        )
        return resting, np.flatnonzero(state.off[asset] & ~before)

    def _rest(
        self, asset: Int64, tick: Int64, values: Float32, position: Int64, block: _Block
    ) -> Bool | None:
        """Return (B,) which samples have no score because the machine is off or settling, None where none has."""
        resting, gone = self._follow_off(asset, values)
        if resting is None or not resting.any():
            return None
        block.resting.append(position[resting])
        if len(gone):
            block.stopped.append((len(block.asset), asset[gone], tick[gone]))
        return resting

    def _forget_averages(self, asset: Int64) -> None:
        """Let the averages begin anew when the machine has settled; the slow drift of its levels stays known.

        The forecaster is fed all the time: it has learnt stops, and is ready at the start (docs/decisions/0004).
        """
        empty = ScoringState.zero(len(asset), self.bundle.scoring)
        self.state.scoring.put(asset, replace(empty, bias=self.state.scoring.bias[asset]))

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
            fresh = ScoringState.zero(len(left), self.bundle.scoring)
            fresh.bias = self.state.scoring.bias[left]
            self.state.scoring.put(left, fresh)

    def _restart_after_gaps(self, asset: Int64, tick: Int64) -> Bool:
        """Start over after a gap that is too long, and return (B,) which assets did.

        Ticks of a shorter one are no samples: nothing arrived, nothing is remembered. Feeding them with forecasts of
        forecasts was measured to forecast worse (docs/decisions/0002).
        """
        last = self.state.last_tick[asset]
        known = last != UNSET
        gap = np.where(known, tick - np.where(known, last, tick) - 1, 0)
        lost = gap > self.bundle.manifest.max_gap_ticks
        if lost.any():
            self._start_over(asset[lost])
        return lost

    def _prime(self, asset: Int64, inputs: Float32) -> None:
        """Let the forecaster believe that what it reads after a gap has been so for a window.

        Then only a few samples go by without a score, not a whole warm-up; `RESUMING` of them, in which the forecast
        finds what moves.
        """
        manifest = self.bundle.manifest
        for _ in range(manifest.window_length):
            self._remember(asset, inputs)
        self.state.seen[asset] = max(manifest.warmup_ticks - RESUMING, 0)

    def _start_over(self, asset: Int64) -> None:
        state = self.state
        for array in (state.seen, state.ring, state.cursor, state.hidden, state.pending):
            array[asset] = 0
        empty = ScoringState.zero(len(asset), self.bundle.scoring)
        state.scoring.put(asset, empty)

    def _remember(self, asset: Int64, inputs: Float32) -> None:
        """Put inputs (B, I) into the ring, advance the forecaster and keep its next forecast."""
        state, manifest = self.state, self.bundle.manifest
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
        factor, drift, sudden = (np.full(count, np.nan) for _ in range(3))
        onset = np.zeros(count, np.bool_)
        events: list[AlarmEvent] = []
        if block.asset:
            threshold = self.bundle.manifest.threshold
            together = ScoringState.concatenate(block.scoring)
            present = np.concatenate(block.present)
            position = np.concatenate(block.position)
            guard = self.scorer.guard(together, self._guarded)
            aspects = np.full((count, ASPECTS), np.nan)
            statistics = self.scorer.statistics(together, present)
            aspects[position] = self.scorer.aspects(statistics, guard)
            sudden[position] = self.scorer.sudden(statistics)
            if not self._adapts:
                statistic = self._against_usual(aspects, np.ones(ASPECTS))
                score = threshold.score(statistic)
            offset = 0
            for number, rows in enumerate(block.asset):
                events += self._stop_alarms(block, number)
                at = block.position[number]
                factor[at] = self._factor(rows)
                if self._adapts:
                    statistic[at] = self._against_usual(aspects[at], self.state.trailing.normaliser[rows])
                if self._adapts or (factor[at] != 1.0).any():
                    score[at] = threshold.score(statistic[at] / factor[at])
                heeded = score[at], statistic[at]
                held = in_maintenance(self.state.maintenance, rows, time[at])
                if held.any():
                    events += self._end_for_maintenance(held, block, number, time[at], score[at])
                    heeded = np.where(held, 0.0, score[at]), np.where(held, 0.0, statistic[at])
                happened = self._follow_alarms(block, number, time[at], *heeded)
                onset[at] = follow_onsets(self.state.onsets, rows, sudden[at], happened.started)
                happened = self._tell_of_changes(happened, rows, together, offset, score[at], onset[at])
                offset += len(rows)
                alarm[at] = self.state.alarms.active[rows]
                if self._adapts:
                    self._learn_usual(rows, aspects[at], held)
                self._follow_drift(block, number, samples.tick[at], time[at])
                drift[at] = self.state.drift.drift(rows)
                if happened.any():
                    events += self._events(happened, block, number, time[at], score[at], onset[at])
        events += self._stop_alarms(block, len(block.asset))
        off = np.zeros(count, np.bool_)
        off[np.concatenate([*block.resting, np.empty(0, np.int64)])] = True
        unscored = ~np.isfinite(score) & ~off
        alarm[unscored] = self.state.alarms.active[samples.asset[unscored]]
        return Outcomes(
            samples.asset, samples.tick, time, score, statistic, alarm, forecast, events, block.quality,
            off=None if self._off is None else off,
            advice=block.advice,
            factor=None if self._controller is None else factor,
            drift=None if self._drift is None else drift,
            onset=onset,
        )  # fmt: skip

    def _against_usual(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the fused statistic (n,) of aspects (n, 3) over what is usual of late; NaN where there is none."""
        fused = self.scorer.fuse(aspects, normaliser)
        guard = self.scorer.news(aspects, normaliser) * self.bundle.manifest.threshold.value
        return np.where(np.isnan(aspects[:, 0]), np.nan, np.maximum(fused, guard))

    def _learn_usual(self, rows: Int64, aspects: Float64, held: Bool) -> None:
        """Take samples into what is usual of late; none in maintenance, in an alarm only if the operator wants that."""
        manifest = self.bundle.manifest
        learn = ~held & ((manifest.adaptation == "automatic") | ~self.state.alarms.active[rows])
        known = np.nan_to_num(aspects, nan=0.0)
        follow_blocks(self.state.trailing, rows, known, learn, manifest.block_rows, self.bundle.scoring.least)

    def _stop_alarms(self, block: _Block, scored: int) -> list[AlarmEvent]:
        """End the alarms of assets that went off after `scored` rounds; a machine that is off names no sensors."""
        events = []
        while block.stopped and block.stopped[0][0] <= scored:
            _, assets, ticks = block.stopped.pop(0)
            stopped = stop_alarms(self.state.alarms, assets)
            times = self.bundle.manifest.axis.time_of(ticks[np.isin(assets, stopped)])
            for asset, time in zip(stopped.tolist(), times.tolist(), strict=True):
                events.append(replace(self._event("end", asset, time, np.nan, ()), end_reason=OFF))
        return events

    def _follow_alarms(
        self, block: _Block, number: int, time: Float64, score: Float64, statistic: Float64
    ) -> Transitions:
        manifest = self.bundle.manifest
        rows = block.asset[number]
        value = manifest.threshold.value * self._factor(rows)
        quiet, calm = statistic < CLEAR_RATIO * value, statistic < ONSET_RATIO * value
        happened = follow_alarms(
            self.state.alarms, rows, time, score, quiet, self.alarm_rules,
            manifest.sampling_interval_seconds, calm, self._permit(block, number),
        )  # fmt: skip
        if self._controller is not None:
            resting = quiet & ~self.state.alarms.active[rows]
            self._controller.follow(self.state.budget, rows, time, happened.started, resting)
            ratio = statistic / manifest.threshold.value
            self._controller.let_pass(self.state.budget, rows, self.state.alarms.active[rows], ratio)
        for reason, which in zip(HELD_BACK, (happened.cooled, happened.slight), strict=True):
            self.held_back[reason] += int(np.count_nonzero(which))
        return happened

    def _permit(self, block: _Block, number: int) -> Permit | None:
        """Return what says whether sensors deviate enough for an alarm; None where no sensor has a rule."""
        deviation = self._deviation
        if deviation is None:
            return None

        def permit(at: Int64) -> Bool:
            averages, present = block.scoring[number].take(at), block.present[number][at]
            actual = self._scaling.invert(block.scaled[number][at])
            expected = self._expected(averages, block.forecast[number][at])
            return deviation.enough(self.scorer.shares(averages, present), actual, expected)

        return permit

    def _factor(self, rows: Int64) -> Float64:
        """Return (B,) what the threshold of assets is multiplied by."""
        if self._controller is None:
            return np.ones(len(rows))
        return self._controller.factor(self.state.budget, rows)

    def _follow_drift(self, block: _Block, number: int, tick: Int64, time: Float64) -> None:
        """Follow the drift of the assets of one round that are not in alarm."""
        rows = block.asset[number]
        free = np.flatnonzero(~self.state.alarms.active[rows])
        if self._drift is None or not len(free):
            return
        level = block.scaled[number][free].astype(np.float64)
        residual = level - block.forecast[number][free]
        advised = self._drift.follow(
            self.state.drift, rows[free], tick[free], time[free], level, residual, block.present[number][free]
        )
        for asset in advised.tolist():
            block.advice.append(self._advice(asset, float(self.state.drift.advised_time[asset])))

    def _advice(self, asset: int, time: float) -> DriftEvent:
        state, sensors = self.state.drift, self.bundle.manifest.sensors
        drifts = state.average[asset] / LIMIT
        order = np.argsort(-np.abs(drifts), kind="stable")
        far = [int(place) for place in order if abs(drifts[place]) >= 1.0]
        named = tuple(
            SensorDrift(
                sensors[place % len(sensors)].name,
                sensors[place % len(sensors)].unit,
                "level" if place < len(sensors) else "forecast",
                float(abs(drifts[place])),
                "above" if drifts[place] > 0 else "below",
            )
            for place in far
        )
        drift = float(np.abs(drifts).max())
        return DriftEvent(asset, time, float(state.since[asset]), drift, named)

    def _end_for_maintenance(
        self, held: Bool, block: _Block, number: int, time: Float64, score: Float64
    ) -> list[AlarmEvent]:
        """End the alarms that are open in maintenance; the events say why."""
        rows, none = block.asset[number], np.zeros(len(held), np.bool_)
        ended = held & self.state.alarms.active[rows]
        happened = Transitions(none, none, ended, none, none, none)
        events = self._events(happened, block, number, time, score, none)
        self.end_alarms(rows[ended])
        return [replace(event, end_reason="maintenance") for event in events]

    def _tell_of_changes(
        self,
        happened: Transitions,
        rows: Int64,
        together: ScoringState,
        offset: int,
        score: Float64,
        onset: Bool,
    ) -> Transitions:
        """Add an update for each open alarm that became much stronger, turned away, or has an onset of its own."""
        open_now = self.state.alarms.active[rows]
        if not open_now.any():
            return happened
        active = np.flatnonzero(open_now)
        toward = directions(self.scorer, together.take(offset + active))
        told = (happened.started | happened.updated)[active]
        news = changed(self.state.reported, rows[active], toward, score[active], told)
        updated = happened.updated.copy()
        updated[active[(news | onset[active]) & ~told]] = True
        return replace(happened, updated=updated)

    def _events(
        self, happened: Transitions, block: _Block, number: int, time: Float64, score: Float64, onset: Bool
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
                events.append(
                    replace(
                        event,
                        signature=tuple(toward.tolist()),
                        end_reason=CLEARED if kind == "end" else None,
                        reopened=bool(happened.reopened[at]),
                        renewed=kind == "update" and bool(onset[at]),
                    )
                )
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
        expected = self._expected(one, block.forecast[number][at : at + 1])[0]
        actual = self._scaling.invert(block.scaled[number][at])
        trend = one.level[0, -1] - one.level[0, min(2, one.level.shape[1] - 2)]
        return tuple(
            self._share(int(i), float(shares[i]), float(actual[i]), float(expected[i]), float(trend[i]))
            for i in np.argsort(-shares, kind="stable")
        )

    def _expected(self, averages: ScoringState, forecast: Float32) -> Float32:
        """Return (n, F) what should have been read, engineering units.

        The forecast speaks for a sudden change; for a lasting one, which a forecaster follows, the other sensors do.
        """
        latest = np.abs(averages.residual[:, 0])
        sudden = latest >= np.abs(averages.residual[:, :-1]).max(axis=1) - 1e-12
        lasting = np.abs(averages.level[:, -1]) > latest
        others = self.scorer.expected_level(averages).astype(np.float32)
        return self._scaling.invert(np.where(lasting | ~sudden, others, forecast))

    def _share(self, index: int, share: float, actual: float, expected: float, trend: float) -> SensorShare:
        sensor = self.bundle.manifest.sensors[index]
        missing = not np.isfinite(actual)
        direction = "missing" if missing else "above" if actual >= expected else "below"
        moving = "rising" if trend > 0.25 else "falling" if trend < -0.25 else "steady"
        return SensorShare(
            sensor.name, sensor.unit, share, None if missing else actual, expected, direction, moving
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
    alarms: Mapping[str, Any] | None = None,
    adaptive: bool = True,
) -> Detector:
    """Read a bundle, hold it against its hashes, run its golden samples, and return its detector.

    Args:
        directory: the bundle.
        inference: `step` or `window`; None takes the mode it was calibrated in.
        provider: see `edge_agent.forecaster.OnnxGraph`.
        rules: of the sensor gate; the golden samples are run without them.
        alarms: what differs from the bundle's alarm rules, see `changed_rules`.
        adaptive: see `Detector`.

    Raises:
        BundleError: the bundle is damaged or does not give what its golden samples say.
        ConfigurationError: a rule names a sensor that the bundle does not have, or does not go with the bundle's.
    """
    bundle = read_bundle(directory)
    detector = open_detector(bundle, inference, provider)
    check_golden(detector)
    manifest = bundle.manifest
    try:
        alarm_rules = changed_rules(manifest.alarm_rules, alarms or {}, manifest.sensor_names)
    except ValueError as error:
        raise ConfigurationError(f"alarms.{error}") from error
    return Detector(bundle, detector.forecaster, rules, alarm_rules, adaptive)


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
