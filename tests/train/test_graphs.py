"""Trainings on graphs: nodes of one, and many small ones, with labels and with targets."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from nasi_jax import data, spaces, train

RNG = np.random.default_rng(0)
RECIPE = train.Recipe(epochs=30, batch=8, learning_rate=0.05, decay=1.0, optimizer="adam", hidden=4)


def a_graph(nodes, degree=2):
    ends = RNG.integers(0, nodes, (2, nodes * degree))
    return data.Graph(RNG.normal(size=(nodes, 3)), np.concatenate([ends, ends[::-1]], axis=1))


def trained(space, recipe, size, examples):
    genotype = space.sample(jax.random.key(1))
    network = space.network(genotype, size, examples.outputs)
    (states,) = collections.deque(train.iterate(jax.random.key(0)[None], network, recipe, examples), maxlen=1)
    state = jax.tree.map(lambda leaf: leaf[0], states)
    return network, state


def test_nodes_of_one_graph_are_learned():
    graph = a_graph(24)
    y = (graph.nodes[:, 0] > 0).astype(int)
    everything = data.from_graphs([graph], y, level="node")
    training, test = data.hold_out(everything, 1 / 3)
    network, state = trained(spaces.NASBenchGraph(), RECIPE, spaces.NASBenchGraphSize(hidden=4), training)
    found = train.evaluate(network, state, training, batch=5)
    assert found.count == len(training) == found.confusion.sum()
    assert found.accuracy > 0.8
    assert found.merit == found.accuracy
    whole, parts = (train.evaluate(network, state, test, batch=batch) for batch in (8, 3))
    np.testing.assert_array_equal(whole.confusion, parts.confusion)


def test_targets_of_graphs_are_learned_and_judged_by_their_error():
    graphs = [a_graph(int(n)) for n in RNG.integers(4, 9, 16)]
    y = np.array([graph.nodes[:, 0].mean() for graph in graphs])
    examples = data.from_graphs(graphs, y, level="graph")
    space, size = spaces.EGNAS(1, 1), spaces.EGNASSize(4, 2, 4, 2)
    network, state = trained(space, dataclasses.replace(RECIPE, epochs=15), size, examples)
    found = train.evaluate(network, state, examples, batch=6)
    assert np.isnan(found.accuracy)
    assert found.merit == -found.loss
    outputs = network.apply({"params": state.params, "batch_stats": state.statistics}, examples.prepare(examples.x))
    np.testing.assert_allclose(found.loss, np.abs(outputs - np.asarray(examples.y)).mean(), rtol=1e-4)
    assert found.loss < np.abs(y - np.median(y)).mean()


def test_dropout_follows_from_the_step_and_only_networks_that_have_it_take_it():
    space = spaces.NASBenchGraph()
    recipe = dataclasses.replace(RECIPE, dropout=0.5, epochs=1)
    with pytest.raises(ValueError, match="dropout: expected 0, networks of nasbench201 have none"):
        train.network(spaces.NASBench201(), spaces.NASBench201().sample(jax.random.key(0)), recipe, 2)
    module = train.network(space, space.parse("0123|gcn|skip|skip|skip"), recipe, 2)
    assert (module.size.hidden, module.size.post) == (4, True)
    x = data.RandomGraphs("node", nodes=8, node_features=3).batch(jax.random.key(0), 8).x
    params = module.init(jax.random.key(0), x)
    first, again, other = (module.apply(params, x, dropout=0.5, rngs={"dropout": jax.random.key(i)}) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_images_are_not_asked_of_graphs():
    examples = data.from_graphs([a_graph(12)], np.arange(12) % 2, level="node")
    for name, value in (("crop", 4), ("flip", True), ("cutout", 2)):
        with pytest.raises(ValueError, match=f"{name}: expected 0 with inputs that are no images"):
            train.steps_per_epoch(dataclasses.replace(RECIPE, **{name: value}), examples)
