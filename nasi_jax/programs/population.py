"""Several independent searches or trainings that advance side by side.

Equals `jax.vmap` over the members of a `jax.lax.scan` over the steps, which is what runs on an accelerator. On a CPU,
`vmap` over parameters turns convolutions into grouped ones, which XLA runs 7 to 50 times slower there, and a
convolution's gradient within a scan 12 to 100 times; so the host loops. A program that branches leaves cores idle, so
that members take their steps in threads, one more than there are cores. The loop on the host can go when XLA's grouped
convolutions and loops on a CPU cost what plain ones do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from nasi_jax.programs._numerics import numerics, same_numerics
from nasi_jax.programs.compiler import NetworkProgram, jit_network
from nasi_jax.programs.execution import Execution


def stack(trees: Sequence[Any]) -> Any:
    """Joins trees of one structure along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def member(trees: Any, i: int) -> Any:
    """Returns the i-th of trees that `stack` joined."""
    return jax.tree.map(lambda leaf: leaf[i], trees)


_stack, _member = jax.jit(stack), jax.jit(member, static_argnums=1)


class Population:
    """Advances members by one function of a step."""

    def __init__(self, step: Callable[..., tuple[Any, Any]], statics: int, *, donate: bool = False):
        """Compiles nothing yet.

        Args:
            step: pure, ``step(*statics, shared, state, *own)``, which returns the next state and figures of the step.
            statics: number of its first arguments, hashable, for each of which a program is compiled.
            donate: whether a step takes the memory of the state before it.
        """
        self._step = step
        self._program = NetworkProgram(step, statics, **({"donate_argnums": statics + 1} if donate else {}))
        self._compiled: set[tuple[Any, Execution]] = set()
        self._scan = jit_network(self._scanned, static_argnums=(0, 1))

    def advance(
        self,
        statics: tuple[Hashable, ...],
        shared: Any,
        states: Any,
        own: Sequence[tuple[Any, ...]],
        *,
        execution: Execution,
        length: int = 1,
        wait: bool = False,
    ) -> tuple[Any, Any]:
        """Takes some steps of every member.

        Args:
            statics: the first arguments of the step.
            shared: what all members share, a pytree.
            states: their states, with a leading axis (members,).
            own: for each member its other arguments, pytrees.
            execution: whether steps are scanned, run as a sequence of programs, or each as one program.
            length: number of steps.
            wait: whether the host waits for each step. On a CPU, several programs in flight on its virtual devices can
                wait for each other for ever.

        Returns:
            The states after them, and the figures of the steps, (members, length) each.
        """
        if execution.scan:
            return self._scan(statics, length, shared, states, stack(own))
        options = numerics()  # which other threads do not see
        # the states of a network in blocks are hundreds of arrays, each of which would be a call of its own
        taken, joined = (_member, _stack) if execution.blocks else (member, stack)

        def course(i: int) -> tuple[Any, Any]:
            state, figures = taken(states, i), []
            with same_numerics(options):
                for _ in range(length):
                    state, info = self._program(execution, *statics, shared, state, *own[i])
                    if wait:
                        jax.block_until_ready(state)
                    figures.append(info)
                return state, stack(figures)

        alone = wait or execution.discrete != "branches" or execution.blocks or len(own) == 1
        # of a program that is not compiled yet, threads would compile one each
        before = len(own) if alone else int((statics, execution) not in self._compiled)
        self._compiled.add((statics, execution))
        advanced = [course(i) for i in range(before)]
        if not alone:
            with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as threads:
                waited = threads.map(lambda i: jax.block_until_ready(course(i)), range(before, len(own)))
                advanced += waited
        members, figures = zip(*advanced, strict=True)
        return joined(members), stack(figures)

    def _scanned(
        self, statics: tuple[Hashable, ...], length: int, shared: Any, states: Any, own: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        def one(state: Any, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
            def body(state: Any, _: None) -> tuple[Any, Any]:
                return self._step(*statics, shared, state, *arguments)

            return jax.lax.scan(body, state, length=length)

        return jax.vmap(one)(states, own)
