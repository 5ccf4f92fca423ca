"""Why a sample has its score and its forecast: which sensors and which lags.

The score is taken apart exactly (`trainer.score_parts`), in the very detector that ran. The forecast is attributed to
the readings of its window, by integrated gradients (`trainer.gradients`, where the bundle holds the forecaster's
weights) and by SHAP (`trainer.shapley`), against a baseline in which every input stands at its centre and nothing is
missing. Both sum to what the forecast from the window differs from that at the baseline. A carried state, which the
agent steps with, also remembers what was before the window; how much that moves the forecast is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_agent.contract.bundle import Bundle
from edge_agent.contract.errors import HistoryError
from edge_agent.contract.types import AlarmEvent, Float32, Float64, Int64, Samples
from edge_agent.detector import open_detector
from edge_agent.forecaster import Forecaster
from trainer.calibrate import chunks_of
from trainer.release import WEIGHTS
from trainer.score_parts import ScoreParts, score_parts

LEAST_BEFORE = 1000
"""Samples before the one that is explained whose inputs are run again."""


@dataclass(frozen=True)
class LagGroups:
    """Lags that are shown as one: 1, 2, 3 to 4, 5 to 8 and so on; the newest samples matter most.

    Attributes:
        bounds: (G, 2) first and last lag of each, samples before the forecast sample.
    """

    bounds: Int64

    @staticmethod
    def of(length: int) -> "LagGroups":
        """Return the groups of a window of so many samples."""
        last = [min(2**power, length) for power in range(length.bit_length() + 1)]
        last = sorted(set(last))
        return LagGroups(np.array([(before + 1, end) for before, end in zip([0, *last], last, strict=False)]))

    def of_rows(self, length: int) -> Int64:
        """Return (T,) the group of each row of a window, oldest first."""
        return np.searchsorted(self.bounds[:, 1], length - np.arange(length)).astype(np.int64)

    @property
    def names(self) -> list[str]:
        """Return each as text."""
        return [f"{first}" if first == last else f"{first} to {last}" for first, last in self.bounds.tolist()]


@dataclass(frozen=True)
class Moment:
    """One sample, and everything that its score and its forecast came from.

    Attributes:
        bundle: the model.
        asset: id.
        time: seconds since the epoch.
        actual, forecast: (F,) engineering units.
        statistic, score, threshold: of it.
        parts: of the statistic's logarithm.
        shares: (F,) as alarm events name them.
        window: (T, I) inputs that the forecast was made from.
    """

    bundle: Bundle
    asset: str
    time: float
    actual: Float64
    forecast: Float64
    statistic: float
    score: float
    threshold: float
    parts: ScoreParts
    shares: Float64
    window: Float32

    @property
    def strongest(self) -> list[int]:
        """Return the sensors' places, largest share first."""
        return [int(place) for place in np.argsort(-self.shares, kind="stable")]


def moment_of(
    bundle: Bundle, samples: Samples, asset: str, tick: int, inference: str | None = None
) -> Moment:
    """Run the detector up to one sample, and take its score apart.

    Args:
        bundle: the model.
        samples: of one asset, numbered 0, in order.
        asset: its id.
        tick: of the sample.
        inference: `step` or `window`; None as calibrated.

    Raises:
        HistoryError: there is no such sample, or it has no score.
    """
    row = int(np.searchsorted(samples.tick, tick))
    if row >= len(samples) or samples.tick[row] != tick:
        raise HistoryError(f"asset {asset} has no sample at that time")
    detector = open_detector(bundle, inference)
    for part in chunks_of(_rows(samples, 0, row)):
        detector.process(part)
    detector.ensure_assets(1)
    window, usual = (
        _window_before(bundle, samples, row),
        detector.state.trailing.normaliser[0].astype(np.float64),
    )
    outcome = detector.process(_rows(samples, row, row + 1))
    statistic = float(outcome.statistic[0])
    if not np.isfinite(statistic):
        raise HistoryError(
            f"the sample of asset {asset} at that time has no score: warming up, off, or all missing"
        )
    present = np.isfinite(_passed(bundle, samples, row, inference))
    averages = detector.state.scoring.take(np.array([0]))
    factor = 1.0 if outcome.factor is None else float(outcome.factor[0])
    return Moment(
        bundle,
        asset,
        float(outcome.time[0]),
        samples.values[row].astype(np.float64),
        outcome.forecast[0].astype(np.float64),
        statistic,
        float(outcome.score[0]),
        bundle.manifest.threshold.value * factor,
        score_parts(bundle.scoring, averages, present, usual, statistic),
        detector.scorer.shares(averages, present[None])[0],
        window,
    )


