"""Figures of a search by values alone: the best value over evaluations, and values over costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

_UNITS = {"params": "parameters", "flops": "multiply-adds", "latency_ms": "latency in ms"}


def incumbent_figure(curves: Sequence[np.ndarray], label: str, random: np.ndarray | None = None) -> Figure:
    """Draws the best value so far over the evaluations, a line for each search, beside random search.

    Args:
        curves: for each search its best value after each evaluation, (evaluations,), NaN before the first value.
        label: what the value is.
        random: mean best value of random search after each evaluation, (evaluations,), or None.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        name = ("searches" if len(curves) > 1 else "search") if number == 0 else None
        axes.step(np.arange(1, len(curve) + 1), curve, where="post", color="tab:blue", linewidth=1.1, label=name,
                  alpha=1.0 if len(curves) == 1 else 0.6)  # fmt: skip
    if random is not None:
        axes.plot(
            np.arange(1, len(random) + 1), random, color="tab:orange", linestyle="--", label="random search, mean"
        )
    axes.set_xscale("log")
    axes.set_xlabel("evaluations")
    axes.set_ylabel(f"best {label} so far")
    finite = np.concatenate([curve[np.isfinite(curve)] for curve in (*curves, *(() if random is None else (random,)))])
    if len(finite):  # the first evaluations may be far below all others
        low, high = np.quantile(finite, 0.05), finite.max()
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def pareto_figure(
    costs: np.ndarray,
    values: np.ndarray,
    cost: str,
    label: str,
    chosen: int | None = None,
    bound: float | None = None,
    dots: str = "evaluated",
) -> Figure:
    """Draws all evaluations as value over cost, those that nothing beats in both joined by a line.

    Args:
        costs: (evaluations,).
        values: (evaluations,), larger for better ones; evaluations whose value is not finite are left out.
        cost: name of the cost.
        label: what the value is.
        chosen: place of the chosen architecture, which is marked.
        bound: limit of the cost, drawn as a line.
        dots: what the architectures are.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    finite = np.isfinite(values)
    axes.scatter(costs[finite], values[finite], s=12, color="tab:blue", alpha=0.45, linewidths=0, label=dots)
    front = pareto_front(costs, values)
    axes.plot(costs[front], values[front], color="tab:red", marker="o", markersize=4, linewidth=1.1,
              drawstyle="steps-post", label="Pareto front")  # fmt: skip
    if chosen is not None:
        axes.scatter(costs[chosen], values[chosen], s=90, facecolors="none", edgecolors="black", label="chosen")
    if bound is not None:
        axes.axvline(bound, color="gray", linestyle=":", label="limit")
    if finite.any():
        low, high = np.quantile(values[finite], 0.02), values[finite].max()
        axes.set_ylim(low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1))
    axes.set_xlabel(_UNITS.get(cost, cost))
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def pareto_front(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the places of evaluations that no other one beats in both cost and value, by rising cost.

    Args:
        costs: (evaluations,), smaller for better ones.
        values: (evaluations,), larger for better ones; NaN beats nothing.

    Returns:
        Places, (front,).
    """
    best, front = -np.inf, []
    # the highest value first where costs are equal
    for place in np.lexsort((-values, costs)):
        if values[place] > best:
            best = values[place]
            front.append(place)
    return np.array(front, int)
