"""The judge: averages → statistics → what is usual of late → score → alarms, onsets, drift and budget.

Averages become statistics at once for all samples of a call; what depends on the sample before, round by round.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from edge_agent.blame import Blame
from edge_agent.contract.alarms import (
    HELD_BACK,
    OFF,
    AlarmRules,
    Permit,
    Transitions,
    follow_alarms,
    forget_alarms,
    stop_alarms,
)
from edge_agent.contract.budget_controller import BudgetController, BudgetState
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.drift import DriftWatch
from edge_agent.contract.maintenance import in_maintenance
from edge_agent.contract.minimum_deviation import MinimumDeviation
from edge_agent.contract.onset import follow_onsets
from edge_agent.contract.scoring import ASPECTS, Scorer
from edge_agent.contract.signature import changed, directions
from edge_agent.contract.threshold import ONSET_RATIO
from edge_agent.contract.trailing import follow_blocks
from edge_agent.contract.types import AlarmEvent, Bool, DriftEvent, Float64, Int64, Outcomes, Samples
from edge_agent.detector_state import DetectorState, ScoredRound, ScoredSamples


@dataclass
class _Verdict:
    """What is said of the n samples of one call: NaN and False until their round.

    Attributes:
        time: (n,) seconds since the epoch.
        aspects: (n, 3) see `Scorer.aspects`.
        sudden: (n,) see `Scorer.sudden`.
        statistic, score, alarm, factor, drift, onset, events, advice: see `Outcomes`.
    """

    time: Float64
    aspects: Float64
    sudden: Float64
    statistic: Float64
    score: Float64
    factor: Float64
    drift: Float64
    alarm: Bool
    onset: Bool
    events: list[AlarmEvent] = field(default_factory=list)
    advice: list[DriftEvent] = field(default_factory=list)

    @staticmethod
    def open(time: Float64, alarm: Bool) -> "_Verdict":
        """Return that nothing is known of samples at `time` (n,), but whether their asset was in `alarm`."""
        count = len(time)
        sudden, statistic, score, factor, drift = (np.full(count, np.nan) for _ in range(5))
        onset = np.zeros(count, np.bool_)
        aspects = np.full((count, ASPECTS), np.nan)
        return _Verdict(time, aspects, sudden, statistic, score, factor, drift, alarm, onset)


class Judge:
    """Turns the averages of samples into scores, alarms and advice; holds no state of assets itself.

    Args:
        bundle: the model.
        scorer: of the bundle's scoring model.
        alarm_rules: when alarms open, close and become critical.
        adaptive: whether the threshold follows the realised alarm rate, see `budget_controller.py`.

    Attributes:
        held_back: how many excursions did not become an alarm at once, by the rule that held them back.
    """

    def __init__(self, bundle: Bundle, scorer: Scorer, alarm_rules: AlarmRules, adaptive: bool) -> None:
        manifest = bundle.manifest
        self.held_back: Counter[str] = Counter(dict.fromkeys(HELD_BACK, 0))
        self._bundle = bundle
        self._scorer = scorer
        self._alarm_rules = alarm_rules
        self._blame = Blame(bundle, scorer)
        self._scaling = manifest.scaling
        self._deviation = (
            MinimumDeviation(manifest.sensor_names, alarm_rules.sensors) if alarm_rules.sensors else None
        )
        self._adapts = manifest.adaptation != "frozen"
        # A history too short for a claim of rarity has not seen the sensors' whole range either: leaving it proves
        # nothing, except for a sensor that never moved, or where a range that is left for good becomes the usual one.
        short = manifest.threshold.basis == "margin" and not self._adapts
        self._guarded = self._scaling.constant | (not short)
        budget, interval = manifest.threshold.alarms_per_week, manifest.sampling_interval_seconds
        self._controller = BudgetController(budget, interval) if adaptive else None
        self._drift = None if manifest.drift is None else DriftWatch(manifest.drift, bundle.scoring)

    def judge(self, state: DetectorState, samples: Samples, scored: ScoredSamples) -> Outcomes:
        """Turn collected averages into scores at once, then follow the alarms round by round.

        Args:
            state: changed in place.
            samples: n, of one call.
            scored: what the forecast chain found in them.
        """
        count = len(samples)
        verdict = _Verdict.open(
            self._bundle.manifest.axis.time_of(samples.tick), state.alarms.active[samples.asset]
        )
        if scored.rounds:
            self._weigh(state, samples, scored, verdict)
            for number, one in enumerate(scored.rounds):
                verdict.events += self._stop_alarms(state, scored, number)
                self._judge_round(state, samples, one, verdict)
        verdict.events += self._stop_alarms(state, scored, len(scored.rounds))
        off = np.zeros(count, np.bool_)
        off[np.concatenate([*scored.resting, np.empty(0, np.int64)])] = True
        verdict.alarm[off] = False
        _carry(verdict.alarm, samples.asset, np.isfinite(verdict.score) | off)
        return Outcomes(
            samples.asset, samples.tick, verdict.time, verdict.score, verdict.statistic, verdict.alarm,
            scored.forecast, verdict.events, scored.quality,
            off=None if self._bundle.manifest.off_condition is None else off,
            advice=verdict.advice,
            factor=None if self._controller is None else verdict.factor,
            drift=None if self._drift is None else verdict.drift,
            onset=verdict.onset,
        )  # fmt: skip

    def forgive(self, state: BudgetState, assets: Int64) -> None:
        """Take back what the last alarm of assets (B,), a true fault, did to their thresholds."""
        if self._controller is not None:
            self._controller.forgive(state, assets)

    def _weigh(
        self, state: DetectorState, samples: Samples, scored: ScoredSamples, verdict: _Verdict
    ) -> None:
        """Fill in what does not depend on the sample before: the aspects, and the score if nothing adapts it."""
        averages, position = scored.averages(), scored.position()
        guard = self._scorer.guard(averages, self._guarded)
        statistics = self._scorer.statistics(averages, scored.present())
        verdict.aspects[position] = self._scorer.aspects(statistics, guard)
        verdict.sudden[position] = self._scorer.sudden(statistics)
        if not self._adapts:
            usual = state.trailing.normaliser[samples.asset]
            verdict.statistic = self._against_usual(verdict.aspects, usual)
            verdict.score = self._bundle.manifest.threshold.score(verdict.statistic)

    def _judge_round(
        self, state: DetectorState, samples: Samples, one: ScoredRound, verdict: _Verdict
    ) -> None:
        rows, at = one.asset, one.position
        time = verdict.time[at]
        statistic, score = self._score(state, one, verdict)
        heeded = score, statistic
        held = in_maintenance(state.maintenance, rows, time)
        if held.any():
            verdict.events += self._end_for_maintenance(state, held, one, time, score)
            heeded = np.where(held, 0.0, score), np.where(held, 0.0, statistic)
        happened = self._follow_alarms(state, one, time, *heeded)
        onset = follow_onsets(state.onsets, rows, verdict.sudden[at], happened.started)
        happened = self._tell_of_changes(state, happened, one, score, onset)
        verdict.onset[at] = onset
        verdict.alarm[at] = state.alarms.active[rows]
        if self._adapts:
            self._learn_usual(state, rows, verdict.aspects[at], held)
        verdict.advice += self._follow_drift(state, one, samples.tick[at], time)
        verdict.drift[at] = state.drift.drift(rows)
        if happened.any():
            verdict.events += self._blame.events(state.alarms, happened, one, time, score, onset)

    def _score(self, state: DetectorState, one: ScoredRound, verdict: _Verdict) -> tuple[Float64, Float64]:
        """Fill in and return the statistics (B,) and scores (B,) of one round, by what is usual and the factor now."""
        rows, at = one.asset, one.position
        factor = self._factor(state, rows)
        verdict.factor[at] = factor
        if self._adapts:
            usual = state.trailing.normaliser[rows]
            verdict.statistic[at] = self._against_usual(verdict.aspects[at], usual)
        if self._adapts or (factor != 1.0).any():
            verdict.score[at] = self._bundle.manifest.threshold.score(verdict.statistic[at] / factor)
        return verdict.statistic[at], verdict.score[at]

    def _against_usual(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the fused statistic (n,) of aspects (n, 3) over what is usual of late; NaN where there is none."""
        fused = self._scorer.fuse(aspects, normaliser)
        guard = self._scorer.news(aspects, normaliser) * self._bundle.manifest.threshold.value
        return np.where(np.isnan(aspects[:, 0]), np.nan, np.maximum(fused, guard))

    def _learn_usual(self, state: DetectorState, rows: Int64, aspects: Float64, held: Bool) -> None:
        """Take samples into what is usual of late; none in maintenance, in an alarm only if the operator wants that."""
        manifest = self._bundle.manifest
        learn = ~held & ((manifest.adaptation == "automatic") | ~state.alarms.active[rows])
        known = np.nan_to_num(aspects, nan=0.0)
        follow_blocks(state.trailing, rows, known, learn, manifest.block_rows, self._bundle.scoring.least)

    def _stop_alarms(self, state: DetectorState, scored: ScoredSamples, rounds: int) -> list[AlarmEvent]:
        """End the alarms of assets that went off after `rounds` rounds; a machine that is off names no sensors."""
        events = []
        while scored.stopped and scored.stopped[0][0] <= rounds:
            _, assets, ticks = scored.stopped.pop(0)
            stopped = stop_alarms(state.alarms, assets)
            times = self._bundle.manifest.axis.time_of(ticks[np.isin(assets, stopped)])
            for asset, time in zip(stopped.tolist(), times.tolist(), strict=True):
                event = self._blame.event(state.alarms, "end", asset, time, np.nan, ())
                events.append(replace(event, end_reason=OFF))
        return events

    def _end_for_maintenance(
        self, state: DetectorState, held: Bool, one: ScoredRound, time: Float64, score: Float64
    ) -> list[AlarmEvent]:
        """End the alarms that are open in maintenance; the events say why."""
        none = np.zeros(len(held), np.bool_)
        ended = held & state.alarms.active[one.asset]
        happened = Transitions(none, none, ended, none, none, none)
        events = self._blame.events(state.alarms, happened, one, time, score, none)
        forget_alarms(state.alarms, one.asset[ended])
        return [replace(event, end_reason="maintenance") for event in events]

    def _follow_alarms(
        self, state: DetectorState, one: ScoredRound, time: Float64, score: Float64, statistic: Float64
    ) -> Transitions:
        manifest, rows = self._bundle.manifest, one.asset
        threshold, factor = manifest.threshold, self._factor(state, rows)
        quiet = statistic < threshold.clear_value(self._adapts) * factor
        calm = statistic < ONSET_RATIO * threshold.value * factor
        happened = follow_alarms(
            state.alarms, rows, time, score, quiet, self._alarm_rules,
            manifest.sampling_interval_seconds, calm, self._permit(one),
        )  # fmt: skip
        if self._controller is not None:
            resting = quiet & ~state.alarms.active[rows]
            self._controller.follow(state.budget, rows, time, happened.started, resting)
            ratio = statistic / manifest.threshold.value
            self._controller.let_pass(state.budget, rows, state.alarms.active[rows], ratio)
        for reason, which in zip(HELD_BACK, (happened.cooled, happened.slight), strict=True):
            self.held_back[reason] += int(np.count_nonzero(which))
        return happened

    def _permit(self, one: ScoredRound) -> Permit | None:
        """Return what says whether sensors deviate enough for an alarm; None where no sensor has a rule."""
        deviation = self._deviation
        if deviation is None:
            return None

        def permit(at: Int64) -> Bool:
            averages, present = one.averages.take(at), one.present[at]
            actual = self._scaling.invert(one.scaled[at])
            expected = self._blame.expected(averages, one.pending[at])
            return deviation.enough(self._scorer.shares(averages, present), actual, expected)

        return permit

    def _factor(self, state: DetectorState, rows: Int64) -> Float64:
        """Return (B,) what the threshold of assets is multiplied by."""
        if self._controller is None:
            return np.ones(len(rows))
        return self._controller.factor(state.budget, rows)

    def _follow_drift(
        self, state: DetectorState, one: ScoredRound, tick: Int64, time: Float64
    ) -> list[DriftEvent]:
        """Follow the drift of the assets of one round that are not in alarm, and return what it advises."""
        free = np.flatnonzero(~state.alarms.active[one.asset])
        if self._drift is None or not len(free):
            return []
        level = one.scaled[free].astype(np.float64)
        residual = level - one.pending[free]
        advised = self._drift.follow(
            state.drift, one.asset[free], tick[free], time[free], level, residual, one.present[free]
        )
        return [self._blame.advice(state.drift, asset) for asset in advised.tolist()]

    def _tell_of_changes(
        self, state: DetectorState, happened: Transitions, one: ScoredRound, score: Float64, onset: Bool
    ) -> Transitions:
        """Add an update for each open alarm that became much stronger, turned away, or has an onset of its own."""
        open_now = state.alarms.active[one.asset]
        if not open_now.any():
            return happened
        active = np.flatnonzero(open_now)
        toward = directions(self._scorer, one.averages.take(active))
        told = (happened.started | happened.updated)[active]
        news = changed(state.reported, one.asset[active], toward, score[active], told)
        updated = happened.updated.copy()
        updated[active[(news | onset[active]) & ~told]] = True
        return replace(happened, updated=updated)


def _carry(alarm: Bool, asset: Int64, known: Bool) -> None:
    """Give samples without a score the alarm (n,) of the sample of their asset before them, if that is of this call."""
    if known.all():
        return
    order = np.argsort(asset, kind="stable")
    place = np.arange(len(order))
    last = np.maximum.accumulate(np.where(known[order], place, -1))
    first = np.searchsorted(asset[order], asset[order])
    alarm[order] = alarm[order[np.where(last >= first, last, place)]]
