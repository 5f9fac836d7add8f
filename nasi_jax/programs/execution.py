"""How the program of a network runs, chosen in one place: it changes time and memory, never what is computed."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Collection
from typing import Literal, get_args

import jax

Discrete = Literal["no", "one-hot", "branches"]
"""What a one-shot network may rely on.

``"one-hot"``: weights are those of discrete architectures. ``"branches"``: likewise, of one architecture and not under
`vmap`, so that a program can branch by them, which pays on a CPU.
"""

Capability = Literal[
    "blocks", "branches", "drop_path", "auxiliary", "dropout", "features", "embedding", "depth", "stages"
]
"""What a network can do beside computing its outputs.

``"blocks"``: run outside of `jit` as a sequence of programs that architectures share. ``"branches"``: compute only what
one-hot weights name. ``"drop_path"``: drop edges of a sample, by an argument of that name. ``"auxiliary"``: return the
logits of a second head too, where an attribute of that name is true, for training alone. ``"dropout"``: drop entries of
nodes, by an argument of that name. ``"features"``: show what its blocks hand on, see `nasi_jax.nn.FEATURES`.
``"embedding"``: show there what the head reads of each example, and no more. ``"depth"``: have more or fewer blocks, so
that derived networks alone show what theirs hand on. ``"stages"``: leave the feature maps at the ends of its three
stages in `nasi_jax.nn.STAGES`.
"""

Purpose = Literal["search", "score", "train"]

_LARGEST_PROGRAM = 400  # arrays of parameters; NAS-Bench-201 at full size has 190, the DARTS space with 8 cells 1,000


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the program of a network runs.

    Attributes:
        discrete: see `Discrete`.
        blocks: whether the network is computed outside of one `jit`, block by block, on a CPU. Convolutions that read
            one input stay apart then, so that there are fewer different programs, and separable ones are not fused.
        fused: whether a separable convolution is computed as the dense one that it equals. On an accelerator that pays
            for few channels.
        scan: whether steps are scanned, and searches or trainings side by side vmapped, instead of a loop on the host.

    Raises:
        ValueError: a value is unknown, or `blocks` and `scan` are asked for together.
    """

    discrete: Discrete = "no"
    blocks: bool = False
    fused: bool = True
    scan: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.discrete not in get_args(Discrete):
            raise ValueError(f"discrete: expected one of {get_args(Discrete)}, got {self.discrete!r}")
        if self.blocks and self.scan:
            raise ValueError("execution: expected blocks or scan, got both; a scan is one program")


def choose_execution(
    purpose: Purpose,
    capabilities: Collection[Capability] = (),
    *,
    one_hot: bool = False,
    together: bool = False,
    arrays: int = 0,
    blocks: bool | None = None,
) -> Execution:
    """Chooses how a network runs on the device at hand.

    On an accelerator everything is one program: steps are scanned, searches and architectures vmapped. On a CPU, XLA
    runs the grouped convolutions that `vmap` makes 7 to 50 times slower, and compiles large programs for minutes. There
    the host loops, and a program branches to the operations of an architecture or is split into blocks.

    Args:
        purpose: what the network is for. A score is of one discrete architecture after the other.
        capabilities: what the network can do; see `Capability`.
        one_hot: whether a search draws discrete architectures.
        together: whether a call takes several architectures at once.
        arrays: how many arrays of parameters the one-shot network of a search has.
        blocks: whether to run block by block; by default where it is faster.

    Returns:
        The execution.

    Raises:
        ValueError: blocks are asked for where the backend scans.
    """
    cpu = jax.default_backend() == "cpu"
    if purpose == "train":
        return Execution(fused=not cpu, scan=not cpu)
    if purpose == "search":
        if blocks is None:
            blocks = cpu and "blocks" in capabilities and arrays > _LARGEST_PROGRAM
        discrete: Discrete = "no" if not one_hot else "branches" if cpu else "one-hot"
        return Execution(discrete, blocks=blocks, scan=not cpu)
    if blocks is None:
        blocks = cpu and not together and "branches" not in capabilities and "blocks" in capabilities
    return Execution("branches" if cpu and not blocks and not together else "one-hot", blocks=blocks)


def peak_memory() -> float:
    """Returns the most bytes that the device has held so far; on a CPU those of the process, NaN where none says."""
    found = jax.local_devices()[0].memory_stats()
    if found and "peak_bytes_in_use" in found:
        return float(found["peak_bytes_in_use"])
    try:
        import resource
    except ImportError:  # on Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
