"""Unit jump: a sensor goes on in another unit, as after new firmware or a changed gateway, and stays there.

With `new = factor * old + offset` for each conversion that fits the sensor's unit, a reading x after r is a candidate
if the step is a leap (see `spike.py`), x is outside the range ever seen, and converted back it is inside that range
and continues r: `|back(x) - r| <= 4.5 * usual_step + 2e-3 |r|`. `usual_step` is the median step between readings of
the training history: for white noise 4.5 of them are three deviations of a difference; the share of r is what rounding
in the new unit loses. Where both are over a tenth of r, as at a standstill, nothing can be told apart. A jump is five
such readings in a row, whose steps, converted back too, are on average between a third and five times the usual one:
a sensor's noise is converted with it, that of a machine in trouble is not. It takes a fault that hits both to be taken
for a jump. A candidate is masked, for four readings at most unless it is confirmed.

What lands inside the range seen is not judged: that is what operation does. A reading that means the same in both
units (0 in most) speaks neither for nor against. Without a known unit only powers of ten are tried: the more
conversions, the more faults that look like one.
"""

from collections.abc import Sequence

import numpy as np

from edge_agent.contract.types import Bool, Conversion, Float32, Float64, Int64

CONFIRMED_AFTER = 5
NOISE_STEPS = 4.5
ROUNDING = 2e-3
LEAST_MOVED, MOST_MOVED = 1 / 3, 5.0
"""Mean step of the five readings, converted back, over the usual step."""
CLEAR = 0.1
MARGIN = 0.05
"""How far beyond the range seen a reading that is converted back may go on, as a share of that range."""


_POWERS = tuple(Conversion(f"×{10**power}", 10.0**power) for power in (1, 2, 3)) + tuple(
    Conversion(f"÷{10**power}", 10.0**-power) for power in (1, 2, 3)
)
_FAMILIES: tuple[dict[str, float], ...] = (
    {"pa": 1.0, "hpa": 1e2, "mbar": 1e2, "kpa": 1e3, "psi": 6894.757, "bar": 1e5, "mpa": 1e6},
    {"m3/h": 1.0, "l/min": 0.06, "l/s": 3.6, "m3/s": 3600.0, "gpm": 0.2271247},
    {"mm/s": 1e-3, "in/s": 0.0254, "m/s": 1.0},
    {"mm": 1e-3, "cm": 1e-2, "in": 0.0254, "ft": 0.3048, "m": 1.0},
)
_TEMPERATURES = (
    Conversion("°C to °F", 1.8, 32.0),
    Conversion("°F to °C", 1 / 1.8, -32 / 1.8),
    Conversion("°C to K", 1.0, 273.15),
    Conversion("K to °C", 1.0, -273.15),
)
_TEMPERATURE_NAMES = {"c": "°C", "f": "°F", "k": "K", "celsius": "°C", "fahrenheit": "°F", "kelvin": "K"}


def conversions_of(unit: str, name: str = "") -> tuple[Conversion, ...]:
    """Return what a sensor may be converted by: the other units of its quantity, and powers of ten.

    Args:
        unit: as the manifest has it; where it is empty, the name's ending may tell.
        name: of the sensor.
    """
    return _distinct((*_of_quantity(_plain(unit) or _unit_in(name)), *_POWERS))


def _plain(unit: str) -> str:
    plain = unit.strip().lower().replace("³", "3").replace("°", "").replace("deg", "").replace(" ", "")
    return {"m3h": "m3/h", "lmin": "l/min"}.get(plain, plain)


def _unit_in(name: str) -> str:
    """Return the unit that a name ends in, as in `oil_pressure_bar` and `vibration_mm_s`, or nothing."""
    parts = name.lower().split("_")
    ending, pair = parts[-1], "/".join(parts[-2:])
    if any(pair in family for family in _FAMILIES):
        return pair
    # Shorter endings, such as `_in`, `_c` and `_m`, are as often no units.
    return _plain(ending) if len(ending) > 2 else ""


def _of_quantity(unit: str) -> tuple[Conversion, ...]:
    if unit in _TEMPERATURE_NAMES:
        sign = _TEMPERATURE_NAMES[unit]
        return tuple(one for one in _TEMPERATURES if one.name.startswith(f"{sign} "))
    family = next((family for family in _FAMILIES if unit in family), {})
    return tuple(_between(family, unit, new) for new in family if family[new] != family[unit])


