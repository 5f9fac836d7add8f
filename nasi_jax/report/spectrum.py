"""Figure of the spectrum of a neural tangent kernel."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from nasi_jax.ntk import SpectralDensity


def spectral_density_figure(density: SpectralDensity, width: float = 0.1) -> Figure:
    """Draws the density of the logarithm of the eigenvalues, and which share of them is at least as large.

    Args:
        density: see `nasi_jax.ntk.spectral_density`.
        width: how far an eigenvalue is smoothed, in units of its natural logarithm.

    Returns:
        The figure; bands are two standard errors over the probes.
    """
    largest = np.max(density.nodes)
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    shape, share = figure.subplots(1, 2)
    if largest > 0:
        smallest = np.min(density.nodes[density.nodes > largest * np.finfo(np.float32).eps])
        values = np.geomspace(smallest * np.exp(-3 * width), largest * np.exp(3 * width), 400)
        below = density.cumulative(values)
        for axes, (value, stderr, _) in (
            (shape, density.density(values, width)),
            (share, below._replace(value=1 - below.value)),
        ):
            axes.plot(values, value)
            if len(density.nodes) > 1:
                axes.fill_between(values, np.maximum(value - 2 * stderr, 0), value + 2 * stderr, alpha=0.25, lw=0)
            axes.set_xscale("log")
    for axes, label in ((shape, "density of the logarithm"), (share, "share of eigenvalues above")):
        axes.set_xlabel("eigenvalue")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    figure.suptitle(f"{density.size} eigenvalues, {density.nodes.shape[0]} probes of {density.nodes.shape[1]} steps")
    return figure
