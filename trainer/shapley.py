"""Shapley values of a forecast by the SHAP library (Lundberg and Lee 2017); the one door to it.

SHAP's DeepExplainer breaks on TensorFlow's LSTMs, and its GradientExplainer would need a trained Keras model. The
permutation explainer asks nothing of the model but forecasts: it runs on the very graph that the agent runs. Its values
sum to `f(x) - f(b)`. Players are the readings of one input over a group of lags, so that a few hundred forecasts do.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edge_agent.contract.errors import UsageError
from edge_agent.contract.types import Float32, Float64, Int64

if TYPE_CHECKING:
    from types import ModuleType

ROUNDS = 10
"""Permutations, each taken forwards and backwards."""


def shapley_values(
    forecast: Callable[[Float32], Float32], window: Float32, baseline: Float32, players: Int64, seed: int = 0
) -> Float64:
    """Return (K, P) the Shapley value of each player for each of K forecasts.

    Args:
        forecast: windows (n, T, I) → (n, K).
        window: (T, I) inputs.
        baseline: (T, I) inputs of a player who takes no part.
        players: (T, I) the player, 0 to P - 1, that each cell belongs to.
        seed: of the permutations.

    Raises:
        UsageError: SHAP is not installed.
    """
    count = int(players.max()) + 1

    def of_coalitions(takes_part: Float64) -> Float32:
        present = takes_part[:, players] > 0.5
        return forecast(np.where(present, window, baseline).astype(np.float32))

    explainer = _shap().PermutationExplainer(of_coalitions, np.zeros((1, count)), seed=seed)
    found = explainer(np.ones((1, count)), max_evals=ROUNDS * (2 * count + 1), silent=True)
    return np.asarray(found.values[0], np.float64).reshape(count, -1).T


def _shap() -> "ModuleType":
    try:
        import shap
    except ModuleNotFoundError as missing:
        raise UsageError("SHAP is not installed: pip install 'forewarn[explain]'") from missing
    return shap  # type: ignore[no-any-return]
