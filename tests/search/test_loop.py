import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_space import ToySpace

from nasi_jax import data, search, spaces
from nasi_jax.programs import Execution

SPACE = ToySpace()
SOURCE = data.Gaussian((8, 8, 3), outputs=3)
CONFIG = search.NASI(steps=6, rounds=2, batch=4, size=SPACE.Size(2, 1))


def keys(count, start=0):
    return jax.vmap(jax.random.key)(jnp.arange(start, start + count))


def collect(*arguments, **options):
    chunks = list(search.iterate(*arguments, **options))
    return chunks[-1][0], jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *(infos for _, infos in chunks))


def test_the_same_key_gives_the_same_result():
    first = search.search(jax.random.key(4), SPACE, SOURCE, CONFIG)
    second = search.search(jax.random.key(4), SPACE, SOURCE, CONFIG)
    assert first.genotype == second.genotype
    np.testing.assert_array_equal(first.alphas["cell"], second.alphas["cell"])
    np.testing.assert_array_equal(first.history.trace, second.history.trace)
    other = search.search(jax.random.key(5), SPACE, SOURCE, CONFIG)
    assert not np.array_equal(first.alphas["cell"], other.alphas["cell"])


def test_two_processes_give_the_same_result():
    program = (
        "import jax, numpy as np; from nasi_jax import data, search, spaces;"
        "space = spaces.get('nasbench201');"
        "c = search.NASI(steps=3, rounds=1, batch=4, size=space.Size(2, 1));"
        "r = search.search(jax.random.key(1), space, data.Gaussian((8, 8, 3)), c);"
        "print(np.asarray(r.alphas['cell']).tobytes().hex())"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]


def test_searches_side_by_side_are_those_run_alone():
    states, infos = collect(keys(3), SPACE, SOURCE, CONFIG)
    for i in range(3):
        alone = search.search(keys(3)[i], SPACE, SOURCE, CONFIG)
        np.testing.assert_allclose(states.alphas["cell"][i], alone.alphas["cell"], atol=1e-6)
        np.testing.assert_allclose(infos.objective[i], alone.history.objective, rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"objective": "one-batch", "estimator": "soft", "rounds": 1, "mu": 1.0, "nu": 2.0, "adaptive": "mean"}],
    ids=["default", "paper"],
)
def test_scan_and_host_loop_agree(settings, x64):
    config = search.NASI(**{"steps": 6, "rounds": 2, "batch": 4, "size": SPACE.Size(2, 1)} | settings)
    host, host_infos = collect(keys(2), SPACE, SOURCE, config, execution=Execution())
    scanned, scanned_infos = collect(keys(2), SPACE, SOURCE, config, execution=Execution(scan=True))
    np.testing.assert_allclose(scanned.alphas["cell"], host.alphas["cell"], rtol=1e-7, atol=1e-9)
    for got, want in zip(scanned_infos, host_infos, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def test_continuing_from_a_state_gives_the_uninterrupted_result():
    whole, infos = collect(keys(2), SPACE, SOURCE, CONFIG)
    running = search.iterate(keys(2), SPACE, SOURCE, CONFIG)
    for _ in range(4):
        states, _ = next(running)
    resumed, rest = collect(keys(2), SPACE, SOURCE, CONFIG, states=states)
    np.testing.assert_array_equal(resumed.alphas["cell"], whole.alphas["cell"])
    np.testing.assert_array_equal(rest.objective, infos.objective[:, 4:])


def test_not_a_number_in_the_data_is_reported_with_its_step():
    x = np.random.default_rng(0).normal(size=(40, 8, 8, 3)).astype(np.float32)
    clean = data.from_arrays(x, np.arange(40) % 3)
    x[17, 0, 0, 0] = np.nan
    source = data.from_arrays(x, np.arange(40) % 3)
    config = search.NASI(steps=60, rounds=1, batch=4, size=SPACE.Size(2, 1))
    drawn = [jax.random.split(jax.random.fold_in(keys(1)[0], t), 3)[0] for t in range(60)]
    first = next(t for t, key in enumerate(drawn) if np.isnan(source.batch(key, 4)[0]).any())
    assert 0 < first < 60
    handed_out = []
    with pytest.raises(search.NonFiniteError, match=f"at step {first} of search 0") as caught:
        handed_out.extend(search.iterate(keys(1), SPACE, source, config))
    assert (caught.value.step, caught.value.search) == (first, 0)
    assert len(handed_out) == first
    assert np.isfinite(collect(keys(1), SPACE, clean, CONFIG)[1].trace).all()


def test_a_batch_larger_than_the_data_is_refused_before_anything_runs():
    source = data.from_arrays(np.zeros((3, 8, 8, 3), np.uint8), np.zeros(3, int))
    with pytest.raises(ValueError, match="batch: expected 1 to 3"):
        search.check(SPACE, source, CONFIG)
    with pytest.raises(ValueError, match="batch"):
        search.search(jax.random.key(0), SPACE, source, CONFIG)


@pytest.mark.parametrize("scan", [False, True])
def test_nasbench201_runs_both_ways(scan):
    config = search.NASI(steps=2, rounds=1, batch=4, size=SPACE.Size(2, 1))
    states, infos = collect(
        keys(1), spaces.get("nasbench201"), SOURCE, config, execution=Execution("branches", scan=scan)
    )
    assert np.isfinite(infos.objective).all()
    assert (states.step == 2).all()


@pytest.mark.parametrize("estimator", [pytest.param("soft", marks=pytest.mark.slow), "score-function"])
def test_block_by_block_is_the_same_search(estimator, x64):
    settings = {"steps": 3, "rounds": 1, "batch": 32, "size": SPACE.Size(2, 1)}
    config = search.NASI(objective="one-batch", estimator=estimator, **settings)
    space = spaces.get("nasbench201")
    discrete = "branches" if estimator == "score-function" else "no"
    whole, infos = collect(keys(1), space, SOURCE, config, execution=Execution(discrete))
    blocks, found = collect(keys(1), space, SOURCE, config, execution=Execution(discrete, blocks=True))
    np.testing.assert_allclose(blocks.alphas["cell"], whole.alphas["cell"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.trace, infos.trace, rtol=1e-9)


def test_images_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        search.check(spaces.get("nasbench201"), data.Gaussian((10, 10, 3)), CONFIG)


def test_float64_is_used_when_enabled(x64):
    found = search.search(jax.random.key(0), SPACE, SOURCE, CONFIG)
    assert found.alphas["cell"].dtype == jnp.float64
    assert found.history.trace.dtype == np.float64
