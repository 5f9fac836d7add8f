"""Kernels and what is read off them as terms of a loss: gradients, ensembles, jit."""

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk

KEY = jax.random.key(0)
FIGURES = {
    "kernel": lambda f, x: lambda p: jnp.sum(jnp.sin(ntk.kernel(f, p, x))),
    "full kernel, independent": lambda f, x: (
        lambda p: jnp.sum(jnp.sin(ntk.kernel(f, p, x, form="full", batch_statistics=False)))
    ),
    "kernel on two devices": lambda f, x: (
        lambda p: jnp.sum(jnp.sin(ntk.kernel(f, p, x, mesh=jax.make_mesh((2,), ("a",), devices=jax.devices()[:2]))))
    ),
    "trace": lambda f, x: lambda p: jnp.sum(ntk.kernel(f, p, x, form="diagonal", batch_statistics=False)),
    "participation ratio": lambda f, x: lambda p: ntk.participation_ratio(f, p, x, KEY).ratio,
    "effective rank": lambda f, x: lambda p: ntk.spectrum(ntk.kernel(f, p, x, batch_statistics=False)).effective_rank,
    "operator": lambda f, x: lambda p: jnp.sum(ntk.operator(f, p, x, batch_statistics=False)(jnp.ones(12)) ** 2),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_gradients_by_the_parameters(figure, x64):
    f, params, x, _ = ntk_cases.make("dense", batch=4)
    value = jax.jit(FIGURES[figure](f, x))
    gradient = jax.jit(jax.grad(value))(params)
    keys = jax.random.split(jax.random.key(1), len(params))
    direction = {name: jax.random.normal(key, params[name].shape) for name, key in zip(params, keys, strict=True)}
    slope = sum(jnp.sum(gradient[name] * direction[name]) for name in params)
    ahead, behind = (value({n: params[n] + h * direction[n] for n in params}) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolutions", "batch-statistics"])
def test_gradients_of_convolutions(name, x64):
    f, params, x, _ = ntk_cases.make(name, batch=3)
    independent = False if name in ntk_cases.INDEPENDENT else None
    value = jax.jit(lambda p: jnp.sum(jnp.sin(ntk.kernel(f, p, x, batch_statistics=independent))))
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    gradient = jax.jit(jax.grad(lambda flat: value(unravel(flat))))(flat)
    direction = jax.random.normal(jax.random.key(0), flat.shape)
    ahead, behind = (value(unravel(flat + h * direction)) for h in (1e-6, -1e-6))
    np.testing.assert_allclose(gradient @ direction, (ahead - behind) / 2e-6, rtol=1e-4)


def test_ensembles_by_vmap(x64):
    f, params, x, _ = ntk_cases.make("dense", batch=4)
    members = [params, jax.tree.map(lambda leaf: leaf * 1.5, params)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    for options in ({}, {"batch_statistics": False}, {"form": "full", "batch_statistics": False}):
        kernels = jax.jit(jax.vmap(lambda p, o=options: ntk.kernel(f, p, x, **o)))(stacked)
        for kernel, member in zip(kernels, members, strict=True):
            np.testing.assert_allclose(kernel, ntk.kernel(f, member, x, form=options.get("form", "traced")), rtol=1e-10)
    ratios = jax.vmap(lambda p: ntk.participation_ratio(f, p, x, KEY).ratio)(stacked)
    np.testing.assert_allclose(ratios[1], ntk.participation_ratio(f, members[1], x, KEY).ratio, rtol=1e-10)
