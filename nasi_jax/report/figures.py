"""Figures of a search: logits, curves over steps, and how often each operation was selected."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from nasi_jax.spaces import IMPOSSIBLE, SearchSpace

_PANELS = 2  # side by side
_WINDOWS = 40  # of a running mean, in a course


def alphas_figure(space: SearchSpace, alphas: dict[str, np.ndarray]) -> Figure:
    """Draws the logits as heat maps, edges down and operations across, what they select framed.

    Args:
        space: the search space, for the names.
        alphas: logits, for each kind of choice (edges, operations).

    Returns:
        The figure.
    """
    names = list(alphas)
    tallest = [max(len(alphas[name]) for name in names[i : i + _PANELS]) for i in range(0, len(names), _PANELS)]
    heights = [1.6 + 0.42 * rows for rows in tallest]
    figure = Figure(figsize=(6.5 * min(_PANELS, len(names)), sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), min(_PANELS, len(names)), height_ratios=heights)
    selected = space.encode(space.decode({name: jnp.asarray(values) for name, values in alphas.items()}))
    alphas = {name: np.where(values > IMPOSSIBLE / 2, values, np.nan) for name, values in alphas.items()}
    bound = max(float(np.nanmax(np.abs(values))) for values in alphas.values()) or 1.0
    for panel, (name, values) in enumerate(alphas.items()):
        axes = figure.add_subplot(grid[divmod(panel, _PANELS)])
        image = axes.imshow(values, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
        columns = space.choices[name]
        axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right", fontsize=8)
        axes.set_yticks(range(len(values)), space.edges[name])
        chosen = np.asarray(selected[name]) > 0
        for (row, operation), value in np.ndenumerate(values):
            if np.isnan(value):  # left out of the space
                continue
            colour = "white" if abs(value) > 0.65 * bound else "black"
            axes.text(
                operation, row, f"{value:.{2 if len(columns) > 8 else 3}f}", ha="center", va="center", fontsize=8,
                color=colour,
                fontweight="bold" if chosen[row, operation] else "normal",
            )  # fmt: skip
        for row, operation in np.argwhere(chosen):
            axes.add_patch(Rectangle((operation - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor="black"))
        axes.set_ylabel(_row_label(space, name))
        axes.set_title("alpha*" if len(alphas) == 1 else f"alpha*, {name}")
        figure.colorbar(image, ax=axes, label="logit")
    return figure


def _row_label(space: SearchSpace, name: str) -> str:
    return "edge" if any("→" in edge for edge in space.edges[name]) else "node"


def history_figure(history: dict[str, np.ndarray]) -> Figure:
    """Draws figures over the steps, a thin line for each search and the running mean of their median in bold.

    Args:
        history: arrays (searches, steps) by name, NaN at steps at which a figure was not measured.

    Returns:
        The figure, a panel for each name.
    """
    down = -(-len(history) // _PANELS)
    figure = Figure(figsize=(9, 3 * down), layout="constrained")
    for position, (name, values) in enumerate(history.items(), start=1):
        (steps,) = np.nonzero(np.isfinite(values).all(axis=0))
        values = values[:, steps]
        axes = figure.add_subplot(down, _PANELS, position)
        marker = "." if 0 < len(steps) < 40 else ""
        for row in values:
            axes.plot(steps, row, color="tab:blue", alpha=max(0.08, 0.4 / len(values)), linewidth=0.6)
        window = max(1, len(steps) // _WINDOWS)
        label = "median of the searches" if len(values) > 1 else ""
        label += f"{', ' if label else ''}mean of {window} steps" if window > 1 else ""
        course = _running_mean(np.median(values, axis=0), window)
        axes.plot(steps, course, color="tab:blue", linewidth=1.2, label=label, marker=marker)
        if values.size and values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale("log")
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if label and position == 1:
            axes.legend(fontsize=8)
    return figure


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Returns means of as many values around each one, of fewer at both ends."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def course_figure(space: SearchSpace, steps: np.ndarray, moments: dict[str, np.ndarray]) -> Figure:
    """Draws the probabilities of the choices of every row over the steps of a search.

    Args:
        space: the search space, for the names.
        steps: at which they were kept, (moments,).
        moments: logits, for each kind of choice (moments, rows, choices).

    Returns:
        The figure, a panel for each row.
    """
    panels = [(kind, row) for kind in moments for row in range(moments[kind].shape[1])]
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(3.1 * across, 2.1 * down + 0.6), layout="constrained")
    one_legend = len(set(space.choices.values())) == 1
    for position, (kind, row) in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, position)
        logits = moments[kind][:, row]
        probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        for i, choice in enumerate(space.choices[kind]):
            colour = colormaps["tab20"](i) if len(space.choices[kind]) > 10 else f"C{i}"
            axes.plot(steps, probabilities[:, i], color=colour, label=choice, linewidth=1.1)
        axes.set_title(f"{space.edges[kind][row]}" + (f", {kind}" if len(moments) > 1 else ""), fontsize=9)
        axes.set_ylim(0, None)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if not one_legend:
            axes.legend(fontsize=6)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    if one_legend:
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=8)
    return figure


def histogram_figure(space: SearchSpace, selected: dict[str, np.ndarray]) -> Figure:
    """Draws how often each operation was selected on each edge, over the searches.

    Args:
        space: the search space, for the names.
        selected: for each kind of choice (searches, edges), indices of operations, -1 where an edge was left out.

    Returns:
        The figure.
    """
    across = min(_PANELS, len(selected))
    down = -(-len(selected) // _PANELS)
    figure = Figure(figsize=(6.5 * across, 3.6 * down), layout="constrained")
    one_legend = len(set(space.choices.values())) == 1
    for panel, (name, indices) in enumerate(selected.items()):
        axes = figure.add_subplot(down, across, panel + 1)
        bottom = np.zeros(indices.shape[1])
        for i, operation in enumerate(space.choices[name]):
            count = (indices == i).sum(axis=0)
            shown = one_legend or count.any()
            colour = colormaps["tab20"](i) if len(space.choices[name]) > 10 else f"C{i}"
            label = operation if shown else None
            axes.bar(space.edges[name], count, bottom=bottom, label=label, color=colour, width=0.7)
            bottom += count
        axes.tick_params(axis="x", rotation=60 if len(space.edges[name]) > 8 else 0)
        axes.set_xlabel(_row_label(space, name))
        if not one_legend:
            axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_ylabel(f"searches, of {len(indices)}")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title("selected operations" if len(selected) == 1 else f"selected, {name}")
    if one_legend:
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def scatter_figure(name: str, score: np.ndarray, truth: dict[str, np.ndarray]) -> Figure:
    """Draws published figures over a score.

    Args:
        name: name of the score.
        score: its values, (architectures,).
        truth: for each column (architectures,). Architectures of which either is not finite are counted in the title.

    Returns:
        The figure, a panel for each column.
    """
    figure = Figure(figsize=(4.6 * len(truth), 4), layout="constrained")
    for number, (column, values) in enumerate(truth.items(), start=1):
        finite = np.isfinite(score) & np.isfinite(values)
        axes = figure.add_subplot(1, len(truth), number)
        axes.scatter(score[finite], values[finite], s=6, alpha=0.5, linewidths=0)
        positive = score[finite & (score > 0)]
        if len(positive) and (score[finite] >= 0).all() and positive.max() > 50 * positive.min():
            # from the smallest one down to 0, where disconnected architectures are, linear
            axes.set_xscale("symlog", linthresh=positive.min())
        axes.set(xlabel=name, ylabel=column)
        missing = f", {(~finite).sum()} not finite" if not finite.all() else ""
        axes.set_title(f"{finite.sum()} architectures{missing}")
    return figure


def training_figure(history: dict[str, np.ndarray]) -> Figure:
    """Draws loss, accuracy and learning rate over the epochs.

    Args:
        history: arrays (epochs,) under the names `epoch`, `loss`, `accuracy`, `test_loss`, `test_accuracy` (NaN where
            there was no evaluation) and `learning_rate`.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = {
        "loss": ("loss", "test_loss"),
        "accuracy": ("accuracy", "test_accuracy"),
        "learning rate": ("learning_rate",),
    }
    for position, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 3, position)
        for name, label in zip(names, ("training", "test"), strict=False):
            there = np.isfinite(history[name])
            axes.plot(
                history["epoch"][there] + 1, history[name][there], marker=".", label=label if len(names) > 1 else None
            )
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8)
    return figure


def confusion_figure(confusion: np.ndarray) -> Figure:
    """Draws which labels are taken for which, as shares of the images of a label.

    Args:
        confusion: (classes, classes), counts of images by label and by prediction.

    Returns:
        The figure.
    """
    classes = len(confusion)
    side = min(12.0, 2.5 + 0.45 * classes)
    figure = Figure(figsize=(side + 2, side), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    if classes <= 20:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.6 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="share of the images of a label, in the cells in %")
    return figure
