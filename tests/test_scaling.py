"""Laws of scaling: every method maps back, none blows noise up, and each is what its name says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.scaling import METHODS, fit_scaling

COLUMN = st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=40)


@given(column=COLUMN, method=st.sampled_from(METHODS))
def test_every_method_maps_back_and_has_a_floor(column: list[float], method: str) -> None:
    """Scaled and unscaled a value is itself; a scale is never under the floor; the range is the one seen."""
    values = np.array(column, np.float32)[:, None]
    scaling = fit_scaling(values, method)
    span = scaling.maximum - scaling.minimum
    assert (scaling.scale >= np.maximum(0.02 * span, 1e-6) * (1 - 1e-9)).all()
    assert (scaling.minimum, scaling.maximum) == (values.min(), values.max())
    np.testing.assert_allclose(scaling.invert(scaling.apply(values)), values, rtol=1e-5, atol=1e-3)


@given(column=COLUMN)
def test_minmax_maps_the_range_onto_minus_one_to_one(column: list[float]) -> None:
    """Within rounding every value seen lies between -1 and 1, whose ends are reached by a sensor that moves."""
    values = np.array(column, np.float32)[:, None]
    scaled = fit_scaling(values, "minmax").apply(values)
    assert np.abs(scaled).max() <= 1 + 1e-3


@pytest.mark.parametrize(("method", "moved"), [("standard", True), ("robust", False), ("minmax", True)])
def test_only_robust_scaling_does_not_heed_a_few_wild_readings(method: str, moved: bool) -> None:
    """One reading in a hundred that is far out moves mean, deviation and range, but neither median nor quartiles."""
    normal = np.random.default_rng(0).normal(20.0, 2.0, (1000, 1)).astype(np.float32)
    wild = normal.copy()
    wild[::100] = 9999.0
    before, after = fit_scaling(normal, method), fit_scaling(wild, method)
    assert (after.centre[0] > before.centre[0] + 1.0) == moved
    floor = 0.02 * (after.maximum[0] - after.minimum[0])
    assert after.scale[0] == pytest.approx(floor if not moved else after.scale[0])
    if method != "minmax":
        np.testing.assert_allclose((before.centre, before.scale), ([20.0], [2.0]), rtol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_missing_cells_do_not_count(method: str) -> None:
    """A column with holes has the scale of its readings."""
    values = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    holed = np.repeat(values, 2, axis=0)
    holed[1::2] = np.nan
    for part in ("centre", "scale", "minimum", "maximum", "constant"):
        np.testing.assert_array_equal(
            getattr(fit_scaling(holed, method), part), getattr(fit_scaling(values, method), part)
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_sensor_that_never_moved_has_a_hundredth_of_its_magnitude_for_a_scale(method: str) -> None:
    """Its last digit is no news, ten times that is; one that stood at zero has the least scale of all."""
    scaling = fit_scaling(np.repeat(np.array([[50.0, -0.999, 0.0]], np.float32), 40, axis=0), method)
    assert scaling.constant.all()
    np.testing.assert_allclose(scaling.scale, [0.5, 0.00999, 1e-6], rtol=1e-4)
