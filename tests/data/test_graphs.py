"""Graphs in memory and in files: what is read, what is left out, and what is refused."""

import jax
import numpy as np
import pytest
from conftest import shared_file

from nasi_jax import data

TRIANGLE = np.array([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
NODES = np.arange(6.0).reshape(3, 2)


def graph(nodes=NODES, ends=TRIANGLE, edges=None):
    return data.Graph(np.asarray(nodes), np.asarray(ends), edges)


def one(given, **options):
    return data.from_graphs([given], np.arange(len(given.nodes)), **({"level": "node"} | options))


def test_edges_are_in_the_order_of_their_receivers_with_their_features():
    features = np.arange(6.0)[:, None]
    found = one(graph(edges=features)).graphs
    there = list(
        zip(found.senders[0].tolist(), found.receivers[0].tolist(), found.edges[0, :, 0].tolist(), strict=True)
    )
    assert there == sorted(zip(*TRIANGLE.tolist(), features[:, 0].tolist(), strict=True), key=lambda edge: edge[1::-1])


def test_self_loops_and_repeated_edges_are_left_out_and_the_first_stays():
    ends = np.array([[1, 0, 0, 2, 2, 0], [1, 1, 1, 2, 0, 1]])
    found = one(graph(ends=ends, edges=np.arange(6.0))).graphs
    there = zip(found.senders[0].tolist(), found.receivers[0].tolist(), found.edges[0, :, 0].tolist(), strict=True)
    assert list(there) == [(2, 0, 4.0), (0, 1, 1.0)]


def test_graphs_of_different_sizes_are_padded_and_say_where():
    lonely = graph(np.ones((1, 2)), np.zeros((2, 0), int))
    found = data.from_graphs([graph(), lonely], np.array([0, 1]), level="graph", padding=(4, 7))
    assert found.graphs.is_node.sum(axis=1).tolist() == [3, 1]
    assert found.graphs.is_edge.sum(axis=1).tolist() == [6, 0]
    assert (np.asarray(found.graphs.receivers)[~np.asarray(found.graphs.is_edge)] == 3).all()
    assert (np.diff(found.graphs.receivers, axis=1) >= 0).all()
    assert (np.asarray(found.graphs.edges)[..., 0] == np.asarray(found.graphs.is_edge)).all()
    whole = found.prepare(np.array([1, 0])).graphs
    np.testing.assert_array_equal(whole.is_node.sum(axis=1), [1, 3])


def test_examples_that_are_edges_are_those_given_wherever_they_are_put():
    ends, y = np.array([[2, 0, 1], [0, 2, 0]]), np.array([5.0, 6.0, 7.0])
    found = data.from_graphs([graph(ends=ends)], y, level="edge", examples=np.array([0, 2]))
    x, values = found.x, found.y[:, 0]
    ends_found = [(int(found.graphs.senders[0, i]), int(found.graphs.receivers[0, i])) for i in x]
    assert dict(zip(ends_found, values.tolist(), strict=True)) == {(2, 0): 5.0, (1, 0): 7.0}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: one(graph(ends=[[0, 1], [1, 3]])), "edge_index: expected nodes from 0 to 2, got 3 in edge 1"),
        (lambda: one(graph(ends=[[0, -1], [1, 0]])), "edge_index: expected nodes from 0 to 2, got -1 in edge 1"),
        (lambda: one(graph(ends=TRIANGLE.T)), r"edge_index: expected integers \(2, edges\)"),
        (lambda: one(graph(ends=TRIANGLE + 0.5)), r"edge_index: expected integers \(2, edges\), got float64"),
        (lambda: one(graph(edges=np.ones((5, 1)))), "edges: expected features of 6 edges, got 5"),
        (lambda: one(graph(NODES * np.nan)), "nodes: expected finite features, got nan"),
        (lambda: one(graph(), examples=np.zeros(0, int)), "examples: expected at least one node, got an empty"),
        (lambda: one(graph(), examples=np.array([3])), "examples: expected nodes from 0 to 2, got 3 to 3"),
        (lambda: one(graph(), padding=(2, 6)), "padding: expected at least 3 nodes and 6 edges.*got 2 and 6"),
        (lambda: data.from_graphs([graph()], None, level="node"), "y: expected labels, because .* got none"),
        (lambda: data.from_graphs([graph()], np.arange(2), level="node"), "y: expected one label .* 3 nodes"),
        (lambda: data.from_graphs([graph()], np.array([0, 1, -1]), level="node"), "y: expected labels of examples"),
        (lambda: data.from_graphs([graph()], np.array([0, np.nan, 1]), level="node"), "y: expected finite targets"),
        (lambda: data.from_graphs([graph()] * 2, np.arange(6), level="node"), "graphs: expected a single graph"),
        (lambda: data.from_graphs([], None, level="graph"), "graphs: expected at least one graph, got 0"),
        (lambda: data.from_graphs([graph(), graph(np.ones((2, 3)), [[0], [1]])], np.arange(2), level="graph"),
         r"nodes: expected as many features in all graphs, got \[2, 3\]"),
        (lambda: data.from_graphs([graph(ends=[[0, 0], [1, 1]])], np.arange(2), level="edge"), "examples: edge 1 is a"),
        (lambda: data.RandomGraphs(nodes=2), "nodes: expected an integer of at least 4, got 2"),
    ],
)  # fmt: skip
def test_what_is_no_graph_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


