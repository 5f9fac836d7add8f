import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasi_jax import search


def test_closed_form_of_equation_18(x64):
    gradients = [np.random.default_rng(i).normal(size=(6, 5)) * scale for i, scale in enumerate((1, 5, 2, 0.1, 9))]
    steps, radius = len(gradients), 2.5
    norms = np.maximum.accumulate([np.linalg.norm(g) for g in gradients])
    expected = radius / steps * sum(g / n for g, n in zip(gradients, norms, strict=True))

    transformation = search.normalised_expected_gradient(steps, radius)
    alphas = {"cell": jnp.zeros((6, 5))}
    state = transformation.init(alphas)
    for g in gradients:
        # optax minimises; the objective's gradient enters with a minus sign
        updates, state = jax.jit(transformation.update)({"cell": -jnp.asarray(g)}, state)
        alphas = optax.apply_updates(alphas, updates)
    np.testing.assert_allclose(alphas["cell"], expected, rtol=1e-12)
    assert np.linalg.norm(alphas["cell"]) <= radius


def test_the_norm_is_that_of_the_whole_tree():
    transformation = search.scale_by_largest_norm()
    tree = {"normal": jnp.array([3.0, 0.0]), "reduce": jnp.array([[4.0]])}
    updates, state = transformation.update(tree, transformation.init(tree))
    np.testing.assert_allclose(updates["normal"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(updates["reduce"], [[0.8]], rtol=1e-6)
    smaller = jax.tree.map(lambda u: u / 10, tree)
    updates, _ = transformation.update(smaller, state)
    np.testing.assert_allclose(updates["reduce"], [[0.08]], rtol=1e-6)


def test_zero_gradients_give_zero_updates():
    transformation = search.scale_by_largest_norm()
    zeros = {"cell": jnp.zeros(3)}
    updates, state = transformation.update(zeros, transformation.init(zeros))
    assert (updates["cell"] == 0).all()
    updates, _ = transformation.update({"cell": jnp.ones(3)}, state)
    np.testing.assert_allclose(updates["cell"], 3**-0.5, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4])
def test_it_composes_with_optax_and_vmap(count):
    chain = optax.chain(search.scale_by_largest_norm(), optax.scale(2.0))
    gradients = jnp.arange(1.0, 3 * count + 1).reshape(count, 3)
    updates = jax.vmap(lambda g: chain.update(g, chain.init(g))[0])(gradients)
    np.testing.assert_allclose(updates, 2 * gradients / jnp.linalg.norm(gradients, axis=1, keepdims=True), rtol=1e-6)
