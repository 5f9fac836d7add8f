"""Scores of architectures at initialisation, by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasi_jax import ntk, proxies
from nasi_jax.data import Loss
from nasi_jax.nn import CHANNEL_SCALES, PREACTIVATIONS
from nasi_jax.spaces.text import named, unknown


class Candidate(NamedTuple):
    """One architecture with what a score may look at.

    Attributes:
        apply_fn: the network, `apply_fn(params, x)`.
        params: its parameters.
        x: inputs of a batch, a pytree.
        y: what the outputs are compared with, such as labels (batch,).
        loss: loss of each example.
        key: typed random key.
        unnormalised: the network with statistics fixed at 0 and 1.
        apply: the network as Flax applies it, with further collections: `apply(variables, x, mutable=...)`.
    """

    apply_fn: ntk.ApplyFn
    params: Any
    x: Any
    y: Any
    loss: Loss
    key: jax.Array
    unnormalised: ntk.ApplyFn
    apply: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Score:
    """A training-free score.

    Attributes:
        compute: its value for a candidate, a scalar; may be jitted, and takes the options by name. None where
            `nasi_jax.scores.Counter` counts it under the score's name.
        formula: what it computes, in short.
        paper: where it is from.
        higher_is_better: whether larger values are said to mean better architectures.
        labels: whether it looks at labels.
        data: whether it looks at inputs.
        double: whether float32 overflows in it, so that it needs float64.
        floating: whether it needs inputs that are numbers, and not token ids alone.
        options: its options with their defaults, written ``name(option=value)``.
    """

    compute: Callable[..., jax.Array] | None
    formula: str
    paper: str
    higher_is_better: bool = True
    labels: bool = False
    data: bool = True
    double: bool = False
    floating: bool = False
    options: dict[str, int] = dataclasses.field(default_factory=dict)


def _of_gradients(function: Callable[..., jax.Array]) -> Callable[[Candidate], jax.Array]:
    return lambda c: function(c.apply_fn, c.params, c.x, c.y, loss=c.loss)


def _probed(c: Candidate, probes: int) -> ntk.ParticipationRatio:
    """Returns the mean over random probes, of which the first is that of a single one."""
    keys = [c.key, *(jax.random.fold_in(c.key, i) for i in range(1, probes))]
    found = [ntk.participation_ratio(c.apply_fn, c.params, c.x, key) for key in keys]
    return jax.tree.map(lambda *values: sum(values[1:], values[0]) / probes, *found)


def _kernel(c: Candidate) -> jax.Array:
    """Returns the kernel of the summed outputs, (batch, batch), from one vector-Jacobian product for each sample."""
    sums, pullback = jax.vjp(lambda p: jnp.sum(c.apply_fn(p, c.x), axis=1), c.params)
    (gradients,) = jax.vmap(pullback)(jnp.eye(len(sums), dtype=sums.dtype))
    rows = [leaf.reshape(len(sums), -1) for leaf in jax.tree.leaves(gradients)]
    return sum((row @ row.T for row in rows), jnp.zeros((len(sums), len(sums)), sums.dtype))


def _exact_trace(c: Candidate) -> jax.Array:
    outputs, pullback = jax.vjp(lambda p: c.apply_fn(p, c.x), c.params)
    basis = jnp.eye(outputs.size, dtype=outputs.dtype).reshape(-1, *outputs.shape)
    return jnp.sum(jax.vmap(lambda v: ntk.squared_norm(pullback(v)))(basis))


def _synflow(c: Candidate) -> jax.Array:
    return proxies.synflow(c.unnormalised, c.params, c.x)


def _naswot(c: Candidate) -> jax.Array:
    _, observed = c.apply({"params": c.params}, c.x, mutable=[PREACTIVATIONS])
    leaves = jax.tree.leaves(observed[PREACTIVATIONS])
    return proxies.naswot(zip(leaves[::2], leaves[1::2], strict=True))


def _fisher(c: Candidate) -> jax.Array:
    _, observed = c.apply({"params": c.params}, c.x, mutable=[CHANNEL_SCALES])
    ones = observed[CHANNEL_SCALES]
    return proxies.fisher(lambda s, x: c.apply({"params": c.params, CHANNEL_SCALES: s}, x), ones, c.x, c.y, loss=c.loss)


_ABDELFATTAH = "Abdelfattah et al., ICLR 2021"
_NASI = "NASI, Shu et al., ICLR 2022"

SCORES: dict[str, Score] = {
    "ntk-trace": Score(_exact_trace, "tr(J J^T), exact", f"{_NASI}, eq. 9"),
    "ntk-probe": Score(
        lambda c, probes=1: _probed(c, probes).trace,
        "||J^T v||^2 for a Rademacher v, or its mean over several probes",
        "Hutchinson, 1990",
        options={"probes": 1},
    ),
    "ntk-per-sample": Score(_of_gradients(ntk.per_sample), "sum_x ||grad L_x||^2", f"{_NASI}, eq. 11", labels=True),
    "ntk-one-batch": Score(
        _of_gradients(ntk.one_batch), "||grad L||^2, L the mean loss of a batch", f"{_NASI}, eq. 12", labels=True
    ),
    "ntk-participation-ratio": Score(
        lambda c, probes=1: _probed(c, probes).ratio,
        "(v^T K v)^2 / ||K v||^2 for a Rademacher v, or its mean over several probes",
        "after NASI, Proposition 1",
        options={"probes": 1},
    ),
    "ntk-condition-number": Score(
        lambda c: ntk.spectrum(_kernel(c)).condition_number,
        "largest over smallest eigenvalue of the kernel of the summed outputs",
        "TE-NAS, Chen et al., ICLR 2021",
        higher_is_better=False,
    ),
    "ntk-effective-rank": Score(
        lambda c: ntk.spectrum(_kernel(c)).effective_rank,
        "exp of the entropy of the normalised eigenvalues of the kernel of the summed outputs",
        "Roy and Vetterli, EUSIPCO 2007",
    ),
    "grad_norm": Score(_of_gradients(proxies.grad_norm), "sum over layers of ||grad L||", _ABDELFATTAH, labels=True),
    "snip": Score(_of_gradients(proxies.snip), "sum |theta grad L|", "Lee et al., ICLR 2019", labels=True),
    "grasp": Score(_of_gradients(proxies.grasp), "-theta^T H grad L", "Wang et al., ICLR 2020", labels=True),
    "synflow": Score(
        _synflow,
        "log sum |theta grad R|, R = 1^T f(1; |theta|)",
        "Tanaka et al., NeurIPS 2020",
        data=False,
        double=True,
        floating=True,
    ),
    "fisher": Score(_fisher, "sum (a grad_a L)^2 over channels", "Turner et al., ICLR 2020", labels=True),
    "jacob_cov": Score(
        lambda c: proxies.jacob_cov(c.apply_fn, c.params, c.x),
        "-sum log(l + k) + 1 / (l + k) over eigenvalues of the correlation of input gradients",
        "Mellor et al., 2020",
        floating=True,
    ),
    "naswot": Score(_naswot, "log |det K|, K counts the ReLU that agree", "Mellor et al., ICML 2021"),
    "zico": Score(
        _of_gradients(proxies.zico), "sum over layers of log sum E|g| / std|g|", "Li et al., ICLR 2023", labels=True
    ),
    "params": Score(None, "number of parameters", "", data=False),
    "flops": Score(None, "multiply-adds of convolutions and products", "", data=False),
}
"""Every score by its name on the command line."""


def score(text: str) -> Score:
    """Returns the score that ``name`` or ``name(option=value)`` stands for.

    Args:
        text: the text.

    Returns:
        The score, with its options set.

    Raises:
        ValueError: the name or an option is unknown, or a value is no positive integer.
    """
    name, given = named(text)
    if name not in SCORES:
        raise ValueError(unknown("score", name, SCORES))
    found = SCORES[name]
    for option, value in given.items():
        if option not in found.options:
            known = f"options {', '.join(found.options)}" if found.options else "no options"
            raise ValueError(f"score: {name} has {known}, got {text!r}")
        if type(value) is not int or value < 1:
            raise ValueError(f"score: expected a positive integer for {option} of {name}, got {value!r}")
    if not given or found.compute is None:
        return found
    return dataclasses.replace(found, compute=functools.partial(found.compute, **given), options=found.options | given)
