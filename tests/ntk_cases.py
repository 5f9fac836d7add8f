"""Networks on which the exact methods are held against a dense float64 Jacobian."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nasi_jax import ntk
from nasi_jax.ntk.neural_tangents import installed

CLASSES = 3
# on some machines neural-tangents cannot be installed
IMPLEMENTATIONS = (None, *get_args(ntk.Implementation) * installed())
needs_neural_tangents = pytest.mark.skipif(not installed(), reason="needs neural-tangents")


class Case(NamedTuple):
    apply_fn: Callable[[Any, Any], jax.Array]
    params: Any
    x: Any
    y: Any


class Network(nn.Module):
    """Convolutions plain, depthwise and dilated, pools, normalisation, branches, and parameters of every rank."""

    normalise: str = "no"

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (), x.dtype)
        x = nn.Conv(4, (3, 3), param_dtype=x.dtype)(x)
        if self.normalise != "no":
            x = nn.BatchNorm(use_running_average=self.normalise == "fixed", param_dtype=x.dtype, name="norm")(x)
        x = nn.relu(x)
        x = scale * nn.Conv(4, (3, 3), feature_group_count=4, use_bias=False, param_dtype=x.dtype)(x)
        first, second = jnp.split(nn.max_pool(x, (2, 2), (2, 2)), 2, axis=-1)
        x = jnp.concatenate([first * second, second], axis=-1)
        x = nn.tanh(nn.Conv(3, (3, 3), kernel_dilation=(2, 2), param_dtype=x.dtype)(x))
        return nn.Dense(CLASSES, param_dtype=x.dtype)(nn.avg_pool(x, (2, 2)).reshape(len(x), -1))


def dense(params, x):
    return jnp.tanh(x @ params["first"] + params["bias"][None]) @ params["second"]


def batch_normalised(params, x):
    return jax.nn.relu(jax.nn.standardize(x @ params["first"], axis=0, epsilon=1e-5)) @ params["second"]


def convolutional(normalise):
    network = Network(normalise)

    def apply_fn(params, x):
        variables = {"params": params, "batch_stats": {"norm": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.0)}}}
        return network.apply(variables, x, mutable=["batch_stats"])[0]

    return apply_fn


INDEPENDENT = {"dense": dense, "convolutions": convolutional("no"), "fixed-statistics": convolutional("fixed")}
COUPLED = {"batch-normalised": batch_normalised, "batch-statistics": convolutional("batch")}
NAMES = [*INDEPENDENT, *COUPLED]


def slow_but(quick, names=NAMES):
    """Returns names as parameters of a test that is slow for all but some of them."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in names]


QUICK = ("dense", "batch-normalised")


def make(name, batch=6, seed=0):
    """Makes a case; in float64 under the fixture `x64`."""
    return _make(name, batch, seed, jax.dtypes.canonicalize_dtype(float))


@functools.cache
def _make(name, batch, seed, dtype):
    keys = jax.random.split(jax.random.key(seed), 5)
    apply_fn = (INDEPENDENT | COUPLED)[name]
    if name in {"dense", "batch-normalised"}:
        x = jax.random.normal(keys[0], (batch, 5), dtype)
        params = {
            "first": jax.random.normal(keys[1], (5, 9), dtype),
            "bias": jax.random.normal(keys[2], (9,), dtype),
            "second": jax.random.normal(keys[3], (9, CLASSES), dtype),
        }
    else:
        x = jax.random.normal(keys[0], (batch, 6, 6, 2), dtype)
        normalise = {"convolutions": "no", "fixed-statistics": "fixed", "batch-statistics": "batch"}[name]
        params = jax.jit(Network(normalise).init)(keys[1], x[:1])["params"]
    return Case(apply_fn, params, x, jax.random.randint(keys[4], (batch,), 0, CLASSES))


def jacobian(apply_fn, params, x):
    """Dense Jacobian (batch, outputs, parameters)."""
    return np.asarray(_jacobian(apply_fn)(params, x))


@functools.cache
def _jacobian(apply_fn):
    def rows(params, x):
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        return jax.jacrev(lambda p: apply_fn(unravel(p), x))(flat)

    return jax.jit(rows)  # one program, for many small ones take longer to compile


def dense_kernel(apply_fn, params, x):
    """Kernel (batch * outputs, batch * outputs)."""
    rows = jacobian(apply_fn, params, x)
    rows = rows.reshape(-1, rows.shape[-1])
    return rows @ rows.T


def tokens(batch=6, seed=0):
    """Token ids with a mask, and targets with a weight for each sample: no image, no float and no label."""
    keys = jax.random.split(jax.random.key(seed), 6)
    params = [jax.random.normal(keys[0], (7, 4)), {"w": jax.random.normal(keys[1], (4, CLASSES))}]
    x = {"ids": jax.random.randint(keys[2], (batch, 5), 0, 7), "mask": jax.random.bernoulli(keys[3], 0.7, (batch, 5))}
    y = (jax.random.normal(keys[4], (batch, CLASSES)), jax.random.uniform(keys[5], (batch,)))
    return Case(masked_mean, params, x, y)


def masked_mean(params, x):
    embedded = jnp.where(x["mask"][..., None], params[0][x["ids"]], 0)
    return jnp.tanh(jnp.sum(embedded, axis=1)) @ params[1]["w"]


def squared_error(outputs, y):
    targets, weights = y
    return weights * jnp.sum((outputs - targets) ** 2, axis=1) / 2
