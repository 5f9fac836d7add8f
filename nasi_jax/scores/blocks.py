"""What the candidates of a block cost, added up from a table of their operations."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasi_jax.data import map_examples
from nasi_jax.scores.costs import counted
from nasi_jax.scores.latency import Times, timed
from nasi_jax.scores.limits import Limits
from nasi_jax.spaces import BlockSpace, Piece

_COUNTED = ("params", "flops")


class BlockCosts(NamedTuple):
    """Costs of candidates and of what stands between blocks, whose sum is the cost of an architecture.

    Attributes:
        ports: the place of each candidate's width, (candidates,).
        candidates: for each cost (candidates,), the same for all blocks.
        joints: for each cost, before, between and after the blocks, (ports before, ports after); see
            `nasi_jax.search.Chain`.
    """

    ports: np.ndarray
    candidates: dict[str, np.ndarray]
    joints: dict[str, list[np.ndarray]]

    def of(self, numbers: Sequence[int]) -> dict[str, float]:
        """Returns the costs of an architecture by the numbers of its candidates."""
        ports = [0, *(int(self.ports[number]) for number in numbers), 0]
        return {
            name: float(sum(own[number] for number in numbers))
            + sum(float(joint[ports[i], ports[i + 1]]) for i, joint in enumerate(self.joints[name]))
            for name, own in self.candidates.items()
        }

    def within(self, limits: Limits) -> np.ndarray:
        """Returns which candidates some architecture within limits may have, (candidates,) bool: of all blocks."""
        may = np.ones(len(self.ports), bool)
        for name, bound in limits.bounds.items():
            own, joints = self.candidates[name], self.joints[name]
            others = (len(joints) - 2) * own.min() + sum(joint.min() for joint in joints)
            may &= own + others <= bound
        return may


def block_costs(
    space: BlockSpace,
    size: Any,
    outputs: int,
    x: Any,
    *,
    latency: bool = False,
    file: pathlib.Path | None = None,
) -> BlockCosts:
    """Measures every operation and every joint once, and adds up those of each candidate.

    Parameters and multiply-adds are exact. Latency is measured for one example on the device at hand, for every piece
    by itself, and a sum leaves out what a whole program saves or loses.

    Args:
        space: a space of blocks.
        size: of the networks, a `Size` of the space.
        outputs: number of outputs.
        x: what the networks read for two examples, as arrays or `jax.ShapeDtypeStruct`.
        latency: whether to measure milliseconds too.
        file: where these are kept, with the name of the device, or None. What is in it is not measured again.

    Returns:
        The costs: ``"params"``, ``"flops"`` and, where it is asked for, ``"latency_ms"``.

    Raises:
        ValueError: the file holds times of another device or network.

    References:
        Xu et al., "NAS-BERT", KDD 2021, section on performance approximation.
    """
    ports, operations = space.candidates
    measured = {
        key: {} if piece is None else counted(piece[0], *piece[1])
        for key, piece in _pieces(space, size, outputs, x).items()
    }
    if latency:
        one = map_examples(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), x)
        device = f"{jax.default_backend()}: {jax.devices()[0].device_kind}"
        shapes = jax.tree.map(lambda leaf: str(leaf.shape), one)
        about = {"device": device, "space": space.name, "size": repr(size), "inputs": str(shapes)}
        times = Times(file, about | {"what": "operations and joints"})
        for key, piece in _pieces(space, size, outputs, one).items():
            if piece is not None:
                inputs = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), piece[1])
                milliseconds = times(" ".join(map(str, key)), functools.partial(timed, piece[0], *inputs))
                measured[key]["latency_ms"] = milliseconds

    def table(name: str, rows: Sequence[Any], columns: Sequence[Any], kind: str) -> np.ndarray:
        return np.array([[measured[kind, row, column].get(name, 0.0) for column in columns] for row in rows])

    everywhere, numbers = list(range(len(space.widths))), range(1, len(space.operations) + 1)
    candidates, joints = {}, {}
    for name in (*_COUNTED, *(("latency_ms",) if latency else ())):
        own = np.pad(table(name, everywhere, numbers, "operation"), ((0, 0), (1, 0)))  # identities cost nothing
        candidates[name] = own[ports[:, None], operations].sum(axis=1)
        joints[name] = [
            table(name, [None], everywhere, "joint"),
            *[table(name, everywhere, everywhere, "joint")] * (space.blocks - 1),
            table(name, everywhere, [None], "joint"),
        ]
    return BlockCosts(ports, candidates, joints)


def _pieces(space: BlockSpace, size: Any, outputs: int, x: Any) -> dict[tuple[Any, ...], Piece | None]:
    """Returns all operations and joints by what and where they are."""
    found: dict[tuple[Any, ...], Piece | None] = {}
    for port in range(len(space.widths)):
        for operation in range(1, len(space.operations) + 1):
            found["operation", port, operation] = space.operation_piece(size, port, operation, x)
        found["joint", None, port] = space.joint_piece(size, outputs, None, port, x)
        found["joint", port, None] = space.joint_piece(size, outputs, port, None, x)
        for after in range(len(space.widths)):
            found["joint", port, after] = space.joint_piece(size, outputs, port, after, x)
    return found
