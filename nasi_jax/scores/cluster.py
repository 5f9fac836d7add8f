"""Evaluates architectures on the nodes of a Ray cluster."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nasi_jax import extensions
from nasi_jax.programs import numerics, set_numerics
from nasi_jax.scores.evaluator import Evaluator
from nasi_jax.scores.scorer import ahead

Make = Callable[[], Callable[[int], Evaluator]]
"""Makes, from nothing but what can be sent to another machine, a function that gives the evaluator at a seed."""

_SHARE = 8  # architectures that a worker takes in one call, at most


def evaluators(address: str | None, names: Sequence[str], make: Make) -> Callable[[int], Evaluator]:
    """Returns the evaluator at each seed, here or on a cluster; figures are the same.

    Args:
        address: that of a running Ray cluster, such as "ray://head:10001" or "auto", or "local" to start one here.
            None evaluates in this process.
        names: names of the figures.
        make: makes the evaluators. On a cluster each node makes its own.

    Returns:
        A function of the seed.

    Raises:
        ValueError: Ray is not installed, or there is no such cluster.
    """
    return make() if address is None else _Cluster(address, names, make).at


class _Cluster:
    """Workers, one on each node."""

    def __init__(self, address: str, names: Sequence[str], make: Make):
        try:
            import cloudpickle
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("ray: expected the package of that name; pip install 'nasi_jax[ray]'") from error
        try:
            ray.init(address=None if address == "local" else address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"ray: cannot reach a cluster at {address!r}: {error}") from error
        self._ray, self.names = ray, tuple(names)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        # a worker that its node loses is started again on another one, and its architectures are evaluated there
        remote = ray.remote(scheduling_strategy="SPREAD", max_restarts=3, max_task_retries=3)(_Worker)
        # classes of loaded files are there by name alone, so that a worker loads the files before the rest
        given = ray.put((extensions.loaded(), cloudpickle.dumps(make), numerics()))
        self._workers = [remote.remote(given) for _ in nodes]

    def at(self, seed: int) -> Evaluator:
        return _OnCluster(self, seed)

    def stream(self, seed: int, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        workers, share = len(self._workers), _SHARE
        if isinstance(genotypes, Sequence):  # few enough that every worker has some
            share = max(1, min(share, -(-len(genotypes) // workers)))
        remaining, turns = iter(genotypes), itertools.cycle(self._workers)
        parts = iter(lambda: list(itertools.islice(remaining, share)), [])
        # a worker has its next share before it is done with the last
        evaluated = ahead(lambda part: next(turns).evaluate.remote(seed, part), parts, 2 * workers)
        try:
            for found in evaluated:
                yield from self._ray.get(found)
        except self._ray.exceptions.RayActorError as error:
            raise OSError(f"ray: a worker was lost; the same command continues: {error}") from error


class _OnCluster:
    def __init__(self, cluster: _Cluster, seed: int):
        self._cluster, self._seed, self.names = cluster, seed, cluster.names

    def stream(self, genotypes: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return self._cluster.stream(self._seed, genotypes)


class _Worker:
    def __init__(self, given: tuple[dict[str, tuple[str, str]], bytes, dict[str, Any]]):
        files, make, options = given
        extensions.restore(files)
        set_numerics(options)
        self._at, self._evaluators = pickle.loads(make)(), dict[int, Evaluator]()

    def evaluate(self, seed: int, genotypes: Sequence[Any]) -> list[dict[str, Any]]:
        if seed not in self._evaluators:  # the one before is not asked again
            self._evaluators = {seed: self._at(seed)}
        return list(self._evaluators[seed].stream(genotypes))
