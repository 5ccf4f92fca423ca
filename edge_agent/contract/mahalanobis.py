"""Mahalanobis distance with a shrunk correlation, over the sensors that are present.

`d = sqrt(z' R^-1 z * F / |present|)` with `R = (1 - s) C + s I`. The correlation is shrunk because with few rows the
smallest eigenvalues of `C` are noise and their inverse rules the distance (Ledoit and Wolf 2004). For missing sensors
the marginal distribution of the others is used, never a filled-in value.
"""

from functools import cached_property

import numpy as np

from edge_agent.contract.types import Bool, Float64

BOUND = 8.0
"""One sensor's contribution is at most this many standard deviations: one broken sensor must not hide the rest."""


def bounded(standardised: Float64) -> Float64:
    """Return `8 tanh(u / 8)`: nearly u for ordinary deviations, never beyond 8."""
    return np.asarray(BOUND * np.tanh(standardised / BOUND))


def shrunk_correlation(rows: Float64) -> Float64:
    """Return the correlation of rows (n, F), shrunk towards the identity by F / (F + n), at least 2 %.

    Missing cells (NaN) count as zero, the mean of standardised data.
    """
    filled = np.nan_to_num(rows, nan=0.0)
    count, width = filled.shape
    covariance = filled.T @ filled / max(count, 1)
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    correlation = covariance / np.outer(scale, scale)
    shrink = max(0.02, width / (width + count))
    return np.asarray((1.0 - shrink) * correlation + shrink * np.eye(width))


class Mahalanobis:
    """Distances under one correlation; inverses for masks seen before are remembered.

    Args:
        correlation: (F, F), positive definite.
        judged: (F,) sensors that count at all; None is all.
    """

    _REMEMBERED = 256

    def __init__(self, correlation: Float64, judged: Bool | None = None) -> None:
        self.correlation = correlation
        self.precision: Float64 = np.asarray(np.linalg.inv(correlation), np.float64)
        self._by_mask: dict[bytes, Float64] = {}
        self._judged = np.ones(len(correlation), np.bool_) if judged is None else judged
        self._usual = self._masked_precision(self._judged)
        self._factor = _factor(self._usual)
        self._ones = np.full(len(correlation), len(correlation) / max(int(self._judged.sum()), 1))

    @cached_property
    def whitening(self) -> Float64:
        """Return `R^-1/2` (F, F), symmetric: what it makes of a vector is as near to the sensors as can be.

        Of all whitening matrices it moves the standardised vector least (Kessy, Lewin and Strimmer 2018, Optimal
        Whitening and Decorrelation), so that a component still stands for its sensor.
        """
        values, vectors = np.linalg.eigh(self.correlation)
        return np.asarray((vectors / np.sqrt(values)) @ vectors.T)

    def projected(self, z: Float64, present: Bool | None) -> Float64:
        """Return `R^-1 z` (n, S, F) for z (n, S, F), with zeros for sensors missing in `present` (n, F); None is none.

        Sensors that are not judged are missing throughout.
        """
        width = z.shape[2]
        result = (z.reshape(-1, width) @ self._usual).reshape(z.shape)
        if present is None:
            return result
        present = present & self._judged
        partial = np.flatnonzero((present != self._judged).any(axis=1))
        if len(partial):
            # As bytes, one to eight sensors: rows of truth values are slow to compare.
            codes = np.packbits(present[partial], axis=1)
            _, first, which = np.unique(
                codes.view(np.dtype((np.void, codes.shape[1]))), return_index=True, return_inverse=True
            )
            which = which.reshape(len(partial))
            for number, at in enumerate(first):
                chosen, pattern = partial[which == number], present[partial[at]]
                result[chosen] = (z[chosen] * pattern) @ self._masked_precision(pattern)
        return result

    def expected(self, z: Float64, present: Bool) -> Float64:
        """Return z (n, S, F) with the conditional mean in place of what is missing in `present` (n, F).

        Of a normal distribution `E[z_m | z_o] = R_mo R_oo^-1 z_o`: the best linear guess of a sensor by all others.
        """
        return np.asarray(np.where(present[:, None], z, self.projected(z, present) @ self.correlation))

    def contributions(self, z: Float64, present: Bool | None) -> Float64:
        """Return each sensor's part of the squared distance, (n, S, F); they sum to it."""
        return np.asarray(z * self.projected(z, present))

    def distance(self, z: Float64, present: Bool | None) -> Float64:
        """Return distances (n, S) of standardised vectors z (n, S, F), scaled to F present sensors.

        Args:
            z: finite.
            present: (n, F) which cells count; None is those of all judged sensors.
        """
        if present is None or (present | ~self._judged).all():
            # Of all sensors the square is that of a vector's length, without a product for each.
            turned = z.reshape(-1, z.shape[-1]) @ self._factor
            turned *= turned
            square = turned @ self._ones
            return np.asarray(np.sqrt(square, out=square)).reshape(z.shape[:2])
        square = np.maximum(self.contributions(z, present).sum(axis=2), 0.0)
        counted = np.maximum((present & self._judged).sum(axis=1), 1)
        return np.asarray(np.sqrt(square * (present.shape[1] / counted)[:, None]))

    def _masked_precision(self, pattern: Bool) -> Float64:
        key = pattern.tobytes()
        if key not in self._by_mask:
            if len(self._by_mask) >= self._REMEMBERED:
                self._by_mask.clear()
            full = np.zeros_like(self.correlation)
            seen = np.flatnonzero(pattern)
            if len(seen):
                full[np.ix_(seen, seen)] = np.linalg.inv(self.correlation[np.ix_(seen, seen)])
            self._by_mask[key] = full
        return self._by_mask[key]


def _factor(precision: Float64) -> Float64:
    """Return C (F, F) with `C C' = R^-1`, which may be of less than full rank."""
    values, vectors = np.linalg.eigh(precision)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
