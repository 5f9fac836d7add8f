"""Traced kernels beside neural-tangents and PyTorch: run time, compilation, peak memory and error.

    python benchmarks/ntk_kernel.py --networks dense --batch 16 --out benchmarks/results/ntk_kernel_cpu.md

Samples are independent and every program is told so. Each runs in a process of its own, one after the other. Times are
those of the fastest run, as ratios to that of nasi_jax in the same row: by the clock, and of all processors together,
which other work on the machine changes less. neural-tangents has three algorithms; PyTorch's recipe is `vmap(jacrev)`
and a sum of products, as in its tutorial on neural tangent kernels. Memory is what the process takes at its peak beyond
what it held before the run, with compiled programs, parameters and inputs. The error is relative to the largest entry
among four samples, of dense Jacobians in float64. Rows of cases that were measured before are kept in the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import tyro

Network = Literal["dense", "convolution", "attention"]
Method = Literal["nasi_jax", "jacobian-contraction", "ntk-vector-products", "structured-derivatives", "torch"]
METHODS: tuple[Method, ...] = (
    "nasi_jax",
    "jacobian-contraction",
    "ntk-vector-products",
    "structured-derivatives",
    "torch",
)
NAMES = {"torch": "PyTorch, vmap(jacrev)", "nasi_jax": "nasi_jax"}
OUTPUTS, CHECKED = 10, 4
LONG = 5.0  # seconds


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        networks: kinds of networks.
        batch: numbers of samples.
        methods: programs; one whose library is missing is left out.
        width: of the hidden layers, as a multiple of the usual one.
        runs: least number of timed runs. Short programs run for 5 seconds, those of more than 5 seconds of processor
            time once.
        limit: seconds after which a program is given up.
        out: Markdown file to write; only printed without.
        torch_python: interpreter that has PyTorch.
        only: run one program in this process, and print what it took as JSON.
    """

    networks: tuple[Network, ...] = ("dense", "convolution", "attention")
    batch: tuple[int, ...] = (16, 64, 256)
    methods: tuple[Method, ...] = METHODS
    width: float = 1.0
    runs: int = 5
    limit: float = 600.0
    out: pathlib.Path | None = None
    torch_python: pathlib.Path = pathlib.Path(sys.executable)
    only: bool = False


class Case(NamedTuple):
    """Parameters and inputs, NumPy arrays."""

    params: dict[str, np.ndarray]
    x: np.ndarray


def case(network: Network, batch: int, width: float) -> Case:
    """Draws parameters and inputs."""
    random = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) / math.prod(shape[:-1]) ** 0.5).astype(np.float32)

    def scaled(size: int) -> int:
        return max(2, int(size * width))

    if network == "dense":
        w = scaled(512)
        params = {"a": drawn(784, w), "a_bias": drawn(w), "b": drawn(w, w), "b_bias": drawn(w), "c": drawn(w, OUTPUTS)}
        shape = (784,)
    elif network == "convolution":
        w = scaled(16)
        params = {"a": drawn(3, 3, 3, w), "b": drawn(3, 3, w, 2 * w), "c": drawn(3, 3, 2 * w, 4 * w)}
        params |= {"a_bias": drawn(w), "d": drawn(4 * w, OUTPUTS)}
        shape = (32, 32, 3)
    else:
        w = 4 * scaled(16)
        params = {name: drawn(w, w) for name in ("query", "key", "value", "out")}
        params |= {"up": drawn(w, 2 * w), "down": drawn(2 * w, w), "head": drawn(w, OUTPUTS)}
        shape = (16, w)
    return Case(params, random.normal(size=(batch, *shape)).astype(np.float32))


