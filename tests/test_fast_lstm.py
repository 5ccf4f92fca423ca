"""The layer that is trained computes what Keras's LSTM does, and falls back on it where it cannot."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer import fast_lstm, lstm_kernel
from trainer.backend import keras
from trainer.dataset import Segments
from trainer.fast_lstm import FastLSTM
from trainer.highway import fit_highway
from trainer.model import ModelSpec
from trainer.network import build_model
from trainer.training import Trainer, TrainingOptions, precision_policy


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that TensorFlow has one."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")


_SIZES = st.tuples(st.integers(1, 9), st.integers(1, 13), st.integers(1, 9), st.integers(1, 8))
"""Batch, steps, inputs and units."""


def _pair(inputs: int, units: int, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """Return the fast layer and Keras's, with the same weights, bias included."""
    layers = [
        kind(units, return_sequences=True, seed=3, name="lstm", **options)
        for kind in (FastLSTM, keras.layers.LSTM)
    ]
    rng = np.random.default_rng(seed)
    shapes = ((inputs, 4 * units), (units, 4 * units), (4 * units,))
    # Larger ones would make the recurrence itself blow roundings up.
    spread = min(0.4, units**-0.5)
    weights = [(spread * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
    for layer in layers:
        layer.build((None, None, inputs))
        layer.set_weights(weights)
    return layers[0], layers[1]


def _found(layer: Any, inputs: Any, upstream: Any, graph: bool = True) -> list[Any]:
    """Return outputs, and gradients by inputs, kernel, recurrent kernel and bias."""

    def computed(values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs = layer(values, training=True)
            total = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
        return [outputs, *tape.gradient(total, [values, *(weight.value for weight in layer.weights)])]

    run = tf.function(computed, autograph=False) if graph else computed
    return [np.asarray(tf.cast(one, tf.float32)) for one in run(tf.constant(inputs))]


def _drawn(batch: int, steps: int, inputs: int, units: int, seed: int = 1) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(batch, steps, inputs)).astype(np.float32),
        rng.normal(size=(batch, steps, units)).astype(np.float32),
    )


def _assert_same(found: list[Any], wanted: list[Any]) -> None:
    """Every array within a few roundings of its largest number."""
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=3e-6 * max(1.0, float(np.abs(theirs).max())))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_SIZES, st.integers(0, 99), st.booleans())
def test_outputs_and_gradients_are_keras_s(sizes: tuple[int, int, int, int], seed: int, graph: bool) -> None:
    """Outputs and all four gradients equal those of Keras's LSTM to a few roundings, whatever the shape."""
    batch, steps, inputs, units = sizes
    fast, slow = _pair(inputs, units, seed)
    drawn = _drawn(batch, steps, inputs, units, seed)
    _assert_same(_found(fast, *drawn, graph), _found(slow, *drawn, graph))


@pytest.mark.parametrize("batch", [64, 61, 300])
def test_the_size_that_is_trained_by_default(batch: int) -> None:
    """At the default size, and with a last batch that is smaller, outputs and gradients are Keras's."""
    fast, slow = _pair(16, 128)
    drawn = _drawn(batch, 60, 16, 128)
    _assert_same(_found(fast, *drawn), _found(slow, *drawn))


def test_inputs_are_dropped_as_keras_drops_them() -> None:
    """With dropout of inputs the same seed drops the same inputs, call after call, and none outside training."""
    fast, slow = _pair(5, 4, dropout=0.4)
    inputs, upstream = _drawn(6, 7, 5, 4)
    for _ in range(3):
        _assert_same(_found(fast, inputs, upstream, False), _found(slow, inputs, upstream, False))
    _assert_same([np.asarray(fast(inputs))], [np.asarray(slow(inputs))])
    assert not np.allclose(np.asarray(fast(inputs, training=True)), np.asarray(fast(inputs)))


def test_only_the_last_output_is_returned_where_that_is_asked() -> None:
    """Without `return_sequences` the output is that of the last step."""
    fast, _ = _pair(3, 4)
    last = FastLSTM(4)
    last.build((None, None, 3))
    last.set_weights(fast.get_weights())
    inputs, _ = _drawn(5, 6, 3, 4)
    np.testing.assert_array_equal(np.asarray(last(inputs)), np.asarray(fast(inputs))[:, -1])


def test_a_training_is_the_same_to_the_last_bit_again() -> None:
    """The same numbers in give the same numbers out, bit by bit, memory used again or not."""
    fast, _ = _pair(7, 24)
    drawn = _drawn(33, 20, 7, 24)
    first = _found(fast, *drawn)
    lstm_kernel.ROOMS.forget()
    for mine, again in zip(first, _found(fast, *drawn), strict=True):
        np.testing.assert_array_equal(mine, again)


