"""Kernels in blocks of samples and outputs, on several devices, and in the memory that was said."""

import functools
import math

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest
from jax.sharding import Mesh

from nasi_jax import ntk
from nasi_jax.ntk import _contraction, _memory

close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


def plan(case, form, memory, n2=None, coupled=False):
    f, params, x, _ = case
    task = _contraction.Task(f, 0, form, coupled, None)
    program = task.program(*task.network(params, x))
    return task, _memory.blocks_of(program, task.products, coupled, len(x), n2 or len(x), 1, memory)


def attention(params, x):
    scores = jax.nn.softmax(jnp.einsum("bsd,btd->bst", x @ params["query"], x @ params["key"]))
    return (scores @ (x @ params["value"])).mean(axis=1) @ params["last"]


@pytest.fixture(scope="module")
def cases():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 5)
        params = {
            name: jax.random.normal(key, (6, 6)) for name, key in zip(("query", "key", "value"), keys, strict=False)
        }
        params["last"] = jax.random.normal(keys[3], (6, 3))
        return {
            **{name: ntk_cases.make(name, batch=7) for name in ("dense", "convolutions", "batch-normalised")},
            "attention": ntk_cases.Case(attention, params, jax.random.normal(keys[4], (7, 2, 6)), None),
        }


@pytest.mark.parametrize(
    "name", ["dense", "attention", "batch-normalised", pytest.param("convolutions", marks=pytest.mark.slow)]
)
def test_blocks_of_samples_and_outputs_give_the_same(name, cases, x64):
    f, params, x, _ = case = cases[name]
    x1, x2 = x[:5], x[3:]
    j1, j2 = ntk_cases.jacobian(f, params, x1), ntk_cases.jacobian(f, params, x2)
    expected = {"full": np.einsum("ikp,jlp->ijkl", j1, j2), "traced": np.einsum("ikp,jkp->ij", j1, j2)}
    coupled = name == "batch-normalised"
    for form, kernel in expected.items():
        memory = least(case._replace(x=x1), form, coupled)
        blocks = plan(case._replace(x=x1), form, memory, 4, coupled)[1]
        assert blocks.outputs < 3
        assert blocks.held < 5
        close(ntk.kernel(f, params, x1, x2, form=form, memory=memory), kernel)
    diagonal = np.sum(j1**2, axis=(1, 2))
    close(ntk.kernel(f, params, x1, form="diagonal", memory=least(case._replace(x=x1), "diagonal", coupled)), diagonal)


def least(case, form, coupled):
    """Returns about the least memory of a kernel."""
    low, high = 1.0, 1e9
    while high > 1.1 * low:
        middle = (low * high) ** 0.5
        try:
            plan(case, form, middle, 4, coupled)
            high = middle
        except ValueError:
            low = middle
    return high


@pytest.mark.parametrize("name", ["attention", "batch-normalised"])
def test_rows_of_half_of_the_outputs_give_the_same(name, cases, x64, monkeypatch):
    f, params, x, _ = case = cases[name]._replace(x=cases[name].x[:3])
    monkeypatch.setattr(_memory, "_HELD", 1)
    coupled = name == "batch-normalised"
    assert plan(case, "traced", 1e9, coupled=coupled)[1].outputs == 2
    rows = ntk_cases.jacobian(f, params, x)
    for compute in (ntk.kernel, jax.jit(ntk.kernel, static_argnums=0)):
        close(compute(f, params, x), np.einsum("ikp,jkp->ij", rows, rows))


def test_blocks_under_jit_and_their_gradient(cases, x64):
    f, params, x, _ = case = cases["dense"]
    memory = 1.1 * least(case, "full", True)
    assert plan(case, "full", memory, coupled=True)[1].held < len(x)
    rows = ntk_cases.jacobian(f, params, x)
    blocked = functools.partial(ntk.kernel, f, form="full", memory=memory)
    close(jax.jit(blocked)(params, x), np.einsum("ikp,jlp->ijkl", rows, rows))
    total = lambda kernel: lambda p: jnp.sum(jnp.sin(kernel(p, x)))  # noqa: E731
    whole = jax.grad(total(functools.partial(ntk.kernel, f, form="full")))(params)
    jax.tree.map(close, jax.jit(jax.grad(total(blocked)))(params), whole)


