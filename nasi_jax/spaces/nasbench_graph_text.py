"""Notation and canonical form of NAS-Bench-Graph: ``0012|gat|fc|sage|cheb``, inputs and operations of four nodes."""

from __future__ import annotations

import functools
import itertools
import re

from nasi_jax.spaces.text import unknown, unquoted

OPERATIONS = ("gat", "gcn", "gin", "cheb", "sage", "arma", "graph", "fc", "skip")
NODES = 4
SKIP = OPERATIONS.index("skip")
Links = tuple[int, ...]

_INTERCHANGEABLE: dict[Links, tuple[tuple[tuple[int, ...], ...], ...]] = {
    (0, 0, 0, 0): (((0,), (1,), (2,), (3,)),),
    (0, 0, 0, 1): (((1,), (2,)),),
    (0, 0, 1, 1): (((2,), (3,)),),
    (0, 0, 1, 2): (((0, 2), (1, 3)),),
    (0, 0, 1, 3): (),
    (0, 1, 1, 1): (((1,), (2,), (3,)),),
    (0, 1, 1, 2): (),
    (0, 1, 2, 2): (((2,), (3,)),),
    (0, 1, 2, 3): (),
}
"""The nine lists of inputs, and which nodes, or groups of them, may change places."""


def parse(text: str) -> tuple[Links, tuple[int, ...]]:
    """Reads the notation.

    Args:
        text: for example ``0012|gat|fc|sage|cheb``: for node k = 1 to 4 its input, 0 to k - 1, of which 0 is that of
            the network; then the operations of the nodes.

    Returns:
        The inputs and the operations, as indices into `OPERATIONS`.

    Raises:
        ValueError: `text` is something else.
    """
    cleaned = unquoted(text)
    links, *names = cleaned.split("|")
    if not re.fullmatch(r"[0-3]{4}", links) or len(names) != NODES:
        raise ValueError(f"genotype: expected '0012|gat|fc|sage|cheb', inputs and operations, got {text[:200]!r}")
    for node, link in enumerate(map(int, links), start=1):
        if link >= node:
            raise ValueError(f"genotype: expected node {node} to read one of 0 to {node - 1}, got {link} in {links!r}")
    for name in names:
        if name not in OPERATIONS:
            raise ValueError(unknown("genotype: operation", name, OPERATIONS))
    return tuple(map(int, links)), tuple(map(OPERATIONS.index, names))


def written(links: Links, operations: tuple[int, ...]) -> str:
    """Writes the notation; see `parse`."""
    return "|".join(["".join(map(str, links)), *(OPERATIONS[i] for i in operations)])


def canonical(links: Links, operations: tuple[int, ...]) -> str:
    """Writes the architecture of the benchmark's table that computes the same function.

    Skips that change nothing are taken out and put in front, as a chain from the input; nodes are numbered so that the
    inputs are one of nine lists, and in the order of their operations where that leaves a choice.

    Args:
        links: inputs of the nodes.
        operations: operations of the nodes.

    Returns:
        The text form. Four skips, a linear model of the features, are not in the table.
    """
    links, operations = _renumbered(links, operations)
    for k in range(1, NODES + 1):
        if operations[k - 1] == SKIP and _is_idle(links, operations, k):
            links, operations = _with_front_skip(links, operations, k)
    links, operations = _renumbered(links, operations)
    for groups in _INTERCHANGEABLE[links]:
        chosen = sorted(tuple(operations[i] for i in group) for group in groups)
        changed = list(operations)
        for group, values in zip(groups, chosen, strict=True):
            for place, value in zip(group, values, strict=True):
                changed[place] = value
        operations = tuple(changed)
    return written(links, operations)


def _renumbered(links: Links, operations: tuple[int, ...]) -> tuple[Links, tuple[int, ...]]:
    order, renamed = _order(links)
    return renamed, tuple(operations[i - 1] for i in order)


@functools.cache
def _order(links: Links) -> tuple[tuple[int, ...], Links]:
    """Returns the nodes in an order for which the inputs are one of the nine lists, and that list."""
    for order in itertools.permutations(range(1, NODES + 1)):
        place = {0: 0} | {node: i for i, node in enumerate(order, start=1)}
        renamed = tuple(place[links[node - 1]] for node in order)
        if renamed in _INTERCHANGEABLE and all(link < node for node, link in enumerate(renamed, start=1)):
            return order, renamed
    raise AssertionError(links)


def _is_idle(links: Links, operations: tuple[int, ...], k: int) -> bool:
    """Whether a skip may be taken out: it has readers, is alone at its input, or a chain of skips leads to it."""
    if k in links or links.count(links[k - 1]) == 1:
        return True
    while k and operations[k - 1] == SKIP:
        k = links[k - 1]
    return k == 0


def _with_front_skip(links: Links, operations: tuple[int, ...], k: int) -> tuple[Links, tuple[int, ...]]:
    """Takes the skip k out, and puts one before everything that reads the input."""
    bypassed = [links[k - 1] if link == k else link for link in links]
    # the nodes before k move up by one, because the new skip is the first node
    moved = [link + 1 if link < k else link for link in bypassed]
    return (
        (0, *(moved[i] for i in range(NODES) if i != k - 1)),
        (SKIP, *(operations[i] for i in range(NODES) if i != k - 1)),
    )
