"""How much memory a kernel takes, and in which blocks it fits."""

from __future__ import annotations

import math
import pathlib
import sys
from typing import Any, NamedTuple

import jax

from nasi_jax.ntk._jacobian import entries, keeps_factors
from nasi_jax.ntk._layers import Product, Program, inner_jaxprs

UNROLLED = 8
"""Turns that are written out, because loops of XLA are slow on a CPU."""

_AT_ONCE = 2**26  # bytes of what passes while rows are computed together; more makes them slower
_HELD = 2**28  # bytes of rows beyond which those of half of the outputs are held
_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"


class Blocks(NamedTuple):
    """How many samples and outputs are taken together.

    Attributes:
        held: samples of the first batch whose rows are held.
        at_once: samples whose rows are computed together; it divides `held`.
        outputs: outputs of which rows are taken.
        estimate: bytes that the computation takes beside parameters and inputs.
    """

    held: int
    at_once: int
    outputs: int
    estimate: int


def free_memory() -> float:
    """Returns the bytes that the first device has free, infinity where none says."""
    found = jax.local_devices()[0].memory_stats()
    if found and "bytes_limit" in found:
        return found["bytes_limit"] - found.get("bytes_in_use", 0)
    free = math.inf
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        limit, used = (pathlib.Path(name).read_text().strip() for name in _LIMITS)
        return min(free, int(limit) - int(used))
    except (OSError, StopIteration, ValueError):  # another system, or a group without a limit
        return free


def blocks_of(program: Program, form: str, coupled: bool, n1: int, n2: int, devices: int, memory: float) -> Blocks:
    """Chooses blocks for a kernel.

    Args:
        program: over one sample, or all of them where they are coupled.
        form: "traced", "full" or "diagonal".
        coupled: whether outputs depend on the other samples.
        n1: samples of the first batch.
        n2: samples of the second batch.
        devices: number of devices that share the first batch.
        memory: bytes that each device may take beside parameters and inputs.

    Returns:
        The blocks.

    Raises:
        ValueError: there is not enough memory for the kernel, or for one row beside it.
    """
    number, memory = program.outputs.dtype.itemsize, min(memory, sys.maxsize)
    all_outputs = program.outputs.shape[1]
    entries_of = {"diagonal": n1 * all_outputs, "traced": n1 * n2, "full": n1 * n2 * all_outputs**2}
    size = entries_of[form] * number
    dense, read, slopes = entries(program, form, coupled)
    kept = [product for product in program.products if not coupled and keeps_factors(product, form, all_outputs)]
    stored, largest = activations(program.closed.jaxpr)
    inputs = sum(math.prod(product.inputs) for product in program.products) * number
    results = sum(math.prod(product.slopes) for product in program.products) * number

    def passing(outputs: int) -> int:
        """Bytes of a sample beside its rows, while they are computed."""
        derivatives = outputs * (results + 3 * largest)
        return derivatives if coupled else derivatives + stored + inputs

    def once(outputs: int) -> int:
        """Bytes of a sample while its rows are computed."""
        return 2 * outputs * dense * number + passing(outputs)

    def held(outputs: int) -> int:
        return (read + outputs * (dense + slopes)) * number

    fixed = (stored + inputs) * (1 if n2 == 0 else 2) if coupled else 0

    def pairs(outputs: int, others: int = 1) -> int:
        """Bytes of a sample while what it has in common with others is computed."""
        return number * (1 if form == "diagonal" else others) * sum(_pair(product, form, outputs) for product in kept)

    # the kernel, and what it is put together from
    left = memory - 2 * size - fixed
    outputs = all_outputs
    while outputs > 1 and 2 * once(outputs) + held(outputs) > left / 2:
        outputs = -(-outputs // 2)
    least = 2 * once(outputs) + held(outputs) + pairs(outputs)
    if least > left:
        what = f"{text(2 * size)} for the kernel and {text(fixed + least)} for the gradients of one sample"
        raise ValueError(
            f"memory: expected at least {what}, got {text(memory)}; take fewer samples, form='traced' or 'diagonal', "
            "or ntk.operator and ntk.trace, which form no kernel"
        )
    if form == "traced" and outputs == all_outputs > 1 and n1 * held(outputs) > _HELD:
        outputs = -(-outputs // 2)  # half the rows at a time, for a second forward pass
    share = math.ceil(n1 / devices)
    n = share if form == "diagonal" else max(n1, n2)
    # in one turn, or in as many as are written out: rows of a turn are copied, and a small one has few
    at_once = n if n * passing(outputs) <= _AT_ONCE else -(-n // UNROLLED)
    at_once = max(1, min(n, at_once, int(left / 4 // once(outputs))))
    while at_once > 1 and at_once * (2 * once(outputs) + held(outputs) + pairs(outputs, at_once)) > left:
        at_once = -(-at_once // 2)
    at_once = math.ceil(n / math.ceil(n / at_once))
    each = held(outputs) + pairs(outputs, at_once)
    room = max(1, int((left - 2 * at_once * once(outputs)) // max(each, 1)) // at_once)
    turns = math.ceil(share / (room * at_once))
    chunks = 1 if form == "diagonal" else math.ceil(share / turns / at_once)
    estimate = fixed + 2 * size + at_once * (2 * once(outputs) + chunks * each)
    return Blocks(chunks * at_once, at_once, outputs, estimate)


def _pair(product: Product, form: str, outputs: int) -> int:
    groups, positions, slopes = product.slopes
    if groups * positions == 1:
        return 0
    if form == "diagonal":
        return groups * positions * (positions + outputs * slopes)
    # each with a copy in another order
    return 2 * groups * positions * (2 * positions if form == "traced" else positions + outputs * slopes)


def activations(jaxpr: Any) -> tuple[int, int]:
    """Returns the bytes of all results of equations, which a backward pass may keep, and of the largest."""
    total = largest = 0
    for equation in jaxpr.eqns:
        inner = [activations(part) for part in inner_jaxprs(equation)]
        results = [_bytes(v.aval) for v in equation.outvars]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(found[0] for found in inner) if inner else sum(results)
        largest = max([largest, *results, *(found[1] for found in inner)])
    return total, largest


def _bytes(aval: Any) -> int:
    if not hasattr(aval, "shape"):
        return 0
    return math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 4)


def text(count: float) -> str:
    """Returns a number of bytes in its unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"
