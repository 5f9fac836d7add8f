"""The kernel as an operator, and parts of the parameters."""

import functools

import jax
import jax.numpy as jnp
import ntk_cases
import numpy as np
import pytest

from nasi_jax import ntk

close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)


def dense(f, params, x1, x2):
    return np.einsum("ikp,jlp->ikjl", ntk_cases.jacobian(f, params, x1), ntk_cases.jacobian(f, params, x2))


@pytest.mark.parametrize(
    "name", ["dense", "batch-normalised", pytest.param("batch-statistics", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("bounded", [False, True])
def test_products_with_vectors_and_matrices(name, bounded, x64):
    f, params, x1, _ = ntk_cases.make(name, batch=5)
    x2 = ntk_cases.make(name, batch=4, seed=1).x
    memory = least(f, params, x1) if bounded else None
    kernel = dense(f, params, x1, x2).reshape(15, 12)
    operator = ntk.operator(f, params, x1, x2, memory=memory)
    assert operator.shape == (15, 12)
    assert operator.structure == jax.ShapeDtypeStruct((12,), float)
    if bounded:
        assert operator.at_once == ((1, 1, 1) if name == "dense" else (5, 4, 1))
    matrix = jax.random.normal(jax.random.key(0), (12, 3))
    close(jax.jit(lambda operator, v: operator(v))(operator, matrix[:, 0]), kernel @ matrix[:, 0])
    close(operator(matrix), kernel @ matrix)
    own = ntk.operator(f, params, x1, memory=memory)
    close(own(jnp.ones(15)), dense(f, params, x1, x1).reshape(15, 15) @ np.ones(15))


def least(*case):
    """Returns about the least memory of a product."""
    low, high = 1.0, 1e9
    while high > 1.05 * low:
        middle = (low * high) ** 0.5
        try:
            ntk.operator(*case, memory=middle)
            high = middle
        except ValueError:
            low = middle
    return high


def test_the_memory_bounds_products_with_matrices():
    f, params, x, _ = ntk_cases.make("dense", batch=20)
    matrix = jnp.ones((60, 400))

    def temporary(operator):
        lowered = jax.jit(lambda operator, matrix: operator(matrix)).lower(operator, matrix)
        return lowered.compile().memory_analysis().temp_size_in_bytes - 4 * matrix.nbytes

    memory = 2**16
    operator = ntk.operator(f, params, x, memory=memory)
    assert 1 < operator.at_once[2] < 400
    assert temporary(operator) < memory < temporary(operator.replace(at_once=(20, 20, 400)))
    np.testing.assert_allclose(operator(matrix), jnp.tile(operator(matrix[:, :1]), 400), rtol=1e-5)
    for function, what in ((f, "one sample"), (ntk_cases.make("batch-normalised")[0], "the batch")):
        with pytest.raises(ValueError, match=rf"memory: expected at least .* for a vector and {what}, got 1 B"):
            ntk.operator(function, params, x, memory=1)


def test_turns_that_do_not_divide_the_samples(x64):
    f, params, x, _ = ntk_cases.make("dense", batch=7)
    operator = ntk.operator(f, params, x).replace(at_once=(3, 4, 1))
    vector = jax.random.normal(jax.random.key(0), (21,))
    close(operator(vector), dense(f, params, x, x).reshape(21, 21) @ vector)


def test_other_shapes_are_refused():
    operator = ntk.operator(*ntk_cases.make("dense")[:3])
    for shape in ((17,), (2, 18), (18, 2, 1), ()):
        with pytest.raises(ValueError, match=r"vector: expected shape \(18,\) or \(18, m\), got"):
            operator(jnp.ones(shape))
    with pytest.raises(TypeError, match=r"vector: expected an array, got dict; ntk\.vector_product takes a pytree"):
        operator({"outputs": jnp.ones(18)})


def test_lineax_solves_with_it(x64):
    lineax = pytest.importorskip("lineax")
    f, params, x, _ = ntk_cases.make("dense")
    operator = ntk.operator(f, params, x)
    ridge = lambda v: operator(v) + 0.5 * v  # noqa: E731
    taken = lineax.FunctionLinearOperator(ridge, operator.structure, lineax.positive_semidefinite_tag)
    y = jax.random.normal(jax.random.key(0), (18,))
    found = lineax.linear_solve(taken, y, lineax.CG(rtol=1e-10, atol=1e-10, max_steps=500)).value
    kernel = dense(f, params, x, x).reshape(18, 18)
    np.testing.assert_allclose(found, np.linalg.solve(kernel + 0.5 * np.eye(18), y), rtol=1e-6)
    plain = lineax.FunctionLinearOperator(operator, operator.structure, lineax.positive_semidefinite_tag)
    close(plain.as_matrix(), kernel)


def test_matfree_takes_it(x64):
    decomp = pytest.importorskip("matfree.decomp")
    f, params, x, _ = ntk_cases.make("dense")
    start = jnp.ones(18) / 18**0.5
    found = decomp.tridiag_sym(18, reortho="full")(ntk.operator(f, params, x), start)
    values = np.linalg.eigvalsh(np.asarray(found.J_small))
    np.testing.assert_allclose(values[-1], np.linalg.eigvalsh(dense(f, params, x, x).reshape(18, 18))[-1], rtol=1e-8)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("convolutions", "batch-statistics")]


@pytest.mark.parametrize("name", ["dense", *SLOW])
def test_parts_of_the_parameters_add_up(name, x64):
    f, params, x, _ = ntk_cases.make(name, batch=4)
    groups = sorted({path.split("/")[0] for path in paths(params)})
    assert len(groups) > 2
    parts = [ntk.select(params, lambda path, group=group: path.split("/")[0] == group) for group in groups]
    whole = ntk.kernel(f, params, x)
    close(sum(ntk.kernel(f, part, x) for part in parts), whole)
    close(sum(ntk.trace(f, part, x).value for part in parts), ntk.trace(f, params, x).value)
    vector = jax.random.normal(jax.random.key(0), (4, 3))
    products = [ntk.vector_product(f, part, x, vector) for part in parts]
    close(sum(products), ntk.vector_product(f, params, x, vector))
    one = ntk_cases.jacobian(lambda p, x: f(params | {groups[0]: p}, x), params[groups[0]], x)
    close(ntk.kernel(f, parts[0], x), np.einsum("ikp,jkp->ij", one, one))


def paths(params):
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]


def test_selecting_twice_and_nothing():
    params = {"a": jnp.ones((3, 2)), "b": jnp.ones((1, 2)), "count": jnp.int32(3)}
    f, x = lambda p, x: (x @ p["a"] + p["b"]) * p["count"], jnp.ones((4, 3))
    first = ntk.select(params, lambda path: path in {"a", "b"})
    second = ntk.select(first, lambda path: path == "b")
    np.testing.assert_allclose(ntk.trace(f, second, x).value, 4 * 2 * 9)
    with pytest.raises(ValueError, match=r"where: expected to select a floating parameter of a, b, got none"):
        ntk.select(params, lambda path: path == "count")
    for compute in (lambda p: ntk.kernel(f, p, x), jax.jit(lambda p: ntk.kernel(f, p, x))):
        np.testing.assert_allclose(compute(second), 18 * np.ones((4, 4)))
