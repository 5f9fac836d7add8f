"""Random graphs with Gaussian features and random labels: a search for a graph network without a data set."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data.graphs import GraphInput, Graphs, Level
from nasi_jax.data.in_memory import random_labels
from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.data.source import Batch, Shared


@struct.dataclass
class RandomGraphs:
    """A stream of undirected random graphs, standard Gaussian features, and uniformly random labels.

    The ends of an edge are drawn uniformly, without self-loops; that an edge is drawn twice is rare and let be. Where
    graphs are the examples, they have between half of the nodes and all of them, and edges in proportion.

    Attributes:
        level: what the examples are; nodes and edges are those of a single graph, drawn anew with each batch.
        nodes: nodes of the largest graph.
        degree: mean number of neighbours of a node.
        node_features: number of features of a node.
        edge_features: number of features of an edge; 0 is none, which networks read as a one.
        outputs: number of labels.
        loss: see `nasi_jax.data.Source`.

    Raises:
        ValueError: a number is out of range.
    """

    level: Level = struct.field(pytree_node=False, default="graph")
    nodes: int = struct.field(pytree_node=False, default=16)
    degree: int = struct.field(pytree_node=False, default=4)
    node_features: int = struct.field(pytree_node=False, default=8)
    edge_features: int = struct.field(pytree_node=False, default=0)
    outputs: int = struct.field(pytree_node=False, default=10)
    loss: Loss = struct.field(pytree_node=False, default=cross_entropy)

    def __post_init__(self) -> None:
        """Checks the numbers."""
        least = {"nodes": 4, "degree": 1, "node_features": 1, "edge_features": 0, "outputs": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: expected an integer of at least {bound}, got {getattr(self, name)!r}")

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct examples cannot be drawn."""
        most = {"node": self.nodes, "edge": 2 * self._pairs}.get(self.level)
        if size < 1 or (most is not None and size > most):
            expected = "a positive integer" if most is None else f"1 to {most}, the number of {self.level}s"
            raise ValueError(f"batch: expected {expected}, got {size}")

    @property
    def _pairs(self) -> int:
        return max(1, self.nodes * self.degree // 2)

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws a batch; works under `jit`, `vmap` and `scan`.

        Args:
            key: a typed random key.
            size: number of examples.

        Returns:
            A `GraphInput`, and labels (size,) int32, or targets (size, outputs) where the loss is of a regression.
        """
        graph_key, target_key, label_key = jax.random.split(key, 3)
        y = random_labels(label_key, size, self.outputs, self.loss)
        if self.level == "graph":
            return Batch(GraphInput(self._graphs(graph_key, size), None, "graph"), y)
        most = self.nodes if self.level == "node" else 2 * self._pairs
        targets = jax.random.choice(target_key, most, (size,), replace=False).astype(jnp.int32)
        return Batch(GraphInput(Shared(self._graphs(graph_key, 1)), targets, self.level), y)

    def _graphs(self, key: jax.Array, count: int) -> Graphs:
        keys, pairs, dtype = jax.random.split(key, 5), (count, self._pairs), jnp.result_type(float)
        least = self.nodes if self.level != "graph" else self.nodes // 2
        sizes = jax.random.randint(keys[0], (count, 1), least, self.nodes + 1)
        first = jax.random.randint(keys[1], pairs, 0, sizes)
        second = (first + 1 + jax.random.randint(keys[2], pairs, 0, sizes - 1)) % sizes
        there = jnp.tile(jnp.arange(self._pairs)[None] * self.nodes < sizes * self._pairs, (1, 2))
        senders, receivers = (
            jnp.where(there, jnp.concatenate(ends, axis=1), self.nodes - 1)
            for ends in ((first, second), (second, first))
        )
        width = max(1, self.edge_features)
        drawn = (
            jax.random.normal(keys[4], (*pairs, width), dtype) if self.edge_features else jnp.ones((*pairs, 1), dtype)
        )
        edges = jnp.tile(drawn, (1, 2, 1)) * there[..., None].astype(dtype)
        order = jnp.argsort(jnp.where(there, receivers, self.nodes), axis=1)
        is_node = jnp.arange(self.nodes)[None] < sizes
        nodes = jax.random.normal(keys[3], (count, self.nodes, self.node_features), dtype)
        return Graphs(
            nodes=nodes * is_node[..., None].astype(dtype),
            edges=jnp.take_along_axis(edges, order[..., None], axis=1),
            senders=jnp.take_along_axis(senders, order, axis=1).astype(jnp.int32),
            receivers=jnp.take_along_axis(receivers, order, axis=1).astype(jnp.int32),
            is_node=is_node,
            is_edge=jnp.take_along_axis(there, order, axis=1),
        )
