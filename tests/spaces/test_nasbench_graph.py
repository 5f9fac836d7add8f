"""NAS-Bench-Graph against its tables, and its operations against dense matrices."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import data, proxies, scores, spaces, tabular
from nasi_jax.nn import FEATURES as FEATURE_COLLECTION
from nasi_jax.nn import Style
from nasi_jax.nn.graphs import union
from nasi_jax.spaces import nasbench_graph_text as text_form
from nasi_jax.spaces.nasbench_graph_network import Node, coefficients
from nasi_jax.spaces.nasbench_graph_text import OPERATIONS, SKIP

SPACE = spaces.NASBenchGraph()
NINE = ["0000", "0001", "0011", "0012", "0013", "0111", "0112", "0122", "0123"]
WIDTHS = {"cora": (1433, 7), "photo": (745, 8), "arxiv": (128, 40)}
RNG = np.random.default_rng(0)


def lists(links):
    """All operations of some lists of inputs, but for four skips."""
    for names in itertools.product(range(len(OPERATIONS)), repeat=4):
        if set(names) != {SKIP}:
            yield from ((tuple(map(int, link)), names) for link in links)


@pytest.fixture(scope="module")
def canonical_forms():
    return {text_form.canonical(*given) for given in lists(NINE)}


def test_the_canonical_forms_are_the_26206_of_the_tables(canonical_forms):
    assert len(canonical_forms) == 26206
    assert all(text_form.canonical(*text_form.parse(text)) == text for text in sorted(canonical_forms)[::7])
    path = shared_file("graphs/nbgraph_cora.csv.gz")
    assert canonical_forms == set(tabular.Table.read(path, ("test",)).rows)


@pytest.mark.slow
def test_any_order_of_the_nodes_has_a_canonical_form(canonical_forms):
    links = {"".join(map(str, link)) for link in itertools.product(range(1), range(2), range(3), range(4))}
    assert {text_form.canonical(*given) for given in lists(links - set(NINE))} <= canonical_forms


def test_skips_that_change_nothing_are_put_in_front():
    # the skip has a reader, or is a chain from the input, or is alone
    assert SPACE.canonical(SPACE.parse("0123|gcn|skip|fc|gin")) == SPACE.canonical(SPACE.parse("0123|skip|gcn|fc|gin"))
    assert SPACE.canonical(SPACE.parse("0000|gcn|skip|fc|gin")) == "0111|skip|gcn|gin|fc"
    assert SPACE.canonical(SPACE.parse("0122|gcn|gcn|skip|skip")) == "0122|gcn|gcn|skip|skip"


def test_a_table_knows_an_architecture_by_its_function():
    table = tabular.Table({"0111|skip|gcn|gin|fc": 0}, {"test": np.array([0.5])})
    assert table.row(SPACE, "0000|gin|skip|fc|gcn") == 0
    assert table.row(SPACE, "0000|gin|gin|fc|gcn") is None


def counted(genotype, size, width, outputs):
    graphs = data.RandomGraphs("node", nodes=4, degree=2, node_features=width)
    x = data.shapes(graphs, 2).x
    shapes = jax.eval_shape(SPACE.network(genotype, size, outputs).init, jax.random.key(0), x)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def published(name):
    table = tabular.Table.read(shared_file(f"graphs/nbgraph_{name}.csv.gz"), ("params",))
    return {text: int(table.columns["params"][row]) for text, row in table.rows.items()}


@pytest.mark.parametrize("name", WIDTHS)
def test_parameters_number_what_the_benchmark_says(name):
    counts = published(name)
    for text in sorted(counts)[3::3700]:
        assert counted(SPACE.parse(text), spaces.NASBENCH_GRAPH_SIZES[name], *WIDTHS[name]) == counts[text], text


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDTHS)
def test_parameters_of_all_rows(name):
    """Parts of the networks are measured, and their sums compared with every row."""
    size, of = spaces.NASBENCH_GRAPH_SIZES[name], WIDTHS[name]

    def count(text):
        return counted(SPACE.parse(text), size, *of)

    one = count("0123|fc|skip|skip|skip")
    inner = {o: count(f"0123|fc|{o}|skip|skip") - one for o in OPERATIONS}
    leaf = count("0122|fc|gcn|skip|skip") - one - inner["gcn"]
    base = 2 * one + leaf - count("0012|fc|fc|skip|skip")  # without operations, with one leaf
    raw = {o: count(f"0123|{o}|skip|skip|skip") - base for o in OPERATIONS if o != "skip"}
    for text, expected in published(name).items():
        links, operations = text_form.parse(text)
        is_raw, total = [True], base
        for link, operation in zip(links, operations, strict=True):
            skip = operation == SKIP
            total += 0 if skip else (raw if is_raw[link] else inner)[OPERATIONS[operation]]
            is_raw.append(skip and is_raw[link])
        leaves = sum(k not in links and not is_raw[k] for k in range(1, 5))
        assert total + (leaves - 1) * leaf == expected, text


def test_equal_functions_have_equal_parameters():
    for i in range(12):
        genotype = SPACE.sample(jax.random.key(i))
        same = SPACE.parse(SPACE.canonical(genotype))
        size = SPACE.Size(hidden=4)
        assert counted(genotype, size, 5, 3) == counted(same, size, 5, 3)


ENDS = np.array([[0, 1, 1, 2, 3, 0], [1, 0, 2, 1, 0, 3]])  # node 4 is alone
FEATURES = RNG.normal(size=(5, 6))


def dense(name, x, p):
    """The operations as products of dense matrices, with PyTorch Geometric's defaults where the benchmark has them."""
    a = np.zeros((5, 5))
    a[ENDS[1], ENDS[0]] = 1
    degree = a.sum(axis=1)
    plain = np.diag(np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0))
    laplacian = plain @ a @ plain
    looped = a + np.eye(5)
    looped_root = np.diag((degree + 1) ** -0.5)
    kernels = {n: np.asarray(leaf["kernel"]) for n, leaf in p.items() if n not in ("bias", "norm")}
    named = {n.removeprefix("raw_").removeprefix("inner_"): kernel for n, kernel in kernels.items()}
    w, second = named["kernel"], named.get("second", np.zeros(named["kernel"].shape))
    if name == "gat":
        heads, (sending, receiving) = (
            (x @ w).reshape(5, 2, 2),
            (named[n] for n in ("sending", "receiving")),
        )
        out = np.zeros((5, 2, 2))
        for h in range(2):
            scores = (heads[:, h] @ receiving[:, h])[:, None] + (heads[:, h] @ sending[:, h])[None]
            scores = np.where(looped > 0, np.where(scores > 0, scores, 0.2 * scores), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, h] = weights / weights.sum(axis=1, keepdims=True) @ heads[:, h]
        return out.reshape(5, 4)
    if name == "arma":
        return np.maximum(laplacian @ x @ w + x @ second, 0)
    return {
        "gcn": looped_root @ looped @ looped_root @ x @ w,
        "gin": (x + a @ x) @ w,
        "cheb": x @ second - laplacian @ x @ w,
        "sage": np.diag(1 / np.maximum(degree, 1)) @ a @ x @ w + x @ second,
        "graph": a @ x @ w + x @ second,
        "fc": x @ w,
    }[name]


