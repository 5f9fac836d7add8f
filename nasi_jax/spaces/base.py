"""The contract of a search space, and what holds for the genotypes of every space."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, NoReturn, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.data import Source
from nasi_jax.nn import Style
from nasi_jax.programs import Capability, Execution

Alphas = dict[str, jax.Array]
"""Architecture logits: for each kind of cell an array (edges, operations), or for other choices a row each."""

Weights = dict[str, jax.Array]
"""Weights of the operations, in the same tree as `Alphas`. A discrete architecture has a one in the row of each of its
edges, and zeros in the rows of edges that it lacks."""


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
    """An edge of a cell: names of the node it leaves and the node it enters, and its operation or "".

    Of several edges between the same nodes it is all operations, joined by +.
    """

    source: str
    target: str
    operation: str


class Network(nn.Module):
    """The network of a space: what the networks of all spaces have in common.

    Attributes:
        size: the space's own sizes.
        outputs: number of outputs.
        style: what all layers share, see `nasi_jax.nn.Style`.
        execution: how the program runs, see `nasi_jax.programs.Execution`.
    """

    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    size: Any
    outputs: int
    style: Style = Style()
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        """Checks what the space does not."""
        check_positive(self, outputs=1)
        super().__post_init__()


def lacking(owner: Any, name: str) -> NoReturn:
    """Raises TypeError for a class of one's own that lacks a part of the contract which is needed now."""
    raise TypeError(f"{type(owner).__name__}: expected it to define {name!r}, which is needed here")


