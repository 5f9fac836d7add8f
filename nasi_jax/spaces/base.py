"""The contract of a search space, and what holds for the genotypes of every space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

Alphas = dict[str, jax.Array]
"""Architecture logits: for each kind of cell an array (edges, operations), or for other choices a row each."""

Weights = dict[str, jax.Array]
"""Weights of the operations, in the same tree as `Alphas`. A discrete architecture has a one in the row of each of its
edges, and zeros in the rows of edges that it lacks."""


Discrete = Literal["no", "one-hot", "branches"]
"""What a one-shot network may rely on.

``"one-hot"``: weights are those of discrete architectures. ``"branches"``: likewise, of one architecture and not under
`vmap`, so that a program can branch by them, which pays on a CPU.
"""


class Genotype:
    """A discrete architecture: a `flax.struct` dataclass of integer arrays.

    Genotypes pass through `jit` and `vmap`. Outside of them they compare and hash by value. Subclasses are made with
    ``@struct.dataclass(eq=False)``, so that the comparison below is the one in force.
    """

    def __eq__(self, other: object) -> bool:
        """Whether both are of one class and all arrays are equal."""
        if type(self) is not type(other):
            return NotImplemented
        pairs = zip(jax.tree.leaves(self), jax.tree.leaves(other), strict=True)
        return all(np.array_equal(a, b) for a, b in pairs)

    def __hash__(self) -> int:
        """Hashes the values, so that equal genotypes hash alike."""
        return hash((type(self), *(tuple(np.ravel(leaf).tolist()) for leaf in jax.tree.leaves(self))))


class Edge(NamedTuple):
    """An edge of a cell: names of the node it leaves and the node it enters, and its operation or ""."""

    source: str
    target: str
    operation: str


class SearchSpace(Protocol):
    """A space of architectures. Instances are frozen dataclasses without arrays, so they hash and may be static.

    Every space in `nasi_jax.spaces.SPACES` is held to this contract by one shared set of tests.

    Attributes:
        name: the name under which the space is registered.
        operations: names of the operations, for drawings.
        edges: for each kind of choice, such as the edges of a cell, a name for each row of `alphas`.
        choices: for each kind a name for each column of `alphas`, which are operations for edges.
        additive: whether parameters and multiply-adds are sums over the rows, each of its own choice alone.
        branches: whether a one-shot network with ``discrete="branches"`` computes only what its weights name.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def operations(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def edges(self) -> dict[str, tuple[str, ...]]: ...  # noqa: D102

    @property
    def choices(self) -> dict[str, tuple[str, ...]]: ...  # noqa: D102

    @property
    def additive(self) -> bool: ...  # noqa: D102

    @property
    def branches(self) -> bool: ...  # noqa: D102

    @property
    def size(self) -> int:
        """How many genotypes there are."""
        ...

    def alphas(self) -> Alphas:
        """Returns zero logits, at which every operation is equally likely (Algorithm 1: alpha_0 = 0)."""
        ...

    def sample(self, key: jax.Array) -> Any:
        """Draws a genotype uniformly; works under `jit` and `vmap`."""
        ...

    def enumerate(self) -> Iterator[Any]:
        """Yields every genotype once, in a fixed order, as NumPy arrays."""
        ...

    def canonical(self, genotype: Any) -> str:
        """Names the function that a concrete genotype computes: the same for cells that differ in name only."""
        ...

    def mutate(self, key: jax.Array, genotype: Any) -> Any:
        """Changes one choice to a different one, uniformly; works under `jit` and `vmap`."""
        ...

    def encode(self, genotype: Any) -> Weights:
        """Returns the one-hot weights of a genotype; works under `jit` and `vmap`."""
        ...

    def decode(self, alphas: Alphas) -> Any:
        """Returns the most likely genotype, argmax p_alpha; works under `jit` and `vmap`."""
        ...

    def one_shot(self, **size: Any) -> nn.Module:
        """Returns the network of all operations, called as `module(x, weights)`; `discrete` is a `Discrete`."""
        ...

    def network(self, genotype: Any, **size: Any) -> nn.Module:
        """Returns the network of one genotype, called as `module(x)`.

        Its parameters are the sub-tree of the one-shot network's that the genotype names, so that `restrict` maps
        one into the other. The genotype must be concrete.
        """
        ...

    def graph(self, genotype: Any) -> dict[str, list[Edge]]:
        """Returns the edges of each kind of cell, for drawing; the genotype must be concrete."""
        ...

    def format(self, genotype: Any) -> str:
        """Writes a genotype in the field's own notation."""
        ...

    def parse(self, text: str) -> Any:
        """Reads what `format` writes.

        Raises:
            ValueError: the text is not a genotype of this space; the message says where it departs.
        """
        ...


def restrict(parameters: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Keeps the leaves of `parameters` that `like` has too.

    This maps a one-shot network's parameters to those of a derived network of the same size.

    Args:
        parameters: the larger tree of nested dictionaries.
        like: the smaller tree; its leaves may be arrays or `jax.ShapeDtypeStruct`.

    Returns:
        A tree of `like`'s structure with `parameters`' leaves.

    Raises:
        KeyError: `like` has a name that `parameters` lacks.
    """
    return {
        name: restrict(parameters[name], part) if isinstance(part, dict) else parameters[name]
        for name, part in like.items()
    }


def to_json(space: SearchSpace, genotype: Any) -> dict[str, Any]:
    """Describes a genotype as plain JSON values: the space's name, the text form and the arrays."""
    arrays = {name: np.asarray(value).tolist() for name, value in vars(genotype).items()}
    return {"space": space.name, "genotype": space.format(genotype), "arrays": arrays}


def from_json(space: SearchSpace, record: Any) -> Any:
    """Reads what `to_json` wrote.

    Args:
        space: the space that the record should be of.
        record: the decoded JSON; keys other than those of `to_json` are ignored.

    Returns:
        The genotype.

    Raises:
        ValueError: a key is missing, the space is another one, the text is malformed, or the arrays say something else.
    """
    missing = sorted({"space", "genotype", "arrays"} - set(record)) if isinstance(record, dict) else ["space"]
    if missing:
        raise ValueError(f"genotype record: expected an object with 'space', 'genotype' and 'arrays', lacks {missing}")
    if record["space"] != space.name:
        raise ValueError(f"genotype record: expected space {space.name!r}, got {record['space']!r}")
    genotype = space.parse(record["genotype"])
    if to_json(space, genotype)["arrays"] != record["arrays"]:
        raise ValueError(f"genotype record: its arrays {record['arrays']} do not say {record['genotype']!r}")
    return genotype


def uniform_other(key: jax.Array, choice: jax.Array, count: int) -> jax.Array:
    """Draws uniformly from the `count` - 1 values that differ from `choice`."""
    return (choice + jax.random.randint(key, jnp.shape(choice), 1, count)) % count


def check_images(x: jax.Array, divisor: int) -> None:
    """Checks the input of a network.

    Args:
        x: should be images, (batch, height, width, colours).
        divisor: what both sides must be divisible by, because the network halves them.

    Raises:
        ValueError: `x` is not of that shape.
    """
    if x.ndim != 4 or x.shape[1] % divisor or x.shape[2] % divisor or 0 in x.shape:
        raise ValueError(
            f"x: expected images (batch, height, width, colours) with sides divisible by {divisor}, got shape {x.shape}"
        )


def check_size(network: Any, cells: int = 1) -> None:
    """Checks the size of a network.

    Args:
        network: has the attributes `channels`, `cells` and `classes`.
        cells: the least number of cells.

    Raises:
        ValueError: one of them is too small.
    """
    for name, least in (("channels", 1), ("cells", cells), ("classes", 1)):
        if getattr(network, name) < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {getattr(network, name)!r}")
