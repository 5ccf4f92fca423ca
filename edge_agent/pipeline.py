"""Gate, grid and detector in a row: the one path that the live agent and the replay both drive.

The gate here judges readings one by one; the one inside the detector judges what sensors say over time.
"""

import numpy as np

from edge_agent.contract.errors import ConfigurationError
from edge_agent.contract.grid import Grid
from edge_agent.contract.types import Outcomes, Rows, Samples
from edge_agent.detector import Detector
from edge_agent.quality import QualityGate


class Pipeline:
    """Rows in, outcomes out.

    Args:
        detector: scores the samples.
        lateness_ticks: how many ticks a tick waits for late readings.
        max_assets: how many assets are followed at most.
        max_future_seconds: how far ahead of the clock a reading may be stamped.
    """

    def __init__(
        self,
        detector: Detector,
        lateness_ticks: int = 1,
        max_assets: int = 100_000,
        max_future_seconds: float = 60.0,
    ) -> None:
        manifest = detector.bundle.manifest
        self.detector = detector
        self.sensors, self.unused = manifest.sensor_names, manifest.unused
        self.assets: list[str] = []
        self.max_assets = max_assets
        self.gate = QualityGate(max_future_seconds)
        self.grid = Grid(manifest.axis, len(self.sensors), lateness_ticks)
        self._row_of: dict[str, int] = {}

    def asset_row(self, asset: str) -> int:
        """Return the row of an asset, a new one if it was never seen.

        Raises:
            ConfigurationError: there are `max_assets` already.
        """
        row = self._row_of.get(asset)
        if row is None:
            if len(self.assets) >= self.max_assets:
                raise ConfigurationError(f"agent.max_assets: {self.max_assets} assets are followed already")
            row = self._row_of[asset] = len(self.assets)
            self.assets.append(asset)
            self.detector.ensure_assets(row + 1)
        return row

    def known_row(self, asset: str) -> int | None:
        """Return the row of an asset, None if it was never seen."""
        return self._row_of.get(asset)

    def feed(self, rows: Rows, now: float) -> Outcomes:
        """Take rows in and return the outcomes of the ticks that they close.

        Args:
            rows: in order of arrival.
            now: the agent's clock, seconds since the epoch.
        """
        checked = self.gate.check(rows, now)
        self.detector.hear(checked.asset, now)
        return self._score(self.grid.push(checked, now))

    def advance(self, now: float) -> Outcomes:
        """Close ticks that have waited long enough by the agent's clock, and miss the assets that fell silent."""
        outcomes = self._score(self.grid.advance(now))
        outcomes.quality.extend(self.detector.advance(now))
        return outcomes

    def flush(self) -> Outcomes:
        """Close every open tick, as at the end of a file."""
        return self._score(self.grid.flush())

    @property
    def rejected(self) -> dict[str, int]:
        """Return how many readings were not used, by reason."""
        return {**self.gate.rejected, "late": self.grid.late, "duplicate": self.grid.duplicate}

    @property
    def quality(self) -> dict[str, int]:
        """Return what the gates and the grid found wrong with the readings, by reason; used or not."""
        grid = {
            "late": self.grid.late,
            "duplicate": self.grid.duplicate,
            "out_of_order": self.grid.out_of_order,
        }
        return {**self.detector.gate.found, **grid, "future": self.gate.rejected["future"]}

    def _score(self, samples: Samples) -> Outcomes:
        if not len(samples):
            width = len(self.sensors)
            none = np.empty(0)
            return Outcomes(
                samples.asset, samples.tick, none, none, none, np.empty(0, np.bool_),
                np.empty((0, width), np.float32), [],
            )  # fmt: skip
        return self.detector.process(samples)
