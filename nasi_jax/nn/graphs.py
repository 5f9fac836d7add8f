"""Parts of graph networks: sums over edges, normalisation and readout, all of which leave padding out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from nasi_jax.data import GraphInput, Level, Shared
from nasi_jax.nn.blocks import BATCH_NORM_EPSILON
from nasi_jax.nn.linear import LINEAR_GAIN, NTK_BIAS_SCALE, parameter, weight
from nasi_jax.nn.style import Style, channel_scale, is_tracking, observe, running_statistics, track


@struct.dataclass
class Union:
    """The graphs of a batch as one graph whose parts are not joined.

    Attributes:
        nodes: features, (n, node features).
        edges: features, (m, edge features).
        senders: (m,) int32.
        receivers: (m,) int32, rising.
        is_node: (n, 1), ones, and zeros for padding, in the type of the features.
        is_edge: (m, 1), likewise.
        targets: see `nasi_jax.data.GraphInput`.
        graphs: number of graphs, of equally many nodes and edges with padding.
        level: see `nasi_jax.data.Level`.
    """

    nodes: jax.Array
    edges: jax.Array
    senders: jax.Array
    receivers: jax.Array
    is_node: jax.Array
    is_edge: jax.Array
    targets: jax.Array | None
    graphs: int = struct.field(pytree_node=False)
    level: Level = struct.field(pytree_node=False)


def union(x: Any) -> Union:
    """Puts the graphs of a batch behind each other.

    Args:
        x: should be a `nasi_jax.data.GraphInput`.

    Returns:
        Their union.

    Raises:
        ValueError: `x` is something else, such as images.
    """
    if not isinstance(x, GraphInput):
        raise ValueError(f"x: expected graphs, a nasi_jax.data.GraphInput, got {jax.tree.map(jnp.shape, x)}")
    graphs = x.graphs.value if isinstance(x.graphs, Shared) else x.graphs
    count, size = graphs.is_node.shape
    offset = jnp.arange(count, dtype=jnp.int32)[:, None] * size
    flat = jax.tree.map(lambda leaf: leaf.reshape(count * leaf.shape[1], -1), graphs)
    return Union(
        nodes=flat.nodes,
        edges=flat.edges,
        senders=(graphs.senders + offset).reshape(-1),
        receivers=(graphs.receivers + offset).reshape(-1),
        is_node=flat.is_node.astype(flat.nodes.dtype),
        is_edge=flat.is_edge.astype(flat.nodes.dtype),
        targets=x.targets,
        graphs=count,
        level=x.level,
    )


def sent(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the values (m, ...) of the nodes that edges leave."""
    return values.at[graph.senders].get(mode="promise_in_bounds")