@pytest.fixture
def kernel_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kernel fail when it is asked."""

    def refuse() -> Any:
        raise AssertionError("the kernel was asked")

    monkeypatch.setattr(fast_lstm, "_sequence", refuse)


@pytest.mark.usefixtures("kernel_is_off")
@pytest.mark.parametrize(
    "options",
    [
        {"recurrent_dropout": 0.2},
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_bias": False},
        {"go_backwards": True},
        {"unroll": True},
    ],
)
def test_what_the_kernel_cannot_compute_keras_does(options: dict[str, Any]) -> None:
    """Another kind of LSTM is computed by Keras, with the same numbers."""
    layers = [
        kind(4, return_sequences=True, seed=3, kernel_initializer="ones", **options)
        for kind in (FastLSTM, keras.layers.LSTM)
    ]
    inputs, _ = _drawn(5, 6, 3, 4)
    both = [np.asarray(layer(inputs, training=False)) for layer in layers]
    if "recurrent_dropout" not in options:
        for layer in layers[1:]:
            layer.set_weights(layers[0].get_weights())
        both = [np.asarray(layer(inputs, training=False)) for layer in layers]
        np.testing.assert_array_equal(both[0], both[1])
    assert both[0].shape == both[1].shape == (5, 6, 4)


@pytest.mark.usefixtures("kernel_is_off")
def test_half_precision_is_left_to_keras() -> None:
    """Under a mixed policy the layer computes in bfloat16, as Keras's does."""
    with precision_policy(True):
        fast, slow = _pair(3, 4)
    inputs, _ = _drawn(5, 6, 3, 4)
    assert fast(inputs).dtype == "bfloat16"
    both = [np.asarray(tf.cast(one(inputs), tf.float32)) for one in (fast, slow)]
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.usefixtures("kernel_is_off")
def test_a_state_or_a_mask_is_left_to_keras() -> None:
    """Whoever gives a first state or a mask of steps gets Keras's LSTM."""
    fast, slow = _pair(3, 4)
    inputs, state = _drawn(5, 6, 3, 4)
    both = [
        np.asarray(one(inputs, initial_state=[state[:, 0], state[:, 1]], mask=np.ones((5, 6), np.bool_)))
        for one in (fast, slow)
    ]
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.usefixtures("kernel_is_off")
def test_a_graphics_processor_is_left_to_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a graphics processor is seen, cuDNN is the faster one."""
    fast, slow = _pair(3, 4)
    monkeypatch.setattr("trainer.devices._graphics", lambda: ["gpu:0"])
    inputs, _ = _drawn(5, 6, 3, 4)
    np.testing.assert_array_equal(np.asarray(fast(inputs)), np.asarray(slow(inputs)))


@pytest.mark.usefixtures("kernel_is_off")
@pytest.mark.parametrize("threads", ["2", "0", ""])
def test_several_cores_are_left_to_keras(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TensorFlow has more than one core, its own loop is as quick by the clock."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", threads)
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1})
    fast, slow = _pair(3, 4)
    inputs, _ = _drawn(5, 6, 3, 4)
    np.testing.assert_array_equal(np.asarray(fast(inputs)), np.asarray(slow(inputs)))


def test_a_training_on_one_core_learns_what_it_learns_on_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses after each epoch, to a few digits, whether the kernel computes or Keras; and it does compute."""
    rng = np.random.default_rng(4)
    values = np.sin(np.arange(400)[:, None] * (0.3, 0.5)) + 0.1 * rng.normal(size=(400, 2))
    block = Segments(values.astype(np.float32), np.zeros((400, 2), np.bool_), np.zeros(1, np.int64))
    spec, options = ModelSpec(2, 12, units=(6, 4)), TrainingOptions(epochs=3)
    asked, kernel = [], fast_lstm._sequence

    def noted() -> Any:
        asked.append(True)
        return kernel()

    monkeypatch.setattr(fast_lstm, "_sequence", noted)
    losses = []
    for threads in ("1", "2"):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", threads)
        monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1})
        model = build_model(spec, fit_highway(block))
        losses.append(Trainer(model, spec, options).train(block, block).stop_losses)
        assert asked if threads == "1" else not asked
        asked.clear()
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert len(set(losses[0])) > 1


def test_rooms_that_are_held_are_not_given_away() -> None:
    """No two arrays share memory while both are held, be it by a view; afterwards it is used again."""
    rooms = lstm_kernel._Rooms()
    first, second = rooms.take(3, 4), rooms.take(3, 4)
    place, part = first.ctypes.data, first[1:]
    del first
    third = rooms.take(4, 3)
    assert not any(np.shares_memory(a, b) for a, b in ((part, second), (part, third), (second, third)))
    assert place % 64 == second.ctypes.data % 64 == third.ctypes.data % 64 == 0
    del part
    assert rooms.take(12).ctypes.data == place
