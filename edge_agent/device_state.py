"""The packed states of all assets in the memory of the device that computes, from one round to the next.

A round takes the rows of its assets out, advances them and puts them back, all where they lie: only readings go there,
and only forecasts come back. The same runs on the CPU, where it is slower than arrays, and is tested there.
"""

import numpy as np

from edge_agent.contract.types import Float32, Int64, Places
from edge_agent.forecaster import OnDevice, OnnxGraph, ResidentGraphs

MOST_AT_ONCE = 32_768
"""Samples of one run, so that what it needs beside the states has a bound: a round of all assets may prime each."""


class DeviceState:
    """The states of A assets on the device.

    Args:
        graphs: that advance them.
        packed: (A, S) the states to begin with.
    """

    def __init__(self, graphs: ResidentGraphs, packed: Float32) -> None:
        self._graphs = graphs
        self._count, self._width = packed.shape
        self._states: OnDevice = graphs.step.place(np.array(packed, np.float32, order="C"))

    def to_host(self) -> Float32:
        """Return the states (A, S) as an array of its own."""
        return np.array(self._states.numpy(), np.float32)

    def forget(self, asset: Int64) -> None:
        """Let the states of assets (B,) be zero."""
        if len(asset):
            self._put(asset, np.zeros((len(asset), self._width), np.float32))

    def advance(self, rows: Places, inputs: Float32) -> Float32:
        """Advance L ticks of B assets, each named once.

        Args:
            rows: (B,) row indices.
            inputs: (B, L, I) scaled inputs.

        Returns:
            The forecasts (B, L, H, F, P) of the ticks after each.
        """
        asset = np.arange(self._count)[rows]
        most = max(1, MOST_AT_ONCE // inputs.shape[1])
        parts = [
            self._advance(asset[at : at + most], inputs[at : at + most]) for at in range(0, len(asset), most)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _advance(self, asset: Int64, inputs: Float32) -> Float32:
        (state,) = self._graphs.gather.run_on_device(
            {"states": self._states, "asset": asset}, {"state": None}
        )
        ticks, chunk = inputs.shape[1], self._graphs.chunk
        if ticks > 1 and chunk is not None:
            state, ahead = _carried(chunk, inputs, state)
        else:
            steps = []
            for tick in range(ticks):
                state, one = _carried(self._graphs.step, inputs[:, tick], state)
                steps.append(one)
            ahead = steps[0][:, None] if ticks == 1 else np.stack(steps, axis=1)
        self._put(asset, state)
        return ahead

    def _put(self, asset: Int64, state: "Float32 | OnDevice") -> None:
        """Write states (B, S) of assets (B,) over what is there, without a copy of all the others."""
        feeds = {"states": self._states, "asset": asset[:, None], "state": state}
        self._graphs.scatter.run_on_device(feeds, {"updated": self._states})


def _carried(graph: OnnxGraph, inputs: Float32, state: OnDevice) -> tuple[OnDevice, Float32]:
    """Run a graph that carries state; the state stays where it is, the forecast comes back."""
    after, forecast = graph.run_on_device(
        {"input": inputs, "state": state}, {"next_state": None}, ("forecast",)
    )
    return after, np.asarray(forecast.numpy())
