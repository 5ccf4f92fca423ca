"""What `trainer fit` can be told; apart from fitting itself, which takes seconds to import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FitOptions:
    """What `trainer fit` can be told.

    Attributes:
        name: of the bundle.
        window_length: T, ticks; None is 60, or a tenth of a short history.
        units: of the LSTM layers.
        max_gap_ticks: a longer gap starts over.
        epochs, batch_size, learning_rate, patience, windows_per_epoch, seed: of training.
        alarms_per_week: the alarm budget of one asset.
        inference: `step` or `window`, the mode that is calibrated and deployed.
        units_of_sensors: engineering unit of each sensor, by name.
    """

    name: str = "model"
    window_length: int | None = None
    units: tuple[int, ...] = (128, 64, 32)
    max_gap_ticks: int = 10
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 1e-3
    patience: int = 5
    windows_per_epoch: int = 2048
    seed: int = 0
    alarms_per_week: float = 1.0
    inference: str = "step"
    units_of_sensors: tuple[tuple[str, str], ...] = ()
