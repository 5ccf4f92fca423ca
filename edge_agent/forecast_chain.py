"""The forecast chain: gate, off-condition, forecasts, score averages.

The gate masks what says nothing of the machine before anything else sees a sample. A sample is held against the
forecast that was pending, then remembered, then the next forecast is made: a sample is never in the window that
forecasts it. The samples of a tile are taken at once as far as they depend on each other in that way alone; where one
of them starts something over (a gap, a stop of the machine, the end of maintenance), the tile is cut.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.grid import UNSET
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.sensor_gate import Passed, SensorGate
from edge_agent.contract.types import Bool, Float32, Int64, Places, Samples
from edge_agent.detector_state import DetectorState, Followed, ScoredTile, Stopped
from edge_agent.forecaster import Forecaster
from edge_agent.tiles import MOST_ASSETS, MOST_ASSETS_ON_DEVICE, Tile, places_of, tiles_of

RESUMING = 10
"""Samples without a score after a gap that starts over."""


@dataclass(frozen=True, slots=True)
class _Course:
    """What is to be done with the samples of a tile beside scoring them, (B, L) each; None where it is for none.

    Attributes:
        lost: a gap before the sample starts over.
        resting: no score, as the machine is off or settling.
        gone: the machine went off.
        held: in maintenance.
    """

    lost: Bool | None
    resting: Bool | None
    gone: Bool | None
    held: Bool | None


class ForecastChain:
    """Takes samples to the averages that they are judged by; holds no state of assets itself.

    Args:
        bundle: the model.
        forecaster: its graphs.
        gate: the sensor gate.
        scorer: of the bundle's scoring model.
    """

    def __init__(self, bundle: Bundle, forecaster: Forecaster, gate: SensorGate, scorer: Scorer) -> None:
        self._manifest = bundle.manifest
        self._model = bundle.scoring
        self._forecaster = forecaster
        self._most_assets = MOST_ASSETS if forecaster.resident is None else MOST_ASSETS_ON_DEVICE
        self._gate = gate
        self._scorer = scorer
        self._scaling = bundle.manifest.scaling
        self._axis = bundle.manifest.axis
        self._layout = bundle.manifest.layout
        self._off = bundle.manifest.off_condition
        self._off_sensor = bundle.manifest.sensor_names.index(self._off.sensor) if self._off else -1

    def run(
        self, state: DetectorState, samples: Samples, followed: Followed
    ) -> Iterator[ScoredTile | Stopped]:
        """Take samples (n) in each asset's order, and yield what is to be judged before the next is asked for.

        Args:
            state: of the assets, changed in place.
            samples: n, of one call.
            followed: filled in.
        """
        for tile in tiles_of(samples.asset, self._most_assets) if len(samples) else ():
            tick, values = samples.tick[tile.position], samples.values[tile.position]
            rows = places_of(tile.asset)
            passed = self._gate.check(state.quality, rows, tick, values)
            followed.quality += [
                (int(tile.position[at, column]), event) for at, column, event in passed.events
            ]
            course = self._course(state, rows, tick, passed)
            for first, end in self._parts(state, rows, tick, course, passed.dead):
                part = slice(first, end)
                yield from self._follow(state, tile, rows, tick, passed, course, part, followed)

    def gated(self, state: DetectorState, samples: Samples) -> Samples:
        """Return the samples as the gate lets them through, without scoring them; NaN while the machine is off."""
        values = samples.values.copy()
        for tile in tiles_of(samples.asset):
            rows, tick = places_of(tile.asset), samples.tick[tile.position]
            passed = self._gate.check(state.quality, rows, tick, samples.values[tile.position]).values
            resting, _ = self._follow_off(state, rows, passed)
            values[tile.position] = (
                passed if resting is None else np.where(resting[..., None], np.float32(np.nan), passed)
            )
        return Samples(samples.asset, samples.tick, values)

    def start_over(self, state: DetectorState, asset: Int64) -> None:
        """Forget what assets (B,) sent, but not what is normal for them: they warm up again."""
        for array in (state.seen, state.ring, state.cursor, state.pending):
            array[asset] = 0
        state.forget_hidden(asset)
        state.scoring.forget(asset, self._model)

    def _course(self, state: DetectorState, rows: Places, tick: Int64, passed: Passed) -> _Course:
        lost = None if passed.ordinary else self._lost(state, rows, tick)
        resting, gone = self._follow_off(state, rows, passed.values)
        maintenance, held = state.maintenance, None
        if maintenance.until[rows].max() > -np.inf:
            time = self._axis.time_of(tick)
            held = (maintenance.since[rows][:, None] <= time) & (time < maintenance.until[rows][:, None])
        return _Course(lost, resting, gone, held)

    def _lost(self, state: DetectorState, rows: Places, tick: Int64) -> Bool | None:
        """Return (B, L) before which samples there is a gap that starts over.

        Ticks of a shorter one are no samples: nothing arrived, nothing is remembered. Feeding them with forecasts of
        forecasts was measured to forecast worse (docs/decisions/0002).
        """
        last = state.last_tick[rows]
        before = np.concatenate(
            [np.where(last == UNSET, tick[:, 0] - 1, last)[:, None], tick[:, :-1]], axis=1
        )
        lost = tick - before - 1 > self._manifest.max_gap_ticks
        return lost if lost.any() else None

    def _follow_off(
        self, state: DetectorState, rows: Places, values: Float32
    ) -> tuple[Bool | None, Bool | None]:
        """Return (B, L) whether each sample is to have no score, and which of them say that the machine went off."""
        if self._off is None:
            return None, None
        off, left, resting = self._off.follow(
            state.off[rows], state.settling[rows], values[..., self._off_sensor]
        )
        gone = off & ~np.concatenate([state.off[rows][:, None], off[:, :-1]], axis=1)
        state.off[rows], state.settling[rows] = off[:, -1], left[:, -1]
        return resting, gone

    def _parts(
        self, state: DetectorState, rows: Places, tick: Int64, course: _Course, dead: Bool | None
    ) -> list[tuple[int, int]]:
        """Return first and end of the parts of a tile's columns in which nothing changes but at the first."""
        ticks = tick.shape[1]
        if ticks == 1:
            return [(0, 1)]
        cut = np.zeros(ticks, np.bool_)
        if course.lost is not None:
            cut |= course.lost.any(axis=0)
        for flag in (course.resting, course.held):
            if flag is not None:
                cut[1:] |= (flag[:, 1:] != flag[:, :-1]).any(axis=0)
        warmup = self._manifest.warmup_ticks
        cuts = {0, ticks, *np.flatnonzero(cut).tolist()}
        cuts |= {at for at in np.unique(warmup - state.seen[rows]).tolist() if 0 < at < ticks}
        if course.lost is not None:
            # After a gap they are warm again so many samples later.
            ready = min(RESUMING, warmup)
            cuts |= {
                at + ready for at in np.flatnonzero(course.lost.any(axis=0)).tolist() if at + ready < ticks
            }
        if dead is not None and np.count_nonzero(dead):
            # What is fed for a dead sensor depends on bias and offset, which learn with the first sample that has a
            # score after a break, and with the first of each stretch.
            learnt = self._scorer.averages.learnt(state.scoring.stretch[rows], tick).any(axis=0)
            cuts |= {at + 1 for at in {*cuts, *np.flatnonzero(learnt).tolist()} if at + 1 < ticks}
        return list(pairwise(sorted(cuts)))

    def _follow(
        self,
        state: DetectorState,
        tile: Tile,
        rows: Places,
        tick: Int64,
        passed: Passed,
        course: _Course,
        part: slice,
        followed: Followed,
    ) -> Iterator[ScoredTile | Stopped]:
        """Forecast and score the samples of some columns of a tile, in which nothing changes but at the first."""
        first, position = part.start, tile.position[:, part]
        lost = np.empty(0, np.int64)
        if course.lost is not None:
            lost = np.flatnonzero(course.lost[:, first])
            self._start_over_after_gap(state, tile.asset[lost])
        warm = state.seen[rows] >= self._manifest.warmup_ticks
        if course.resting is not None:
            resting = course.resting[:, first]
            if resting.any():
                gone = np.flatnonzero(course.gone[:, first]) if course.gone is not None else lost
                if len(gone):
                    yield Stopped(tile.asset[gone], tick[gone, first], position[gone, 0])
                followed.off[position[resting]] = True
                # The forecaster is fed all the time: it has learnt stops, and is ready at the start
                # (docs/decisions/0004). The averages begin anew when the machine has settled.
                state.scoring.forget(tile.asset[resting], self._model)
                warm &= ~resting
        held = self._follow_maintenance(state, tile.asset, course, first)
        values = passed.values[:, part]
        scaled = self._scaling.apply(values)
        present = None if passed.ordinary else np.isfinite(scaled)
        if present is not None and present.all():
            present = None
        pending = self._forecast(state, rows, tick[:, part], scaled, present, passed, part, lost)
        state.last_tick[rows] = tick[:, part][:, -1]
        if np.count_nonzero(warm) == len(warm):
            yield self._score(state, rows, position, tick[:, part], held, present, scaled, pending, followed)
        elif np.count_nonzero(warm):
            some = np.flatnonzero(warm)
            yield self._score(
                state, tile.asset[some], position[some], tick[some, part],
                None if held is None else held[some],
                None if present is None else present[some], scaled[some], pending[some], followed,
            )  # fmt: skip

    def _start_over_after_gap(self, state: DetectorState, asset: Int64) -> None:
        """Forget what assets (B,) sent; once primed, only a few samples go by without a score, not a warm-up."""
        if len(asset):
            self.start_over(state, asset)
            state.seen[asset] = max(self._manifest.warmup_ticks - RESUMING, 0)

    def _follow_maintenance(
        self, state: DetectorState, asset: Int64, course: _Course, first: int
    ) -> Bool | None:
        """Return (B,) which assets are in maintenance; the averages of those that just left it start from zero."""
        if course.held is None:
            return None
        held, maintenance = course.held[:, first], state.maintenance
        left = asset[maintenance.last[asset] & ~held]
        maintenance.last[asset] = held
        if len(left):
            state.scoring.forget(left, self._model)
        return held if held.any() else None

    def _score(
        self,
        state: DetectorState,
        rows: Places,
        position: Int64,
        tick: Int64,
        held: Bool | None,
        present: Bool | None,
        scaled: Float32,
        pending: Float32,
        followed: Followed,
    ) -> ScoredTile:
        """Take samples into the averages; what is read in maintenance teaches the slow drift nothing."""
        own = state.scoring.take(rows)
        taught = None if held is None else ~held
        averages = self._scorer.averages.follow(
            own, np.asarray(scaled - pending, np.float32), scaled, present, tick, taught
        )
        if not isinstance(rows, slice):
            state.scoring.put(rows, own)
        followed.forecast[position] = self._scaling.invert(pending)
        width = scaled.shape[2]
        return ScoredTile(
            rows, position, tick, held, None if present is None else present.reshape(-1, width),
            scaled.reshape(-1, width), pending.reshape(-1, width), averages,
        )  # fmt: skip

    def _forecast(
        self,
        state: DetectorState,
        rows: Places,
        tick: Int64,
        scaled: Float32,
        present: Bool | None,
        passed: Passed,
        part: slice,
        lost: Int64,
    ) -> Float32:
        """Feed the forecaster and return what was pending of each sample (B, L, F), scaled.

        A missing cell is filled by the forecast, which the samples before it make: there the ticks are cut.
        """
        if passed.fed is not passed.values:
            scaled = self._scaling.apply(passed.fed[:, part])
            present = np.isfinite(scaled)
        count, ticks, width = scaled.shape
        pending = np.empty((count, ticks, width), np.float32)
        pending[:, 0] = state.pending[rows]
        cuts = [0, ticks]
        if present is not None:
            cuts = sorted({*cuts, *np.flatnonzero(~present.all(axis=(0, 2))).tolist()})
        for first, end in pairwise(cuts):
            filled, known = scaled[:, first:end], None if present is None else present[:, first:end]
            if known is not None:
                dead = None if passed.dead is None else passed.dead[:, part][:, first]
                filled = self._filled(state, rows, filled, known[:, 0], dead, pending[:, first])
            inputs = self._layout.rows(filled, known, tick[:, first:end])
            if first == 0 and len(lost):
                self._prime(state, np.arange(len(state.seen))[rows][lost], inputs[lost, 0])
            ahead = self._layout.pending(self._remember(state, rows, inputs), inputs)
            pending[:, first + 1 : end + 1] = ahead[:, : ticks - first - 1]
        state.pending[rows] = ahead[:, -1]
        return pending

    def _filled(
        self, state: DetectorState, rows: Places, scaled: Float32, present: Bool, dead: Bool | None,
        pending: Float32,
    ) -> Float32:  # fmt: skip
        """Return samples (B, L, F), of which cells of the first are filled where not `present` (B, F).

        A reading that is missing now is filled by the forecast (B, F). That of a dead sensor learns from the others
        what it cannot know itself: fed with its own forecasts for long it wanders off, and theirs with it.
        """
        filled, first = scaled.copy(), scaled[:, 0]
        if dead is not None and np.count_nonzero(dead):
            bias, offset = state.scoring.bias[rows], state.scoring.offset[rows]
            likely = self._scorer.unheard(bias, offset, first, pending, present)
            pending = np.where(dead & self._model.judged, likely, pending)
        filled[:, 0] = np.where(present, first, pending)
        return filled

    def _prime(self, state: DetectorState, asset: Int64, inputs: Float32) -> None:
        """Let the forecaster believe that what it reads after a gap has been so for a window.

        In the `RESUMING` samples that go by without a score the forecast finds what moves.
        """
        seen = state.seen[asset]
        self._remember(state, asset, np.repeat(inputs[:, None], self._manifest.window_length, axis=1))
        state.seen[asset] = seen

    def _remember(self, state: DetectorState, rows: Places, inputs: Float32) -> Float32:
        """Feed inputs (B, L, I) and return the forecasts (B, L, F) of the ticks after each."""
        ticks = inputs.shape[1]
        state.seen[rows] += ticks
        if self._forecaster.resident is not None:
            return state.on_device(self._forecaster.resident).advance(rows, inputs)[:, :, 0, :, 0]
        if self._forecaster.inference == "step":
            hidden = state.hidden[rows]
            ahead = self._forecaster.advance(inputs, hidden)
            if not isinstance(rows, slice):
                state.hidden[rows] = hidden
            return ahead[:, :, 0, :, 0]
        return self._forecast_windows(state, rows, inputs)

    def _forecast_windows(self, state: DetectorState, rows: Places, inputs: Float32) -> Float32:
        """Forecast from the ring; where that is not full yet the forecast is zero."""
        count, ticks = inputs.shape[:2]
        length = self._manifest.window_length
        order = (state.cursor[rows][:, None] + np.arange(length)) % length
        ring = state.ring[rows][np.arange(count)[:, None], order]
        readings = np.concatenate([ring, inputs], axis=1)
        windows = np.lib.stride_tricks.sliding_window_view(readings[:, 1:], length, axis=1).transpose(
            0, 1, 3, 2
        )
        full = state.seen[rows][:, None] - ticks + np.arange(1, ticks + 1) >= length
        ahead = np.zeros((count, ticks, len(self._layout.forecast)), np.float32)
        if full.any():
            ahead[full] = self._forecaster.window(windows[full])[:, 0, :, 0]
        state.ring[rows], state.cursor[rows] = readings[:, -length:], 0
        return ahead
