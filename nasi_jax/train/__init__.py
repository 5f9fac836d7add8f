"""The judge: trains and evaluates networks that were chosen."""

from nasi_jax.train.loop import (
    Evaluation,
    NonFiniteLossError,
    TrainState,
    evaluate,
    init,
    init_states,
    iterate,
    order,
    schedule,
    step,
    steps_per_epoch,
    time_step,
    transformation,
)
from nasi_jax.train.recipes import RECIPES, Recipe, network

__all__ = [
    "RECIPES",
    "Evaluation",
    "NonFiniteLossError",
    "Recipe",
    "TrainState",
    "evaluate",
    "init",
    "init_states",
    "iterate",
    "network",
    "order",
    "schedule",
    "step",
    "steps_per_epoch",
    "time_step",
    "transformation",
]