def in_jax(network: Network) -> Callable[[Any, Any], Any]:
    """Returns the network as a function of a batch."""
    import jax
    import jax.numpy as jnp

    def dense(p: Any, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(x @ p["a"] + p["a_bias"])
        return jax.nn.relu(x @ p["b"] + p["b_bias"]) @ p["c"]

    def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
        form = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=form)

    def convolution(p: Any, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(convolve(x, p["a"], 1) + p["a_bias"])
        x = jax.nn.relu(convolve(jax.nn.relu(convolve(x, p["b"], 2)), p["c"], 2))
        return jnp.mean(x, axis=(1, 2)) @ p["d"]

    def attention(p: Any, x: jax.Array) -> jax.Array:
        q, k, v = (jnp.reshape(x @ p[name], (*x.shape[:2], 4, -1)) for name in ("query", "key", "value"))
        weights = jax.nn.softmax(jnp.einsum("bshd,bthd->bhst", q, k) / q.shape[-1] ** 0.5)
        x = x + jnp.einsum("bhst,bthd->bshd", weights, v).reshape(x.shape) @ p["out"]
        return jnp.mean(x + jax.nn.relu(x @ p["up"]) @ p["down"], axis=1) @ p["head"]

    return {"dense": dense, "convolution": convolution, "attention": attention}[network]


def in_torch(network: Network) -> Callable[[Any, Any], Any]:
    """Returns the network as a function of one sample."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    def dense(p: Any, x: Any) -> Any:
        x = functional.relu(x @ p["a"] + p["a_bias"])
        return functional.relu(x @ p["b"] + p["b_bias"]) @ p["c"]

    def convolve(x: Any, kernel: Any, stride: int) -> Any:
        return functional.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=1)

    def convolution(p: Any, x: Any) -> Any:
        x = functional.relu(convolve(x.permute(2, 0, 1)[None], p["a"], 1) + p["a_bias"][:, None, None])
        x = functional.relu(convolve(functional.relu(convolve(x, p["b"], 2)), p["c"], 2))
        return x.mean(dim=(2, 3))[0] @ p["d"]

    def attention(p: Any, x: Any) -> Any:
        q, k, v = ((x @ p[name]).reshape(len(x), 4, -1) for name in ("query", "key", "value"))
        weights = torch.softmax(torch.einsum("shd,thd->hst", q, k) / q.shape[-1] ** 0.5, dim=-1)
        x = x + torch.einsum("hst,thd->shd", weights, v).reshape(x.shape) @ p["out"]
        return (x + functional.relu(x @ p["up"]) @ p["down"]).mean(dim=0) @ p["head"]

    return {"dense": dense, "convolution": convolution, "attention": attention}[network]


def prepare(network: Network, method: Method, given: Case) -> tuple[Callable[[], np.ndarray], float]:
    """Compiles a program; returns it and the seconds that it took."""
    if method == "torch":
        import torch  # pyright: ignore[reportMissingImports]

        params = {name: torch.tensor(value) for name, value in given.params.items()}
        inputs, function = torch.tensor(given.x), in_torch(network)

        def by_torch() -> np.ndarray:
            jacobians = torch.func.vmap(torch.func.jacrev(function), (None, 0))(params, inputs)
            products = [torch.einsum("iaf,jaf->ij", j.flatten(2), j.flatten(2)) for j in jacobians.values()]
            return torch.stack(products).sum(dim=0).numpy()

        return by_torch, math.nan
    import jax

    from nasi_jax import ntk

    apply_fn = in_jax(network)
    options: dict[str, Any] = {"batch_statistics": False}
    if method != "nasi_jax":
        options["implementation"] = method
        ntk.load_neural_tangents()
    start = time.perf_counter()
    lowered = jax.jit(lambda p, x: ntk.kernel(apply_fn, p, x, **options)).lower(given.params, given.x)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    params, x = jax.device_put((given.params, given.x))
    return lambda: np.asarray(compiled(params, x)), seconds


def exact(network: Network, given: Case) -> np.ndarray:
    """Returns the kernel of some samples from dense Jacobians in float64."""
    import jax

    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda leaf: np.asarray(leaf, float), (given.params, given.x[:CHECKED]))
        jacobians = jax.jacrev(in_jax(network))(params, x)
        rows = [np.asarray(j).reshape(CHECKED, OUTPUTS, -1) for j in jax.tree.leaves(jacobians)]
        return sum((np.einsum("iaf,jaf->ij", row, row) for row in rows), np.zeros((CHECKED, CHECKED)))


def resident(field: str) -> float:
    """Returns a figure of this process in MiB, NaN where the system has none: VmRSS now, or VmHWM at the most."""
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def measure(options: Options) -> dict[str, Any]:
    """Measures one program in this process."""
    network, method, batch = options.networks[0], options.methods[0], options.batch[0]
    given = case(network, batch, options.width)
    run, compilation = prepare(network, method, given)
    clear = pathlib.Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    before = resident("VmRSS")
    clocks = time.perf_counter, time.process_time
    starts = [clock() for clock in clocks]
    kernel = run()
    seconds = [[clock() - start for clock, start in zip(clocks, starts, strict=True)]]
    memory = resident("VmHWM") - before
    while seconds[0][1] < LONG and (len(seconds) <= options.runs or sum(clock for clock, _ in seconds) < LONG):
        starts = [clock() for clock in clocks]
        run()
        seconds.append([clock() - start for clock, start in zip(clocks, starts, strict=True)])
    elapsed, processors = np.min(seconds, axis=0).tolist()
    return {
        "seconds": elapsed,
        "processors": processors,
        "compile": compilation,
        "memory": memory,
        "kernel": kernel[:CHECKED, :CHECKED].tolist(),
    }


def run_alone(options: Options, network: Network, batch: int, method: Method) -> dict[str, Any] | None:
    """Measures one program in a process of its own; None where it fails or takes too long."""
    python = options.torch_python if method == "torch" else sys.executable
    sizes = ["--width", str(options.width), "--runs", str(options.runs)]
    what = ["--networks", network, "--batch", str(batch), "--methods", method, "--only"]
    try:
        done = subprocess.run(
            [python, __file__, *what, *sizes], capture_output=True, text=True, timeout=options.limit, check=True
        )
    except subprocess.TimeoutExpired:
        print(f"  {network}, {batch}: {method} took more than {options.limit:g} s", file=sys.stderr)
        return None
    except subprocess.CalledProcessError as error:
        print(f"  {network}, {batch}: {method} failed: {error.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def rows(options: Options, network: Network, batch: int) -> list[str]:
    """Measures all programs of a case, and formats them."""
    found = {method: run_alone(options, network, batch, method) for method in options.methods}
    expected = exact(network, case(network, batch, options.width))
    ours = found.get("nasi_jax")
    lines = []
    for method, figures in found.items():
        name = NAMES.get(method, f"neural-tangents, {method}")
        if figures is None:
            lines.append(f"| {network} | {batch} | {name} | not run | | | | |")
            continue
        error = np.abs(np.array(figures["kernel"]) - expected).max() / np.abs(expected).max()
        numbers = (
            *(f"{figures[what] / (ours[what] if ours else math.nan):.2f}" for what in ("seconds", "processors")),
            f"{figures['compile']:.1f}" if np.isfinite(figures["compile"]) else "",
            f"{figures['memory']:.0f}",
            f"{error:.0e}",
        )
        lines.append(f"| {network} | {batch} | {name} | {' | '.join(numbers)} |")
    if ours:
        lines[0] = lines[0].replace("| 1.00 |", f"| 1.00 ({ours['seconds'] * 1000:.0f} ms) |", 1)
    return lines


def main(options: Options) -> None:
    """Prints and writes the table."""
    if options.only:
        print(json.dumps(measure(options)))
        return
    kept: dict[tuple[str, str], list[str]] = {}
    if options.out is not None and options.out.exists():
        for line in options.out.read_text().splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) == 10 and cells[2].isdigit():
                kept.setdefault((cells[1], cells[2]), []).append(line)
    import jax

    head = f"{jax.devices()[0].device_kind}, {platform.machine()}, jax {jax.__version__}, "
    head += f"at least {options.runs} runs; "
    head += "traced kernel of 10 outputs, float32. Times are ratios to nasi_jax, compilation in seconds, memory in MiB."
    columns = ["network", "batch", "program", "time", "processor time", "compilation", "peak memory", "error"]
    for network in options.networks:
        for batch in options.batch:
            kept[network, str(batch)] = rows(options, network, batch)
            print("\n".join(kept[network, str(batch)]), flush=True)
            lines = [head, "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
            for case_rows in kept.values():
                lines += case_rows
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
