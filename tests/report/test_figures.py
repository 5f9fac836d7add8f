import numpy as np
import pytest

from nasi_jax import ntk
from nasi_jax.report.figures import history_figure, scatter_figure
from nasi_jax.report.spectrum import spectral_density_figure


@pytest.mark.parametrize(
    ("scores", "scale"),
    [
        ([1.0, 30.0, 1000.0], "symlog"),
        ([0.0, 1.0, 1000.0], "symlog"),
        ([0.0, 1.0, 9.0], "linear"),
        ([-1.0, 1.0, 1000.0], "linear"),
    ],
)
def test_scores_of_many_magnitudes_have_a_logarithmic_axis_with_those_that_are_zero(scores, scale):
    (axes,) = scatter_figure("score", np.array([*scores, np.nan]), {"accuracy": np.arange(4.0)}).axes
    assert axes.get_xscale() == scale
    assert axes.get_title() == "3 architectures, 1 not finite"
    places = axes.transData.transform(np.column_stack([scores, [0.0] * 3]))[:, 0]
    assert (np.diff(places) > 0).all()
    if scale == "symlog":
        assert places[1] - places[0] > 0.05 * (places[2] - places[0])


def test_a_course_is_drawn_with_its_running_mean():
    noise = np.tile([1.0, -1.0], 400)
    values = np.arange(800) / 100 + 5 * noise
    (axes,) = history_figure({"trace": values[None]}).axes
    thin, bold = axes.lines
    np.testing.assert_array_equal(thin.get_ydata(), values)
    np.testing.assert_allclose(bold.get_ydata()[20:-20], np.arange(20, 780) / 100, atol=0.01)
    assert np.abs(bold.get_ydata() - np.arange(800) / 100).max() < 1  # at the ends too
    assert axes.get_legend().get_texts()[0].get_text() == "mean of 20 steps"


def test_a_short_course_of_several_searches_is_drawn_as_it_is():
    values = np.array([[1.0, 2, 9], [2, 4, 9], [3, 0, 9]])
    (axes,) = history_figure({"trace": values}).axes
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), [2, 2, 9])
    assert axes.get_legend().get_texts()[0].get_text() == "median of the searches"


def test_a_spectral_density_is_drawn_with_its_errors():
    nodes, weights = np.array([[1e-9, 1.0, 10.0], [1e-3, 2.0, 9.0]]), np.full((2, 3), 1 / 3)
    shape, share = spectral_density_figure(ntk.SpectralDensity(nodes, weights, 30, 12)).axes
    assert (shape.get_xscale(), share.get_xscale()) == ("log", "log")
    values, density = shape.lines[0].get_data()
    assert values[0] < 1e-3 < 10 < values[-1]
    np.testing.assert_allclose(np.trapezoid(density, np.log(values)), 5 / 6, rtol=1e-2)
    assert len(shape.collections) == 1
    np.testing.assert_allclose(share.lines[0].get_ydata()[[0, -1]], [5 / 6, 0], atol=1e-9)
    nothing = spectral_density_figure(ntk.SpectralDensity(np.zeros((1, 2)), np.full((1, 2), 0.5), 30, 2))
    assert not nothing.axes[0].lines
