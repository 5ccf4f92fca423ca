"""LSTM layers of their own widths as a module of darts; needs darts and PyTorch, see `training_library`."""

from typing import Any

import torch
from darts.models.forecasting.pl_forecasting_module import io_processor
from darts.models.forecasting.rnn_model import CustomRNNModule
from darts.utils.data.torch_datasets.utils import PLModuleOutput


class Stack(CustomRNNModule):  # type: ignore[misc]
    """The network of the other contenders; `of` gives it its widths."""

    units: tuple[int, ...] = ()

    @staticmethod
    def of(units: tuple[int, ...]) -> "type[Stack]":
        """Return the module with layers of these widths."""
        return type("Stack", (Stack,), {"units": units})

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        below = (self.input_size, *self.units[:-1])
        self.layers = torch.nn.ModuleList(
            torch.nn.LSTM(inputs, units, batch_first=True)
            for inputs, units in zip(below, self.units, strict=True)
        )
        self.head = torch.nn.Linear(self.units[-1], self.target_size * self.nr_params)

    def steps(self, hidden: Any) -> Any:
        """Return (B, T, F) the forecast after each step of windows (B, T, F)."""
        for layer in self.layers:
            hidden, _ = layer(hidden)
        return self.head(hidden)

    @io_processor  # type: ignore[untyped-decorator]
    def forward(self, x_in: Any) -> Any:
        """Return what darts makes its loss of; the benchmark never lets it predict."""
        found = self.steps(x_in.past_target)
        shape = (*found.shape[:2], self.target_size, self.nr_params)
        return PLModuleOutput(prediction=found.view(shape), state=None)
