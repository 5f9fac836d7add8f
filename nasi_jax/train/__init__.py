"""The judge: trains and evaluates networks that were chosen."""

from nasi_jax.train.distillation import Distillation, as_teacher, train_teacher
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
    "Distillation",
    "Evaluation",
    "NonFiniteLossError",
    "Recipe",
    "TrainState",
    "TrainingEvaluator",
    "as_teacher",
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
    "train_teacher",
    "transformation",
    "update",
]
