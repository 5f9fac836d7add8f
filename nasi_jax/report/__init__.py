"""Pictures and pages for people: cell drawings, curves, heat maps, the report of a run."""

from nasi_jax.report.cell import cell_figure, cells_figure, save_cell
from nasi_jax.report.figures import (
    alphas_figure,
    confusion_figure,
    course_figure,
    histogram_figure,
    history_figure,
    scatter_figure,
    training_figure,
)
from nasi_jax.report.html import Section, html_report
from nasi_jax.report.search import incumbent_figure, pareto_figure, pareto_front
from nasi_jax.report.spectrum import spectral_density_figure

__all__ = [
    "Section",
    "alphas_figure",
    "cell_figure",
    "cells_figure",
    "confusion_figure",
    "course_figure",
    "histogram_figure",
    "history_figure",
    "html_report",
    "incumbent_figure",
    "pareto_figure",
    "pareto_front",
    "save_cell",
    "scatter_figure",
    "spectral_density_figure",
    "training_figure",
]