@pytest.mark.parametrize("name", OPERATIONS[:-1])
@pytest.mark.parametrize("raw", [True, False])
def test_operations_are_those_of_dense_matrices(name, raw, x64):
    """Of the network's input as it is, and of another node when it is normalised and rectified."""
    source = data.from_graphs([data.Graph(FEATURES, ENDS)], np.arange(5) % 2, level="node")
    graph, h = union(source.prepare(source.x)), jnp.asarray(RNG.normal(size=(5, 4)))
    style = Style(affine=False, normalisation="fixed")
    module = Node(4, OPERATIONS.index(name), raw, style)
    arguments = graph.nodes, h, coefficients(graph)
    params = module.init(jax.random.key(0), *arguments)["params"]
    read = FEATURES if raw else np.maximum(h, 0) / np.sqrt(1 + 1e-5)
    expected = dense(name, read, params)
    np.testing.assert_allclose(module.apply({"params": params}, *arguments), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gat", "arma"])
def test_gradients_are_those_of_finite_differences(name, x64):
    """Also where the largest of the scores that are shifted by it is that of an edge."""
    source = data.from_graphs([data.Graph(FEATURES, ENDS)], np.arange(5) % 2, level="node", padding=(7, 9))
    graph = union(source.prepare(source.x))
    module, parts = Node(4, OPERATIONS.index(name), True), coefficients(graph)
    params = module.init(jax.random.key(0), graph.nodes, jnp.zeros((7, 4)), parts)
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    direction = jax.tree.unflatten(
        jax.tree.structure(params),
        [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, jax.tree.leaves(params), strict=True)],
    )

    def value(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return jnp.sum(module.apply(moved, graph.nodes, jnp.zeros((7, 4)), parts)[:5] ** 2)

    np.testing.assert_allclose(jax.grad(value)(0.0), (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize("post", [False, True])
def test_the_network_is_that_of_the_benchmarks_code(pre, post, x64):
    """A chain, one that is a last node too, and a skip that is a last node, by dense matrices."""
    source = data.from_graphs([data.Graph(FEATURES, ENDS)], np.arange(5) % 2, level="node")
    x, size = source.prepare(jnp.arange(5)), SPACE.Size(hidden=4, pre=pre, post=post)
    module = SPACE.network(SPACE.parse("0122|gcn|sage|skip|arma"), size, 3)
    p = jax.tree.map(np.asarray, module.init(jax.random.key(0), x)["params"])

    def normal(h):
        return np.maximum((h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5), 0)

    def layer(name, *values):
        kernels = [np.asarray(leaf) for leaf in jax.tree.leaves(p[name]) if leaf.ndim == 2]
        return sum(v @ k for v, k in zip(values, kernels, strict=True)) / np.sqrt(len(values))

    first = normal(layer("pre", FEATURES)) if pre else FEATURES
    h1 = dense("gcn", first, p["node_1"])
    h2 = dense("sage", normal(h1), p["node_2"])
    h4 = dense("arma", normal(h2), p["node_4"])
    joined = [np.maximum(h2, 0), np.maximum(h4, 0)]  # a skip leaves what it reads, the second node
    expected = layer("head", layer("post", *joined)) if post else layer("head", *joined)
    np.testing.assert_allclose(module.apply({"params": p}, x), expected, rtol=1e-9, atol=1e-9)
    assert set(p) == {"node_1", "node_2", "node_3", "node_4", "head"} | ({"pre"} if pre else set()) | (
        {"post"} if post else set()
    )


def test_dropout_is_of_the_input_too():
    module = SPACE.network(SPACE.parse("0123|fc|skip|skip|skip"), SPACE.Size(hidden=4), 3)
    x = SPACE.noise(3).batch(jax.random.key(0), 8).x
    params = module.init(jax.random.key(0), x)
    some, other = (module.apply(params, x, dropout=0.5, rngs={"dropout": jax.random.key(i)}) for i in range(2))
    assert not np.allclose(some, other)


@pytest.mark.parametrize(
    "name", [f"0012|{a}|{b}|gcn|skip" for a, b in zip(OPERATIONS[::2], OPERATIONS[1::2], strict=False)]
)
def test_names_of_nodes_order_of_edges_and_padding_change_nothing(name, x64):
    rng = np.random.default_rng(1)
    order, edges = rng.permutation(5), rng.permutation(6)
    moved = data.Graph(FEATURES[np.argsort(order)], order[ENDS][:, edges])
    size, text = SPACE.Size(hidden=4), SPACE.parse(name)
    module = SPACE.network(text, size, 3)
    given = [
        data.from_graphs([data.Graph(FEATURES, ENDS)], None, level="node", labels="random"),
        data.from_graphs([moved], None, level="node", labels="random"),
        data.from_graphs([moved], None, level="node", labels="random", padding=(9, 11)),
    ]
    x = [source.prepare(jnp.asarray(nodes)) for source, nodes in zip(given, (np.arange(5), order, order), strict=True)]
    params = module.init(jax.random.key(0), x[0])
    first, *others = (module.apply(params, one) for one in x)
    slopes, *other_slopes = (jax.grad(lambda p, one=one: (module.apply(p, one) ** 3).sum())(params) for one in x)
    for outputs, gradient in zip(others, other_slopes, strict=True):
        np.testing.assert_allclose(outputs, first, rtol=1e-9, atol=1e-12)
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(slopes), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_images_and_odd_channels_are_refused():
    module = SPACE.network(SPACE.sample(jax.random.key(0)), SPACE.Size(hidden=4), 3)
    with pytest.raises(ValueError, match="x: expected graphs, a"):
        module.init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)))
    images, x = spaces.NASBench201(), SPACE.noise(3).batch(jax.random.key(0), 2).x
    with pytest.raises(ValueError, match=r"x: expected images .* got GraphInput"):
        images.network(images.sample(jax.random.key(0)), images.Size(2, 1), 3).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="hidden: expected an even integer"):
        SPACE.Size(hidden=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0012|gat|fc|sage", "inputs and operations"),
        ("0212|gat|fc|sage|cheb", "expected node 2 to read one of 0 to 1, got 2"),
        ("0012|gat|fc|sage|chebb", "did you mean 'cheb'"),
        ("0012|gat|fc|sage|cheb|skip", "inputs and operations"),
    ],
)
def test_text_that_is_none_of_the_space_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.parse(text)


