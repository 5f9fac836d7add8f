"""Repetitions of black-box strategies on a table, beside regularised evolution in plain Python.

    python benchmarks/strategies.py --out benchmarks/results/strategies_cpu.md

All repetitions of a strategy are one program. The table is one of random numbers over NAS-Bench-201's cells: what is in
it does not matter for the time. Seconds of the first call, which compiles, and of the second one with other keys; the
peer runs a few repetitions, and its time is for all of them by their number.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import random
import time

import jax
import numpy as np
import tyro

from nasi_jax import search, spaces


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        out: Markdown file to write; only printed without.
        strategies: names of `nasi_jax.search.VARIANTS`.
        repetitions: how many there are of each.
        evaluations: of each repetition.
        peer_repetitions: how many the peer runs.
    """

    out: pathlib.Path | None = None
    strategies: tuple[str, ...] = (
        "evolution", "evolution-real2019", "evolution-nasbench201", "evolution-plain", "random", "local", "reinforce",
        "reinforce-ppo",
    )  # fmt: skip
    repetitions: int = 2000
    evaluations: int = 500
    peer_repetitions: int = 20


def main(options: Options) -> None:
    """Measures and prints the table."""
    space = spaces.get("nasbench201")
    values = np.random.default_rng(0).random(space.cardinality)
    start = time.perf_counter()
    for seed in range(options.peer_repetitions):
        peer(values, options.evaluations, random.Random(seed))
    alone = (time.perf_counter() - start) * options.repetitions / options.peer_repetitions
    lines = [
        f"{options.repetitions} repetitions of {options.evaluations} evaluations.",
        "",
        "| strategy | first call, s | second call, s | plain Python / second call |",
        "| --- " * 4 + "|",
        f"| regularised evolution in plain Python | {alone:.1f} | {alone:.1f} | 1 |",
    ]
    for name in options.strategies:
        seconds = []
        for seed in range(2):
            start = time.perf_counter()
            keys = jax.random.split(jax.random.key(seed), options.repetitions)
            search.simulate(search.VARIANTS[name], space, values, keys, options.evaluations)
            seconds.append(time.perf_counter() - start)
        lines.append(f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} | {alone / seconds[1]:.0f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text)


def peer(values: np.ndarray, evaluations: int, rng: random.Random, members: int = 50, contenders: int = 10) -> float:
    """Runs regularised evolution once, a child at a time, and returns the best value."""
    population: collections.deque[tuple[float, list[int]]] = collections.deque(maxlen=members)
    table, best = values.tolist(), -np.inf
    for number in range(evaluations):
        if number < members:
            cell = [rng.randrange(5) for _ in range(6)]
        else:
            cell = list(max(rng.sample(population, contenders))[1])
            edge = rng.randrange(6)
            cell[edge] = (cell[edge] + rng.randrange(1, 5)) % 5
        place = 0
        for option in cell:
            place = 5 * place + option
        population.append((table[place], cell))
        best = max(best, table[place])
    return best


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
