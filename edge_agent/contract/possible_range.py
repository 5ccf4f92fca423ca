"""Possible range: beyond it a reading is no measurement of the machine, whatever the machine does.

Without a configured range it is `[minimum - 100 m, maximum + 100 m]`, where `m = max(|minimum|, |maximum|)` of the
training history. Transmitters are ranged down by a hundred at most: one whose normal readings stay under a hundredth
of its full scale would measure nothing. So a reading beyond is a word of the electronics (-9999, 32767, 65535, 1e6) and
not of the machine. The limit is wide on purpose. A fault may well take a vibration to twenty times what was ever seen,
and a gate that masks that hides the alarm: closer limits need someone who knows the sensor, and are configured.

Nothing is known of how far a constant sensor may move: it is judged by a configured range only. A single reading
beyond is masked; three without five good ones in a row between them make a dead sensor.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.types import Bool, Float32, Float64

TURNDOWN = 100.0
DEAD_AFTER = 3
_FARTHEST = float(np.finfo(np.float32).max)


def possible_range(minimum: Float64, maximum: Float64, constant: Bool) -> tuple[Float32, Float32]:
    """Return (F,) lowest and (F,) highest possible reading, engineering units; finite even where nothing is known."""
    reach = np.where(constant, _FARTHEST, TURNDOWN * np.maximum(np.abs(minimum), np.abs(maximum)))
    low = np.clip(minimum - reach, -_FARTHEST, _FARTHEST)
    high = np.clip(maximum + reach, -_FARTHEST, _FARTHEST)
    return low.astype(np.float32), high.astype(np.float32)


def configure_range(
    low: Float32, high: Float32, names: Sequence[str], ranges: Mapping[str, tuple[float, float]]
) -> None:
    """Put configured ranges in place, by the sensors' names.

    Raises:
        ConfigurationError: there is no sensor of that name.
    """
    for name, (lowest, highest) in ranges.items():
        if name not in names:
            raise ConfigurationError(f"quality.ranges: {name}: is no sensor of the bundle")
        place = names.index(name)
        low[place], high[place] = np.clip((lowest, highest), -_FARTHEST, _FARTHEST)
