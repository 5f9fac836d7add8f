"""The networks of EGNAS and ARGNP: cells of node states and edge states, each updated from both."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.nn import RELU_GAIN, Style, handed_on
from nasi_jax.nn.graphs import (
    GraphDense,
    MaskedNorm,
    Union,
    Weight,
    bias,
    dropped,
    edge_max,
    edge_mean,
    incoming_count,
    incoming_max,
    incoming_sum,
    node_max,
    node_mean,
    observe_edges,
    observe_nodes,
    received,
    sent,
    union,
)
from nasi_jax.programs import Execution, switch
from nasi_jax.spaces.base import Network, Weights, check_positive

Kind = Literal["V", "E"]
KINDS: tuple[Kind, Kind] = ("V", "E")
"""States of nodes ("entities") and of edges ("relations"), by the letters of the paper."""

OPERATIONS: dict[str, dict[Kind, tuple[str, ...]]] = {
    "egnas": {"V": ("identity", "mean", "sum", "max"), "E": ("identity", "cat", "gru", "film")},
    "argnp": {
        "V": ("identity", "mean", "sum", "max", "std", "gem2", "gem3"),
        "E": ("identity", "sub", "gauss", "had", "sum", "mean", "max"),
    },
}
"""What a link can be, for either paper; "none" is left out, because no architecture has it."""

_SLOPE, _TINY = 0.2, 1e-5
Choices = tuple[tuple[tuple[tuple[int, str], tuple[int, str]], ...], ...]
"""For both kinds and each vertex its two links, (state that is read, operation)."""

activation = functools.partial(nn.leaky_relu, negative_slope=_SLOPE)


@dataclasses.dataclass(frozen=True)
class EGNASSize:
    """Size of a network; the defaults are those of the authors for molecules (ZINC).

    Attributes:
        nodes: channels of a node's state.
        edges: channels of an edge's state.
        joined_nodes: channels of a cell's joined states of nodes.
        joined_edges: of edges.

    Raises:
        ValueError: one of them is no positive integer.
    """

    nodes: int = 50
    edges: int = 25
    joined_nodes: int = 60
    joined_edges: int = 30

    def __post_init__(self) -> None:
        """Checks all."""
        check_positive(self, nodes=1, edges=1, joined_nodes=1, joined_edges=1)


def _linear(p: Any, x: jax.Array) -> jax.Array:
    return x @ p["kernel"] + p["bias"]


def _mlp(first: Any, second: Any, x: jax.Array) -> jax.Array:
    return activation(_linear(second, activation(_linear(first, x))))


def _film(p: Any, x: jax.Array, value: jax.Array) -> jax.Array:
    return nn.sigmoid(_linear(p["gate"], x)) * value + _linear(p["shift"], x)


def _messages(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    """Returns what each edge brings, (m, node channels); zeros from padding."""
    pooled = _linear(p["pool_2"], activation(_linear(p["pool_1"], activation(v))))
    return _film(p, _mlp(p["edge_1"], p["edge_2"], e), sent(pooled, graph)) * graph.is_edge


def _mean(messages: jax.Array, graph: Union) -> jax.Array:
    return incoming_sum(messages, graph) / jnp.maximum(incoming_count(graph), 1)


def _std(messages: jax.Array, graph: Union) -> jax.Array:
    """The true deviation; in paper and code of ARGNP the square of the second mean is missing."""
    variance = _mean(messages**2, graph) - _mean(messages, graph) ** 2
    return jnp.sqrt(nn.relu(variance) + _TINY) * (incoming_count(graph) > 0)


def _gem(power: int, messages: jax.Array, graph: Union) -> jax.Array:
    mean = _mean(jnp.maximum(messages, _TINY) ** power * graph.is_edge, graph)
    return jnp.where(mean > 0, jnp.where(mean > 0, mean, 1) ** (1 / power), 0)


_AGGREGATORS: dict[str, Callable[[jax.Array, Union], jax.Array]] = {
    "mean": _mean,
    "sum": incoming_sum,
    "max": incoming_max,
    "std": _std,
    "gem2": functools.partial(_gem, 2),
    "gem3": functools.partial(_gem, 3),
}


def _relation(v: jax.Array, p: Any, graph: Union) -> jax.Array:
    """EGNAS' relation of the ends of an edge, (m, edge channels)."""
    sender, receiver = sent(v, graph), received(v, graph)
    return _mlp(p["pair_1"], p["pair_2"], jnp.concatenate([sender, receiver, sender - receiver], axis=-1))