def _rows(samples: Samples, first: int, last: int) -> Samples:
    part = slice(first, last)
    return Samples(samples.asset[part], samples.tick[part], samples.values[part])


def _window_before(bundle: Bundle, samples: Samples, row: int) -> Float32:
    """Return (T, I) the last inputs before a sample, oldest first; only the window form remembers them."""
    detector = open_detector(bundle, "window")
    detector.ensure_assets(1)
    length = bundle.manifest.window_length
    # Long enough before it, so that the sensor gate knows its sensors.
    for part in chunks_of(_rows(samples, max(0, row - max(4 * length, LEAST_BEFORE)), row)):
        detector.process(part)
    state = detector.state
    return np.asarray(state.ring[0, (state.cursor[0] + np.arange(length)) % length])


def _passed(bundle: Bundle, samples: Samples, row: int, inference: str | None) -> Float32:
    """Return (F,) the sample as the sensor gate lets it through."""
    passed = open_detector(bundle, inference).gated(_rows(samples, 0, row + 1))
    return np.asarray(passed.values[-1])


@dataclass(frozen=True)
class ForecastAttribution:
    """What made the forecast of one sensor, engineering units of that sensor.

    Attributes:
        sensor: place.
        from_window, from_baseline: forecasts.
        lags: groups of lags.
        inputs: names of N inputs.
        gradients: (N, G) integrated gradients; None where the bundle holds no weights.
        shapley: (N, G) Shapley values; None where they were not asked for.
    """

    sensor: int
    from_window: float
    from_baseline: float
    lags: LagGroups
    inputs: tuple[str, ...]
    gradients: Float64 | None
    shapley: Float64 | None


def attribute(moment: Moment, sensors: Sequence[int], with_shap: bool = True) -> list[ForecastAttribution]:
    """Attribute the forecasts of some sensors to the readings before them.

    Args:
        moment: the sample that was forecast.
        sensors: places.
        with_shap: whether Shapley values are wanted; the SHAP library takes seconds to load.

    Raises:
        UsageError: SHAP is wanted and not installed.
    """
    manifest, window = moment.bundle.manifest, moment.window
    baseline = np.zeros_like(window)
    forecaster = Forecaster(moment.bundle.directory, "window", manifest.state_size)
    lags = LagGroups.of(len(window))
    inputs, input_of = _inputs(manifest.inputs)
    players = input_of[None, :] * len(lags.bounds) + lags.of_rows(len(window))[:, None]
    places, count = list(sensors), len(inputs) * len(lags.bounds)
    from_window, from_baseline = forecaster.window(np.stack([window, baseline]))[:, 0, places, 0]
    gradients, shapley = _gradients(moment, baseline, places, players, count), None
    if with_shap:
        from trainer.shapley import shapley_values

        shapley = shapley_values(
            lambda windows: forecaster.window(windows)[:, 0, places, 0], window, baseline, players
        )
    scaling, shape = manifest.scaling, (len(inputs), len(lags.bounds))
    return [
        ForecastAttribution(
            sensor,
            float(from_window[number] * scaling.scale[sensor] + scaling.centre[sensor]),
            float(from_baseline[number] * scaling.scale[sensor] + scaling.centre[sensor]),
            lags,
            inputs,
            None if gradients is None else gradients[number].reshape(shape) * scaling.scale[sensor],
            None if shapley is None else shapley[number].reshape(shape) * scaling.scale[sensor],
        )
        for number, sensor in enumerate(places)
    ]


