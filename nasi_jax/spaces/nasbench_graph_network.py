"""The networks of NAS-Bench-Graph: four nodes that each read one node, and all that nothing reads, joined."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from nasi_jax.nn import RELU_GAIN, Dense, Style, handed_on, observe
from nasi_jax.nn.graphs import (
    GraphDense,
    MaskedNorm,
    Union,
    Weight,
    bias,
    dropped,
    incoming_count,
    incoming_max,
    incoming_sum,
    observe_nodes,
    of_examples,
    received,
    scaled,
    sent,
    union,
)
from nasi_jax.programs import Execution, switch
from nasi_jax.spaces.base import Network, Weights, check_positive
from nasi_jax.spaces.nasbench_graph_text import NODES, OPERATIONS, SKIP

_HEADS = 2
_SLOPE = 0.2
_GAT, _ARMA, _FC = (OPERATIONS.index(name) for name in ("gat", "arma", "fc"))
_SECOND = np.array([name in ("cheb", "sage", "arma", "graph") for name in OPERATIONS])
"""Which operations have a second product, of the node itself."""


@dataclasses.dataclass(frozen=True)
class NASBenchGraphSize:
    """Size of a network, by which the data sets of the benchmark differ; the defaults are those for Cora.

    Attributes:
        hidden: channels of every node, even because the attention has two heads.
        pre: whether a layer brings the features to these channels before the first node.
        post: whether a layer with an activation joins the last nodes before the head.

    Raises:
        ValueError: `hidden` is no positive even integer.
    """

    hidden: int = 256
    pre: bool = False
    post: bool = True

    def __post_init__(self) -> None:
        """Checks the channels."""
        check_positive(self, hidden=2)
        if self.hidden % _HEADS:
            raise ValueError(f"hidden: expected an even integer, for two heads of attention, got {self.hidden}")


@struct.dataclass
class Coefficients:
    """A graph with what the linear operations weigh its edges and nodes by.

    Attributes:
        graph: the graph.
        edges: (operations, m), the factor of each edge.
        nodes: (operations, n), that of the node's own value.
    """

    graph: Union
    edges: jax.Array
    nodes: jax.Array


def coefficients(graph: Union) -> Coefficients:
    """Computes the coefficients; a node without edges receives nothing, also where a degree would be divided by."""
    degree = incoming_count(graph)
    there, zero = graph.is_edge[:, 0], jnp.zeros_like(graph.is_node[:, 0])
    looped = jax.lax.rsqrt(degree + 1)
    plain = jnp.where(degree > 0, jax.lax.rsqrt(jnp.maximum(degree, 1)), 0)
    laplacian = (sent(plain, graph) * received(plain, graph) * graph.is_edge)[:, 0]
    edges = {
        "gcn": (sent(looped, graph) * received(looped, graph) * graph.is_edge)[:, 0],
        "gin": there,
        "cheb": -laplacian,
        "sage": (graph.is_edge / jnp.maximum(received(degree, graph), 1))[:, 0],
        "arma": laplacian,
        "graph": there,
    }
    nodes = {"gcn": looped[:, 0] ** 2, "gin": zero + 1, "fc": zero + 1}
    return Coefficients(
        graph=graph,
        edges=jnp.stack([edges.get(name, there * 0) for name in OPERATIONS]),
        nodes=jnp.stack([nodes.get(name, zero) for name in OPERATIONS]),
    )


def _chosen(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Calls one of several functions: here where the index is known, in the program where it is an array."""
    return branches[index](*operands) if isinstance(index, int) else switch(index, branches, *operands)


def _nothing(x: Any, h: jax.Array, kernels: Any) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(h), jnp.zeros_like(h)


def _product(kind: str, both: bool, x: Any, h: jax.Array, kernels: Any) -> tuple[jax.Array, jax.Array]:
    value = x if kind == "raw" else h
    first = value @ kernels[f"{kind}_kernel"]
    return first, (value @ kernels[f"{kind}_second"] if both else jnp.zeros_like(first))


_PRODUCTS = (_nothing, *(functools.partial(_product, k, b) for k in ("inner", "raw") for b in (False, True)))


