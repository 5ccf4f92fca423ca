"""State novelty: how far the state [level, residual] is from its nearest centre of normal data.

Centres are found by Lloyd's k-means (Lloyd 1982) on normal history, seeded by k-means++ (Arthur and Vassilvitskii
2007). The distance is the root mean square over the present dimensions, so it does not grow with missing sensors.
Own code because the device re-fits without scikit-learn.
"""

import numpy as np

from edge_agent.contract.types import Bool, Float64


class NearestCentre:
    """Distances to the nearest of the centres.

    Args:
        centres: (K, D).
        judged: (D,) dimensions that count at all.
    """

    def __init__(self, centres: Float64, judged: Bool) -> None:
        self._every, self._judged = centres, judged
        self._all_judged = bool(judged.all())
        self._centres = np.ascontiguousarray(centres[:, judged])
        self._half = 0.5 * np.einsum("kd,kd->k", self._centres, self._centres)[:, None]

    def distance(self, state: Float64, present: Bool | None = None) -> Float64:
        """Return (n,) distances of states (n, D) over the dimensions that are `present` (n, D); None is all."""
        if present is None:
            return self._distance(state if self._all_judged else state[:, self._judged])
        seen = (present & self._judged).astype(np.float64)
        masked, centres = state * seen, self._every
        square = (masked * masked).sum(axis=1)[:, None] - 2.0 * masked @ centres.T
        square += seen @ (centres * centres).T
        nearest = np.maximum(square.min(axis=1), 0.0)
        return np.asarray(np.sqrt(nearest / np.maximum(seen.sum(axis=1), 1.0)))

    def _distance(self, state: Float64) -> Float64:
        # Centres by states, not the other way round: the nearest of each column is found many columns at a time.
        product = self._centres @ state.T
        product -= self._half
        nearest = np.einsum("nd,nd->n", state, state)
        nearest -= 2.0 * np.maximum.reduce(product, axis=0)
        np.maximum(nearest, 0.0, out=nearest)
        nearest *= 1.0 / max(state.shape[1], 1)
        return np.asarray(np.sqrt(nearest, out=nearest))


def find_centres(states: Float64, count: int = 64, seed: int = 0, rounds: int = 25) -> Float64:
    """Return at most `count` centres (K, D) of states (n, D); at most one for every eight rows."""
    rng = np.random.default_rng(seed)
    if len(states) > 20_000:
        states = states[np.sort(rng.choice(len(states), 20_000, replace=False))]
    wanted = max(1, min(count, len(states) // 8))
    centres = _spread_seeds(states, wanted, rng)
    ones = np.ones_like(centres)
    for _ in range(rounds):
        square = (
            ones @ (states * states).T - 2.0 * centres @ states.T + (centres * centres).sum(axis=1)[:, None]
        )
        owner = square.argmin(axis=0)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, states)
        sizes = np.bincount(owner, minlength=wanted)
        moved = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        if np.allclose(moved, centres, atol=1e-9):
            break
        centres = moved
    return centres


# The quoted type leaves numpy.random unloaded in the daemon, which never looks for centres: 2 MB.
def _spread_seeds(states: Float64, wanted: int, rng: "np.random.Generator") -> Float64:
    chosen = [states[rng.integers(len(states))]]
    nearest = ((states - chosen[0]) ** 2).sum(axis=1)
    for _ in range(wanted - 1):
        total = nearest.sum()
        if total <= 0.0:
            break
        chosen.append(states[rng.choice(len(states), p=nearest / total)])
        nearest = np.minimum(nearest, ((states - chosen[-1]) ** 2).sum(axis=1))
    return np.asarray(chosen)
