"""Scores architectures on the nodes of a Ray cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nasi_jax.scores.scorer import Scorer, ahead


class ClusterScorer:
    """Stands in for a `Scorer`; a worker on each node of a Ray cluster has one of its own.

    Attributes:
        names: the scores that are computed.
    """

    def __init__(self, address: str, arguments: tuple[Any, ...], options: dict[str, Any], share: int = 8):
        """Connects to the cluster and starts the workers.

        Args:
            address: that of a running cluster, such as "ray://head:10001" or "auto", or "local" to start one here.
            arguments: positional arguments of `Scorer`.
            options: its other arguments.
            share: architectures that a worker takes in one call.

        Raises:
            ValueError: Ray is not installed, or there is no such cluster.
        """
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("ray: expected the package of that name; pip install 'nasi_jax[ray]'") from error
        try:
            ray.init(address=None if address == "local" else address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"ray: cannot reach a cluster at {address!r}: {error}") from error
        self._ray, self._share = ray, share
        nodes = [node for node in ray.nodes() if node["Alive"]]
        # a worker that its node loses is started again on another one, and its architectures are scored there
        remote = ray.remote(scheduling_strategy="SPREAD", max_restarts=3, max_task_retries=3)(_Worker)
        given = ray.put((arguments, options))
        self._workers = [remote.remote(given) for _ in nodes]
        self.names = tuple(arguments[2])

    def draw(self, seed: int) -> int:
        """Returns the seed; workers draw by it themselves, each to the same result."""
        return seed

    def stream(self, draw: int, genotypes: Iterable[Any]) -> Iterator[dict[str, float]]:
        """Scores architectures one after the other; see `Scorer.stream`.

        Args:
            draw: the seed.
            genotypes: the architectures, any number.

        Yields:
            For each, in turn, the value of every score by its name.

        Raises:
            OSError: a worker was lost too often.
        """
        remaining, workers = iter(genotypes), itertools.cycle(self._workers)
        parts = iter(lambda: list(itertools.islice(remaining, self._share)), [])
        # a worker has its next share before it is done with the last
        scored = ahead(lambda part: next(workers).score.remote(draw, part), parts, 2 * len(self._workers))
        try:
            for found in scored:
                yield from self._ray.get(found)
        except self._ray.exceptions.RayActorError as error:
            raise OSError(f"ray: a worker was lost; the same command continues: {error}") from error


class _Worker:
    def __init__(self, given: tuple[tuple[Any, ...], dict[str, Any]]):
        arguments, options = given
        self._scorer, self._draws = Scorer(*arguments, **options), {}

    def score(self, seed: int, genotypes: Sequence[Any]) -> list[dict[str, float]]:
        if seed not in self._draws:
            self._draws = {seed: self._scorer.draw(seed)}
        return self._scorer.score(self._draws[seed], genotypes)
