"""A space without some of its choices."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import Source
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces.base import Alphas, Edge, Network, SearchSpace, Weights
from nasi_jax.spaces.text import unknown

IMPOSSIBLE = -1e30
"""Logit of a choice that is left out. Its probability and its gradients are exactly zero, so that it stays where it is.
With -inf, differences of logits would be NaN."""


def restricted(space: SearchSpace, forbid: Sequence[str] = (), fix: Sequence[str] = ()) -> SearchSpace:
    """Returns a space without some choices, or the space itself where nothing is left out.

    Args:
        space: the space.
        forbid: choices, such as operations, that no architecture is to have anywhere; names of `space.choices`.
        fix: ``edge=choice`` or ``kind/edge=choice``: edges that are to have one choice, by the names of `space.edges`,
            such as ``1→3=nor_conv_3x3``, where ``->`` is an arrow too. Without a kind, the edge of every kind of cell.

    Returns:
        The space of what is left.

    Raises:
        ValueError: a name is unknown, an edge may be missing, is fixed to two choices or has none left, or a single
            architecture is left.
    """
    return Restricted(space, tuple(forbid), tuple(fix)) if forbid or fix else space


@dataclasses.dataclass(frozen=True)
class Restricted(SearchSpace):
    """What is left of a space without some of its choices, see `restricted`.

    Decisions have fewer options, so that whatever draws, lists or learns by them stays within what is left; neighbours
    and children are those of the space. Logits keep their shape and are `IMPOSSIBLE` for what is left out. Genotypes,
    text forms and networks are the space's own, and so is the name.

    Attributes:
        space: the space.
        forbid: choices that no architecture has.
        fix: edges with a single choice.
    """

    space: SearchSpace
    forbid: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the names and what is left."""
        for kind, mask in self._mask.items():
            for edge, left in zip(self.edges[kind], mask, strict=True):
                if not left.any():
                    raise ValueError(f"forbid: expected a choice to be left for {edge} of {kind}, got {self.forbid}")
        if not all(self._options):
            raise ValueError(f"forbid: expected an architecture of {self.name} to be left, got {self.forbid}")
        if self.cardinality == 1:
            raise ValueError(f"fix: expected more than one architecture of {self.name} to be left, got one")
        last = self.from_decisions(jnp.array(self.decisions, jnp.int32) - 1)
        if self.decode(self.encode(last)) != last:
            # edges that are kept by how much they prefer one choice
            raise ValueError(
                f"forbid: expected two choices to be left for every edge of {self.name}, got {self.forbid}"
            )

    @functools.cached_property
    def _mask(self) -> dict[str, np.ndarray]:
        """Which choices are left, arrays like the logits."""
        known = {*itertools.chain(*self.choices.values())}
        for name in self.forbid:
            if name not in known:
                raise ValueError(unknown("forbid", name, known))
        mask = {
            kind: np.tile([name not in self.forbid for name in self.choices[kind]], (len(edges), 1))
            for kind, edges in self.edges.items()
        }
        fixed: dict[tuple[str, int], str] = {}
        for text in self.fix:
            for (kind, row), choice in self._fixes(text):
                if fixed.setdefault((kind, row), choice) != choice:
                    raise ValueError(
                        f"fix: expected one choice for {self.edges[kind][row]}, got {fixed[kind, row]!r} and {choice!r}"
                    )
                if choice in self.forbid:
                    raise ValueError(f"fix: expected a choice that is not forbidden, got {text!r}")
                mask[kind][row] = np.array(self.choices[kind]) == choice
        return mask

    def _fixes(self, text: str) -> list[tuple[tuple[str, int], str]]:
        """Returns the rows of the logits that a fix names, and its choice."""
        place, equals, choice = (part.strip() for part in text.replace("->", "→").partition("="))
        if not (place and equals and choice):
            raise ValueError(f"fix: expected 'edge=choice', got {text!r}")
        kind, _, edge = place.rpartition("/")
        if kind and kind not in self.edges:
            raise ValueError(unknown("fix", kind, self.edges))
        rows = [(k, names.index(edge)) for k, names in self.edges.items() if edge in names and kind in ("", k)]
        if not rows:
            raise ValueError(unknown("fix", edge, {*itertools.chain(*self.edges.values())}))
        found = [(row, choice) for row in rows if choice in self.choices[row[0]]]
        if not found:
            raise ValueError(unknown(f"fix: {edge}", choice, {n for k, _ in rows for n in self.choices[k]}))
        for (k, row), _ in found:
            if not (_variants(self.space, (0,) * len(self.space.decisions))[k][:, row].sum(axis=-1) == 1).all():
                raise ValueError(f"fix: expected an edge that every architecture of {self.name} has, got {text!r}")
        return found

    @functools.cached_property
    def _options(self) -> tuple[tuple[int, ...], ...]:
        """For each decision of the space the options that are left."""
        first = self._left((0,) * len(self.space.decisions))
        # where a decision says which edges there are, they have to have choices that are left
        return self._left(tuple(options[0] if options else 0 for options in first))

    def _left(self, start: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Returns the options of each decision that lead to no choice that is left out, other decisions as given."""
        variants, end, left = _variants(self.space, start), 0, []
        for count in self.space.decisions:
            end += count
            out = np.zeros(count, bool)
            for kind, weights in variants.items():
                own = weights[end - count : end]
                decided = (own != own[0]).any(axis=(0, 2))
                out |= ((own > 0) & ~self._mask[kind])[:, decided].any(axis=(1, 2))
            left.append(tuple(np.flatnonzero(~out).tolist()))
        return tuple(left)

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """The options that are left, (decisions, most of them) int32, the first one again where there are fewer."""
        most = max(self.decisions)
        return np.array([(*options, *options[:1] * (most - len(options))) for options in self._options], np.int32)

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """Places of the space's options among those that are left, (decisions, most options) int32, -1 for others."""
        places = np.full((len(self._options), max(self.space.decisions)), -1, np.int32)
        for row, options in enumerate(self._options):
            places[row, list(options)] = range(len(options))
        return places

    @property
    def name(self) -> str:
        """The name of the space."""
        return self.space.name

    @property
    def Size(self) -> type:  # noqa: N802
        """The space's sizes."""
        return self.space.Size

    @property
    def search_size(self) -> Any:
        """The space's size of a search."""
        return self.space.search_size

    @property
    def evaluation_size(self) -> Any:
        """The space's size of an evaluation."""
        return self.space.evaluation_size

    @property
    def one_shot(self) -> bool:  # type: ignore[override]
        """Whether the space has a one-shot network."""
        return self.space.one_shot

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the space's operations."""
        return self.space.operations

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        return self.space.edges

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`, with what is left out."""
        return self.space.choices

    @property
    def additive(self) -> bool:
        """Whether costs are sums over the rows."""
        return self.space.additive

    @property
    def decisions(self) -> tuple[int, ...]:
        """How many options of each decision are left."""
        return tuple(map(len, self._options))

    def to_decisions(self, genotype: Any) -> jax.Array:
        """Returns the places of a genotype's options among those that are left; -1 for one that is not."""
        options = self.space.to_decisions(genotype)
        return jnp.asarray(self._places)[np.arange(len(self._options)), options]

    def from_decisions(self, options: jax.Array) -> Any:
        """Returns the genotype of options among those that are left."""
        return self.space.from_decisions(jnp.asarray(self._table)[np.arange(len(self._options)), options])

    @functools.cached_property
    def neighbours(self) -> int:  # type: ignore[override]
        """How many of the space's neighbours of a genotype are left, the same for all."""
        with jax.ensure_compile_time_eval():
            _, left = self._around(self.from_decisions(jnp.zeros(len(self.decisions), jnp.int32)))
            return int(left.sum())

    def neighbour(self, genotype: Any, i: Any) -> Any:
        """Returns the i-th of the space's neighbours that are left."""
        around, left = self._around(genotype)
        place = jnp.argmax(jnp.cumsum(left) == i + 1)
        return jax.tree.map(lambda leaf: leaf[place], around)

    def _around(self, genotype: Any) -> tuple[Any, jax.Array]:
        """Returns the space's neighbours, stacked, and which of them are left."""
        around = jax.vmap(self.space.neighbour, in_axes=(None, 0))(genotype, jnp.arange(self.space.neighbours))
        return around, (jax.vmap(self.to_decisions)(around) >= 0).all(axis=1)

    def cross(self, key: jax.Array, first: Any, second: Any) -> Any:
        """Draws a child as the space does; it has no choice that neither parent has."""
        return self.space.cross(key, first, second)

    def alphas(self) -> Alphas:
        """Returns the space's logits, `IMPOSSIBLE` for choices that are left out."""
        return self._masked(self.space.alphas())

    def _masked(self, alphas: Alphas) -> Alphas:
        return {kind: jnp.where(self._mask[kind], logits, IMPOSSIBLE) for kind, logits in alphas.items()}

    def canonical(self, genotype: Any) -> str:
        """Names the function of a genotype as the space does."""
        return self.space.canonical(genotype)

    def encode(self, genotype: Any) -> Weights:
        """Returns the space's one-hot weights."""
        return self.space.encode(genotype)

    def decode(self, alphas: Alphas) -> Any:
        """Returns the most likely genotype of those that are left."""
        return self.space.decode(self._masked(alphas))

    def noise(self, outputs: int = 10) -> Source:
        """Returns the space's random input."""
        return self.space.noise(outputs)

    def network(
        self,
        genotype: Any | None,
        size: Any,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> Network:
        """Returns the space's network of a genotype, or its one-shot network, which has all choices."""
        return self.space.network(genotype, size, outputs, style, execution)

    def graph(self, genotype: Any) -> dict[str, list[Edge]]:
        """Returns the edges of each kind of cell, for drawing."""
        return self.space.graph(genotype)

    def format(self, genotype: Any) -> str:
        """Writes a genotype as the space does."""
        return self.space.format(genotype)

    def listed(self, genotype: Any) -> str:
        """Names the entry of a genotype as the space does."""
        return self.space.listed(genotype)

    @property
    def notations(self) -> dict[str, Callable[[Any], str]]:
        """The space's notations."""
        return self.space.notations

    @property
    def subsets(self) -> dict[str, Callable[[Any], bool]]:
        """The space's subsets."""
        return self.space.subsets

    def parse(self, text: str) -> Any:
        """Reads what the space reads.

        Args:
            text: a genotype of the space.

        Returns:
            The genotype.

        Raises:
            ValueError: the text is not a genotype of the space, or has a choice that is left out.
        """
        genotype = self.space.parse(text)
        for kind, weights in self.space.encode(genotype).items():
            for row, column in np.argwhere((np.asarray(weights) > 0) & ~self._mask[kind]):
                edge, left = self.edges[kind][row], np.array(self.choices[kind])[self._mask[kind][row]]
                raise ValueError(
                    f"genotype: expected {' or '.join(left)} for {edge} of {kind}, where the space is restricted, got "
                    f"{self.choices[kind][column]!r}"
                )
        return genotype


@functools.lru_cache(maxsize=64)
def _variants(space: SearchSpace, start: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns the weights of the genotypes with another option of one decision, for each kind (options, rows, columns).

    Args:
        space: the space.
        start: the other decisions.
    """
    options = np.array(
        [
            (*start[:row], option, *start[row + 1 :])
            for row, count in enumerate(space.decisions)
            for option in range(count)
        ],
        np.int32,
    )
    with jax.ensure_compile_time_eval():
        weights = jax.vmap(lambda chosen: space.encode(space.from_decisions(chosen)))(jnp.array(options))
        return {kind: np.asarray(values) for kind, values in weights.items()}