class SearchSpace(Protocol):
    """A space of architectures. Instances are frozen dataclasses without arrays, so they hash and may be static.

    A genotype is a list of independent decisions, each for one of a number of options. What a space says about them,
    with `decisions`, `to_decisions` and `from_decisions`, gives it its size, order, draws, neighbours and crossover;
    a space with a better notion of these than one decision at a time has its own.

    What a space does not define is asked for only when it is needed: strategies on values of one's own need no network.
    Every space in `nasi_jax.spaces.SPACES` is held to this contract by one shared set of tests.

    Attributes:
        name: the name under which the space is registered.
        decisions: the number of options of each decision.
        operations: names of the operations, for drawings.
        edges: for each kind of choice, such as the edges of a cell, a name for each row of `alphas`.
        choices: for each kind a name for each column of `alphas`, which are operations for edges.
        one_shot: whether there is a network of all architectures at once. Without, each has parameters of its own.
        additive: whether parameters and multiply-adds are sums over the rows, each of its own choice alone.
        Size: the space's own sizes, a frozen dataclass; its defaults are those of the published networks.
        search_size: the smaller size of a search by default, for minutes on two cores.
        evaluation_size: the size at which what was chosen is trained, and at which its costs are counted.
    """

    one_shot: ClassVar[bool] = True
    Size: ClassVar[type]
    search_size: ClassVar[Any]
    evaluation_size: ClassVar[Any]

    @property
    def name(self) -> str:  # noqa: D102
        lacking(self, "name")

    @property
    def operations(self) -> tuple[str, ...]:  # noqa: D102
        lacking(self, "operations")

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        lacking(self, "edges")

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:  # noqa: D102
        lacking(self, "choices")

    @property
    def additive(self) -> bool:  # noqa: D102
        lacking(self, "additive")

    @property
    def decisions(self) -> tuple[int, ...]:  # noqa: D102
        lacking(self, "decisions")

    def to_decisions(self, genotype: Any) -> jax.Array:
        """Returns the (len(decisions),) int32 options of a genotype; works under `jit` and `vmap`."""
        lacking(self, "to_decisions")

    def from_decisions(self, options: jax.Array) -> Any:
        """Returns the genotype of (len(decisions),) int32 options; works under `jit` and `vmap`."""
        lacking(self, "from_decisions")

    @property
    def cardinality(self) -> int:
        """How many genotypes there are."""
        return math.prod(self.decisions)

    def enumerate(self) -> Iterator[Any]:
        """Yields every genotype once, as NumPy arrays, in the order of `at`: the last decision changes fastest."""
        for options in itertools.product(*map(range, self.decisions)):
            yield jax.tree.map(np.asarray, self.from_decisions(np.array(options, np.int32)))  # type: ignore[arg-type]

    def index(self, genotype: Any) -> jax.Array:
        """Returns the place of a genotype in `enumerate`, () int32; works under `jit` and `vmap`.

        Raises:
            ValueError: the space has more genotypes than int32 can count.
        """
        if self.cardinality > np.iinfo(np.int32).max:
            raise ValueError(f"space: expected one that int32 can count, {self.name} has {self.cardinality} genotypes")
        options, place = self.to_decisions(genotype), jnp.zeros((), jnp.int32)
        for row, count in enumerate(self.decisions):
            place = place * count + options[row]
        return place

    def at(self, index: Any) -> Any:
        """Returns the genotype at a place in `enumerate`.

        Args:
            index: a Python integer, of any size; or an integer array (), which may be under `jit` and `vmap`.

        Returns:
            The genotype.
        """
        options = []
        for count in reversed(self.decisions):
            index, option = divmod(index, count)
            options.append(option)
        return self.from_decisions(jnp.array(options[::-1], jnp.int32))

    def sample(self, key: jax.Array) -> Any:
        """Draws a genotype uniformly; works under `jit` and `vmap`."""
        counts = np.array(self.decisions, np.int32)
        return self.from_decisions(jax.random.randint(key, counts.shape, 0, counts, jnp.int32))

    @property
    def neighbours(self) -> int:
        """How many genotypes differ from one in a single choice."""
        return sum(self.decisions) - len(self.decisions)

    def neighbour(self, genotype: Any, i: Any) -> Any:
        """Returns the i-th of the genotypes that differ in a single choice; works under `jit` and `vmap`.

        Args:
            genotype: the genotype.
            i: an integer array () of 0 to `neighbours` - 1.

        Returns:
            The neighbour; two different `i` give two different ones.
        """
        options, ends = self.to_decisions(genotype), jnp.cumsum(jnp.array(self.decisions) - 1)
        row = jnp.searchsorted(ends, i, side="right")
        other = (options[row] + ends[row] - i) % jnp.array(self.decisions)[row]
        return self.from_decisions(options.at[row].set(other))

    def mutate(self, key: jax.Array, genotype: Any) -> Any:
        """Draws one of the neighbours uniformly; works under `jit` and `vmap`."""
        return self.neighbour(genotype, jax.random.randint(key, (), 0, self.neighbours))

    def cross(self, key: jax.Array, first: Any, second: Any) -> Any:
        """Takes each decision from either of two parents, by a fair coin; works under `jit` and `vmap`."""
        heads = jax.random.bernoulli(key, shape=(len(self.decisions),))
        return self.from_decisions(jnp.where(heads, self.to_decisions(first), self.to_decisions(second)))

    def alphas(self) -> Alphas:
        """Returns zero logits, at which every operation is equally likely (Algorithm 1: alpha_0 = 0)."""
        lacking(self, "alphas")

    def canonical(self, genotype: Any) -> str:
        """Names the function that a concrete genotype computes: the same for cells that differ in name only.

        Returns:
            The name; the text of the genotype where a space does not know better.
        """
        return self.format(genotype)

    def encode(self, genotype: Any) -> Weights:
        """Returns the one-hot weights of a genotype; works under `jit` and `vmap`."""
        lacking(self, "encode")

    def decode(self, alphas: Alphas) -> Any:
        """Returns the most likely genotype, argmax p_alpha; works under `jit` and `vmap`."""
        lacking(self, "decode")

    def noise(self, outputs: int = 10) -> Source:
        """Returns the space's natural random input, of which a search, a score and a cost need no more.

        Args:
            outputs: number of outputs of a network.
        """
        lacking(self, "noise")

    def network(
        self,
        genotype: Any | None,
        size: Any,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> Network:
        """Returns the network of one genotype, called as `module(x)`, or the one-shot network.

        The parameters of a derived network are the sub-tree of the one-shot network's that the genotype names, so that
        `restrict` maps one into the other, and at `encode(genotype)` both are the same function.

        Args:
            genotype: a concrete architecture; None for the network of all of them, called as `module(x, weights)`,
                where the space is `one_shot`.
            size: a `Size` of the space.
            outputs: number of outputs.
            style: what all layers share.
            execution: how the program runs.

        Raises:
            ValueError: a size is out of range, or the space has no one-shot network.
        """
        lacking(self, "network")

    def graph(self, genotype: Any) -> dict[str, list[Edge]]:
        """Returns the edges of each kind of cell, for drawing; the genotype must be concrete."""
        lacking(self, "graph")

    def format(self, genotype: Any) -> str:
        """Writes a genotype in the field's own notation."""
        lacking(self, "format")

    def listed(self, genotype: Any) -> str:
        """Returns the text that is equal for genotypes which are one entry of the space's benchmark."""
        return self.format(genotype)

    @property
    def notations(self) -> dict[str, Callable[[Any], str]]:
        """Other notations of the field, by name, each as a function that writes a genotype; `parse` reads them."""
        return {}

    @property
    def subsets(self) -> dict[str, Callable[[Any], bool]]:
        """Parts of the space that are reported by themselves, by name, each as whether a genotype is in it."""
        return {}

    def writer(self, notation: str | None) -> Callable[[Any], str]:
        """Returns what writes genotypes in a notation of that name, `format` where it is None.

        Raises:
            ValueError: the space has no notation of that name.
        """
        if notation is None:
            return self.format
        if notation not in self.notations:
            known = f"one of {tuple(self.notations)}" if self.notations else "none"
            raise ValueError(f"format: expected {known} of {self.name}'s notations, got {notation!r}")
        return self.notations[notation]

    def parse(self, text: str) -> Any:
        """Reads what `format` and `notations` write.

        Raises:
            ValueError: the text is not a genotype of this space; the message says where it departs.
        """
        lacking(self, "parse")


def no_one_shot(space: SearchSpace) -> str:
    """Says, to whoever needs a one-shot network, that a space has none."""
    return f"space: expected one with a one-shot network, whose parameters architectures share; {space.name} has none"


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
    text, arrays = record["genotype"], record["arrays"]
    if not isinstance(text, str) or not isinstance(arrays, dict):
        raise ValueError(
            f"genotype record: expected a text 'genotype' and an object 'arrays', got {text!r}, {arrays!r}"
        )
    genotype = space.parse(text)
    expected = to_json(space, genotype)["arrays"]
    for name in {**expected, **arrays}:
        said, came = (json.dumps(values.get(name)) for values in (expected, arrays))
        if said != came:
            raise ValueError(f"genotype record: expected arrays {name} {said}, got {came}, which do not say {text!r}")
    return genotype


def checked(space: SearchSpace, genotype: Any) -> Any:
    """Checks the arrays of a concrete genotype, for spaces whose arrays all have a largest value in each place.

    Args:
        space: the space, where the largest option of every decision gives the largest value in every place.
        genotype: should be one of its genotypes.

    Returns:
        The genotype as NumPy arrays; unchecked and as it is under `jit` and `vmap`, where it has no values.

    Raises:
        TypeError: it is no genotype of the space.
        ValueError: an array has another shape or type, or a value is out of range.
    """
    largest = _largest(space)
    if not isinstance(genotype, type(largest)):
        raise TypeError(f"genotype: expected a {type(largest).__name__} of {space.name}, got {type(genotype).__name__}")
    arrays = {}
    for name, most in vars(largest).items():
        value = getattr(genotype, name)
        try:
            arrays[name] = array = np.asarray(value)
        except jax.errors.TracerArrayConversionError:
            return genotype
        if array.shape != most.shape or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"{name}: expected integers of shape {most.shape}, got {array.dtype} of shape {array.shape}"
            )
        outside = np.argwhere((array < 0) | (array > most))
        if len(outside):
            place = tuple(outside[0].tolist())
            raise ValueError(f"{name}: expected 0 to {most[place]} at {place} in {space.name}, got {array[place]}")
    return type(genotype)(**arrays)


