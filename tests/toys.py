"""Search spaces that compile in a second, one for each kind of input: vectors, token ids, graphs."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen, struct

from nasi_jax import data, spaces
from nasi_jax.nn import Dense, Style, handed_on, observe
from nasi_jax.programs import Execution
from nasi_jax.spaces import text as text_form
from nasi_jax.spaces.base import check_positive, checked


@struct.dataclass(eq=False)
class Chain(spaces.Genotype):
    """(layers,) int32, the operation of each layer."""

    operations: jax.Array


@dataclasses.dataclass(frozen=True)
class ChainSize:
    width: int = 8
    repeats: int = 1

    def __post_init__(self):
        check_positive(self, width=1, repeats=1)


class ChainNetwork(spaces.Network):
    """Layers in a row, each with one operation or the weighted sum of all; subclasses say what the layers are."""

    capabilities = frozenset({"features"})

    operations: tuple[str, ...] = ()
    layers: int = 0
    choices: tuple[int, ...] | None = None

    def row(self, layer, h, x, weights):
        names = self.operations if self.choices is None else (self.operations[self.choices[layer]],)
        terms = []
        for name in names:
            y = self.operation(f"layer_{layer}_{name}", name, h, x)
            terms.append(y if weights is None else weights["layers"][layer, self.operations.index(name)] * y)
        return sum(terms[1:], terms[0])

    def dense(self, name, h):
        observe(self, f"{name}_input", h)
        flat = jax.nn.relu(h).reshape(-1, h.shape[-1])
        return Dense(self.size.width, self.style, name=name)(flat).reshape(*h.shape[:-1], -1)

    @linen.compact
    def __call__(self, x, weights=None):
        h = handed_on(self, 0, self.embed(x))
        for layer in range(self.layers):
            h = handed_on(self, layer + 1, h + self.row(layer, h, x, weights))
        return Dense(self.outputs, self.style, name="head")(self.pool(h, x))


@dataclasses.dataclass(frozen=True)
class ChainSpace(spaces.SearchSpace):
    """A space of chains; subclasses name the operations, the network and the noise."""

    Size: ClassVar[type] = ChainSize
    search_size: ClassVar[ChainSize] = ChainSize(4)
    evaluation_size: ClassVar[ChainSize] = ChainSize()
    additive: ClassVar[bool] = True

    layers: int = 5

    @property
    def edges(self):
        return {"layers": tuple(str(i) for i in range(self.layers))}

    @property
    def choices(self):
        return {"layers": self.operations}

    @property
    def decisions(self):
        return (len(self.operations),) * self.layers

    def to_decisions(self, genotype):
        return jnp.asarray(genotype.operations, jnp.int32)

    def from_decisions(self, options):
        return Chain(options)

    def alphas(self):
        return {"layers": jnp.zeros((self.layers, len(self.operations)))}

    def encode(self, genotype):
        return {"layers": jax.nn.one_hot(checked(self, genotype).operations, len(self.operations))}

    def decode(self, alphas):
        return Chain(jnp.argmax(alphas["layers"], axis=-1).astype(jnp.int32))

    def canonical(self, genotype):
        return self.format(genotype)

    def graph(self, genotype):
        names = [self.operations[i] for i in checked(self, genotype).operations]
        return {"layers": [spaces.Edge(str(i), str(i + 1), name) for i, name in enumerate(names)]}

    def format(self, genotype):
        return f"Chain(operations={[self.operations[i] for i in checked(self, genotype).operations]})"

    def parse(self, text):
        found = text_form.arguments(text, "Chain", ("operations",))
        names = text_form.literal("operations", found["operations"], "as a list of names")
        if not isinstance(names, list) or len(names) != self.layers or not set(names) <= set(self.operations):
            raise ValueError(f"genotype: expected {self.layers} of {self.operations}, got {names!r}")
        return Chain(jnp.array([self.operations.index(name) for name in names], jnp.int32))

    def network(self, genotype, size, outputs, style=Style(), execution=Execution()):
        choices = None if genotype is None else tuple(int(i) for i in checked(self, genotype).operations)
        return self.Network(size, outputs, style, execution, self.operations, self.layers, choices)


@struct.dataclass
class Tokens:
    """Uniformly random ids with a mask of padding, and random labels."""

    vocabulary: int = struct.field(pytree_node=False, default=11)
    length: int = struct.field(pytree_node=False, default=6)
    outputs: int = struct.field(pytree_node=False, default=3)
    loss: data.Loss = struct.field(pytree_node=False, default=data.cross_entropy)

    def check_batch(self, size):
        if size < 1:
            raise ValueError(f"batch: expected a positive integer, got {size}")

    def batch(self, key, size):
        keys = jax.random.split(key, 3)
        ids = jax.random.randint(keys[0], (size, self.length), 0, self.vocabulary, jnp.int32)
        lengths = jax.random.randint(keys[1], (size, 1), 1, self.length + 1)
        mask = jnp.arange(self.length)[None] < lengths
        return data.Batch({"ids": ids, "mask": mask}, jax.random.randint(keys[2], (size,), 0, self.outputs))


class TokenNetwork(ChainNetwork):
    def embed(self, x):
        if not isinstance(x, dict) or not jnp.issubdtype(x["ids"].dtype, jnp.integer):
            raise ValueError(f"x: expected ids and mask, got {jax.tree.map(jnp.shape, x)}")
        one_hot = jax.nn.one_hot(x["ids"], 11)
        return Dense(self.size.width, self.style, name="embedding")(one_hot.reshape(-1, 11)).reshape(
            *x["ids"].shape, -1
        )

    def operation(self, name, kind, h, x):
        if kind == "identity":
            return h
        if kind == "shift":
            return jnp.roll(self.dense(name, h), 1, axis=1)
        y = self.dense(name, h)
        return y if kind == "dense" else y + self.pool(h, x)[:, None]

    def pool(self, h, x):
        mask = x["mask"][..., None].astype(h.dtype)
        return jnp.sum(h * mask, axis=1) / jnp.sum(mask, axis=1)


@dataclasses.dataclass(frozen=True)
class TokenSpace(ChainSpace):
    name: ClassVar[str] = "toy-tokens"
    operations: ClassVar[tuple[str, ...]] = ("identity", "dense", "mix", "shift")
    Network: ClassVar[type] = TokenNetwork

    def noise(self, outputs=10):
        return Tokens(outputs=outputs)


def squared_error(outputs, y):
    return jnp.mean((outputs - y) ** 2, axis=-1)


@struct.dataclass
class Graphs:
    """Random graphs of up to eight edges over five nodes, padded, and random targets of a regression."""

    outputs: int = struct.field(pytree_node=False, default=2)
    loss: data.Loss = struct.field(pytree_node=False, default=squared_error)

    def check_batch(self, size):
        if size < 1:
            raise ValueError(f"batch: expected a positive integer, got {size}")

    def batch(self, key, size):
        keys = jax.random.split(key, 4)
        x = {
            "nodes": jax.random.normal(keys[0], (size, 5, 3)),
            "edges": jax.random.randint(keys[1], (size, 8, 2), 0, 5),
            "there": jax.random.bernoulli(keys[2], 0.8, (size, 8)),
        }
        return data.Batch(x, jax.random.normal(keys[3], (size, self.outputs)))


class GraphNetwork(ChainNetwork):
    def embed(self, x):
        if not isinstance(x, dict) or x["nodes"].ndim != 3:
            raise ValueError(f"x: expected nodes, edges and which are there, got {jax.tree.map(jnp.shape, x)}")
        flat = x["nodes"].reshape(-1, x["nodes"].shape[-1])
        return Dense(self.size.width, self.style, name="embedding")(flat).reshape(*x["nodes"].shape[:2], -1)

    def operation(self, name, kind, h, x):
        if kind == "skip":
            return h
        y = self.dense(name, h)
        if kind == "dense":
            return y

        def spread(y, edges, there):
            sent = y[edges[:, 0]] * there[:, None].astype(y.dtype)
            received = jax.ops.segment_sum(sent, edges[:, 1], num_segments=len(y))
            counts = jax.ops.segment_sum(there.astype(y.dtype), edges[:, 1], num_segments=len(y))
            return received / (1 + counts[:, None]) if kind == "mean" else received

        return jax.vmap(spread)(y, x["edges"], x["there"])

    def pool(self, h, x):
        return h.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class GraphSpace(ChainSpace):
    name: ClassVar[str] = "toy-graphs"
    operations: ClassVar[tuple[str, ...]] = ("skip", "dense", "sum", "mean")
    Network: ClassVar[type] = GraphNetwork

    def noise(self, outputs=2):
        return Graphs(outputs=outputs)


TOYS = (TokenSpace(), GraphSpace())


def smallest(space):
    """Returns the smallest size of a space whose first integer, its width, is 2, and whose positions are eight."""
    values = {}
    for field in dataclasses.fields(space.Size):
        if isinstance(field.default, int) and not isinstance(field.default, bool):
            for value in range(8 if field.name == "positions" else 1 if values else 2, 10):
                try:
                    space.Size(**{field.name: value})
                except ValueError:
                    continue
                values[field.name] = value
                break
    return space.Size(**values)


def small_noise(space, outputs=3):
    """Returns the random inputs of a space, images of 8x8, graphs of 8 nodes or 8 of 30 tokens."""
    noise = space.noise(outputs)
    if isinstance(noise, data.RandomTokens):
        return noise.replace(length=8, vocabulary=30)
    if isinstance(noise, data.RandomGraphs):
        return noise.replace(nodes=8, node_features=3)
    return noise.resized(8) if isinstance(noise, data.Gaussian) else noise