def _attention(p: jax.Array, vectors: Any, graph: Union) -> tuple[jax.Array, jax.Array]:
    """Returns how much a node attends to each neighbour, (m, heads), and to itself, (n, heads)."""
    heads = p.reshape(len(p), _HEADS, -1)
    from_sender, to_receiver = (jnp.einsum("nhd,dh->nh", heads, vectors[name]) for name in ("sending", "receiving"))
    edges = nn.leaky_relu(sent(from_sender, graph) + received(to_receiver, graph), _SLOPE)
    own = nn.leaky_relu(from_sender + to_receiver, _SLOPE)
    # a softmax does not depend on what it is shifted by
    largest = jax.lax.stop_gradient(jnp.maximum(incoming_max(edges, graph, -jnp.inf), own))
    edges = jnp.exp(jnp.where(graph.is_edge > 0, edges - received(largest, graph), -jnp.inf))
    own = jnp.exp(own - largest)
    total = incoming_sum(edges, graph) + own
    return edges / received(total, graph), own / total


def _no_attention(p: jax.Array, vectors: Any, graph: Union) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((len(graph.is_edge), _HEADS), p.dtype), jnp.zeros((len(p), _HEADS), p.dtype)


def _spread(p: jax.Array, factors: jax.Array, graph: Union) -> jax.Array:
    """Sums what neighbours send, each head times the factors of its own, (m, heads)."""
    messages = sent(p, graph).reshape(len(factors), factors.shape[1], -1) * factors[..., None]
    return incoming_sum(messages.reshape(len(factors), -1), graph)


def _no_spread(p: jax.Array, factors: jax.Array, graph: Union) -> jax.Array:
    return jnp.zeros_like(p)


def _heads(values: jax.Array, factors: jax.Array) -> jax.Array:
    """Multiplies each head of (n, channels) by a factor, (n, heads)."""
    return (values.reshape(len(values), factors.shape[1], -1) * factors[..., None]).reshape(values.shape)