@functools.lru_cache(maxsize=64)
def _largest(space: SearchSpace) -> Any:
    with jax.ensure_compile_time_eval():
        return jax.tree.map(np.asarray, space.from_decisions(jnp.array(space.decisions, jnp.int32) - 1))


def check_images(x: Any, divisor: int) -> None:
    """Checks the input of a network.

    Args:
        x: should be images, (batch, height, width, colours).
        divisor: what both sides must be divisible by, because the network halves them.

    Raises:
        ValueError: `x` is not of that shape.
    """
    shape = getattr(x, "shape", None)
    if shape is None or len(shape) != 4 or shape[1] % divisor or shape[2] % divisor or 0 in shape:
        got = type(x).__name__ if shape is None else f"shape {shape}"
        raise ValueError(
            f"x: expected images (batch, height, width, colours) with sides divisible by {divisor}, got {got}"
        )


def check_positive(size: Any, **least: int) -> None:
    """Checks the integers of a size, or of the options of a strategy.

    Args:
        size: a dataclass.
        **least: for each of its attributes the least integer.

    Raises:
        ValueError: one of them is too small, or no integer.
    """
    for name, bound in least.items():
        value = getattr(size, name)
        if not isinstance(value, int) or value < bound:
            raise ValueError(f"{name}: expected an integer of at least {bound}, got {value!r}")
