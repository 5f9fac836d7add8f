"""The most likely architecture within limits, where a search over relaxed architectures ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.scores.limits import InfeasibleError, Limits
from nasi_jax.scores.linear import LinearCost
from nasi_jax.spaces import Alphas, SearchSpace

_LARGEST_LISTED = 50_000
_LOOKED_AT = 300
_PRICES = np.geomspace(1e-3, 1e3, 120)


def most_likely(
    space: SearchSpace,
    alphas: Alphas,
    limits: Limits,
    costs: Callable[[Any], dict[str, float]],
    linear: dict[str, LinearCost],
) -> Any:
    """Returns the most likely architecture that meets limits.

    A small space is listed in the order of p_alpha, so the result is exact. In a large one, the limits get a price,
    and the most likely architecture is taken at rising prices (Lagrangian relaxation); costs are exact there too.

    Args:
        space: the search space.
        alphas: logits.
        limits: the limits.
        costs: costs of an architecture by name.
        linear: the same as sums over choices, which guide what is looked at.

    Returns:
        The genotype; that of `decode` where it meets the limits.

    Raises:
        InfeasibleError: none that was looked at meets the limits; at least 300, or all of a small space.
    """
    smallest = dict.fromkeys(limits.bounds, math.inf)
    seen: dict[str, bool] = {}

    def meets(genotype: Any) -> bool:
        text = space.format(genotype)
        if text not in seen:
            found = costs(genotype)
            for name in smallest:
                smallest[name] = min(smallest[name], found[name])
            seen[text] = limits.met(found)
        return seen[text]

    best = space.decode(alphas)
    if not limits.bounds or meets(best):
        return best
    listed = space.cardinality <= _LARGEST_LISTED
    candidates = _in_order(space, alphas, limits, linear) if listed else _at_prices(space, alphas, limits, linear)
    found = next(filter(meets, itertools.chain(candidates, [_cheapest(space, limits, linear)])), None)
    if found is None:
        raise InfeasibleError(limits, smallest, len(seen))
    return found


def _in_order(space: SearchSpace, alphas: Alphas, limits: Limits, linear: dict[str, LinearCost]) -> Iterator[Any]:
    """Yields all architectures that may meet the limits, the most likely first."""
    genotypes = jax.jit(jax.vmap(space.at))(jnp.arange(space.cardinality))
    weights = jax.vmap(space.encode)(genotypes)
    likely = jax.vmap(lambda w: _log_probability(alphas, w))(weights)
    near = np.ones(space.cardinality, bool)
    for name, bound in limits.bounds.items():
        cost = linear[name]
        near &= np.asarray(jax.vmap(cost.of)(weights)) <= bound * (1 + 2 * cost.error) + 1e-6 * bound
    for place in np.argsort(-np.asarray(likely), kind="stable"):
        if near[place]:
            yield space.at(int(place))


def _at_prices(space: SearchSpace, alphas: Alphas, limits: Limits, linear: dict[str, LinearCost]) -> Iterable[Any]:
    """Returns the most likely architectures at rising prices of the limits, the most likely first."""
    logs = {kind: jax.nn.log_softmax(logits) for kind, logits in alphas.items()}
    found: dict[str, tuple[float, Any]] = {}
    for price in _PRICES:
        priced: dict[str, jax.Array] = dict(logs)
        for name, bound in limits.bounds.items():
            for kind, extra in linear[name].extra.items():
                priced[kind] = priced[kind] - jnp.asarray(price * extra / bound)
        genotype = space.decode(priced)
        found[space.format(genotype)] = float(_log_probability(alphas, space.encode(genotype))), genotype
    ordered = sorted(found.values(), key=lambda pair: -pair[0])
    return [genotype for _, genotype in ordered[:_LOOKED_AT]]


def _cheapest(space: SearchSpace, limits: Limits, linear: dict[str, LinearCost]) -> Any:
    """Returns the architecture of the smallest costs, as far as they are sums, relative to their bounds."""
    priced = space.alphas()
    for name, bound in limits.bounds.items():
        for kind, extra in linear[name].extra.items():
            priced[kind] = priced[kind] - jnp.asarray(extra / bound)
    return space.decode(priced)


def _log_probability(alphas: Alphas, weights: dict[str, jax.Array]) -> jax.Array:
    return sum((jnp.sum(weights[kind] * jax.nn.log_softmax(logits)) for kind, logits in alphas.items()), jnp.zeros(()))