def _cat(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    return _mlp(p["cat_1"], p["cat_2"], jnp.concatenate([_relation(v, p, graph), activation(e)], axis=-1))


def _gru(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    """A gated recurrent unit with the relation as input, in PyTorch's convention."""
    e = activation(e)
    inputs, hidden = (jnp.split(_linear(p[n], x), 3, axis=-1)
                      for n, x in (("input", _relation(v, p, graph)), ("hidden", e)))  # fmt: skip
    reset, update = (nn.sigmoid(inputs[i] + hidden[i]) for i in (0, 1))
    return (1 - update) * jnp.tanh(inputs[2] + reset * hidden[2]) + update * e


def _film_edges(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    return _film(p, _relation(v, p, graph), activation(e))


def _symmetric(relation: Callable[..., jax.Array], v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    """ARGNP's relations, which do not depend on the direction of an edge."""
    ends = relation(sent(v, graph), received(v, graph))
    return _film(p, _mlp(p["ends_1"], p["ends_2"], ends), activation(e))


_RELATIONS: dict[str, Callable[..., jax.Array]] = {
    "sub": lambda a, b: jnp.abs(a - b),
    "gauss": lambda a, b: jnp.exp(-((a - b) ** 2) / 2),
    "had": lambda a, b: a * b,
    "sum": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "max": jnp.maximum,
}


def _aggregated(name: str, v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    return _AGGREGATORS[name](_messages(v, e, p, graph), graph)


def _no_nodes(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    return jnp.zeros_like(v)


def _no_edges(v: jax.Array, e: jax.Array, p: Any, graph: Union) -> jax.Array:
    return jnp.zeros_like(e)


@functools.cache
def _functions(family: str, kind: Kind) -> tuple[Callable[..., jax.Array], ...]:
    """Returns what the operations of a kind compute of node and edge states, zeros in the place of the identity."""
    names = OPERATIONS[family][kind][1:]
    if kind == "V":
        return (_no_nodes, *(functools.partial(_aggregated, name) for name in names))
    own = {"cat": _cat, "gru": _gru, "film": _film_edges}
    if family == "egnas":
        return (_no_edges, *(own[name] for name in names))
    return (_no_edges, *(functools.partial(_symmetric, _RELATIONS[name]) for name in names))


def _shapes(family: str, kind: Kind, names: tuple[str, ...], d: int, e: int) -> dict[str, tuple[int, int]]:
    """Returns the inputs and outputs of the linear layers that some operations have, but for the last."""
    if kind == "V":
        return {"pool_1": (d, d), "pool_2": (d, d), "edge_1": (e, e), "edge_2": (e, e), "gate": (e, d), "shift": (e, d)}
    film = {"gate": (e, e), "shift": (e, e)}
    if family == "argnp":
        return {"ends_1": (d, e), "ends_2": (e, e)} | film
    shapes = {"pair_1": (3 * d, e), "pair_2": (e, e)}
    shapes |= {"cat_1": (2 * e, e), "cat_2": (e, e)} if "cat" in names else {}
    shapes |= {"input": (e, 3 * e), "hidden": (e, 3 * e)} if "gru" in names else {}
    return shapes | (film if "film" in names else {})


class Linear(nn.Module):
    """The weights of a linear layer.

    Attributes:
        shape: (inputs, outputs).
        style: see `nasi_jax.nn.Style`.
    """

    shape: tuple[int, int]
    style: Style = Style()

    @nn.compact
    def __call__(self, dtype: Any) -> dict[str, jax.Array]:
        """Returns kernel and bias."""
        kernel = Weight(self.shape, self.style, RELU_GAIN, name="weight")(dtype)
        return {"kernel": kernel, "bias": bias(self, self.shape[1], dtype, self.style)}


class Link(nn.Module):
    """A link: one operation of a pair of states, or the mixture of all, which share their weights.

    Any operation but the identity is followed by a linear layer and a normalisation.

    Attributes:
        family: "egnas" or "argnp".
        kind: which states it updates.
        operation: its only operation, or None for the mixture.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
    """

    family: str
    kind: Kind
    operation: str | None = None
    style: Style = Style()
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, v: jax.Array, e: jax.Array, graph: Union, weights: jax.Array | None = None) -> jax.Array:
        """Maps states (n, channels) and (m, channels) to what is added to one of a kind; weights are (operations,)."""
        state, there = (v, graph.is_node) if self.kind == "V" else (e, graph.is_edge)
        if self.operation == "identity":
            return state
        names = OPERATIONS[self.family][self.kind]
        known = names if self.operation is None else (self.operation,)
        shapes = _shapes(self.family, self.kind, known, v.shape[-1], e.shape[-1])
        params = {name: Linear(shape, self.style, name=name)(v.dtype) for name, shape in shapes.items()}
        functions = _functions(self.family, self.kind)
        if weights is None:
            y = functions[names.index(str(self.operation))](v, e, params, graph)
        elif self.execution.discrete == "branches":
            place = jnp.where(jnp.sum(weights) > 0, jnp.argmax(weights), 0)
            y = switch(place, functions, v, e, params, graph)
        elif self.kind == "V":
            messages = _messages(v, e, params, graph)
            y = sum(
                (weights[i] * _AGGREGATORS[n](messages, graph) for i, n in enumerate(names) if i), jnp.zeros_like(v)
            )
        else:
            y = sum((weights[i] * functions[i](v, e, params, graph) for i in range(1, len(names))), jnp.zeros_like(e))
        y = GraphDense(state.shape[-1], self.style, name="pack")(y, graph)
        y = MaskedNorm(self.style, name="norm")(y, there)
        return y if weights is None else weights[0] * state + jnp.sum(weights[1:]) * y


class Joined(nn.Module):
    """The output of a cell: all states of a kind, activated, concatenated, and brought to a number of channels.

    Attributes:
        kind: of nodes or of edges.
        joined: channels of the joined states.
        back: channels of the output, None where the joined states are the output.
        style: see `nasi_jax.nn.Style`.
    """

    kind: Kind
    joined: int
    back: int | None
    style: Style = Style()

    @nn.compact
    def __call__(self, states: list[jax.Array], graph: Union) -> jax.Array:
        """Maps states (count, channels) to (count, joined or back)."""
        observed, there = (observe_nodes, graph.is_node) if self.kind == "V" else (observe_edges, graph.is_edge)
        wide = jnp.concatenate(states, axis=-1)
        observed(self, "states", wide, graph)
        y = GraphDense(self.joined, self.style, bias=False, gain=RELU_GAIN, name="joined")(activation(wide), graph)
        y = MaskedNorm(self.style, name="norm")(y, there)
        observed(self, "activation", y, graph)
        y = activation(y)
        if self.back is None:
            return y
        return GraphDense(self.back, self.style, bias=False, gain=RELU_GAIN, name="back")(y, graph)


class EGNASNetwork(Network):
    """Cells in a row, each with an architecture of its own, that read the outputs of the two before them; and a head.

    The data say what outputs are about: the head reads the states of nodes or of edges, or of graphs the mean and the
    largest of both.

    Attributes:
        size: see `EGNASSize`.
        outputs: number of outputs.
        style: see `nasi_jax.nn.Style`.
        execution: see `nasi_jax.programs.Execution`.
        family: see `Link`.
        cells: number of cells.
        vertices: number of states of each kind that a cell adds to the two that it reads.
        choices: the links of each cell, or None for the one-shot network.
    """

    capabilities = frozenset({"branches", "dropout", "embedding"})

    family: str = "egnas"
    cells: int = 1
    vertices: int = 2
    choices: tuple[Choices, ...] | None = None

    @nn.compact
    def __call__(self, x: Any, weights: Weights | None = None, dropout: float = 0.0) -> jax.Array:
        """Computes the outputs.

        Args:
            x: a `nasi_jax.data.GraphInput`.
            weights: of the one-shot network, see `EGNAS.alphas`; None for a derived one.
            dropout: share of the entries that are dropped in the head.

        Returns:
            Outputs, (examples, outputs).

        Raises:
            ValueError: `x` is something else.
        """
        size: EGNASSize = self.size
        graph = union(x)
        nodes = GraphDense(size.nodes, self.style, name="nodes")(graph.nodes, graph) * graph.is_node
        edges = GraphDense(size.edges, self.style, name="edges")(graph.edges, graph) * graph.is_edge
        outputs = [(nodes, edges)] * 2
        for cell in range(self.cells):
            states = self._cell(cell, outputs[0], outputs[1], graph, weights)
            last = cell == self.cells - 1
            outputs = [outputs[1], self._joined(cell, states, graph, last)]
        nodes, edges = outputs[1]
        return self._head(nodes, edges, graph, dropout)

    def _cell(
        self,
        cell: int,
        first: tuple[jax.Array, jax.Array],
        second: tuple[jax.Array, jax.Array],
        graph: Union,
        weights: Weights | None,
    ) -> dict[Kind, list[jax.Array]]:
        """Returns all states of both kinds."""
        states: dict[Kind, list[jax.Array]] = {"V": [first[0], second[0]], "E": [first[1], second[1]]}
        for j in range(2, self.vertices + 2):
            added = {}
            for k, kind in enumerate(KINDS):
                link = functools.partial(Link, self.family, kind, style=self.style, execution=self.execution)
                terms = []
                if self.choices is not None:
                    for i, operation in self.choices[cell][k][j - 2]:
                        module = link(operation=operation, name=f"cell_{cell}_{kind}_{j}_from_{i}")
                        terms.append(module(states["V"][i], states["E"][i], graph))
                else:
                    assert weights is not None
                    rows = link_weights(weights, cell, kind, j)
                    for i in range(j):
                        module = link(name=f"cell_{cell}_{kind}_{j}_from_{i}")
                        terms.append(module(states["V"][i], states["E"][i], graph, rows[i]))
                added[kind] = sum(terms[1:], terms[0])
            for kind in KINDS:
                states[kind].append(added[kind])
        return states

    def _joined(
        self, cell: int, states: dict[Kind, list[jax.Array]], graph: Union, last: bool
    ) -> tuple[jax.Array, jax.Array]:
        size: EGNASSize = self.size
        found = {}
        widths: dict[Kind, tuple[int, int]] = {
            "V": (size.joined_nodes, size.nodes),
            "E": (size.joined_edges, size.edges),
        }
        for kind, (joined, back) in widths.items():
            if last and graph.level == {"V": "edge", "E": "node"}[kind]:
                found[kind] = states[kind][-1]  # which the head does not read
                continue
            module = Joined(kind, joined, None if last else back, self.style, name=f"cell_{cell}_{kind}_joined")
            found[kind] = module(states[kind], graph)
        return found["V"], found["E"]

    def _head(self, v: jax.Array, e: jax.Array, graph: Union, dropout: float) -> jax.Array:
        size: EGNASSize = self.size
        if graph.level == "graph":
            value = jnp.concatenate(
                [node_mean(v, graph), node_max(v, graph), edge_mean(e, graph), edge_max(e, graph)], axis=-1
            )
            hidden, there, of = (size.joined_nodes + size.joined_edges) // 2, jnp.ones((graph.graphs, 1), v.dtype), None
        else:
            nodes = graph.level == "node"
            value, there, of = (v, graph.is_node, graph) if nodes else (e, graph.is_edge, graph)
            hidden = (size.joined_nodes if nodes else size.joined_edges) // 2
        handed_on(self, 0, value if graph.targets is None else value[graph.targets])
        y = GraphDense(max(1, hidden), self.style, bias=False, gain=RELU_GAIN, name="head_1")(value, of)
        y = MaskedNorm(self.style, name="head_norm")(y, there)
        if graph.targets is not None:
            y = y[graph.targets]
        y = dropped(self, activation(y), dropout)
        return GraphDense(self.outputs, self.style, name="head_2")(y)


@functools.cache
def pairs_of(vertex: int) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of different states that a vertex, counted from 2, may read."""
    return tuple((i, j) for i in range(vertex) for j in range(i + 1, vertex))


@functools.cache
def _reads(vertex: int) -> np.ndarray:
    """Returns which state each slot of each pair reads, (2, pairs, states), ones and zeros."""
    pairs = np.array(pairs_of(vertex))
    return np.stack([np.eye(vertex)[pairs[:, slot]] for slot in (0, 1)])


def link_weights(weights: Weights, cell: int, kind: Kind, vertex: int) -> jax.Array:
    """Returns the weights of the operations of each link of a vertex, (states, operations).

    Args:
        weights: see `EGNAS.alphas`.
        cell: number of the cell.
        kind: of states.
        vertex: counted from 2.

    Returns:
        The sum, over pairs of states and their slots, of the weights of pair and operation.
    """
    operations = weights[f"{kind}{cell}"][2 * (vertex - 2) : 2 * (vertex - 1)]
    name = f"{kind}{cell} inputs of {vertex}"
    pair = weights[name][0] if name in weights else jnp.ones(1, operations.dtype)
    reads = jnp.asarray(_reads(vertex), operations.dtype)
    return jnp.einsum("p,spi,so->io", pair, reads, operations)
