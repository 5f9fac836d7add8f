"""The contract of data: batches of any pytree, and what the outputs of a network are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np
from flax import struct

from nasi_jax.data.losses import Loss


@struct.dataclass
class Shared:
    """A part of a batch's inputs that all of its examples have in common, and that has no batch axis.

    The graph whose nodes are the examples is one. All other arrays of a batch have its examples along the first axis.

    Attributes:
        value: a pytree.
    """

    value: Any


class Batch(NamedTuple):
    """Examples that go through a network together.

    Attributes:
        x: what the network reads, a pytree: images, token ids with a mask, a padded batch of graphs. The first axis of
            all arrays is the batch, but of those in a `Shared`.
        y: what its outputs are compared with, a pytree, such as labels (batch,).
    """

    x: Any
    y: Any


class Source(Protocol):
    """Where batches come from: a pytree with a pure `batch`, so that it may be used inside `jit`, `vmap` and `scan`.

    Attributes:
        outputs: number of outputs of a network for it: labels, or targets of a regression.
        loss: loss of each example, `loss(outputs, y)`, (batch,).
    """

    @property
    def outputs(self) -> int: ...  # noqa: D102

    @property
    def loss(self) -> Loss: ...  # noqa: D102

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` cannot be drawn."""
        ...

    def batch(self, key: jax.Array, size: int) -> Batch:
        """Draws `size` examples."""
        ...


class Examples(Protocol):
    """What a network is trained and judged on, in memory as `Images` or on disk as a `Stream`; a pytree.

    Attributes:
        outputs: number of outputs of a network for them.
        loss: loss of each example, see `nasi_jax.data.Source`.
    """

    @property
    def outputs(self) -> int: ...  # noqa: D102

    @property
    def loss(self) -> Loss: ...  # noqa: D102

    def __len__(self) -> int: ...

    def check_batch(self, size: int) -> None:
        """Raises ValueError if a batch of `size` distinct images cannot be drawn."""
        ...

    def stored(self, size: int) -> Batch:
        """Returns the shapes and types of a batch as `batches` and a training hand it out, before `prepare`."""
        ...

    def prepare(self, x: Any) -> Any:
        """Returns what the network reads for examples as they are stored."""
        ...

    def redrawn(self, key: jax.Array, x: Any, y: Any) -> Batch:
        """Returns a batch of a training from examples as they are stored.

        Args:
            key: typed random key, for what is drawn anew each time, such as the words that are masked out.
            x: examples as they are stored.
            y: what belongs to them.

        Returns:
            What the network reads, as of `prepare`, and what its outputs are compared with.
        """
        ...

    def batches(self, size: int) -> Iterator[tuple[Any, Any]]:
        """Goes once through all examples, in order; the last batch may have fewer than `size`."""
        ...

    def part(self, index: np.ndarray) -> Self:
        """Returns some of the examples."""
        ...

    def like(self, training: Self) -> Self:
        """Returns the examples with the normalisation and the labels of training examples.

        Raises:
            ValueError: shapes differ, or a label is not among those of the training examples.
        """
        ...


def map_examples(function: Callable[..., Any], *trees: Any) -> Any:
    """Maps the arrays of a batch that have its examples along their first axis; those that are `Shared` stay.

    Args:
        function: of an array of each tree.
        *trees: batches, or parts of some, of one structure; what is shared is taken from the first.

    Returns:
        A tree of that structure.
    """
    return jax.tree.map(
        lambda leaf, *others: leaf if isinstance(leaf, Shared) else function(leaf, *others), *trees, is_leaf=is_shared
    )


def example_arrays(tree: Any) -> list[tuple[str, Any]]:
    """Returns the arrays of a batch, with their places, but for those that are `Shared`."""
    found = jax.tree.leaves_with_path(tree, is_leaf=is_shared)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found if not isinstance(leaf, Shared)]


def is_shared(node: Any) -> bool:
    """Whether a node of a tree is a `Shared`, for `is_leaf` of `jax.tree.map`."""
    return isinstance(node, Shared)


def shapes(source: Source, size: int) -> Batch:
    """Returns the shapes and types of a batch, without drawing one.

    Args:
        source: where it would come from.
        size: number of examples.

    Returns:
        A batch whose leaves are `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: there are not as many examples.
    """
    source.check_batch(size)
    return jax.eval_shape(lambda key: source.batch(key, size), jax.random.key(0))


def inputs(examples: Examples, size: int) -> Any:
    """Returns the shapes and types of what a network reads for a batch of examples.

    Args:
        examples: what it is trained on.
        size: number of examples.

    Returns:
        A tree of `jax.ShapeDtypeStruct`.
    """
    return jax.eval_shape(examples.prepare, examples.stored(size).x)