def received(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the values (m, ...) of the nodes that edges enter."""
    return values.at[graph.receivers].get(mode="promise_in_bounds", indices_are_sorted=True)


def incoming_sum(messages: jax.Array, graph: Union) -> jax.Array:
    """Sums messages (m, ...) over the edges that enter a node, (n, ...); those of padding are zeros already."""
    return jax.ops.segment_sum(
        messages, graph.receivers, len(graph.is_node), indices_are_sorted=True, mode="promise_in_bounds"
    )


def incoming_max(messages: jax.Array, graph: Union, empty: float = 0.0) -> jax.Array:
    """Takes the largest of the messages (m, channels) that enter a node, (n, channels); `empty` where there is none."""
    masked = jnp.where(graph.is_edge > 0, messages, -jnp.inf)
    largest = jax.ops.segment_max(
        masked, graph.receivers, len(graph.is_node), indices_are_sorted=True, mode="promise_in_bounds"
    )
    return jnp.where(jnp.isneginf(largest), empty, largest)


def incoming_count(graph: Union) -> jax.Array:
    """Returns how many edges enter a node, (n, 1)."""
    return incoming_sum(graph.is_edge, graph)


class MaskedNorm(nn.Module):
    """Batch normalisation over what is no padding, which becomes zero; see `nasi_jax.nn.BatchNorm`.

    Attributes:
        style: see `Style`.
    """

    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, there: jax.Array) -> jax.Array:
        """Maps (count, channels) to the same shape; `there` is (count, 1), ones and zeros."""
        moments = _moments(x, there)
        if is_tracking(self, self.style):
            count = jnp.sum(there)
            track(self, "statistics", (moments[0], moments[1] * count / jnp.maximum(count - 1, 1)))
        if self.style.normalisation == "fixed":
            moments = jnp.zeros_like(moments[0]), jnp.ones_like(moments[1])
        elif (running := running_statistics(self, "statistics", self.style)) is not None:
            moments = running
        mean, variance = moments
        factor, shift = jax.lax.rsqrt(variance + BATCH_NORM_EPSILON), 0.0
        if self.style.affine:
            factor = factor * parameter(self, "scale", nn.initializers.ones, x.shape[-1:], x.dtype)
            shift = parameter(self, "bias", nn.initializers.zeros, x.shape[-1:], x.dtype)
        shift = shift - mean * factor
        return (x * factor[None] + shift[None]).astype(x.dtype) * there


def _moments(x: jax.Array, there: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance of each channel over what is there, in single precision at least."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x, there = x.astype(wide), there.astype(wide)
    count = jnp.maximum(jnp.sum(there), 1)  # graphs may have no edges
    mean = jnp.sum(x * there, axis=0) / count
    # the variance is the same for any centre, which needs no derivative then
    centre = jax.lax.stop_gradient(mean)
    return mean, jnp.sum((x - centre[None]) ** 2 * there, axis=0) / count - (mean - centre) ** 2


class GraphDense(nn.Module):
    """A fully connected layer of nodes or edges.

    Attributes:
        features: number of outputs.
        style: see `Style`.
        bias: whether there is one; it starts at zero.
        gain: variance of the weights times their fan-in.
    """

    features: int
    style: Style = Style()
    bias: bool = True
    gain: float = LINEAR_GAIN

    @nn.compact
    def __call__(self, x: jax.Array, graph: Union | None = None) -> jax.Array:
        """Maps (count, channels) to (count, features); `graph` is that of nodes or edges, None of examples."""
        shape, ntk = (x.shape[-1], self.features), self.style.parameterisation
        y = x @ weight(self, shape, x.dtype, gain=self.gain, parameterisation=ntk)
        if self.bias:
            y = y + bias(self, self.features, x.dtype, self.style)
        return scaled(self, "output", y, graph)


class Weight(nn.Module):
    """One weight, in a module of its own, so that its draw does not depend on which others there are.

    Attributes:
        shape: see `nasi_jax.nn.weight`.
        style: see `Style`.
        gain: variance of the weight times its fan-in.
    """

    shape: tuple[int, ...]
    style: Style = Style()
    gain: float = LINEAR_GAIN

    @nn.compact
    def __call__(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        """Returns the weight."""
        return weight(self, self.shape, dtype, gain=self.gain, parameterisation=self.style.parameterisation)


def bias(module: nn.Module, features: int, dtype: Any, style: Style) -> jax.Array:
    """Declares a bias that starts at zero, (1, features); see `nasi_jax.nn.Dense`."""
    scale = NTK_BIAS_SCALE if style.parameterisation == "ntk" else 1.0
    return scale * parameter(module, "bias", nn.initializers.zeros, (features,), dtype).reshape(1, -1)


def scaled(module: nn.Module, name: str, y: jax.Array, graph: Union | None) -> jax.Array:
    """Applies the factors of `channel_scale`: one for each graph where graphs are the examples, else for each row."""
    whole = y.reshape(graph.graphs, -1, y.shape[-1]) if graph is not None and graph.level == "graph" else y
    factors = channel_scale(module, name, whole.shape, y.dtype)
    return y if factors is None else (factors * whole).reshape(y.shape)


def observe_nodes(module: nn.Module, name: str, values: jax.Array, graph: Union, uses: jax.Array | float = 1.0) -> None:
    """Sows the input of an activation of nodes (n, channels) for each example; see `nasi_jax.nn.observe`."""
    if graph.level == "graph":
        values = values.reshape(graph.graphs, -1)
    elif graph.level == "node":
        values = values[graph.targets]
    else:
        values = jnp.concatenate([values[graph.senders[graph.targets]], values[graph.receivers[graph.targets]]], axis=1)
    observe(module, name, values, uses)


def observe_edges(module: nn.Module, name: str, values: jax.Array, graph: Union) -> None:
    """Sows the input of an activation of edges (m, channels), where an example has edges of its own."""
    if graph.level == "graph":
        observe(module, name, values.reshape(graph.graphs, -1))
    elif graph.level == "edge":
        observe(module, name, values[graph.targets])


def of_examples(values: jax.Array, graph: Union) -> jax.Array:
    """Returns values of nodes for each example, (examples, channels): a graph's mean, the sum of an edge's ends."""
    if graph.level == "graph":
        return node_mean(values, graph)
    if graph.level == "node":
        return values[graph.targets]
    return values[graph.senders[graph.targets]] + values[graph.receivers[graph.targets]]


def averaged(x: GraphInput) -> jax.Array:
    """Returns the features of the examples, (examples, node features), averaged as by a graph convolution.

    A node's are the weighted sum of its own and those of the nodes with an edge to it, D^-1/2 (A + I) D^-1/2 X.

    Args:
        x: what a network reads.

    Returns:
        The features; of graphs the mean over nodes, of edges the sum of both ends.
    """
    graph = union(x)
    root = jax.lax.rsqrt(incoming_count(graph) + 1)
    values = root * graph.nodes
    return of_examples(root * (incoming_sum(sent(values, graph) * graph.is_edge, graph) + values), graph)


def node_mean(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the mean over the nodes of each graph, (graphs, channels)."""
    return _mean(values, graph.is_node, graph.graphs)


def edge_mean(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the mean over the edges of each graph, (graphs, channels); zeros where there are none."""
    return _mean(values, graph.is_edge, graph.graphs)


def node_max(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the largest value of the nodes of each graph, (graphs, channels)."""
    return _max(values, graph.is_node, graph.graphs)


def edge_max(values: jax.Array, graph: Union) -> jax.Array:
    """Returns the largest value of the edges of each graph, (graphs, channels); zeros where there are none."""
    return _max(values, graph.is_edge, graph.graphs)


def _mean(values: jax.Array, there: jax.Array, graphs: int) -> jax.Array:
    totals = (values * there).reshape(graphs, -1, values.shape[-1]).sum(axis=1)
    return totals / jnp.maximum(there.reshape(graphs, -1).sum(axis=1, keepdims=True), 1)


def _max(values: jax.Array, there: jax.Array, graphs: int) -> jax.Array:
    """Returns the largest value of each graph and channel, zeros where a graph has nothing.

    The gradient goes to the place of the largest value. By default it goes to what equals that value, and is not a
    number where a compiler that computes values twice rounds them differently, so that nothing does (JAX issue 13600).
    """
    values, there = (part.reshape(graphs, -1, part.shape[-1]) for part in (values, there > 0))
    place = jnp.argmax(jnp.where(there, values, -jnp.inf), axis=1, keepdims=True)
    chosen = jnp.arange(values.shape[1]).reshape(1, -1, 1) == place
    return jnp.sum(jnp.where(chosen & there, values, 0), axis=1)


def dropped(module: nn.Module, x: jax.Array, rate: float) -> jax.Array:
    """Sets a share of the entries to zero and divides the others by what is left, where the rate is positive."""
    if not rate:
        return x
    kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)
