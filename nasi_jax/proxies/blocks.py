"""Proxies from what the blocks of a network hand on: how many directions their outputs have, and how gradients pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

_LEAST = 1e-8  # in the logarithm of a share, and of a singular value, as in the authors' code
_LEAST_SINGULAR = 1e-6

Of = Literal["eigenvalues", "singular-values"]
"""Whose entropy an effective rank is of: eigenvalues of the covariance, or their roots, the singular values of the
centred samples, as in the definition of Roy and Vetterli. The latter count weak directions more."""


class Passage(NamedTuple):
    """How a gradient passes one block.

    Attributes:
        above: the cotangent of the block's output, (batch, ..., channels).
        below: what it gives for the block's input, (batch, ..., channels).
    """

    above: jax.Array
    below: jax.Array


@jax.jit
def spectrum(features: jax.Array) -> jax.Array:
    """Returns the shares of the eigenvalues of the channels' covariance in their sum, zeros where there is none.

    Args:
        features: output of a block, (batch, ..., channels); every place of every example counts as a sample.

    Returns:
        As many as there are channels, or samples where these are fewer; the others are zero.
    """
    samples = features.reshape(-1, features.shape[-1])
    centred = samples - samples.mean(axis=0, keepdims=True)
    # products with either side first have the same eigenvalues, but for zeros
    small = centred.T @ centred if len(samples) >= samples.shape[1] else centred @ centred.T
    values = jnp.clip(jnp.linalg.eigvalsh(small / len(samples)), 0)
    total = jnp.sum(values)
    return values / jnp.where(total > 0, total, 1)


def entropies(features: Sequence[jax.Array]) -> jax.Array:
    r"""Returns the entropy of the spectrum of each block's output.

    .. math:: H_i = - \sum_j p_{ij} \log p_{ij}

    Args:
        features: output of the stem and of each block, in turn, (batch, ..., channels).

    Returns:
        An array (blocks,).

    References:
        Lee and Ham, "AZ-NAS: assembling zero-cost proxies for network architecture search", CVPR 2024, section 3.1.
    """
    return jnp.stack([_entropy(spectrum(x)) for x in features])


@jax.jit
def _entropy(shares: jax.Array) -> jax.Array:
    return -jnp.sum(shares * jnp.log(shares + _LEAST))


def expressivity(features: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of `entropies`: how evenly the outputs of blocks spread over directions."""
    return jnp.sum(entropies(features))


def progressivity(features: Sequence[jax.Array]) -> jax.Array:
    """Returns the least increase of `entropies` from a block to the next."""
    found = entropies(features)
    return jnp.min(found[1:] - found[:-1])


def trainability(passages: Sequence[Passage]) -> jax.Array:
    r"""Returns how near the blocks are to keeping the size of gradients.

    .. math:: \frac{1}{L} \sum_i \Big( 2 - \sigma_i - \frac{1}{\sigma_i} \Big)

    with the largest singular value of the mean outer product of cotangents below and above a block, Rademacher ones
    above. Where a block halves the image, the pixels of its input become channels first.

    Args:
        passages: those of each block.

    Returns:
        A scalar, at most 0; minus infinity where a block hands every gradient on as it is.

    References:
        Lee and Ham, CVPR 2024, section 3.3, and the authors' code for the least singular value.
    """
    return jnp.mean(jnp.stack([_passing(passage) for passage in passages]))


@jax.jit
def _passing(passage: Passage) -> jax.Array:
    above, below = passage
    same = above.shape == below.shape
    identity = jnp.all(above == below) if same else jnp.array(False)
    if above.shape[1:-1] != below.shape[1:-1]:
        below = _unshuffled(below, above.shape[1:-1])
    rows, columns = (x.reshape(-1, x.shape[-1]) for x in (below, above))
    largest = jnp.linalg.norm(rows.T @ columns / len(rows), ord=2)
    return jnp.where(identity, -jnp.inf, 2 - largest - 1 / (largest + _LEAST_SINGULAR))


def _unshuffled(x: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """Returns images of these sides, whose channels are those of all pixels that fall together."""
    strides = [-(-before // after) for before, after in zip(x.shape[1:-1], sides, strict=True)]
    fill = [(0, stride * side - n) for stride, side, n in zip(strides, sides, x.shape[1:-1], strict=True)]
    x = jnp.pad(x, ((0, 0), *fill, (0, 0)))
    height, width = sides
    parts = x.reshape(len(x), height, strides[0], width, strides[1], x.shape[-1])
    return parts.transpose(0, 1, 3, 5, 2, 4).reshape(len(x), height, width, -1)


def participation_ratio(features: Sequence[jax.Array]) -> jax.Array:
    r"""Returns the sum over blocks of the participation ratio of the spectrum of their outputs.

    .. math:: \sum_i \frac{(\sum_j \lambda_{ij})^2}{\sum_j \lambda_{ij}^2}

    Args:
        features: see `entropies`.

    Returns:
        A scalar.

    References:
        Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement", 2017, for the ratio; InTrain,
        CVPR 2026, for the use.
    """

    @jax.jit
    def ratio(shares: jax.Array) -> jax.Array:
        squares = jnp.sum(shares**2)
        return jnp.where(squares > 0, 1 / jnp.where(squares > 0, squares, 1), 0)

    return sum((ratio(spectrum(x)) for x in features), jnp.zeros(()))


def effective_rank(features: Sequence[jax.Array], of: Of = "eigenvalues") -> jax.Array:
    r"""Returns the sum over blocks of the exponential of the entropy of the spectrum of their outputs.

    .. math:: \sum_i \exp \Big( - \sum_j p_{ij} \log p_{ij} \Big)

    with the shares p of eigenvalues or of singular values in their sum.

    Args:
        features: see `entropies`.
        of: which ones.

    Returns:
        A scalar.

    References:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    if of == "eigenvalues":
        return jnp.sum(jnp.exp(entropies(features)))
    return jnp.sum(jnp.stack([jnp.exp(_entropy(_root_shares(spectrum(x)))) for x in features]))


@jax.jit
def _root_shares(shares: jax.Array) -> jax.Array:
    roots = jnp.sqrt(shares)
    total = jnp.sum(roots)
    return roots / jnp.where(total > 0, total, 1)