@pytest.mark.parametrize("form", ["traced", "full", "diagonal", pytest.param("summed", marks=pytest.mark.slow)])
def test_the_number_of_devices_does_not_change_the_result(form, cases, x64):
    for name in ("dense", "batch-normalised"):
        f, params, x, _ = cases[name]
        alone = ntk.kernel(f, params, x, form=form)
        for mesh in (
            Mesh(np.array(jax.devices()[:2]), "devices"),
            jax.make_mesh((2, 4), ("a", "b"), devices=jax.devices()[:8]),
        ):
            close(ntk.kernel(f, params, x, form=form, mesh=mesh), alone)
    blocked = ntk.kernel(
        f, params, x, form=form, mesh=mesh, memory=2.5 * least(cases[name], form, name != "convolutions")
    )
    close(blocked, alone)


def wide(width=200):
    """A network of 162,000 parameters, as in the figures for 200 samples and 10 outputs."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = [jax.random.normal(keys[0], (800, width)) / 28, jax.random.normal(keys[1], (width, 10)) / width**0.5]
    return ntk_cases.Case(lambda p, x: jnp.tanh(x @ p[0]) @ p[1], params, jax.random.normal(keys[2], (200, 800)), None)


def temporary(task, blocks, case):
    samples = jnp.minimum(jnp.arange(blocks.held), len(case.x) - 1)
    arguments = (case.params, case.x, None, samples, jnp.arange(blocks.outputs))
    lowered = _contraction._stripe.lower(task, blocks, *arguments)
    return lowered.compile().memory_analysis().temp_size_in_bytes


def test_turns_use_the_same_memory():
    """XLA may take the turns in any order, unless each waits for the one before."""

    def convolve(params, x):
        form = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, params[0], (1, 1), "SAME", dimension_numbers=form)
        return jnp.tanh(x).mean(axis=(1, 2)) @ params[1]

    case = ntk_cases.Case(convolve, [jnp.ones((3, 3, 3, 8)), jnp.ones((8, 10))], jnp.ones((32, 16, 16, 3)), None)
    task, blocks = plan(case, "traced", 2**30)
    together, in_turns = (temporary(task, blocks._replace(held=32, at_once=count), case) for count in (32, 4))
    assert in_turns < together / 3


@pytest.mark.parametrize("form", ["traced", "diagonal"])
def test_gradients_of_products_are_not_formed(form):
    case = wide()
    task, blocks = plan(case, form, 2**30)
    assert blocks.held == 200
    assert temporary(task, blocks, case) < 20 * 2**20
    jacobian = 200 * 10 * 162_000 * 4
    assert jacobian > 60 * temporary(task, blocks, case)
    rows = jax.vmap(lambda x: jax.jacrev(case.apply_fn)(case.params, x[None]))(case.x[:4])
    rows = np.concatenate([np.reshape(leaf, (4, 10, -1)) for leaf in rows], axis=2).astype(float)
    got = ntk.kernel(case.apply_fn, case.params, case.x[:4], form=form)
    expected = np.einsum("ikp,jkp->ij", rows, rows)
    np.testing.assert_allclose(got, expected if form == "traced" else np.diag(expected), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "form"),
    [("convolutions", "traced"), ("attention", "full"), ("dense", "traced"), ("attention", "diagonal")],
)
@pytest.mark.parametrize("memory", [2**20, 2**24])
def test_the_estimate_of_memory_is_an_upper_bound(name, form, memory, cases, x64):
    case = cases[name]._replace(x=jnp.concatenate([cases[name].x] * 9))
    task, blocks = plan(case, form, memory)
    assert blocks.estimate <= memory
    assert temporary(task, blocks, case) <= 1.1 * blocks.estimate


def test_memory_that_cannot_suffice_is_said_before_it_starts():
    linear, params = lambda p, x: x @ p, jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"memory: expected at least .* TiB for the kernel .* got .*; take fewer"):
        ntk.kernel(linear, params, jnp.ones((3_000_000, 3)))
    with pytest.raises(ValueError, match=r"memory: expected at least 128 B for the kernel and .* got 100 B"):
        ntk.kernel(linear, params, jnp.ones((4, 3)), memory=100)


def test_memory_of_which_nothing_is_known(monkeypatch):
    def missing(_):
        raise FileNotFoundError

    monkeypatch.setattr(_memory.pathlib.Path, "read_text", missing)
    assert _memory.free_memory() == math.inf
    linear, params, x = lambda p, x: x @ p, jnp.ones((3, 2)), jnp.ones((4, 3))
    for memory in (None, math.inf):
        np.testing.assert_allclose(ntk.kernel(linear, params, x, memory=memory), np.full((4, 4), 6))
        np.testing.assert_allclose(ntk.operator(linear, params, x, memory=memory)(jnp.ones((8, 2))), 12)
    assert ntk.trace(linear, params, x).value == 24
