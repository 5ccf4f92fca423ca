"""Samples in, outcomes out: the forecast chain and the judge over one state of all assets.

This very object is what the trainer calibrates and evaluates. It knows no clock, network, metrics or log.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.contract.alarm_rules import changed_rules
from edge_agent.contract.alarms import AlarmRules, forget_alarms
from edge_agent.contract.bundle import Bundle, graph_file, read_bundle, read_golden
from edge_agent.contract.drift import DriftState
from edge_agent.contract.errors import BundleError, ConfigurationError
from edge_agent.contract.grid import UNSET
from edge_agent.contract.onset import OnsetState
from edge_agent.contract.quality_state import QualityState
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_state import ScoringState
from edge_agent.contract.sensor_gate import QualityRules, SensorGate
from edge_agent.contract.trailing import TrailingState
from edge_agent.contract.types import Float32, Float64, Int64, Outcomes, QualityEvent, Samples
from edge_agent.detector_state import DetectorState, Followed, ScoredTile
from edge_agent.forecast_chain import ForecastChain
from edge_agent.forecaster import Forecaster
from edge_agent.judge import Judge, Verdict

GOLDEN_TOLERANCES = {"float32": 1e-4, "int8": 2e-2}
"""Rounding to int8 turns the last bit in which two processors differ into a whole step."""


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
        self.forecaster = forecaster
        self.alarm_rules = bundle.manifest.alarm_rules if alarm_rules is None else alarm_rules
        # Where a single sample opens an alarm, a single reading is heeded.
        self.gate = SensorGate(bundle.manifest, rules, self.alarm_rules.open_count > 1)
        self.scorer = Scorer(bundle.scoring)
        self.state = self._zero(0)
        self._chain = ForecastChain(bundle, forecaster, self.gate, self.scorer)
        self._judge = Judge(bundle, self.scorer, self.alarm_rules, adaptive)
        self.held_back = self._judge.held_back
        """How many excursions did not become an alarm at once, by the rule that held them back."""

    def ensure_assets(self, count: int) -> None:
        """Make room for `count` assets; room grows by at least an eighth: growing is rare, and little is spare."""
        have = len(self.state.last_tick)
        if count > have:
            self.state.append(self._zero(max(count - have, have // 8)))

    def process(self, samples: Samples) -> Outcomes:
        """Score samples, those of each asset in their order; events come in the order of the samples."""
        self._make_room_for(samples)
        followed = Followed.open(len(samples), len(self.bundle.manifest.sensors))
        verdict = Verdict.open(self.state.alarms.active[samples.asset])
        for one in self._chain.run(self.state, samples, followed):
            if isinstance(one, ScoredTile):
                self._judge.judge(self.state, one, verdict)
            else:
                self._judge.stop(self.state, one, verdict)
        return self._judge.outcomes(samples, followed, verdict)

    def measure(self, samples: Samples) -> tuple[Float32, Float64]:
        """Run the forecasts and the statistics alone, as calibration needs them; alarms stay as they are.

        Returns:
            Forecasts (n, F) in engineering units and statistics (n, 2S + 5) before they are divided by their
            normalisers; NaN while warming up.
        """
        self._make_room_for(samples)
        followed = Followed.open(len(samples), len(self.bundle.manifest.sensors))
        statistics = np.full((len(samples), len(self.bundle.scoring.normalisers)), np.nan)
        for one in self._chain.run(self.state, samples, followed):
            if isinstance(one, ScoredTile):
                statistics[one.position.reshape(-1)] = self.scorer.statistics(one.averages, one.present)
        return followed.forecast, statistics

    def gated(self, samples: Samples) -> Samples:
        """Return the samples as the gate lets them through, without scoring them; NaN while the machine is off."""
        self._make_room_for(samples)
        return self._chain.gated(self.state, samples) if len(samples) else samples

    def hear(self, assets: Int64, now: float) -> None:
        """Note that readings of some assets arrived at `now`, on the clock that `advance` is called with."""
        self.gate.hear(self.state.quality, assets, now)

    def advance(self, now: float) -> list[QualityEvent]:
        """Let time pass: report the assets of which nothing was heard for too long."""
        return self.gate.advance(self.state.quality, now)

    def forgive(self, assets: Int64) -> None:
        """Take back what the last alarm of assets (B,), a true fault, did to their thresholds."""
        self._judge.forgive(self.state.budget, assets)

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
        self._chain.start_over(self.state, assets)
        self.state.scoring.put(assets, ScoringState.zero(len(assets), self.bundle.scoring))
        self.state.last_tick[assets] = UNSET
        self.state.quality.put(assets, QualityState.zero(len(assets), len(self.bundle.manifest.sensors)))
        scoring, count = self.bundle.scoring, len(assets)
        _replace(self.state.trailing, TrailingState.start(count, scoring.recent, scoring.least), assets)
        _replace(self.state.onsets, OnsetState.zero(count), assets)
        self._forget_drift(assets)

    def accept_as_normal(self, assets: Int64) -> None:
        """Take the present level of assets (B,) as normal from now on; an open alarm ends without an event."""
        self.end_alarms(assets)
        self.state.scoring.put(assets, self.scorer.averages.accept(self.state.scoring.take(assets)))
        self._forget_drift(assets)

    def _zero(self, assets: int) -> DetectorState:
        return DetectorState.zero(assets, self.bundle, self.forecaster.inference)

    def _forget_drift(self, assets: Int64) -> None:
        _replace(self.state.drift, DriftState.zero(len(assets), len(self.bundle.manifest.sensors)), assets)

    def _make_room_for(self, samples: Samples) -> None:
        if len(samples):
            self.ensure_assets(int(samples.asset.max()) + 1)


def _replace(
    state: TrailingState | OnsetState | DriftState,
    fresh: TrailingState | OnsetState | DriftState,
    assets: Int64,
) -> None:
    """Put the rows (B, …) of a fresh state in place of those of assets (B,)."""
    for item in fields(fresh):
        getattr(state, item.name)[assets] = getattr(fresh, item.name)


def open_detector(
    bundle: Bundle, inference: str | None = None, provider: str = "cpu", runtime: str | None = None
) -> Detector:
    """Return a detector on a bundle that is in memory, without running its golden samples.

    Raises:
        ConfigurationError: the bundle has no graph for what is asked for.
    """
    manifest = bundle.manifest
    mode, engine = inference or manifest.inference, runtime or manifest.runtime
    if manifest.precision != "float32" and engine != manifest.runtime:
        raise ConfigurationError(
            f"bundle.runtime: {engine}: the thresholds of this {manifest.precision} bundle are those of "
            f"{manifest.runtime}; fit one with --runtime {engine}"
        )
    graph = graph_file(mode, engine, manifest.precision)
    if not (bundle.directory / graph).is_file():
        why = (
            "" if manifest.architecture.get("step_form", True) else ": its architecture runs on windows only"
        )
        raise ConfigurationError(f"bundle.inference: {mode}: {bundle.directory} has no {graph}{why}")
    forecaster = Forecaster(bundle.directory, mode, manifest.state_size, provider, engine, manifest.precision)
    return Detector(bundle, forecaster)


def load_detector(
    directory: Path,
    inference: str | None = None,
    provider: str = "cpu",
    rules: QualityRules | None = None,
    alarms: Mapping[str, Any] | None = None,
    adaptive: bool = True,
    runtime: str | None = None,
) -> Detector:
    """Read a bundle, hold it against its hashes, run its golden samples, and return its detector.

    Args:
        directory: the bundle.
        inference: `step` or `window`; None takes the mode it was calibrated in.
        provider: see `edge_agent.forecaster.OnnxGraph`.
        rules: of the sensor gate; the golden samples are run without them.
        alarms: what differs from the bundle's alarm rules, see `changed_rules`.
        adaptive: see `Detector`.
        runtime: `onnx` or `litert`; None takes the one it was calibrated with.

    Raises:
        BundleError: the bundle is damaged or does not give what its golden samples say.
        ConfigurationError: a rule names a sensor that the bundle does not have, or does not go with the bundle's.
    """
    bundle = read_bundle(directory)
    detector = open_detector(bundle, inference, provider, runtime)
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
        BundleError: a forecast or statistic differs by more than the tolerance of the bundle's precision.
    """
    bundle = detector.bundle
    golden = read_golden(bundle)
    mode = detector.forecaster.inference
    outcomes = detector.process(golden_samples(golden["values"]))
    scale = bundle.manifest.scaling.scale
    tolerance = GOLDEN_TOLERANCES[bundle.manifest.precision]
    for name, found in (("forecast", outcomes.forecast / scale), ("statistic", outcomes.statistic)):
        expected = golden[f"{mode}_{name}"]
        expected = expected / scale if name == "forecast" else expected
        difference = np.abs(found - expected)
        same_nan = np.array_equal(np.isnan(found), np.isnan(expected))
        if not same_nan or np.nanmax(difference, initial=0.0) > tolerance * max(
            1.0, float(np.nanmax(np.abs(expected), initial=0.0))
        ):
            raise BundleError(f"{bundle.directory}: golden.npz: {mode} {name} is not reproduced")


def golden_samples(values: Float32) -> Samples:
    """Return golden values (n, F) as samples of one asset from tick 0."""
    return Samples(np.zeros(len(values), np.int64), np.arange(len(values)), values)