FILE = {
    "x": NODES, "edge_index": TRIANGLE, "y": np.array([0, 1, 1]),
    "train_mask": np.array([True, False, False]), "test_mask": np.array([False, True, True]),
}  # fmt: skip


def written(path, arrays):
    if path.suffix:
        np.savez(path, **arrays)
    else:
        path.mkdir()
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)
    return path


@pytest.mark.parametrize("name", ["graph.npz", "graph"])
def test_a_file_and_a_folder_are_read_alike(tmp_path, name):
    path = written(tmp_path / name, FILE)
    assert data.holds_graphs(path)
    assert len(data.load(str(path))) == 1
    test = data.load(str(path), split="test")
    assert (len(test), test.outputs, test.level) == (2, 2, "node")
    np.testing.assert_array_equal(test.graphs.nodes[0], NODES)


def test_compressed_rows_are_the_dense_features(tmp_path):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((3, 5)) < 0.4, rng.normal(size=(3, 5)), 0).astype(np.float32)
    rows, columns = np.nonzero(dense)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=3))])
    parts = {"x_indptr": starts, "x_indices": columns, "x_values": dense[rows, columns], "x_shape": np.array([3, 5])}
    arrays = {name: array for name, array in FILE.items() if name != "x"} | parts
    found = data.from_graph_files(written(tmp_path / "a.npz", arrays))
    np.testing.assert_array_equal(found.graphs.nodes[0], dense)


MANY = {
    "node_label": np.array([0, 1, 0, 2, 2]), "edge_index": np.array([[0, 1, 0, 1], [1, 0, 1, 0]]),
    "edge_label": np.array([1, 1, 0, 0]), "node_ptr": np.array([0, 3, 5]), "edge_ptr": np.array([0, 2, 4]),
    "node_h": np.arange(5), "node_vocab": np.array(["C", "N", "O", "F"]), "y": np.array([0.5, -1.0], np.float32),
    "fold": np.array([0, 1]),
}  # fmt: skip


def test_many_graphs_with_kinds_of_nodes_and_edges_and_a_fold(tmp_path):
    path = written(tmp_path / "many.npz", MANY)
    train, test = (data.load(str(path), split=split, fold=1) for split in ("train", "test"))
    assert (train.level, train.outputs, train.loss) == ("graph", 1, data.absolute_error)
    assert (train.y.tolist(), test.y.tolist()) == ([[0.5]], [[-1.0]])
    first = train.prepare(train.x).graphs
    np.testing.assert_array_equal(first.nodes[0], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [1, 0, 0, 0, 2]])
    np.testing.assert_array_equal(first.edges[0], [[0, 1], [0, 1]])


def test_graphs_of_a_file_may_all_be_without_edges(tmp_path):
    none = {"edge_index": np.zeros((2, 0), int), "edge_label": np.zeros(0, int), "edge_ptr": np.zeros(3, int)}
    found = data.from_graph_files(written(tmp_path / "none.npz", MANY | none), split="all")
    assert len(found) == 2
    assert not found.graphs.is_edge.any()
    assert found.graphs.is_node.sum() == 5


def test_nodes_of_many_graphs_are_those_of_one(tmp_path):
    arrays = {name: array for name, array in MANY.items() if name != "fold"} | {"y": np.array([0, 1, 0, 1, 1])}
    found = data.from_graph_files(written(tmp_path / "nodes.npz", arrays))
    assert (found.level, len(found)) == ("node", 5)
    np.testing.assert_array_equal(found.graphs.senders[0], [1, 0, 4, 3])