class Node(nn.Module):
    """A node: batch normalisation, ReLU and dropout of what it reads, unless that is the network's input; an operation.

    All operations of a node share their weights. They differ in what they weigh edges by, so that any of them, and any
    mixture, is one product and one sum over edges, with weights as data.

    Attributes:
        hidden: channels.
        operation: index of its only operation, or None for the mixture of all.
        raw: whether it reads the input of the network, where there is one operation.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    hidden: int
    operation: int | None = None
    raw: bool = False
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        x: jax.Array | None,
        h: jax.Array,
        parts: Coefficients,
        weights: jax.Array | None = None,
        raw: jax.Array | None = None,
        dropout: float = 0.0,
    ) -> jax.Array:
        """Computes the node's value.

        Args:
            x: input of the network, (n, features); None where a layer has brought it to the channels of a node.
            h: the other node that is read, (n, hidden); zeros where that is the input.
            parts: the graph.
            weights: (operations,), of a mixture.
            raw: (), whether the input is read, of a mixture.
            dropout: share of the entries that are dropped.

        Returns:
            The value, (n, hidden); without meaning where the operation is a skip.
        """
        graph = parts.graph
        params = self._parameters(x, h.dtype)
        # a skip and what reads the input have the benchmark's parameters of a normalisation, and no use for them
        without = weights is None and (self.raw or self.operation == SKIP)
        style = dataclasses.replace(self.style, normalisation="fixed") if without else self.style
        h = MaskedNorm(style, name="norm")(h, graph.is_node)
        operation: Any = self.operation
        is_raw: Any = self.raw
        if weights is not None and raw is not None:
            observe_nodes(self, "activation", h, graph, (1 - raw) * (1 - weights[SKIP]))
            operation, is_raw = jnp.argmax(weights), raw > 0.5
        elif not without:
            observe_nodes(self, "activation", h, graph)
        h = dropped(self, nn.relu(h), dropout)
        if weights is not None and self.execution.discrete != "branches":
            z = self._mixed(x, h, parts, weights, raw, params)
        else:
            z = self._one(x, h, parts, operation, is_raw, params, None if weights is None else weights[_ARMA])
        return scaled(self, "output", z, graph)

    def _parameters(self, x: jax.Array | None, dtype: Any) -> dict[str, Any]:
        """Declares what the operations have."""
        known = range(len(OPERATIONS)) if self.operation is None else (self.operation,)
        names = [name for i in known if (name := OPERATIONS[i]) != "skip"]
        widths = {} if x is None else {"raw": x.shape[-1]}
        shapes: dict[str, tuple[int, int]] = {}
        for kind, width in (widths | {"inner": self.hidden}).items():
            if names and (self.operation is None or self.raw == (kind == "raw")):
                shapes[f"{kind}_kernel"] = (width, self.hidden)
                if any(_SECOND[i] for i in known):
                    shapes[f"{kind}_second"] = (width, self.hidden)
        if "gat" in names:
            shapes |= dict.fromkeys(("sending", "receiving"), (self.hidden // _HEADS, _HEADS))
        if "arma" in names:
            shapes["unused"] = (self.hidden, self.hidden)
        params: dict[str, Any] = {
            name: Weight(shape, self.style, RELU_GAIN, name=name)(dtype) for name, shape in shapes.items()
        }
        return params | {"bias": bias(self, self.hidden, dtype, self.style) if names else 0.0}

    def _one(
        self,
        x: jax.Array | None,
        h: jax.Array,
        parts: Coefficients,
        operation: Any,
        raw: Any,
        params: dict[str, Any],
        arma: jax.Array | None,
    ) -> jax.Array:
        """Computes one operation, of which an array may say which it is."""
        graph = parts.graph
        second = bool(_SECOND[operation]) if isinstance(operation, int) else jnp.asarray(_SECOND)[operation]
        place = 1 + 2 * _number(raw) + _number(second)
        index = _where(operation == SKIP, 0, place)
        kernels = {k: v for k, v in params.items() if k.startswith(("raw_", "inner_"))}
        p, own = _chosen(index, _PRODUCTS[: 3 if x is None else 5], x, h, kernels)
        if isinstance(operation, int) and operation == SKIP:
            return p
        vectors = {name: params.get(name) for name in ("sending", "receiving")}
        attention = _chosen(_number(operation == _GAT), (_no_attention, _attention), p, vectors, graph)
        edges, nodes = parts.edges[operation][:, None] + attention[0], parts.nodes[operation][:, None] + attention[1]
        still = (operation == _FC) | (operation == SKIP)
        spread = _chosen(_number(still), (_spread, _no_spread), p, edges, graph)
        z = spread + _heads(p, nodes) + own + params["bias"]
        if isinstance(operation, int):
            return self._rectified(z, graph, 1.0) if operation == _ARMA else z
        return jnp.where(operation == _ARMA, self._rectified(z, graph, arma), z)

    def _mixed(
        self,
        x: jax.Array | None,
        h: jax.Array,
        parts: Coefficients,
        weights: jax.Array,
        raw: Any,
        params: dict[str, Any],
    ) -> jax.Array:
        """Computes the weighted sum of all operations."""
        graph = parts.graph
        p, second = ((1 - raw) * (h @ params[f"inner_{n}"]) for n in ("kernel", "second"))
        if x is not None:
            p, second = (y + raw * (x @ params[f"raw_{n}"]) for y, n in ((p, "kernel"), (second, "second")))
        linear = weights.at[_ARMA].set(0)
        edges, nodes = ((linear @ part)[:, None] for part in (parts.edges, parts.nodes))
        attention = _attention(p, params, graph)
        edges, nodes = edges + weights[_GAT] * attention[0], nodes + weights[_GAT] * attention[1]
        z = _spread(p, edges, graph) + _heads(p, nodes) + jnp.sum(linear * _SECOND) * second
        z = z + (1 - weights[SKIP] - weights[_ARMA]) * params["bias"]
        arma = _spread(p, parts.edges[_ARMA][:, None], graph) + second + params["bias"]
        return z + weights[_ARMA] * self._rectified(arma, graph, weights[_ARMA])

    def _rectified(self, z: jax.Array, graph: Union, uses: Any) -> jax.Array:
        """Applies the activation that this one operation ends with."""
        observe_nodes(self, "arma", z, graph, uses)
        return nn.relu(z)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value.astype(jnp.int32)


def _where(condition: Any, then: Any, otherwise: Any) -> Any:
    if isinstance(condition, bool):
        return then if condition else otherwise
    return jnp.where(condition, then, otherwise)


class Join(nn.Module):
    """A linear layer of the concatenated last nodes, as a sum of a product for each.

    Its weights are divided by the root of the number of these nodes, as those of one wide layer would be drawn.

    Attributes:
        features: number of outputs.
        style: see `nasi_jax.nn.Style`.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, values: dict[str, jax.Array], weights: dict[str, jax.Array] | None = None) -> jax.Array:
        """Maps values (examples, channels) to (examples, features); weights are (), one or zero."""
        terms, count = [], 0.0
        for name, value in values.items():
            kernel = Weight((value.shape[-1], self.features), self.style, name=name)(value.dtype)
            share = 1.0 if weights is None else weights[name]
            terms.append(share * (value @ kernel))
            count = count + share
        y = sum(terms[1:], terms[0]) / jnp.sqrt(count)
        y = y + bias(self, self.features, y.dtype, self.style)
        return scaled(self, "output", y, None)


