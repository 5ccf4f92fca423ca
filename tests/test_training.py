"""The model and its training loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.contract.types import Float32
from trainer.backend import keras
from trainer.dataset import Segments, SubSequences
from trainer.fit_options import FitOptions
from trainer.heads import Head
from trainer.highway import fit_highway
from trainer.learning import learn
from trainer.model import ForecasterWeights, ModelSpec
from trainer.network import Regularisation, build_model, build_window_model, weights_of
from trainer.training import Trainer, TrainingOptions, _Adam, _schedule, precision_policy

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
    trainer = Trainer(model, SPEC, options)
    record = trainer.train(
        segments.rows(0, 1200), segments.rows(1200, 1500), lambda epoch, *_: told.append(epoch)
    )
    assert record.best_epoch >= 1
    assert min(record.stop_losses) < 0.7 * record.stop_losses[0]
    assert told == list(range(1, record.epochs + 1))
    assert len(record.losses) == record.epochs == len(record.stop_losses) - 1
    assert (weights_of(model, SPEC).highway == highway).all()


@pytest.mark.parametrize("convolution", [(), (4, 3)])
def test_nothing_is_read_of_an_input_that_never_moved(convolution: tuple[int, ...]) -> None:
    """A sensor and a set point that stood still while the model was trained change no forecast once they move."""
    moving = logistic(600)
    still = np.zeros((600, 1), np.float32)
    segments = Segments(
        np.concatenate([moving.values, still], axis=1), np.zeros((600, 3), bool), moving.starts, still
    )
    spec = ModelSpec(3, 12, (8, 4), convolution=convolution, context=1)
    options = FitOptions(units=(8, 4), epochs=2, windows_per_epoch=256, learning_rate=1e-2)
    model = learn(spec, segments.rows(0, 450), segments.rows(450, 600), options, lambda *_: None).model
    inputs = SubSequences(segments, 12, 1).inputs(np.arange(40))
    moved = inputs.copy()
    moved[..., [2, 6]] = 50.0
    np.testing.assert_array_equal(forecasts_of(model, moved), forecasts_of(model, inputs))
    moved[..., 0] += 1.0
    assert np.abs(forecasts_of(model, moved) - forecasts_of(model, inputs)).max() > 0.1


def test_worthless_training_leaves_the_ridge() -> None:
    """Where no epoch beats the ridge on the later block, the weights of epoch 0 come back and it stops early."""
    segments = noise(400)
    model = build_model(SPEC, np.zeros((7, 2), np.float32))
    # A later block for which this highway is exactly right already, at a cost of zero.
    later = Segments(np.zeros((60, 2), np.float32), np.zeros((60, 2), bool), np.zeros(1, np.int64))
    options = TrainingOptions(epochs=10, windows_per_epoch=64, patience=2, learning_rate=1e-2)
    record = Trainer(model, SPEC, options).train(segments, later)
    assert record.best_epoch == 0
    assert record.epochs == 2
    assert not weights_of(model, SPEC).head_kernel.any()


def test_missing_targets_cost_nothing() -> None:
    """A wild held value under the mask does not reach the loss."""
    segments = noise(100)
    spoiled = Segments(segments.values.copy(), segments.missing.copy(), segments.starts)
    spoiled.values[99], spoiled.missing[99] = 1e6, True
    model = build_model(SPEC, np.zeros((7, 2), np.float32))
    record = Trainer(model, SPEC, TrainingOptions(epochs=0)).train(segments, spoiled)
    assert record.stop_losses[0] < 2.0
    assert record.best_epoch == record.epochs == 0


def test_same_seed_same_draws() -> None:
    """Two runs from the same seeds end in the same losses."""
    segments = logistic(300)
    options = TrainingOptions(epochs=1, windows_per_epoch=64)
    highway = fit_highway(segments)
    models = [build_model(SPEC, highway, seed=3) for _ in range(2)]
    records = [Trainer(model, SPEC, options).train(segments, segments) for model in models]
    assert records[0].losses == records[1].losses
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(
    "head",
    [
        Head("gaussian"),
        Head("quantile", (0.5, 0.1, 0.9)),
        Head("softmax", state_sensor=1, state_values=(-1.0, 0.0, 1.0)),
    ],
    ids=lambda head: head.kind,
)
def test_each_head_learns(head: Head) -> None:
    """The loss of each head falls on the later block of a plant that the highway alone cannot follow."""
    segments = logistic(900)
    segments.values[:, 1] = np.clip(np.round(segments.values[:, 1]), -1.0, 1.0)
    spec = replace(SPEC, units=(6,), head=head)
    highway = head.spread(fit_highway(segments), 2)
    bias = head.initial_bias(np.ones((1, 2)), np.full(3, 1 / 3))
    model = build_model(spec, highway, head_bias=bias)
    options = TrainingOptions(epochs=3, windows_per_epoch=256, batch_size=16, learning_rate=2e-2)
    record = Trainer(model, spec, options).train(segments.rows(0, 700), segments.rows(700, 900))
    assert record.best_epoch >= 1
    assert min(record.stop_losses) < record.stop_losses[0] - 0.02


def test_penalties_decide_nothing() -> None:
    """L2 is in the loss that training makes small, and not in the one that chooses an epoch."""
    segments = noise(100)
    start = np.zeros((7, 2), np.float32)
    plain = Trainer(build_model(SPEC, start), SPEC, TrainingOptions(epochs=0)).train(segments, segments)
    strict = Regularisation(kernel_l2=1.0, recurrent_l2=1.0)
    model = build_model(SPEC, start, regularisation=strict)
    heavy = Trainer(model, SPEC, TrainingOptions(epochs=0)).train(segments, segments)
    assert float(sum(model.losses)) > 1.0
    assert heavy.stop_losses == pytest.approx(plain.stop_losses, rel=1e-5)


def test_everything_at_once_is_trained_and_leaves_float32() -> None:
    """Convolution, normalisation, dropouts, L2, attention and mixed precision go together; weights are float32."""
    spec = replace(SPEC, convolution=(4, 3), normalisation="batch", attention_heads=2, units=(4,))
    segments = noise(80)
    strict = Regularisation(0.2, 0.1, 0.1, 1e-4, 1e-4)
    with precision_policy(True):
        model = build_model(spec, np.zeros((7, 2), np.float32), regularisation=strict)
    before = weights_of(model, spec)
    assert model.get_layer("lstm_0").compute_dtype == "bfloat16"
    trainer = Trainer(model, spec, TrainingOptions(epochs=0))
    trainer.train(segments, segments)
    trainer.retrain(segments, [1e-2])
    weights = weights_of(model, spec)
    assert (weights.layers[0][1] != before.layers[0][1]).any()
    windows = np.random.default_rng(0).normal(size=(3, 12, 4)).astype(np.float32)
    exported = build_window_model(weights)
    assert exported.get_layer("lstm_0").compute_dtype == "float32"
    forecast = forecasts_of(exported, windows)
    assert forecast.dtype == np.float32
    # Bfloat16 has eight bits: what was trained and what is exported are that close.
    last = forecasts_of(model, windows)[:, -1].reshape(forecast.shape)
    assert np.abs(forecast - last).max() < 0.05


def test_gradients_are_bounded_by_value_and_then_by_norm() -> None:
    """A number of a gradient is cut at the value first; what is left is scaled to the norm."""
    seen: list[Float32] = []

    class Spy(_Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            seen.append(np.asarray(gradient))

    for clipnorm, clipvalue, expected in (
        (0.0, 0.0, [30.0, 4.0]),
        (0.0, 3.0, [3.0, 3.0]),
        (5.0, 0.0, [30.0 * 5 / 916**0.5, 4.0 * 5 / 916**0.5]),
        (1.0, 3.0, [0.5**0.5, 0.5**0.5]),
    ):
        variable = keras.Variable(np.zeros(2, np.float32))
        Spy(1e-3, clipnorm, clipvalue).apply([keras.ops.convert_to_tensor([30.0, 4.0])], [variable])
        np.testing.assert_allclose(seen[-1], expected, rtol=1e-5)


def test_the_learning_rate_follows_its_schedule() -> None:
    """Constant stays; cosine falls from the rate to 0; plateau halves it where nothing improves, and is recorded."""
    options = TrainingOptions(epochs=4, patience=4, windows_per_epoch=8, learning_rate=0.1, schedule="cosine")
    assert _schedule(replace(options, schedule="constant")) == []
    (cosine,) = _schedule(options)
    rates = [cosine.schedule(epoch, 0.0) for epoch in range(5)]
    assert rates == pytest.approx([0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.05 * (1 - 0.5**0.5), 0.0])
    # Nothing can beat a forecast of zero on a later block of zeros.
    later = Segments(np.zeros((30, 2), np.float32), np.zeros((30, 2), bool), np.zeros(1, np.int64))
    spec = replace(SPEC, units=(2,))
    model = build_model(spec, np.zeros((7, 2), np.float32))
    record = Trainer(model, spec, replace(options, schedule="plateau")).train(noise(60), later)
    assert record.rates == pytest.approx([0.1, 0.1, 0.1, 0.05])


def test_window_model_is_the_last_step_and_weights_travel(tmp_path: Path) -> None:
    """Saved and loaded weights make a window model whose forecast is the last step of the trained one."""
    head = Head("quantile", (0.5, 0.2, 0.8))
    spec = replace(SPEC, horizons=3, convolution=(4, 2), normalisation="layer", attention_heads=2, head=head)
    rng = np.random.default_rng(1)
    model = build_model(spec, rng.normal(size=(7, 18)).astype(np.float32))
    model.get_layer("head").set_weights([rng.normal(size=(4, 18)), rng.normal(size=18)])
    weights_of(model, spec).save(tmp_path / "weights.npz")
    weights = ForecasterWeights.load(tmp_path / "weights.npz")
    windows = rng.normal(size=(5, 12, 4)).astype(np.float32)
    last = forecasts_of(model, windows)[:, -1].reshape(5, 3, 2, 3)
    assert weights.spec == spec
    assert np.allclose(forecasts_of(build_window_model(weights), windows), last, atol=1e-6)
