"""Costs of blocks, beside those of whole networks."""

import jax
import numpy as np
import pytest

from nasi_jax import data, scores, spaces

BLOCK_SPACES = {name: space for name, space in spaces.SPACES.items() if isinstance(space, spaces.BlockSpace)}


@pytest.fixture(params=sorted(BLOCK_SPACES), scope="module")
def space(request):
    return BLOCK_SPACES[request.param]


@pytest.fixture(scope="module")
def costs(space):
    return scores.block_costs(space, space.search_size, 5, data.shapes(space.noise(5), 2).x)


@pytest.mark.parametrize("seed", range(4))
def test_sums_over_blocks_are_the_counts_of_the_whole_network(space, costs, seed):
    numbers = np.random.default_rng(seed).integers(0, len(costs.ports), space.blocks).tolist()
    counter = scores.Counter(space, data.shapes(space.noise(5), 2).x, space.search_size, 5)
    expected = counter(space.joined(numbers))
    assert costs.of(numbers) == {name: expected[name] for name in ("params", "flops")}


def test_times_are_kept_and_added_up(space, tmp_path, monkeypatch):
    from nasi_jax.scores import blocks

    calls = []
    monkeypatch.setattr(blocks, "timed", lambda *_: float(calls.append(None) or len(calls)))
    arguments = space, space.search_size, 5, data.shapes(space.noise(5), 2).x
    first = scores.block_costs(*arguments, latency=True, file=tmp_path / "latency.json")
    measured = len(calls)
    widths, operations = len(space.widths), len(space.operations)
    assert measured == widths * operations + 2 * widths + widths * (widths - 1)
    again = scores.block_costs(*arguments, latency=True, file=tmp_path / "latency.json")
    assert len(calls) == measured
    np.testing.assert_array_equal(again.candidates["latency_ms"], first.candidates["latency_ms"])
    one = np.flatnonzero((space.candidates[1] > 0).sum(axis=1) == 1)
    two = np.flatnonzero((space.candidates[1] > 0).sum(axis=1) == 2)[0]
    port, row = space.candidates[0][two], space.candidates[1][two]
    alone = {
        int(space.candidates[1][i][0]): first.candidates["latency_ms"][i] for i in one if space.candidates[0][i] == port
    }
    assert first.candidates["latency_ms"][two] == sum(alone[int(number)] for number in row if number)
    assert first.joints["latency_ms"][1][0, 0] == 0


@pytest.mark.slow
def test_a_sum_of_measured_times_is_near_that_of_the_whole_network(space):
    x = data.shapes(space.noise(5), 2).x
    costs = scores.block_costs(space, space.search_size, 5, x, latency=True)
    latency = scores.Latency(space, x, space.search_size, 5, method="measured")
    numbers = np.argsort(costs.candidates["params"])[[len(costs.ports) // 3] * space.blocks].tolist()
    assert 0.3 < latency(space.joined(numbers)) / costs.of(numbers)["latency_ms"] < 1.5


def test_a_program_of_shared_weights_is_that_of_each_candidate(space, x64):
    """One compilation serves all candidates of a width, with the outputs of the network's own layers."""
    port, size = 1, space.search_size
    block = space.block(size, port)
    params = jax.tree.map(lambda leaf: leaf.astype(float), block.init(jax.random.key(0)))
    states = jax.random.normal(jax.random.key(1), (2, 6, block.width))
    mask = np.arange(6)[None] < np.array([[6], [3]])
    x = space.noise(5).batch(jax.random.key(2), 2).x.replace(mask=mask)
    traced = []

    @jax.jit
    def run(operations):
        traced.append(None)
        return block(params, states, mask, operations)

    ports, operations = space.candidates
    for number in np.flatnonzero(ports == port)[[0, 7, 4000, -1]]:
        expected = states
        for own, operation in zip(block.derived(params, operations[number]), operations[number], strict=False):
            module, _ = space.operation_piece(size, port, int(operation), x)
            expected = module.apply({"params": own}, expected, mask)
        np.testing.assert_allclose(run(operations[number]), expected, rtol=1e-9, atol=1e-9)
    assert len(traced) == 1