class NASBenchGraphNetwork(Network):
    """The benchmark's network: four nodes, the last ones joined, and a head.

    As in the benchmark's training code, a node normalises and rectifies what it reads and not what it computes, the
    last nodes are rectified where they are joined, and there is no activation between the layers before and after the
    nodes and what they lead to or come from. A skip passes on what it reads as it is, also as a last node.

    Where graphs are the examples, their nodes are averaged before the last layers; an edge is the sum of its ends.

    Attributes:
        size: see `NASBenchGraphSize`.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        choices: inputs and operations of the nodes, or None for the one-shot network.
    """

    capabilities = frozenset({"branches", "dropout", "embedding"})

    choices: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @nn.compact
    def __call__(self, x: Any, weights: Weights | None = None, dropout: float = 0.0) -> jax.Array:
        """Computes the logits.

        Args:
            x: a `nasi_jax.data.GraphInput`.
            weights: of the one-shot network, see `NASBenchGraph.alphas`; None for a derived one.
            dropout: share of the entries of every node that are dropped.

        Returns:
            Logits, (examples, outputs).

        Raises:
            ValueError: `x` is something else.
        """
        size: NASBenchGraphSize = self.size
        graph = union(x)
        parts, nodes = coefficients(graph), dropped(self, graph.nodes, dropout)
        first = jnp.zeros((len(nodes), size.hidden), nodes.dtype)
        if size.pre:
            first, nodes = GraphDense(size.hidden, self.style, name="pre")(nodes, graph) * graph.is_node, None
        if self.choices is None:
            assert weights is not None
            values, shares = self._all(nodes, first, parts, weights, dropout)
        else:
            values, shares = self._derived(nodes, first, parts, dropout), None
        read = {}
        for name, value in values.items():
            found = of_examples(value, graph)
            observe(self, f"{name}_activation", found, 1.0 if shares is None else shares[name])
            read[name] = nn.relu(found)
        joined = [value if shares is None else shares[name] * value for name, value in read.items()]
        handed_on(self, 0, jnp.concatenate(joined, axis=1))
        if not size.post:
            return Join(self.outputs, self.style, name="head")(read, shares)
        return Dense(self.outputs, self.style, name="head")(Join(size.hidden, self.style, name="post")(read, shares))

    def _node(self, k: int, **attributes: Any) -> Node:
        return Node(self.size.hidden, style=self.style, execution=self.execution, name=f"node_{k}", **attributes)

    def _derived(
        self, x: jax.Array | None, first: jax.Array, parts: Coefficients, dropout: float
    ) -> dict[str, jax.Array]:
        """Returns the values of the nodes that are joined."""
        assert self.choices is not None
        links, operations = self.choices
        values = [(x is not None, first)]
        for k, (link, operation) in enumerate(zip(links, operations, strict=True), start=1):
            raw, h = values[link]
            y = self._node(k, operation=operation, raw=raw)(x, h, parts, dropout=dropout)
            values.append((raw, h) if operation == SKIP else (False, y))
        last = {f"node_{k}": values[k][1] for k in range(1, NODES + 1) if k not in links and not values[k][0]}
        return last if last or x is None else {"input": x}

    def _all(
        self, x: jax.Array | None, first: jax.Array, parts: Coefficients, weights: Weights, dropout: float
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns the nodes' values, and how much of each is joined."""
        one = jnp.ones((), first.dtype)
        raws, values = [one if x is not None else jnp.zeros_like(one)], [first]
        leaf = dict.fromkeys(range(1, NODES + 1), one)
        only_skips = one
        for k in range(1, NODES + 1):
            reads = weights[f"input of {k}"][0] if k > 1 else one[None]
            operations = weights["operations"][k - 1]
            raw = sum((reads[j] * raws[j] for j in range(k)), jnp.zeros_like(one))
            h = sum((reads[j] * values[j] for j in range(k)), jnp.zeros_like(first))
            y = self._node(k)(x, h, parts, operations, raw, dropout)
            skip = operations[SKIP]
            raws.append(skip * raw)
            values.append(skip * h + (1 - skip) * y)
            only_skips = only_skips * skip
            for j in range(1, k):
                leaf[j] = leaf[j] * (1 - reads[j])
        named = {f"node_{k}": values[k] for k in range(1, NODES + 1)}
        shares = {f"node_{k}": leaf[k] * (1 - raws[k]) for k in leaf}
        return (named, shares) if x is None else (named | {"input": x}, shares | {"input": only_skips})
