import dataclasses

import jax
import numpy as np
import pytest

from nasi_jax import data, scores, spaces, train


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
    mobile = train.RECIPES["imagenet-mobile"]
    assert (mobile.epochs, mobile.batch, mobile.learning_rate, mobile.decay) == (250, 128, 0.1, 0.97)
    assert (mobile.weight_decay, mobile.gradient_clip, mobile.label_smoothing, mobile.auxiliary) == (3e-5, 5, 0.1, 0.4)
    assert (mobile.cells, mobile.channels, mobile.image_size, mobile.drop_path) == (14, 48, 224, 0)


def test_rates_fall_as_published():
    cosine = train.schedule(train.RECIPES["nasbench201"], 10)
    np.testing.assert_allclose([cosine(0), cosine(1000), cosine(2000)], [0.1, 0.05, 0], atol=1e-9)
    stairs = train.schedule(train.RECIPES["imagenet-mobile"], 10)
    np.testing.assert_allclose([stairs(n) for n in (0, 9, 10, 25)], [0.1, 0.1, 0.097, 0.1 * 0.97**2], rtol=1e-6)
    warm = train.schedule(dataclasses.replace(train.RECIPES["imagenet-mobile"], warmup=2), 10)
    np.testing.assert_allclose([warm(n) for n in (0, 10, 20, 30)], [0, 0.05, 0.1, 0.097], rtol=1e-6, atol=1e-9)
    part = train.schedule(dataclasses.replace(train.RECIPES["imagenet-mobile"], warmup=0.4), 10)
    np.testing.assert_allclose([part(n) for n in (0, 2, 4)], [0, 0.05, 0.1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected a positive integer, got 0"),
        ({"batch": -1}, "batch: expected"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a positive number"),
        ({"momentum": 1.0}, "momentum: expected a number from 0 to below 1"),
        ({"drop_path": -0.1}, "drop_path: expected"),
        ({"weight_decay": float("inf")}, "weight_decay: expected"),
        ({"decay": 1.5}, "decay: expected a number from 0 to 1"),
        ({"stem": "mnist"}, "stem: expected 'cifar' or 'imagenet', got 'mnist'"),
        ({"resized_crop": 0.1}, "image_size: expected a positive integer with resized_crop"),
        ({"precision": "float16"}, "precision: expected 'float32' or 'bfloat16'"),
        ({"embedding": -1}, "embedding: expected a number of at least 0, got -1"),
        ({"width": 0}, "width: expected a positive integer, got 0"),
        ({"warmup": 600}, "warmup: expected fewer than the 600 epochs"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(train.RECIPES["darts-cifar"], **change)


def test_the_network_has_what_the_recipe_asks_for():
    network = train.network(spaces.DARTS(), spaces.DARTS_V2, train.RECIPES["darts-cifar"], 100)
    assert (network.size, network.outputs, network.auxiliary) == (spaces.DARTSSize(36, 20), 100, True)
    network = train.network(spaces.DARTS(), spaces.DARTS_V2, train.RECIPES["imagenet-mobile"], 1000)
    assert (network.size, network.auxiliary) == (spaces.DARTSSize(48, 14, "imagenet"), True)


def test_encoders_are_as_wide_as_the_recipe_says_and_embed_as_their_space_does_by_default():
    words = train.RECIPES["masked-words"]
    small = dataclasses.replace(words, width=16, hidden=8, embedding=4)
    assert train.size(spaces.NASBERT(), small) == spaces.NASBERTSize(width=16, embedding=4)
    assert train.size(spaces.get("nasbench-bert"), small) == spaces.NASBenchBERTSize(hidden=8, embedding=4)
    assert train.size(spaces.NASBERT(), words) == spaces.NASBERTSize()


def test_the_mobile_setting_is_below_600_million_multiply_adds():
    """DARTS' table 3: 4.7 million parameters, without the auxiliary head."""
    size = train.size(spaces.DARTS(), train.RECIPES["imagenet-mobile"])
    x = data.shapes(data.Gaussian((224, 224, 3)), 2).x
    costs = scores.Counter(spaces.DARTS(), x, size, 1000)(spaces.DARTS_V2)
    assert round(costs["params"] / 1e6, 1) == 4.7
    assert costs["flops"] < 600e6


@pytest.mark.parametrize(
    ("name", "value", "expected"), [("auxiliary", 0.5, "0"), ("drop_path", 0.5, "0"), ("stem", "imagenet", "'cifar'")]
)
def test_a_space_without_it_says_so(name, value, expected):
    space, recipe = spaces.NASBench1Shot1(1), dataclasses.replace(train.RECIPES["nasbench201"], **{name: value})
    with pytest.raises(ValueError, match=f"{name}: expected {expected}, networks of nasbench1shot1-s1"):
        train.network(space, space.sample(jax.random.key(0)), recipe, 10)
