"""Scores of architectures at initialisation, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasi_jax import ntk, proxies
from nasi_jax.nn import CHANNEL_SCALES, PREACTIVATIONS


class Candidate(NamedTuple):
    """One architecture with what a score may look at.

    Attributes:
        apply_fn: the network, `apply_fn(params, x)`.
        params: its parameters.
        x: images, (batch, height, width, colours).
        y: integer labels, (batch,).
        key: typed random key.
        unnormalised: the network with statistics fixed at 0 and 1.
        apply: the network as Flax applies it, with further collections: `apply(variables, x, mutable=...)`.
    """

    apply_fn: ntk.ApplyFn
    params: Any
    x: jax.Array
    y: jax.Array
    key: jax.Array
    unnormalised: ntk.ApplyFn
    apply: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Score:
    """A training-free score.

    Attributes:
        compute: its value for a candidate, a scalar; may be jitted. None where `nasi_jax.scores.Counter` counts it
            under the score's name.
        formula: what it computes, in short.
        paper: where it is from.
        higher_is_better: whether larger values are said to mean better architectures.
        labels: whether it looks at labels.
        data: whether it looks at inputs.
        double: whether float32 overflows in it, so that it needs float64.
    """

    compute: Callable[[Candidate], jax.Array] | None
    formula: str
    paper: str
    higher_is_better: bool = True
    labels: bool = False
    data: bool = True
    double: bool = False


def _of_gradients(function: Callable[..., jax.Array]) -> Callable[[Candidate], jax.Array]:
    return lambda c: function(c.apply_fn, c.params, c.x, c.y)


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
    return proxies.fisher(lambda s, x: c.apply({"params": c.params, CHANNEL_SCALES: s}, x), ones, c.x, c.y)


_ABDELFATTAH = "Abdelfattah et al., ICLR 2021"
_NASI = "NASI, Shu et al., ICLR 2022"

SCORES: dict[str, Score] = {
    "ntk-trace": Score(_exact_trace, "tr(J J^T), exact", f"{_NASI}, eq. 9"),
    "ntk-probe": Score(
        lambda c: ntk.participation_ratio(c.apply_fn, c.params, c.x, c.key).trace,
        "||J^T v||^2 for one Rademacher v",
        "Hutchinson, 1990",
    ),
    "ntk-per-sample": Score(_of_gradients(ntk.per_sample), "sum_x ||grad L_x||^2", f"{_NASI}, eq. 11", labels=True),
    "ntk-one-batch": Score(
        _of_gradients(ntk.one_batch), "||grad L||^2, L the mean loss of a batch", f"{_NASI}, eq. 12", labels=True
    ),
    "ntk-participation-ratio": Score(
        lambda c: ntk.participation_ratio(c.apply_fn, c.params, c.x, c.key).ratio,
        "(v^T K v)^2 / ||K v||^2 for one Rademacher v",
        "after NASI, Proposition 1",
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
    ),
    "fisher": Score(_fisher, "sum (a grad_a L)^2 over channels", "Turner et al., ICLR 2020", labels=True),
    "jacob_cov": Score(
        lambda c: proxies.jacob_cov(c.apply_fn, c.params, c.x),
        "-sum log(l + k) + 1 / (l + k) over eigenvalues of the correlation of input gradients",
        "Mellor et al., 2020",
    ),
    "naswot": Score(_naswot, "log |det K|, K counts the ReLU that agree", "Mellor et al., ICML 2021"),
    "zico": Score(
        _of_gradients(proxies.zico), "sum over layers of log sum E|g| / std|g|", "Li et al., ICLR 2023", labels=True
    ),
    "params": Score(None, "number of parameters", "", data=False),
    "flops": Score(None, "multiply-adds of convolutions and products", "", data=False),
}
"""Every score by its name on the command line."""