def _inputs(described: Sequence[str]) -> tuple[tuple[str, ...], Int64]:
    """Return the names of the inputs, and which of them each column belongs to: a mask to its sensor."""
    names = [entry.partition(":")[2] for entry in described]
    known = tuple(dict.fromkeys(names))
    return known, np.array([known.index(name) for name in names], np.int64)


def _gradients(
    moment: Moment, baseline: Float32, sensors: Sequence[int], players: Int64, count: int
) -> Float64 | None:
    """Return (K, P) integrated gradients by player; None where the bundle holds no weights of an LSTM."""
    path = moment.bundle.directory / WEIGHTS
    if not path.is_file():
        return None
    # Imported late: Keras takes ten seconds.
    from trainer.gradients import integrated_gradients
    from trainer.model import ForecasterWeights

    found = integrated_gradients(ForecasterWeights.load(path), moment.window, baseline, sensors)
    summed = np.zeros((len(sensors), count))
    for number, cells in enumerate(found.cells):
        np.add.at(summed[number], players.ravel(), cells.ravel())
    return summed


def moment_record(moment: Moment, attributions: Sequence[ForecastAttribution]) -> dict[str, Any]:
    """Return the record that `trainer explain --json` prints."""
    manifest = moment.bundle.manifest
    contributions = moment.parts.of_sensors(len(manifest.sensors))
    return {
        "asset": moment.asset,
        "time": moment.time,
        "score": moment.score,
        "statistic": moment.statistic,
        "threshold": moment.threshold,
        "log_statistic": moment.parts.log_statistic,
        "log_threshold": float(np.log(moment.threshold)),
        "sources": [
            {
                "source": part.source,
                "span": part.span,
                "weight": part.weight,
                "ratio": part.ratio,
                "contribution": part.contribution,
            }
            for part in moment.parts.parts
        ],
        "sensors": [
            {
                "name": manifest.sensors[place].name,
                "unit": manifest.sensors[place].unit,
                "share": float(moment.shares[place]),
                "contribution": float(contributions[place]),
                "actual": _finite(moment.actual[place]),
                "expected": float(moment.forecast[place]),
            }
            for place in moment.strongest
        ],
        "forecasts": [_attribution_record(moment, one) for one in attributions],
    }


def _attribution_record(moment: Moment, one: ForecastAttribution) -> dict[str, Any]:
    sensor = moment.bundle.manifest.sensors[one.sensor]
    cells = [
        {
            "input": name,
            "first_lag": int(first),
            "last_lag": int(last),
            "integrated_gradients": None if one.gradients is None else float(one.gradients[row, column]),
            "shap": None if one.shapley is None else float(one.shapley[row, column]),
        }
        for row, name in enumerate(one.inputs)
        for column, (first, last) in enumerate(one.lags.bounds.tolist())
    ]
    return {
        "sensor": sensor.name,
        "unit": sensor.unit,
        "actual": _finite(moment.actual[one.sensor]),
        "forecast": float(moment.forecast[one.sensor]),
        "from_window": one.from_window,
        "from_baseline": one.from_baseline,
        "cells": cells,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def chosen_alarm(events: Sequence[AlarmEvent], number: int) -> AlarmEvent:
    """Return the start of the alarm with a number, counted from 1 over all assets in the order of `replay`.

    Raises:
        HistoryError: there are not so many.
    """
    starts = [event for event in events if event.kind == "start"]
    if not 1 <= number <= len(starts):
        raise HistoryError(f"--alarm {number}: the history has {len(starts)} alarms")
    return starts[number - 1]
