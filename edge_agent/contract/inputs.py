"""What the forecaster reads at each tick, and where in its inputs it stands.

In this order: the sensors that are forecast, a mask of those that are missing, exogenous quantities (commands, set
points), and the calendar. An exogenous quantity travels with the readings of the sensors and is held where it is
missing; it is neither forecast nor scored. Trainer and daemon lay out their inputs here.
"""

from collections.abc import Collection, Sequence

import numpy as np

from edge_agent.contract.calendar_inputs import CALENDAR, calendar_values, find_zone
from edge_agent.contract.grid import Axis
from edge_agent.contract.types import Bool, Float32, Int64

KINDS = ("sensor", "missing", "exogenous", "calendar")
_BLOCK = 1 << 14


class InputLayout:
    """The inputs of one forecaster: I = 2 F' + E + C of F' sensors, E exogenous quantities and C of the calendar.

    Args:
        sensors: names of the F = F' + E columns of a sample, in order.
        exogenous: names of those that are read and not forecast.
        calendar: names of calendar inputs.
        axis: of the ticks.
        time_zone: whose clock the calendar follows.

    Raises:
        ValueError: a name is unknown, or nothing is left to forecast; as the end of a sentence.
    """

    def __init__(
        self,
        sensors: Sequence[str],
        exogenous: Collection[str],
        calendar: Sequence[str],
        axis: Axis,
        time_zone: str = "UTC",
    ) -> None:
        unknown = [name for name in exogenous if name not in sensors]
        if unknown:
            raise ValueError(f"names {unknown[0]!r}, which is no sensor")
        known = [name for names in CALENDAR.values() for name in names]
        if any(name not in known for name in calendar):
            raise ValueError(f"names calendar inputs {', '.join(calendar)}, known are {', '.join(known)}")
        self.is_exogenous: Bool = np.array([name in exogenous for name in sensors], np.bool_)
        """(F,) which columns are exogenous."""
        self.forecast: Int64 = np.flatnonzero(~self.is_exogenous)
        """(F',) columns that are forecast."""
        self.exogenous: Int64 = np.flatnonzero(self.is_exogenous)
        """(E,) columns that are exogenous."""
        if not len(self.forecast):
            raise ValueError("leaves no sensor to forecast")
        self.calendar = tuple(calendar)
        self.names = self._names(sensors)
        self._axis = axis
        self._zone = find_zone(time_zone)

    @staticmethod
    def read(inputs: Sequence[str], sensors: Sequence[str], axis: Axis, time_zone: str) -> "InputLayout":
        """Return the layout that a manifest's `inputs` describe.

        Raises:
            ValueError: they are not what this program lays out; as the end of a sentence.
        """
        named: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for entry in inputs:
            kind, _, name = entry.partition(":")
            named.setdefault(kind, []).append(name)
        layout = InputLayout(sensors, named["exogenous"], named["calendar"], axis, time_zone)
        if layout.names != tuple(inputs):
            raise ValueError(f"must be {', '.join(layout.names)}")
        return layout

    @property
    def context_width(self) -> int:
        """Return E + C."""
        return len(self.exogenous) + len(self.calendar)

    def context(self, held: Float32, tick: Int64) -> Float32:
        """Return (..., E + C) exogenous quantities and the calendar.

        Args:
            held: (..., F) scaled, no cell missing.
            tick: (...) of the samples.
        """
        context = np.empty((*tick.shape, self.context_width), np.float32)
        told = len(self.exogenous)
        context[..., :told] = held[..., self.exogenous]
        if self.calendar:
            ticks, calendar = tick.reshape(-1), context.reshape(-1, self.context_width)[:, told:]
            # In blocks: the float64 times of a whole history would be larger than the history.
            for at in range(0, len(ticks), _BLOCK):
                time = self._axis.time_of(ticks[at : at + _BLOCK])
                calendar[at : at + _BLOCK] = calendar_values(self.calendar, time, self._zone)
        return context

    def rows(self, filled: Float32, present: Bool | None, tick: Int64) -> Float32:
        """Return (..., I) inputs of the forecaster.

        Args:
            filled: (..., F) scaled samples, no cell missing.
            present: (..., F) which cells were measured; None is all.
            tick: (...) of the samples.
        """
        told = len(self.forecast)
        inputs = np.zeros((*tick.shape, 2 * told + self.context_width), np.float32)
        plain = not len(self.exogenous)
        inputs[..., :told] = filled if plain else filled[..., self.forecast]
        if present is not None:
            inputs[..., told : 2 * told] = ~(present if plain else present[..., self.forecast])
        if self.context_width:
            inputs[..., 2 * told :] = self.context(filled, tick)
        return inputs

    def pending(self, ahead: Float32, inputs: Float32) -> Float32:
        """Return (..., F) what is expected of the next sample: exogenous quantities stay where they are.

        Args:
            ahead: (..., F') forecasts.
            inputs: (..., I) that they were made from.
        """
        if not len(self.exogenous):
            return ahead
        expected = np.empty((*ahead.shape[:-1], len(self.is_exogenous)), np.float32)
        expected[..., self.forecast] = ahead
        begin = 2 * len(self.forecast)
        expected[..., self.exogenous] = inputs[..., begin : begin + len(self.exogenous)]
        return expected

    def _names(self, sensors: Sequence[str]) -> tuple[str, ...]:
        told = [sensors[place] for place in self.forecast]
        return (
            *(f"sensor:{name}" for name in told),
            *(f"missing:{name}" for name in told),
            *(f"exogenous:{sensors[place]}" for place in self.exogenous),
            *(f"calendar:{name}" for name in self.calendar),
        )
