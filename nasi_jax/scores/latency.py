"""How long an architecture takes on the device at hand: measured, or added up from what its choices add."""

from __future__ import annotations

import functools
import json
import pathlib
import statistics
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

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
        self._method, self._fitted, self._file = method, fitted, file
        shapes = jax.tree.map(lambda leaf: str(leaf.shape), self._x)
        device = f"{jax.default_backend()}: {jax.devices()[0].device_kind}"
        self._about = {"device": device, "space": space.name, "size": repr(size), "inputs": str(shapes)}
        self._times: dict[str, float] = {}
        if file is not None and file.exists():
            self._times = self._read(file)

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
        name = self._space.format(genotype)
        if name not in self._times:
            self._times[name] = self._time(genotype)
            if self._file is not None:
                partial = self._file.with_name(f".{self._file.name}.partial")
                partial.write_text(json.dumps(self._about | {"milliseconds": self._times}, indent=1) + "\n")
                partial.replace(self._file)
        return self._times[name]

    def _time(self, genotype: Any) -> float:
        style = Style(normalisation="fixed")
        network = self._space.network(genotype, self._size, self._outputs, style, choose_execution("train"))
        params = network.lazy_init(jax.random.key(0), self._x)
        run = jax.jit(network.apply).lower(params, self._x).compile()
        seconds = []
        for _ in range(self._repeats + 2):
            start = time.perf_counter()
            jax.block_until_ready(run(params, self._x))
            seconds.append(time.perf_counter() - start)
        return 1e3 * statistics.median(seconds[2:])

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