def _between(family: dict[str, float], old: str, new: str) -> Conversion:
    return Conversion(f"{old} to {new}", family[old] / family[new])


def _distinct(conversions: Sequence[Conversion]) -> tuple[Conversion, ...]:
    """Leave out what converts like one before it."""
    kept: dict[tuple[float, float], Conversion] = {}
    for one in conversions:
        kept.setdefault((round(float(np.log10(one.factor)), 6), one.offset), one)
    return tuple(kept.values())


class UnitTable:
    """The conversions of all sensors in arrays; conversion 0 is none, n is the n-th of the sensor's own.

    Args:
        sensors: unit and name of each.
        minimum, maximum: (F,) range seen.
        usual_step: of each sensor; 0 where unknown.
    """

    def __init__(
        self,
        sensors: Sequence[tuple[str, str]],
        minimum: Float64,
        maximum: Float64,
        usual_step: Sequence[float],
    ) -> None:
        self.conversions = [conversions_of(unit, name) for unit, name in sensors]
        width = 1 + max((len(one) for one in self.conversions), default=0)
        self._factor = np.full((len(sensors), width), np.nan)
        self._offset = np.zeros((len(sensors), width))
        for sensor, known in enumerate(self.conversions):
            for place, one in enumerate(known, start=1):
                self._factor[sensor, place], self._offset[sensor, place] = one.factor, one.offset
        margin = MARGIN * (maximum - minimum)
        self._minimum, self._maximum = minimum, maximum
        self._low, self._high = minimum - margin, maximum + margin
        self._usual = np.asarray(usual_step, np.float64)

    def find(self, sensor: Int64, before: Float32, value: Float32) -> Int64:
        """Return the conversion (n,) by which each reading outside the range continues the one before; 0 for none."""
        value, before = value.astype(np.float64), before.astype(np.float64)
        back = (value[:, None] - self._offset[sensor]) / self._factor[sensor]
        apart = np.abs(back - before[:, None])
        allowed = (NOISE_STEPS * self._usual[sensor] + ROUNDING * np.abs(before))[:, None]
        clear = allowed <= CLEAR * np.abs(before)[:, None]
        inside = clear & (back >= self._minimum[sensor, None]) & (back <= self._maximum[sensor, None])
        apart = np.where(inside & (apart <= allowed), apart, np.inf)
        outside = (value < self._minimum[sensor]) | (value > self._maximum[sensor])
        best = np.argmin(apart, axis=1)
        return np.where(outside & np.isfinite(apart.min(axis=1)), best, 0)

    def judge(self, conversion: Int64, value: Float32) -> tuple[Bool, Bool]:
        """Return (B, F) which readings still speak for the conversion, and which say nothing of it.

        Args:
            conversion: (B, F) found before; 0 where there is none, and both answers are no.
            value: (B, F) readings; NaN where missing.
        """
        sensors = np.arange(value.shape[1])
        wide = value.astype(np.float64)
        back = (wide - self._offset[sensors, conversion]) / self._factor[sensors, conversion]
        outside = (wide < self._minimum) | (wide > self._maximum)
        speaks = outside & (back >= self._low) & (back <= self._high)
        alike = np.abs(back - wide) <= NOISE_STEPS * self._usual + ROUNDING * np.abs(wide)
        return np.asarray(speaks), np.asarray(alike & ~speaks)

    def step_back(self, conversion: Int64, step: Float32) -> Float64:
        """Return the sizes (B, F) of steps between readings, converted back; NaN where there is no conversion."""
        return np.asarray(np.abs(step) / self._factor[np.arange(step.shape[1]), conversion])

    def moves_as_usual(self, moved: Float32) -> Bool:
        """Return (B, F) whether readings moved, converted back, as the sensor does.

        Args:
            moved: (B, F) sum of their steps, between as many readings as make a jump.
        """
        mean = moved / (CONFIRMED_AFTER - 1)
        usual = (mean >= LEAST_MOVED * self._usual) & (mean <= MOST_MOVED * self._usual)
        return np.asarray(usual | (self._usual == 0.0))


def usual_step(columns: Sequence[Float32]) -> float:
    """Return the median absolute step between readings of one sensor in a history.

    Args:
        columns: (n,) values of the sensor in each asset's order of time; NaN where missing.
    """
    steps = [np.abs(np.diff(column[np.isfinite(column)].astype(np.float64))) for column in columns]
    together = np.concatenate(steps) if steps else np.empty(0)
    return float(np.median(together)) if len(together) else 0.0
