"""Alarm events and advice with their sensors: share, what was read and expected, direction."""

from dataclasses import replace

import numpy as np

from edge_agent.contract.alarms import CLEARED, AlarmState, Transitions
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.drift import LIMIT, DriftState
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.scoring_state import Averages
from edge_agent.contract.signature import directions
from edge_agent.contract.types import (
    AlarmEvent,
    Bool,
    DriftEvent,
    Float32,
    Float64,
    Int64,
    SensorDrift,
    SensorShare,
)
from edge_agent.detector_state import ScoredTile
from edge_agent.weighing import Weighed


class Blame:
    """Says of alarms and of drift which sensors they come from; holds no state of assets itself.

    Args:
        bundle: the model.
        scorer: of the bundle's scoring model.
    """

    def __init__(self, bundle: Bundle, scorer: Scorer) -> None:
        self._scorer = scorer
        self._sensors = bundle.manifest.sensors
        self._scaling = bundle.manifest.scaling
        self._exogenous = bundle.manifest.layout.is_exogenous
        self._basis = bundle.manifest.threshold.basis

    def events(
        self,
        alarms: AlarmState,
        happened: Transitions,
        weighed: Weighed,
        places: Int64,
        column: int,
        score: Float64,
        onset: Bool,
    ) -> list[tuple[int, AlarmEvent]]:
        """Return what happened to the alarms of some assets at one tick, each with its place among them.

        Args:
            alarms: after this tick.
            happened: (B,) of the assets.
            weighed: the tile.
            places: (B,) of the assets in the tile.
            column: of the tick.
            score: (B,) of the samples.
            onset: (B,) whether an abrupt change was told of them.
        """
        events, tile = [], weighed.tile
        for kind, which in (
            ("end", happened.ended),
            ("start", happened.started),
            ("update", happened.updated),
        ):
            for at in np.flatnonzero(which).tolist():
                row = int(weighed.flat(places[at], column))
                time = float(weighed.time[places[at], column])
                event = self.event(
                    alarms,
                    kind,
                    int(weighed.asset[places[at]]),
                    time,
                    float(score[at]),
                    self._shares(tile, row),
                )
                toward = directions(self._scorer, tile.averages.take(slice(row, row + 1)))[0]
                event = replace(
                    event,
                    signature=tuple(toward.tolist()),
                    end_reason=CLEARED if kind == "end" else None,
                    reopened=bool(happened.reopened[at]),
                    renewed=kind == "update" and bool(onset[at]),
                )
                events.append((at, event))
        return events

    def event(
        self,
        alarms: AlarmState,
        kind: str,
        asset: int,
        time: float,
        score: float,
        sensors: tuple[SensorShare, ...],
    ) -> AlarmEvent:
        """Return an event of the alarm of one asset, as it stands."""
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
            score_basis=self._basis,
            sensors=sensors,
        )

    def expected(self, averages: Averages, pending: Float32) -> Float32:
        """Return (n, F) what should have been read, engineering units, of averages and scaled forecasts (n, F).

        The forecast speaks for a sudden change; for a lasting one, which a forecaster follows, the other sensors do.
        """
        latest = np.abs(averages.residual[:, 0])
        sudden = latest >= np.abs(averages.residual[:, :-1]).max(axis=1) - 1e-12
        lasting = np.abs(averages.level[:, -1]) > latest
        others = self._scorer.expected_level(averages).astype(np.float32)
        return self._scaling.invert(np.where(lasting | ~sudden, others, pending))

    def advice(self, state: DriftState, asset: int) -> DriftEvent:
        """Return the advice to train anew that was last given of one asset, the sensors that drift furthest first."""
        sensors = self._sensors
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
        time, since = float(state.advised_time[asset]), float(state.since[asset])
        return DriftEvent(asset, time, since, float(np.abs(drifts).max()), named)

    def _shares(self, tile: ScoredTile, row: int) -> tuple[SensorShare, ...]:
        """Return sensors' shares of the score of one sample, largest first, engineering units; commands have none."""
        one = slice(row, row + 1)
        averages = tile.averages.take(one)
        present = None if tile.present is None else tile.present[one]
        shares = self._scorer.shares(averages, present)[0]
        expected = self.expected(averages, tile.pending[one])[0]
        actual = self._scaling.invert(tile.scaled[row])
        trend = averages.level[0, -1] - averages.level[0, min(2, averages.level.shape[1] - 2)]
        return tuple(
            self._share(int(i), float(shares[i]), float(actual[i]), float(expected[i]), float(trend[i]))
            for i in np.argsort(-shares, kind="stable")
            if not self._exogenous[i]
        )

    def _share(self, index: int, share: float, actual: float, expected: float, trend: float) -> SensorShare:
        sensor = self._sensors[index]
        missing = not np.isfinite(actual)
        direction = "missing" if missing else "above" if actual >= expected else "below"
        moving = "rising" if trend > 0.25 else "falling" if trend < -0.25 else "steady"
        return SensorShare(
            sensor.name, sensor.unit, share, None if missing else actual, expected, direction, moving
        )