def test_mutations_reach_every_operation_and_input():
    around = [SPACE.neighbour(SPACE.parse("0012|gat|fc|sage|cheb"), i) for i in range(SPACE.neighbours)]
    counts = collections.Counter(SPACE.format(g).split("|")[0] for g in around)
    assert len(around) == 4 * 8 + 1 + 2 + 3
    assert counts["0012"] == 32


@pytest.mark.parametrize("name", ["jacob_cov", "epe_nas", "vkdnw"])
def test_scores_of_inputs_of_each_examples_own_say_why_they_do_not_apply(name):
    config = scores.ScoreConfig(SPACE.Size(hidden=4), 4)
    with pytest.raises(
        ValueError, match=f"score: {name} needs inputs of each example's own, here all are parts of one"
    ):
        scores.Scorer(SPACE, SPACE.noise(3), [name], config)


@pytest.mark.parametrize("level", ["node", "graph"])
def test_scores_of_channels_at_several_places_say_why_they_do_not_apply(level):
    source, config = data.RandomGraphs(level=level), scores.ScoreConfig(SPACE.Size(hidden=4), 4)
    with pytest.raises(ValueError, match="score: meco needs layers of channels at several places"):
        scores.Scorer(SPACE, source, ["meco"], config)


def test_alignment_is_of_last_features_with_averaged_inputs():
    """By the derived network's own features, against dense matrices."""
    source = data.from_graphs([data.Graph(FEATURES, ENDS)], np.arange(5) % 2, level="node", padding=(7, 9))
    size, genotype = SPACE.Size(hidden=4), SPACE.parse("0122|gcn|sage|skip|gat")
    scorer = scores.Scorer(SPACE, source, ["input-alignment"], scores.ScoreConfig(size, 4))
    draw = scorer.draw(0)
    module, x = SPACE.network(genotype, size, 2), draw.batch.x
    params = spaces.restrict(draw.params, jax.eval_shape(module.init, jax.random.key(0), x)["params"])
    _, found = module.apply({"params": params}, x, mutable=[FEATURE_COLLECTION])
    (features,) = found[FEATURE_COLLECTION].values()
    assert features.shape == (4, 8)
    a = np.eye(5)
    a[ENDS[1], ENDS[0]] = 1
    root = np.diag(a.sum(axis=1) ** -0.5)
    inputs = (root @ a @ root @ FEATURES)[np.asarray(x.targets)]
    (row,) = scorer.score(draw, [genotype])
    expected = proxies.alignment(features, jnp.asarray(inputs, jnp.float32))
    assert row["input-alignment"] == pytest.approx(float(expected), rel=1e-4)