OVERLAP = np.array([True, True, False])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"train_mask": OVERLAP}, {}, "masks: expected none that overlap, 1 examples are in train and test"),
        ({"train_mask": np.zeros(3, bool)}, {}, "train_mask: expected at least one example, got an empty mask"),
        ({"train_mask": np.ones(2, bool)}, {}, r"train_mask: expected booleans \(3,\), got bool of shape \(2,\)"),
        ({"y": None}, {}, "y: expected labels 'y' or 'edge_y', because labels='true'"),
        ({"y": np.arange(4)}, {}, "y: expected one label for each of 3 nodes, got shape"),
        ({"x": None}, {}, "x: expected features of nodes"),
        ({"edge_index": np.array([[0, 1], [1, 9]])}, {}, "edge_index: expected nodes from 0 to 2, got 9"),
        ({"edge_attr": np.ones((4, 2))}, {}, "edges: expected features of 6 edges, got shape"),
        ({"edge_label": np.zeros(6)}, {}, "edge_label: expected integers"),
        ({}, {"split": "val"}, "split: expected one of .*'train', 'test'.*, which have masks, got 'val'"),
        ({}, {"split": "dev"}, "split: expected 'all' or one of"),
        ({}, {"image_size": 16}, "image_size: expected none, .* holds graphs, got 16"),
        ({"train_mask": None, "test_mask": None}, {"split": "test"}, "split: expected 'train', the data have no masks"),
        (
            {"train_mask": None, "test_mask": None, "fold": np.arange(3)},
            {"fold": 7},
            r"fold: expected one of \[0, 1, 2\]",
        ),
        ({"node_ptr": np.array([0, 2])}, {}, r"node_ptr: expected rising places from 0 to 3, got \[0 2\]"),
        ({"node_ptr": np.array([0])}, {}, r"node_ptr: expected rising places from 0 to 3, got shape \(1,\)"),
        ({"x": np.array([["a"] * 2] * 3)}, {}, "nodes: expected numbers"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, change, options, message):
    arrays = {name: array for name, array in (FILE | change).items() if array is not None}
    path = written(tmp_path / "bad.npz", arrays)
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        data.load(str(path), **options)
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_nodes_that_are_no_examples_may_be_missing_and_random_ones_need_none(tmp_path):
    path = written(tmp_path / "some.npz", FILE | {"y": np.array([1, -1, -1])})
    assert data.load(str(path)).y.tolist() == [1]
    path = written(tmp_path / "none.npz", {name: array for name, array in FILE.items() if name != "y"})
    source = data.load(str(path), labels="random", classes=4)
    assert source.batch(jax.random.key(0), 1).y.shape == (1,)
    with pytest.raises(ValueError, match="fold: expected with graphs alone"):
        data.load(str(tmp_path / "cifar10"), fold=1)


@pytest.mark.parametrize(
    ("name", "level", "examples", "nodes", "edges", "features", "outputs"),
    [
        ("cora", "node", (140, 500, 1000), 2708, 2 * 5278, (1433, 1), 7),
        ("mutag", "graph", (168, None, 20), 3371, 2 * 3721, (7, 4), 2),
        ("esol", "graph", (913, 115, 115), 15247, 31396, (12, 5), 1),
    ],
)
def test_published_data_have_their_published_statistics(name, level, examples, nodes, edges, features, outputs):
    path = str(shared_file(f"graphs/{name}.npz"))
    for split, count in zip(("train", "val", "test"), examples, strict=True):
        if count is not None:
            found = data.load(path, split=split)
            assert (found.level, len(found), found.outputs) == (level, count, outputs)
    graphs = found.graphs
    assert (int(graphs.is_node.sum()), int(graphs.is_edge.sum())) == (nodes, edges)
    assert (graphs.nodes.shape[-1], graphs.edges.shape[-1]) == features
    if name == "cora":
        assert int(graphs.nodes.sum()) == 49216
        assert np.bincount(data.load(path, split="all").y).tolist() == [351, 217, 418, 818, 426, 298, 180]
    elif name == "mutag":
        assert np.bincount(data.load(path, split="all").y).tolist() == [63, 125]
        folds = [len(data.load(path, split="test", fold=fold)) for fold in range(10)]
        assert (sum(folds), folds[0]) == (188, 20)
    else:
        y = np.asarray(data.load(path, split="all").y)
        assert (round(y.mean(), 2), round(y.std(), 2)) == (-3.06, 2.10)
        train = np.asarray(data.load(path).y)
        assert round(float(np.abs(np.asarray(found.y) - np.median(train)).mean()), 3) == 1.596
