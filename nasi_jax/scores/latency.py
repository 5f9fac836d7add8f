"""How long an architecture takes on the device at hand: measured, or added up from what its choices add."""

from __future__ import annotations

import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from nasi_jax.data import map_examples
from nasi_jax.nn import Style
from nasi_jax.programs import choose_execution
from nasi_jax.scores.linear import LinearCost, by_regression
from nasi_jax.spaces import SearchSpace

LatencyMethod = Literal["added", "measured"]
"""``"measured"``: the network of every architecture is compiled and timed. ``"added"``: those of some random ones are,
and a sum over choices is fitted to their times, which costs nothing for any further architecture."""


class Latency:
    """Milliseconds that one input takes through the network of an architecture, with its statistics fixed."""

    def __init__(
        self,
        space: SearchSpace,
        x: Any,
        size: Any,
        outputs: int,
        *,
        method: LatencyMethod = "added",
        file: pathlib.Path | None = None,
        fitted: int = 40,
        repeats: int = 20,
    ):
        """Measures nothing yet.

        Args:
            space: the search space.
            x: what the networks read for some examples, as arrays or `jax.ShapeDtypeStruct`; one of them is timed.
            size: size of the networks, a `Size` of the space.
            outputs: number of outputs.
            method: see `LatencyMethod`.
            file: where times are kept, with the name of the device, or None. Architectures in it are not timed again.
            fitted: architectures that are timed for "added".
            repeats: runs of a network, of which the median counts.

        Raises:
            ValueError: the file holds times of another device or network.
        """
        self._space, self._size, self._outputs, self._repeats = space, size, outputs, repeats
        one = map_examples(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), x)
        self._x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), one)
        self._method, self._fitted = method, fitted
        shapes = jax.tree.map(lambda leaf: str(leaf.shape), self._x)
        device = f"{jax.default_backend()}: {jax.devices()[0].device_kind}"
        about = {"device": device, "space": space.name, "size": repr(size), "inputs": str(shapes)}
        self._times = Times(file, about)

    def __call__(self, genotype: Any) -> float:
        """Returns the milliseconds of an architecture."""
        if self._method == "measured":
            return self.measured(genotype)
        return float(self.linear.of(self._space.encode(genotype)))

    @functools.cached_property
    def linear(self) -> LinearCost:
        """The time as a sum over choices, fitted to random architectures; its `error` says how far it is one."""
        genotypes = [self._space.sample(jax.random.key(i)) for i in range(self._fitted)]
        times = np.array([self.measured(genotype) for genotype in genotypes])
        return by_regression(self._space, genotypes, times)

    def measured(self, genotype: Any) -> float:
        """Compiles and times the network of an architecture, or returns the time that is known already."""
        return self._times(self._space.format(genotype), lambda: self._time(genotype))

    def _time(self, genotype: Any) -> float:
        style = Style(normalisation="fixed")
        network = self._space.network(genotype, self._size, self._outputs, style, choose_execution("train"))
        return timed(network, self._x, repeats=self._repeats)


class Times:
    """Measured times by name, in a file too."""

    def __init__(self, file: pathlib.Path | None, about: dict[str, str]):
        """Reads what is in the file.

        Args:
            file: where times are kept, or None. What is in it is not measured again.
            about: what the times are of, with the name of the device.

        Raises:
            ValueError: the file holds times of something else.
        """
        self._file, self._about = file, about
        self._known: dict[str, float] = {}
        if file is not None and file.exists():
            self._known = self._read(file)

    def __call__(self, name: str, measure: Callable[[], float]) -> float:
        """Returns the milliseconds of a name, measured where they are not known."""
        if name not in self._known:
            self._known[name] = measure()
            if self._file is not None:
                partial = self._file.with_name(f".{self._file.name}.partial")
                partial.write_text(json.dumps(self._about | {"milliseconds": self._known}, indent=1) + "\n")
                partial.replace(self._file)
        return self._known[name]

    def _read(self, file: pathlib.Path) -> dict[str, float]:
        try:
            record = json.loads(file.read_text())
            times = {str(name): float(value) for name, value in record.pop("milliseconds").items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"latency: expected a file of times at {str(file)!r}, cannot read it: {error}") from error
        different = sorted(name for name in self._about if record.get(name) != self._about[name])
        if different:
            listed = ", ".join(f"{name} {record.get(name)!r} there, {self._about[name]!r} now" for name in different)
            raise ValueError(f"latency: {str(file)!r} holds times of something else ({listed}); choose another file")
        return times


def timed(module: nn.Module, *inputs: Any, repeats: int = 20) -> float:
    """Compiles a module and times it on the device at hand.

    Args:
        module: the module.
        *inputs: arrays that it is called with.
        repeats: runs, of which the median counts.

    Returns:
        Milliseconds.
    """
    params = module.lazy_init(jax.random.key(0), *inputs)
    run = jax.jit(module.apply).lower(params, *inputs).compile()
    seconds = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(run(params, *inputs))
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[2:])
