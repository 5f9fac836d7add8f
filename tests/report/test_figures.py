import numpy as np
import pytest

from nasi_jax.report.figures import scatter_figure


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
