"""Whether the outputs of a network depend on the other samples of their batch."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.data.source import map_examples
from nasi_jax.ntk._network import ApplyFn, as_matrix, batch_length, hashable, is_inexact, over_reals, samples
from nasi_jax.ntk.gradients import squared_norm
from nasi_jax.programs import is_traced

_SAMPLES = 8  # tested together


def is_coupled(apply_fn: ApplyFn, params: Any, x: Any, batch_statistics: bool | None) -> bool:
    """Finds out whether the samples of a batch have to be taken together, or checks what is claimed.

    A combination of the gradients of all outputs with random weights is taken once from a few samples in one batch and
    once from each alone. They are equal for every combination if the gradients are, and for almost none otherwise.

    Args:
        apply_fn: the network.
        params: pytree of parameters.
        x: inputs, a pytree of arrays (batch, ...).
        batch_statistics: what is claimed, or None.

    Returns:
        Whether an output may depend on the other samples: what is claimed, or what is found. True where nothing is
        claimed and the arrays are traced, because then nothing can be found.

    Raises:
        ValueError: the samples are claimed to be independent and are not, or cannot be taken apart.
    """
    if batch_statistics not in {None, True, False}:
        raise ValueError(f"batch_statistics: expected True, False or None, got {batch_statistics!r}")
    if batch_statistics or is_traced((params, x)):
        return batch_statistics is not False
    if batch_length("x", x) == 1:
        return False
    some = samples(x, 0, min(_SAMPLES, batch_length("x", x)))
    try:
        difference, size = map(float, _difference(hashable(apply_fn), params, some))
    except Exception as error:  # of the network
        if batch_statistics is None:
            return True
        raise ValueError(
            f"batch_statistics: expected True or None, because apply_fn fails on single samples, got False: {error}"
        ) from error
    # as many digits as roundings leave of a gradient in the lowest of the precisions
    types = [jnp.result_type(leaf) for leaf in jax.tree.leaves((params, x)) if is_inexact(leaf)]
    tolerance = math.sqrt(max(float(jnp.finfo(kind).eps) for kind in types))
    if difference <= tolerance * size:
        return False
    if batch_statistics is None:
        return True
    if math.isnan(difference):
        return False  # and what is computed will show it
    raise ValueError(
        "batch_statistics: expected True or None, because outputs depend on the other samples of their batch (by "
        f"{difference / size if size else math.inf:.1g} of the gradients), as with batch normalisation on batch "
        "statistics or with noise drawn for a batch; got False"
    )


@functools.partial(jax.jit, static_argnums=0)
def _difference(apply_fn: ApplyFn, params: Any, x: Any) -> tuple[jax.Array, jax.Array]:
    network, reals, x = over_reals(apply_fn, params, x)
    network = as_matrix(network)

    def alone(reals: list[jax.Array]) -> jax.Array:
        sample = lambda i: map_examples(lambda leaf: leaf[i][None], x)  # noqa: E731
        return jax.vmap(lambda i: network(reals, sample(i))[0])(jnp.arange(batch_length("x", x)))

    outputs, pullback = jax.vjp(lambda p: network(p, x), reals)
    weights = jax.random.normal(jax.random.key(0), outputs.shape, outputs.dtype)
    together, apart = pullback(weights)[0], jax.vjp(alone, reals)[1](weights)[0]
    change = jax.tree.map(jnp.subtract, together, apart)
    return jnp.sqrt(squared_norm(change)), jnp.sqrt(squared_norm(together))
