import dataclasses

import jax
import pytest

from nasi_jax import spaces, train


def test_recipes_are_the_published_ones():
    darts = train.RECIPES["darts-cifar"]
    assert (darts.epochs, darts.batch, darts.learning_rate, darts.weight_decay) == (600, 96, 0.025, 3e-4)
    assert (darts.gradient_clip, darts.cutout, darts.auxiliary, darts.drop_path) == (5, 16, 0.4, 0.2)
    assert (darts.cells, darts.channels, darts.nesterov) == (20, 36, False)
    short = train.RECIPES["nasbench201-12"]
    assert (short.epochs, short.batch, short.learning_rate, short.weight_decay, short.nesterov) == (
        12, 256, 0.1, 5e-4, True,
    )  # fmt: skip
    assert dataclasses.replace(short, epochs=200) == train.RECIPES["nasbench201"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"batch": -1}, "batch: expected"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a positive number"),
        ({"momentum": 1.0}, "momentum: expected a number from 0 to below 1"),
        ({"drop_path": -0.1}, "drop_path: expected"),
        ({"weight_decay": float("inf")}, "weight_decay: expected"),
        ({"precision": "float16"}, "precision: expected 'float32' or 'bfloat16'"),
        ({"warmup": 600}, "warmup: expected fewer than the 600 epochs"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(train.RECIPES["darts-cifar"], **change)


def test_the_network_has_what_the_recipe_asks_for():
    network = train.network(spaces.DARTS(), spaces.DARTS_V2, train.RECIPES["darts-cifar"], 100)
    assert (network.channels, network.cells, network.classes, network.auxiliary) == (36, 20, 100, True)


@pytest.mark.parametrize("name", ["auxiliary", "drop_path"])
def test_a_space_without_it_says_so(name):
    space, recipe = spaces.NASBench201(), dataclasses.replace(train.RECIPES["nasbench201"], **{name: 0.5})
    with pytest.raises(ValueError, match=f"{name}: expected 0, networks of nasbench201"):
        train.network(space, space.sample(jax.random.key(0)), recipe, 10)
