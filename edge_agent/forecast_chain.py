"""The forecast chain: gate, off-condition, score averages, remember, forecast next.

The gate masks what says nothing of the machine before anything else sees a sample. A sample is held against the
forecast that was pending, then remembered, then the next forecast is made: a sample is never in the window that
forecasts it.
"""

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.grid import UNSET, rounds_of
from edge_agent.contract.maintenance import in_maintenance
from edge_agent.contract.quality_state import is_dead
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.sensor_gate import SensorGate
from edge_agent.contract.types import Bool, Float32, Int64, Samples
from edge_agent.detector_state import DetectorState, ScoredRound, ScoredSamples
from edge_agent.forecaster import Forecaster

RESUMING = 10
"""Samples without a score after a gap that starts over."""
RECALL = 0.99
"""Of a dead sensor's forecast each sample: forgotten within hundreds of samples, as it has nothing to go by."""


class ForecastChain:
    """Takes samples to the averages that they are judged by; holds no state of assets itself.

    Args:
        bundle: the model.
        forecaster: its graphs.
        gate: the sensor gate.
        scorer: of the bundle's scoring model.
    """

    def __init__(self, bundle: Bundle, forecaster: Forecaster, gate: SensorGate, scorer: Scorer) -> None:
        self._bundle = bundle
        self._forecaster = forecaster
        self._gate = gate
        self._scorer = scorer
        self._scaling = bundle.manifest.scaling
        self._sensor_count = len(bundle.manifest.sensors)
        self._layout = bundle.manifest.layout
        self._off = bundle.manifest.off_condition
        self._off_sensor = bundle.manifest.sensor_names.index(self._off.sensor) if self._off else -1

    def run(self, state: DetectorState, samples: Samples) -> ScoredSamples:
        """Take samples (n) in order, and return what is to be judged; `state`, changed in place, knows their assets."""
        forecast = np.full((len(samples), self._sensor_count), np.nan, np.float32)
        scored = ScoredSamples(forecast)
        for chosen in rounds_of(samples.asset) if len(samples) else []:
            self._observe(
                state, samples.asset[chosen], samples.tick[chosen], samples.values[chosen], chosen, scored
            )
        return scored

    def gated(self, state: DetectorState, samples: Samples) -> Samples:
        """Return the samples as the gate lets them through, without scoring them; NaN while the machine is off."""
        values = samples.values.copy()
        for chosen in rounds_of(samples.asset):
            asset, tick = samples.asset[chosen], samples.tick[chosen]
            passed = self._gate.check(state.quality, asset, tick, values[chosen]).values
            resting = self._follow_off(state, asset, passed)[0]
            values[chosen] = passed if resting is None else np.where(resting[:, None], np.nan, passed)
        return Samples(samples.asset, samples.tick, values)

    def start_over(self, state: DetectorState, asset: Int64) -> None:
        """Forget what assets (B,) sent, but not what is normal for them: they warm up again."""
        for array in (state.seen, state.ring, state.cursor, state.hidden, state.pending):
            array[asset] = 0
        state.scoring.forget(asset, self._bundle.scoring)

    def _observe(
        self,
        state: DetectorState,
        asset: Int64,
        tick: Int64,
        values: Float32,
        position: Int64,
        scored: ScoredSamples,
    ) -> None:
        """Score one sample of each asset against the pending forecast, remember it, forecast the next."""
        passed = self._gate.check(state.quality, asset, tick, values)
        scored.quality += passed.events
        resumed = self._restart_after_gaps(state, asset, tick)
        scaled = self._scaling.apply(passed.values)
        present = np.isfinite(scaled)
        warm = state.seen[asset] >= self._bundle.manifest.warmup_ticks
        resting = self._rest(state, asset, tick, passed.values, position, scored)
        if resting is not None:
            self._forget_averages(state, asset[resting])
            warm &= ~resting
        self._leave_maintenance(state, asset, tick)
        if warm.any():
            one = self._follow(state, asset[warm], scaled[warm], present[warm], position[warm])
            scored.rounds.append(one)
            scored.forecast[one.position] = self._scaling.invert(one.pending)
        if passed.fed is not passed.values:
            scaled = self._scaling.apply(passed.fed)
            present = np.isfinite(scaled)
        filled = self._filled(state, asset, scaled, present)
        inputs = self._layout.rows(filled, present, tick)
        if resumed.any():
            self._prime(state, asset[resumed], inputs[resumed])
        self._remember(state, asset, inputs)
        state.last_tick[asset] = tick

    def _restart_after_gaps(self, state: DetectorState, asset: Int64, tick: Int64) -> Bool:
        """Start over after a gap that is too long, and return (B,) which assets did.

        Ticks of a shorter one are no samples: nothing arrived, nothing is remembered. Feeding them with forecasts of
        forecasts was measured to forecast worse (docs/decisions/0002).
        """
        last = state.last_tick[asset]
        known = last != UNSET
        gap = np.where(known, tick - np.where(known, last, tick) - 1, 0)
        lost = gap > self._bundle.manifest.max_gap_ticks
        if lost.any():
            self.start_over(state, asset[lost])
        return lost

    def _rest(
        self,
        state: DetectorState,
        asset: Int64,
        tick: Int64,
        values: Float32,
        position: Int64,
        scored: ScoredSamples,
    ) -> Bool | None:
        """Return (B,) which samples have no score because the machine is off or settling, None where none has."""
        resting, gone = self._follow_off(state, asset, values)
        if resting is None or not resting.any():
            return None
        scored.resting.append(position[resting])
        if len(gone):
            scored.stopped.append((len(scored.rounds), asset[gone], tick[gone]))
        return resting

    def _follow_off(self, state: DetectorState, asset: Int64, values: Float32) -> tuple[Bool | None, Int64]:
        """Return (B,) whether each sample is to have no score, and the places of those that just went off."""
        if self._off is None:
            return None, np.empty(0, np.int64)
        before = state.off[asset]
        state.off[asset], state.settling[asset], resting = self._off.follow(
            before, state.settling[asset], values[:, self._off_sensor]
        )
        return resting, np.flatnonzero(state.off[asset] & ~before)

    def _forget_averages(self, state: DetectorState, asset: Int64) -> None:
        """Let the averages begin anew when the machine has settled; the slow drift of its levels stays known.

        The forecaster is fed all the time: it has learnt stops, and is ready at the start (docs/decisions/0004).
        """
        state.scoring.forget(asset, self._bundle.scoring)

    def _leave_maintenance(self, state: DetectorState, asset: Int64, tick: Int64) -> None:
        """Note whether samples are in maintenance; the averages of assets that just left it start from zero."""
        maintenance = state.maintenance
        if not np.isfinite(maintenance.until[asset]).any():
            return
        now = in_maintenance(maintenance, asset, self._bundle.manifest.axis.time_of(tick))
        left = asset[maintenance.last[asset] & ~now]
        maintenance.last[asset] = now
        if len(left):
            state.scoring.forget(left, self._bundle.scoring)

    def _follow(
        self, state: DetectorState, asset: Int64, scaled: Float32, present: Bool, position: Int64
    ) -> ScoredRound:
        """Take samples into the averages; what is read in maintenance teaches the slow drift nothing."""
        pending = state.pending[asset]
        level = scaled.astype(np.float64)
        before = state.scoring.take(asset)
        followed = self._scorer.follow(before, level - pending, level, present)
        taught = ~state.maintenance.last[asset]
        if not taught.all():
            followed.bias = np.where(taught[:, None, None], followed.bias, before.bias)
        state.scoring.put(asset, followed)
        return ScoredRound(asset, position, present, scaled, pending, followed)

    def _filled(self, state: DetectorState, asset: Int64, scaled: Float32, present: Bool) -> Float32:
        """Return the inputs with missing cells filled by the forecast, which for a dead sensor is held back.

        Fed with its own forecasts for long, a slow sensor's runs away, and those of the others with it.
        """
        if present.all():
            return scaled
        pending, model = state.pending[asset], self._scorer.model
        dead = is_dead(state.quality.reason[asset])
        held = np.clip(RECALL * pending, model.low, model.high)
        return np.where(present, scaled, np.where(dead, held, pending)).astype(np.float32)

    def _prime(self, state: DetectorState, asset: Int64, inputs: Float32) -> None:
        """Let the forecaster believe that what it reads after a gap has been so for a window.

        Then only a few samples go by without a score, not a whole warm-up; `RESUMING` of them, in which the forecast
        finds what moves.
        """
        manifest = self._bundle.manifest
        for _ in range(manifest.window_length):
            self._remember(state, asset, inputs)
        state.seen[asset] = max(manifest.warmup_ticks - RESUMING, 0)

    def _remember(self, state: DetectorState, asset: Int64, inputs: Float32) -> None:
        """Put inputs (B, I) into the ring, advance the forecaster and keep its next forecast."""
        state.ring[asset, state.cursor[asset]] = inputs
        state.cursor[asset] = (state.cursor[asset] + 1) % self._bundle.manifest.window_length
        state.seen[asset] += 1
        if self._forecaster.inference == "step":
            ahead, state.hidden[asset] = self._forecaster.step(inputs, state.hidden[asset])
        else:
            ahead = self._forecast_window(state, asset)
        state.pending[asset] = self._layout.pending(ahead[:, 0, :, 0], inputs)

    def _forecast_window(self, state: DetectorState, asset: Int64) -> Float32:
        """Forecast from the ring; assets whose ring is not full yet keep a zero forecast."""
        length = self._bundle.manifest.window_length
        ahead = np.zeros((len(asset), 1, len(self._layout.forecast), 1), np.float32)
        full = state.seen[asset] >= length
        if full.any():
            order = (state.cursor[asset[full], None] + np.arange(length)) % length
            ahead[full] = self._forecaster.window(state.ring[asset[full, None], order])[:, :1]
        return ahead
