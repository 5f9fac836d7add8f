"""EGNAS and ARGNP: operations against loops over edges, and what must change nothing."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasi_jax import data, spaces
from nasi_jax.nn import Style
from nasi_jax.nn.graphs import union
from nasi_jax.spaces.egnas_network import OPERATIONS, Link

SPACE = spaces.EGNAS()
TINY = spaces.EGNASSize(4, 3, 4, 3)
ENDS = np.array([[0, 1, 1, 2, 0, 3], [1, 0, 2, 1, 3, 0]])  # node 4 is alone
RNG = np.random.default_rng(0)
NODES, EDGES = RNG.normal(size=(5, 4)), RNG.normal(size=(6, 3))


def test_a_cell_of_the_authors_has_as_many_choices_as_they_say():
    assert spaces.get("egnas(cells=1,vertices=4)").cardinality == ((1 * 3 * 6 * 10) * 16**4) ** 2


def test_spaces_are_found_by_their_names_and_options():
    space = spaces.get("egnas(cells=1, vertices=3, family=argnp)")
    assert space == spaces.EGNAS(1, 3, "argnp")
    assert spaces.get(space.name) == space
    assert SPACE.name == "egnas"
    for name, message in {
        "egnas(cels=1)": "egnas has options cells, vertices, family",
        "egnas(cells=0)": "cells: expected an integer of at least 1",
        "egnas(family=gnas)": "family: expected one of",
        "egnas(": "space: expected one of",
        "egnos": "did you mean 'egnas'",
    }.items():
        with pytest.raises(ValueError, match=message):
            spaces.get(name)


def lrelu(x):
    return np.where(x > 0, x, 0.2 * x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_loops(kind, name, v, e, p):
    """What a link computes before its last layer, edge by edge."""

    def linear(layer, x):
        return x @ np.asarray(p[layer]["weight"]["kernel"]) + np.asarray(p[layer]["bias"])

    def mlp(layers, x):
        return lrelu(linear(f"{layers}_2", lrelu(linear(f"{layers}_1", x))))

    def film(x, value):
        return sigmoid(linear("gate", x)) * value + linear("shift", x)

    ends = list(zip(*ENDS.tolist(), strict=True))
    if kind == "V":
        pooled, out = linear("pool_2", lrelu(linear("pool_1", lrelu(v)))), np.zeros_like(v)
        for t in range(len(v)):
            m = [film(mlp("edge", e[i]), pooled[s]) for i, (s, r) in enumerate(ends) if r == t]
            if m:
                m = np.stack(m)
                out[t] = {
                    "mean": m.mean(0), "sum": m.sum(0), "max": m.max(0), "std": np.sqrt(m.var(0) + 1e-5),
                    "gem2": (np.maximum(m, 1e-5) ** 2).mean(0) ** (1 / 2),
                    "gem3": (np.maximum(m, 1e-5) ** 3).mean(0) ** (1 / 3),
                }[name]  # fmt: skip
        return out
    rows = []
    for i, (s, t) in enumerate(ends):
        a, b, own = v[s], v[t], lrelu(e[i])
        if name in ("cat", "gru", "film"):
            r = mlp("pair", np.concatenate([a, b, a - b]))
            if name == "cat":
                rows.append(mlp("cat", np.concatenate([r, own])))
            elif name == "film":
                rows.append(film(r, own))
            else:
                (gr, zr, nr), (gh, zh, nh) = (np.split(linear(n, x), 3) for n, x in (("input", r), ("hidden", own)))
                z = sigmoid(zr + zh)
                rows.append((1 - z) * np.tanh(nr + sigmoid(gr + gh) * nh) + z * own)
        else:
            h = {
                "sub": np.abs(a - b), "gauss": np.exp(-((a - b) ** 2) / 2), "had": a * b, "sum": a + b,
                "mean": (a + b) / 2, "max": np.maximum(a, b),
            }[name]  # fmt: skip
            rows.append(film(mlp("ends", h), own))
    return np.stack(rows)


LINKS = [(f, k, name) for f, kinds in OPERATIONS.items() for k, names in kinds.items() for name in names[1:]]
LINKS = [link for i, link in enumerate(LINKS) if link[1:] not in [other[1:] for other in LINKS[:i]] or link[1] == "E"]


@pytest.mark.parametrize(("family", "kind", "name"), LINKS)
def test_operations_are_those_of_loops_over_edges(family, kind, name, x64):
    order = np.lexsort((ENDS[0], ENDS[1]))
    source = data.from_graphs([data.Graph(NODES, ENDS, EDGES)], np.arange(5), level="node")
    graph = union(source.prepare(source.x))
    module = Link(family, kind, name, Style(affine=False, normalisation="fixed"))
    params = jax.jit(module.init)(jax.random.key(0), graph.nodes, graph.edges, graph)["params"]
    # biases start at zero, by which some mistakes would not show
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
    inner = by_loops(kind, name, NODES, EDGES, params)
    expected = inner @ np.asarray(params["pack"]["kernel"]) + np.asarray(params["pack"]["bias"])
    expected = expected / np.sqrt(1 + 1e-5)
    found = jax.jit(module.apply)({"params": params}, graph.nodes, graph.edges, graph)
    np.testing.assert_allclose(found, expected if kind == "V" else expected[order], rtol=1e-10, atol=1e-10)


SLOW = pytest.mark.slow


@pytest.mark.parametrize("level", ["graph", pytest.param("node", marks=SLOW), pytest.param("edge", marks=SLOW)])
def test_names_of_nodes_order_of_edges_and_padding_change_nothing(level, x64):
    rng = np.random.default_rng(1)
    order, edges = rng.permutation(5), rng.permutation(6)
    moved = data.Graph(NODES[np.argsort(order)], order[ENDS][:, edges], EDGES[edges])
    other = data.Graph(NODES[:3], ENDS[:, :4], EDGES[:4])
    sources = []
    for graph, padding in ((data.Graph(NODES, ENDS, EDGES), None), (moved, None), (moved, (8, 9))):
        graphs = [graph, other] if level == "graph" else [graph]
        sources.append(data.from_graphs(graphs, None, level=level, labels="random", padding=padding))
    which = {
        "node": (np.arange(5), order, order),
        "edge": tuple(places(s, ends) for s, ends in zip(sources, (ENDS, order[ENDS], order[ENDS]), strict=True)),
        "graph": (np.arange(2),) * 3,
    }[level]
    x = [source.prepare(jnp.asarray(chosen)) for source, chosen in zip(sources, which, strict=True)]
    module = SPACE.network(SPACE.sample(jax.random.key(2)), TINY, 2)
    params = jax.jit(module.init)(jax.random.key(0), x[0])

    @jax.jit
    def value(params, x):
        return jax.value_and_grad(lambda p: (module.apply(p, x) ** 3).sum())(params), module.apply(params, x)

    (first, first_slopes), outputs = value(params, x[0])
    for one in x[1:]:
        (_, slopes), found = value(params, one)
        np.testing.assert_allclose(found, outputs, rtol=1e-8, atol=1e-10)
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(first_slopes), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8 * max(1, abs(float(first))))


def places(source, ends):
    there = list(zip(source.graphs.senders[0].tolist(), source.graphs.receivers[0].tolist(), strict=True))
    return np.array([there.index(edge) for edge in zip(*ends.tolist(), strict=True)])


def test_graphs_without_edges_have_finite_outputs_and_gradients():
    space = spaces.EGNAS(1, 1)
    source = data.from_graphs([data.Graph(NODES, ENDS[:, :0])] * 2, np.arange(2), level="graph")
    module, x = space.network(space.parse("V:2<0.max,2<1.mean;E:2<0.film,2<1.gru"), TINY, 2), source.prepare(source.x)

    @jax.jit
    def slopes(key):
        params = module.init(key, x)
        return jax.value_and_grad(lambda p: (module.apply(p, x) ** 2).sum())(params)

    found = slopes(jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_costs_are_sums_over_the_links(x64):
    from nasi_jax import scores

    x = data.shapes(SPACE.noise(3), 2).x
    counter = scores.Counter(SPACE, x, TINY, 3)
    for i in range(3):
        genotype = SPACE.sample(jax.random.key(i))
        shapes = jax.eval_shape(SPACE.network(genotype, TINY, 3).init, jax.random.key(0), x)
        assert counter(genotype)["params"] == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


TEXT = "V:2<0.max,2<1.sum,3<0.mean,3<2.identity;E:2<0.film,2<1.gru,3<0.cat,3<2.identity"


def test_text_forms_are_read_in_any_order_of_links():
    space = dataclasses.replace(SPACE, cells=1)
    swapped = TEXT.replace("2<0.max,2<1.sum", "2<1.sum, 2<0.max")
    assert space.format(space.parse(swapped)) == TEXT
    for text, message in {
        TEXT + "|" + TEXT: "expected 1 cells",
        TEXT.replace("E:", "F:"): "expected cells 'V:",
        TEXT.replace("3<2.identity;", "3<3.identity;"): "expected a link '3<i.operation' with i below 3",
        TEXT.replace("2<1.sum", "2<0.sum"): "expected V2 to read two different states, got 0 twice",
        TEXT.replace("2<0.film", "2<0.max"): "operation of E: expected one of",
        TEXT.replace(",3<2.identity;", ";"): "expected 4 links of V",
    }.items():
        with pytest.raises(ValueError, match=message):
            space.parse(text)


def test_the_order_of_vertices_is_only_a_name():
    space = spaces.EGNAS(1, 2)
    a = "V:2<0.max,2<1.sum,3<0.mean,3<1.identity;E:2<0.film,2<1.gru,3<0.cat,3<1.identity"
    b = "V:2<0.mean,2<1.identity,3<0.max,3<1.sum;E:2<0.film,2<1.gru,3<0.cat,3<1.identity"
    c = "V:2<0.mean,2<1.identity,3<0.max,3<1.sum;E:2<0.film,2<1.gru,3<0.cat,3<2.identity"
    named = [space.canonical(space.parse(text)) for text in (a, b, c)]
    assert named[0] == named[1] != named[2]
