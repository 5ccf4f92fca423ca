"""The model and its training loop."""

from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.types import Float32
from trainer.dataset import Segments, SubSequences
from trainer.highway import fit_highway
from trainer.model import ForecasterWeights, ModelSpec, build_model, build_window_model, weights_of
from trainer.training import TrainingOptions, train

SPEC = ModelSpec(sensors=2, window_length=12, units=(8, 4))


def logistic(rows: int, seed: int = 0) -> Segments:
    """A non-linear plant no ridge regression follows: the next sample is a parabola of the last one."""
    rng = np.random.default_rng(seed)
    values = np.empty((rows, 2), np.float32)
    values[0] = rng.uniform(0.2, 0.8, 2)
    for row in range(1, rows):
        values[row] = 3.9 * values[row - 1] * (1 - values[row - 1])
    scaled = (values - 0.5) / 0.3
    return Segments(scaled.astype(np.float32), np.zeros(scaled.shape, bool), np.zeros(1, np.int64))


def noise(rows: int) -> Segments:
    """Nothing to learn."""
    values = np.random.default_rng(5).normal(size=(rows, 2)).astype(np.float32)
    return Segments(values, np.zeros(values.shape, bool), np.zeros(1, np.int64))


def forecasts_of(model: object, inputs: Float32) -> Float32:
    """Run the model on the inputs."""
    return np.asarray(model(inputs))  # type: ignore[operator]


def test_untrained_model_is_the_highway() -> None:
    """Before training every forecast is W phi, averages from zero included."""
    segments = logistic(300)
    highway = fit_highway(segments)
    inputs = SubSequences(segments, 12, 1).inputs(np.array([7]))
    slow = np.zeros((2, 2))
    expected = []
    for value in inputs[0, :, :2]:
        slow += np.array([[2 / 6], [2 / 21]]) * (value - slow)
        expected.append(np.concatenate([value, *slow, [1.0]]) @ highway)
    assert np.allclose(forecasts_of(build_model(SPEC, highway), inputs)[0], expected, atol=1e-5)


def test_training_beats_the_ridge_on_a_non_linear_plant() -> None:
    """What the ridge regression cannot follow, the LSTM learns; the highway stays as it was fitted."""
    segments = logistic(1500)
    highway = fit_highway(segments)
    model = build_model(SPEC, highway)
    told: list[int] = []
    options = TrainingOptions(
        epochs=8, windows_per_epoch=512, batch_size=32, learning_rate=1e-2, masked_ratio=0.0
    )
    record = train(
        model,
        SPEC,
        segments.rows(0, 1200),
        segments.rows(1200, 1500),
        options,
        lambda epoch, *_: told.append(epoch),
    )
    assert record.best_epoch >= 1
    assert min(record.stop_losses) < 0.7 * record.stop_losses[0]
    assert told == list(range(1, record.epochs + 1))
    assert len(record.losses) == record.epochs == len(record.stop_losses) - 1
    assert (weights_of(model, SPEC).highway == highway).all()


def test_worthless_training_leaves_the_ridge() -> None:
    """Where no epoch beats the ridge on the later block, the weights of epoch 0 come back and it stops early."""
    segments = noise(400)
    model = build_model(SPEC, np.zeros((7, 2), np.float32))
    # A later block for which this highway is exactly right already, at a cost of zero.
    later = Segments(np.zeros((60, 2), np.float32), np.zeros((60, 2), bool), np.zeros(1, np.int64))
    options = TrainingOptions(epochs=10, windows_per_epoch=64, patience=2, learning_rate=1e-2)
    record = train(model, SPEC, segments, later, options)
    assert record.best_epoch == 0
    assert record.epochs == 2
    assert not weights_of(model, SPEC).head_kernel.any()


def test_missing_targets_cost_nothing() -> None:
    """A wild held value under the mask does not reach the loss."""
    segments = noise(100)
    spoiled = Segments(segments.values.copy(), segments.missing.copy(), segments.starts)
    spoiled.values[99], spoiled.missing[99] = 1e6, True
    model = build_model(SPEC, np.zeros((7, 2), np.float32))
    record = train(model, SPEC, segments, spoiled, TrainingOptions(epochs=0))
    assert record.stop_losses[0] < 2.0
    assert record.best_epoch == record.epochs == 0


def test_same_seed_same_draws() -> None:
    """Two runs from the same seeds end in the same losses."""
    segments = logistic(300)
    options = TrainingOptions(epochs=1, windows_per_epoch=64)
    highway = fit_highway(segments)
    records = [train(build_model(SPEC, highway, seed=3), SPEC, segments, segments, options) for _ in range(2)]
    assert records[0].losses == pytest.approx(records[1].losses, rel=1e-5)


def test_window_model_is_the_last_step_and_weights_travel(tmp_path: Path) -> None:
    """Saved and loaded weights make a window model whose forecast is the last step of the trained one."""
    spec = ModelSpec(sensors=2, window_length=12, units=(8, 4), horizons=3)
    rng = np.random.default_rng(1)
    model = build_model(spec, rng.normal(size=(7, 6)).astype(np.float32))
    model.get_layer("head").set_weights([rng.normal(size=(4, 6)), rng.normal(size=6)])
    weights_of(model, spec).save(tmp_path / "weights.npz")
    weights = ForecasterWeights.load(tmp_path / "weights.npz")
    windows = rng.normal(size=(5, 12, 4)).astype(np.float32)
    last = forecasts_of(model, windows)[:, -1].reshape(5, 3, 2, 1)
    assert weights.spec == spec
    assert np.allclose(forecasts_of(build_window_model(weights), windows), last, atol=1e-6)
