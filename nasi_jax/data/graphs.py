"""Graphs: one large one whose nodes or edges are the examples, or many small ones that are examples themselves."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from nasi_jax.data.arrays import Labels
from nasi_jax.data.in_memory import InMemory
from nasi_jax.data.losses import Loss, absolute_error, cross_entropy
from nasi_jax.data.source import Shared

Level = Literal["node", "edge", "graph"]
"""What an example is, and what the outputs of a network are about."""


@struct.dataclass
class Graphs:
    """Some graphs, padded to one number of nodes and one of edges, as arrays of equal shape for each.

    Edges are in the order of their receivers. Edges of padding lead from the last node to itself, so that receivers
    rise over the whole array, also where graphs are put behind each other.

    Attributes:
        nodes: features, (graphs, nodes, node features); zeros where there is no node.
        edges: features, (graphs, edges, edge features); ones where the data have none, zeros where there is no edge.
        senders: (graphs, edges) int32, the node that an edge leaves, counted within its graph.
        receivers: (graphs, edges) int32, the node that it enters.
        is_node: (graphs, nodes) bool, which nodes are no padding.
        is_edge: (graphs, edges) bool.
    """

    nodes: jax.Array
    edges: jax.Array
    senders: jax.Array
    receivers: jax.Array
    is_node: jax.Array
    is_edge: jax.Array


@struct.dataclass
class GraphInput:
    """What a network of graphs reads.

    Attributes:
        graphs: where graphs are the examples, as many graphs as examples; otherwise a `Shared` single graph, which
            goes through the network whole.
        targets: (examples,) int32, the nodes or edges of it that are the examples; None where graphs are.
        level: see `Level`.
    """

    graphs: Graphs | Shared
    targets: jax.Array | None
    level: Level = struct.field(pytree_node=False)


@struct.dataclass
class GraphData(InMemory):
    """Labelled graphs, nodes or edges in memory, drawn in random batches; made by `from_graphs`.

    Attributes:
        graphs: all graphs, (graphs, ...); a single one where nodes or edges are the examples.
        x: (examples,) int32, which graphs, nodes or edges are the examples.
        y: labels (examples,) int32, or targets of a regression (examples, outputs); not used when labels are random.
        outputs: number of labels or targets.
        level: see `Level`.
        labels: see `nasi_jax.data.Labels`.
        loss: see `nasi_jax.data.Source`; the cross entropy, or for a regression the absolute error.
    """

    graphs: Graphs
    x: jax.Array
    y: jax.Array
    outputs: int = struct.field(pytree_node=False)
    level: Level = struct.field(pytree_node=False)
    labels: Labels = struct.field(pytree_node=False, default="true")
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def prepare(self, x: jax.Array) -> GraphInput:
        """Returns what a network reads for some of `self.x`."""
        if self.level == "graph":
            return GraphInput(jax.tree.map(lambda leaf: leaf[x], self.graphs), None, self.level)
        return GraphInput(Shared(self.graphs), x, self.level)

    def like(self, training: GraphData) -> GraphData:
        """Returns the examples with the labels of training examples; see `nasi_jax.data.Examples`."""
        if not isinstance(training, GraphData) or self.level != training.level:
            raise ValueError(f"x: expected examples as for training, {_kind(training)}, got {_kind(self)}")
        for name in ("nodes", "edges"):
            here, there = (getattr(source.graphs, name).shape[-1] for source in (self, training))
            if here != there:
                raise ValueError(f"x: expected {there} features of {name}, as for training, got {here}")
        if self.outputs > training.outputs or self.loss is not training.loss:
            raise ValueError(f"y: expected {training.outputs} labels as for training, got {self.outputs}")
        return self.replace(outputs=training.outputs)  # type: ignore[attr-defined]


def _kind(examples: Any) -> str:
    return f"{examples.level}s" if isinstance(examples, GraphData) else type(examples).__name__


class Graph(NamedTuple):
    """One graph as it is given.

    Attributes:
        nodes: features, (nodes, node features), numbers.
        edge_index: (2, edges) integers, the nodes that edges leave and enter, counted from 0. An undirected edge is
            there in both directions.
        edges: features, (edges, edge features), or None.
    """

    nodes: np.ndarray
    edge_index: np.ndarray
    edges: np.ndarray | None = None


def from_graphs(
    graphs: list[Graph],
    y: np.ndarray | None,
    *,
    level: Level,
    examples: np.ndarray | None = None,
    labels: Labels = "true",
    classes: int | None = None,
    padding: tuple[int, int] | None = None,
) -> GraphData:
    """Makes a source of batches from graphs.

    Self-loops and repeated edges are left out, the first of equal ones staying: operations add the loops that they
    need, and no network here counts an edge twice. Nodes without edges stay, and receive nothing. A graph may have no
    edges at all.

    Args:
        graphs: the graphs; a single one for the levels "node" and "edge".
        y: for each graph, node or edge an integer label from 0, or floating targets, (count,) or (count, outputs), of
            which those of the examples are finite; may be None when labels are random.
        level: what the examples are.
        examples: places of those graphs, nodes or edges (as given) that are examples; all by default.
        labels: "true" for `y`, "random" for labels or targets drawn anew with every batch.
        classes: number of labels; by default the largest of `y` plus one, or 10 without labels.
        padding: nodes and edges that each graph is padded to; by default those of the largest.

    Returns:
        The source.

    Raises:
        ValueError: an edge has an end that is no node, edge features are not as many as edges, widths of features
            differ, features are not finite, a graph is larger than the padding, labels are missing, not as many as
            there should be or out of range, there are no examples, or an edge that is an example is left out.
        TypeError: an array has the wrong type.
    """
    for name, value, known in (("level", level, get_args(Level)), ("labels", labels, get_args(Labels))):
        if value not in known:
            raise ValueError(f"{name}: expected one of {known}, got {value!r}")
    if not graphs or (level != "graph" and len(graphs) != 1):
        expected = "at least one graph" if level == "graph" else f"a single graph, whose {level}s are the examples"
        raise ValueError(f"graphs: expected {expected}, got {len(graphs)}")
    cleaned = [_cleaned(graph, f" of graph {i}" * (len(graphs) > 1)) for i, graph in enumerate(graphs)]
    counts = {"graph": len(graphs), "node": len(cleaned[0].nodes), "edge": np.shape(graphs[0].edge_index)[-1]}
    count = counts[level]
    examples = np.arange(count) if examples is None else np.asarray(examples)
    if not len(examples):
        raise ValueError(f"examples: expected at least one {level}, got an empty mask or part")
    if examples.min() < 0 or examples.max() >= count:
        raise ValueError(f"examples: expected {level}s from 0 to {count - 1}, got {examples.min()} to {examples.max()}")
    values, outputs, loss = _values(y, count, examples, level, labels, classes)
    if level == "edge":
        place = np.full(count, -1)
        place[cleaned[0].kept] = np.arange(len(cleaned[0].kept))
        if (place[examples] < 0).any():
            lost = examples[place[examples] < 0][0]
            raise ValueError(f"examples: edge {lost} is a self-loop or repeats another one, which are left out")
        examples = place[examples]
    return GraphData(
        graphs=_padded(cleaned, padding),
        x=jnp.asarray(examples, jnp.int32),
        y=jnp.asarray(values),
        outputs=outputs,
        level=level,
        labels=labels,
        loss=loss,
    )


class _Cleaned(NamedTuple):
    nodes: np.ndarray
    edges: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    kept: np.ndarray  # places of the edges among those given


def _cleaned(graph: Graph, of: str) -> _Cleaned:
    """Checks a graph, leaves self-loops and repeated edges out, and puts edges in the order of their receivers."""
    nodes, index = _features(graph.nodes, f"nodes{of}"), np.asarray(graph.edge_index)
    if index.size == 0:
        index = np.zeros((2, 0), np.int64)
    if index.ndim != 2 or len(index) != 2 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"edge_index{of}: expected integers (2, edges), got {index.dtype} of shape {index.shape}")
    if len(nodes) == 0:
        raise ValueError(f"nodes{of}: expected at least one node, got none")
    outside = (index < 0) | (index >= len(nodes))
    if outside.any():
        raise ValueError(
            f"edge_index{of}: expected nodes from 0 to {len(nodes) - 1}, got {index[outside][0]} in edge "
            f"{np.argwhere(outside)[0, 1]}"
        )
    given = np.ones((index.shape[1], 1)) if graph.edges is None else graph.edges
    edges = _features(given, f"edges{of}")
    if len(edges) != index.shape[1]:
        raise ValueError(f"edges{of}: expected features of {index.shape[1]} edges, got {len(edges)}")
    names = index[1].astype(np.int64) * len(nodes) + index[0]
    kept = np.unique(names, return_index=True)[1]  # in the order of receivers, then senders
    kept = kept[index[0, kept] != index[1, kept]]
    return _Cleaned(nodes, edges[kept], index[0, kept], index[1, kept], kept)


def _features(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise ValueError(f"{name}: expected numbers (count, features), got {values.dtype} of shape {values.shape}")
    values = values.astype(np.float32 if values.dtype != np.float64 else np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite features, got {values[~np.isfinite(values)][0]}")
    return values


def _padded(graphs: list[_Cleaned], padding: tuple[int, int] | None) -> Graphs:
    largest = max(len(g.nodes) for g in graphs), max(1, *(len(g.senders) for g in graphs))
    nodes, edges = largest if padding is None else padding
    if largest[0] > nodes or largest[1] > edges:
        raise ValueError(
            f"padding: expected at least {largest[0]} nodes and {largest[1]} edges, as the largest graph has, "
            f"got {nodes} and {edges}"
        )
    for name in ("nodes", "edges"):
        widths = sorted({getattr(g, name).shape[1] for g in graphs})
        if len(widths) > 1:
            raise ValueError(f"{name}: expected as many features in all graphs, got {widths}")
    float_type, count = jnp.result_type(float), len(graphs)
    parts = {
        "nodes": np.zeros((count, nodes, graphs[0].nodes.shape[1]), float_type),
        "edges": np.zeros((count, edges, graphs[0].edges.shape[1]), float_type),
        "senders": np.full((count, edges), nodes - 1, np.int32),
        "receivers": np.full((count, edges), nodes - 1, np.int32),
    }
    is_node, is_edge = np.zeros((count, nodes), bool), np.zeros((count, edges), bool)
    for i, graph in enumerate(graphs):
        for name, array in parts.items():
            values = getattr(graph, name)
            array[i, : len(values)] = values
        is_node[i, : len(graph.nodes)] = is_edge[i, : len(graph.senders)] = True
    return Graphs(**{name: jnp.asarray(a) for name, a in parts.items()}, is_node=jnp.asarray(is_node),
                  is_edge=jnp.asarray(is_edge))  # fmt: skip


def _values(
    y: np.ndarray | None, count: int, examples: np.ndarray, level: str, labels: str, classes: int | None
) -> tuple[np.ndarray, int, Loss]:
    """Returns labels or targets of the examples, the number of outputs and the loss."""
    if y is None:
        if labels == "true":
            raise ValueError("y: expected labels, because labels='true', got none; labels='random' needs none")
        return np.zeros(len(examples), np.int32), 10 if classes is None else classes, cross_entropy
    y = np.asarray(y)
    if y.ndim not in (1, 2) or len(y) != count:
        raise ValueError(f"y: expected one label or row of targets for each of {count} {level}s, got shape {y.shape}")
    y = y[:, 0] if y.shape[1:] == (1,) and not np.issubdtype(y.dtype, np.floating) else y
    if np.issubdtype(y.dtype, np.floating):
        targets = y.reshape(count, -1)[examples].astype(jnp.result_type(float))
        if labels == "true" and not np.isfinite(targets).all():
            raise ValueError(f"y: expected finite targets of all examples, got {targets[~np.isfinite(targets)][0]}")
        return targets, targets.shape[1], absolute_error
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1:
        raise TypeError(f"y: expected integer labels or floating targets, got {y.dtype} of shape {y.shape}")
    classes = max(int(y.max()) + 1, 1) if classes is None else classes
    chosen = y[examples]
    if labels == "true" and (chosen.min() < 0 or chosen.max() >= classes):
        raise ValueError(
            f"y: expected labels of examples from 0 to {classes - 1}, got {chosen.min()} to {chosen.max()}"
        )
    return chosen.astype(np.int32), classes, cross_entropy
