"""The judge: trains and evaluates networks that were chosen."""

from nasi_jax.train.evaluation import Evaluation, evaluate
from nasi_jax.train.evaluator import TrainingEvaluator
from nasi_jax.train.loop import (
    NonFiniteLossError,
    TrainState,
    init,
    init_states,
    iterate,
    order,
    pretrained,
    schedule,
    step,
    steps_per_epoch,
    time_step,
    transformation,
    update,
)
from nasi_jax.train.recipes import RECIPES, Recipe, network, size

__all__ = [
    "RECIPES",
    "Evaluation",
    "NonFiniteLossError",
    "Recipe",
    "TrainState",
    "TrainingEvaluator",
    "evaluate",
    "init",
    "init_states",
    "iterate",
    "network",
    "order",
    "pretrained",
    "schedule",
    "size",
    "step",
    "steps_per_epoch",
    "time_step",
    "transformation",
    "update",
]
