"""The contract of a search over relaxed architectures: logits of a one-shot network, moved step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from nasi_jax.data import Source, shapes
from nasi_jax.programs import Execution
from nasi_jax.programs.compiler import run_by_programs
from nasi_jax.scores.costs import Costs
from nasi_jax.scores.linear import LinearCost
from nasi_jax.spaces import Alphas, Network, SearchSpace

Limited = Sequence[tuple[LinearCost, float]]
"""Costs and their bounds."""

_TINY = 1e-30


class Begun(NamedTuple):
    """Where a search begins.

    Attributes:
        state: its state before the first step.
        constants: what does not change in the course of it, such as parameters that stay at initialisation.
    """

    state: Any
    constants: Any


class Relaxed(Protocol):
    """A strategy that moves the logits of a one-shot network: a frozen dataclass of its settings.

    Its state is a pytree with the number of steps done as `step` and the logits as `alphas`, all that decides how the
    search goes on beside its key.

    Attributes:
        steps: number of steps.
        batch: examples in the batch of a step.
        shown: the figures of a step that progress and pictures show.
    """

    shown: ClassVar[tuple[str, ...]]

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def batch(self) -> int: ...  # noqa: D102

    def prepared(self, source: Source) -> Source:
        """Returns the source that steps draw from, such as one in two parts.

        Raises:
            ValueError: there are too few examples.
        """
        source.check_batch(self.batch)
        return source

    def begin(
        self, space: SearchSpace, source: Source, key: jax.Array, limits: Limited = (), costs: Costs | None = None
    ) -> Begun:
        """Draws the state before the first step.

        Args:
            space: the search space.
            source: gives shapes of inputs and the number of outputs.
            key: typed random key.
            limits: costs and their bounds; while the expected costs are above them, logits move to cheaper choices.
            costs: what architectures cost, for a strategy that counts costs as a loss; counted anew when None.

        Returns:
            The state and the constants of the search.
        """
        ...

    def execution(self, space: SearchSpace, source: Source) -> Execution:
        """Chooses how steps run on the device at hand.

        Raises:
            ValueError: the inputs do not fit the network, or the network has not what the strategy asks for.
        """
        ...

    def step(
        self, space: SearchSpace, source: Source, state: Any, params: Any, key: jax.Array, execution: Execution
    ) -> tuple[Any, Any]:
        """Takes one step; pure. Returns the state after it and a named tuple of the step's figures, scalars.

        Args:
            space: the search space; static.
            source: what `prepared` returned.
            state: state before the step.
            params: the constants of the search.
            key: typed random key of the step.
            execution: how the network runs.
        """
        ...

    @property
    def warmup_steps(self) -> int:
        """The number of steps, the first ones, that are taken by `warm_step`."""
        return 0

    def warm_step(
        self, space: SearchSpace, source: Source, state: Any, params: Any, key: jax.Array, execution: Execution
    ) -> tuple[Any, Any]:
        """Takes one of the first `warmup_steps`, which leaves the logits as they are; see `step`."""
        return self.step(space, source, state, params, key, execution)

    def pauses(self, space: SearchSpace) -> tuple[int, ...]:
        """Returns the numbers of steps after which `look` is called, rising."""
        return ()

    def look(self, space: SearchSpace, source: Source, state: Any, key: jax.Array, execution: Execution) -> Any:
        """Measures or decides something between two steps, on the host; returns the state to go on from."""
        return state

    def ended(self, state: Any) -> bool:
        """Whether a search has come to its end before all steps are done."""
        return False

    def genotype(self, space: SearchSpace, state: Any) -> Any:
        """Returns the architecture that is selected so far."""
        return space.decode(state.alphas)


def draw_params(module: Network, space: SearchSpace, source: Source, batch: int, key: jax.Array) -> Any:
    """Draws the parameters of a one-shot network.

    Args:
        module: the network.
        space: gives the weights that it reads.
        source: gives the shapes of inputs.
        batch: examples in a batch.
        key: typed random key.

    Returns:
        Parameters in JAX's default float type.
    """
    # hundreds of draws by the default generator take longer
    key = jax.random.key(jax.random.bits(key), impl="unsafe_rbg")
    read = shapes(source, batch).x

    def drawn(key: jax.Array) -> Any:
        x = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), read)
        return module.init(key, x, space.alphas())["params"]

    # `lazy_init` compiles what the network makes of its parameters
    return run_by_programs(drawn)(key)


def within_limits(gradient: Alphas, alphas: Alphas, limits: tuple[LinearCost, ...]) -> tuple[Alphas, jax.Array]:
    """Turns a gradient towards cheaper architectures while the expected costs are above their bounds.

    Args:
        gradient: direction in which the logits are to move.
        alphas: where the costs are taken.
        limits: costs divided by their bounds.

    Returns:
        The direction, at full excess by as much cheaper as it was better, and the sum of relative excesses.
    """
    excess, rise = jax.value_and_grad(_excess)(alphas, limits)
    share = jnp.minimum(1, excess) * optax.tree.norm(gradient) / jnp.maximum(optax.tree.norm(rise), _TINY)
    return optax.tree.add_scale(gradient, -share, rise), excess


def _excess(alphas: Alphas, limits: tuple[LinearCost, ...]) -> jax.Array:
    """Returns the sum of relative excesses of the expected costs."""
    above = (jax.nn.relu(cost.expected(alphas) - 1) for cost in limits)
    return sum(above, jnp.zeros((), jnp.result_type(float)))
