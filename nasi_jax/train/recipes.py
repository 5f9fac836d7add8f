"""How networks are trained: published protocols as settings."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Literal

from flax import linen as nn

from nasi_jax.spaces import SearchSpace


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a training by stochastic gradient descent whose rate falls along half a cosine to zero.

    Attributes:
        epochs: passes over the training images. The last images of a pass, fewer than a batch, are left out.
        batch: images in a step.
        learning_rate: highest rate.
        warmup: epochs in which the rate rises to it from zero.
        momentum: factor of the velocity.
        nesterov: whether momentum is Nesterov's.
        weight_decay: of all parameters, added to the gradient as PyTorch does.
        gradient_clip: largest norm of the gradient of all parameters, before weight decay; 0 is no limit.
        label_smoothing: share of the label that all classes have in common.
        crop: pixels of black around an image, from which one of the same size is cut; 0 is none.
        flip: whether half of the images are mirrored.
        cutout: side of the square that is set to the mean in every image (DeVries and Taylor, 2017); 0 is none.
        drop_path: probability that an edge is dropped in the last epoch, to which it rises linearly.
        auxiliary: weight of the loss of the auxiliary head; 0 is no such head.
        precision: type in which the network computes; parameters, statistics and losses stay float32.
        average: decay of the moving average of the parameters, by which the network is evaluated; 0 is none.
        channels: channels of the first cells.
        cells: size in cells, as the space counts them.

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int
    batch: int
    learning_rate: float
    warmup: int = 0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    label_smoothing: float = 0.0
    crop: int = 0
    flip: bool = False
    cutout: int = 0
    drop_path: float = 0.0
    auxiliary: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    average: float = 0.0
    channels: int = 16
    cells: int = 5

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name in ("epochs", "batch", "channels", "cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a positive integer, got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate!r}")
        for name in ("warmup", "weight_decay", "gradient_clip", "crop", "cutout", "auxiliary"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        for name in ("momentum", "label_smoothing", "drop_path", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number from 0 to below 1, got {getattr(self, name)!r}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: expected 'float32' or 'bfloat16', got {self.precision!r}")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, got {self.warmup}")


_NASBENCH201 = Recipe(
    epochs=200, batch=256, learning_rate=0.1, nesterov=True, weight_decay=5e-4, crop=4, flip=True, channels=16, cells=5
)

RECIPES = {
    "darts-cifar": Recipe(
        epochs=600,
        batch=96,
        learning_rate=0.025,
        weight_decay=3e-4,
        gradient_clip=5.0,
        crop=4,
        flip=True,
        cutout=16,
        drop_path=0.2,
        auxiliary=0.4,
        channels=36,
        cells=20,
    ),
    "nasbench201": _NASBENCH201,
    "nasbench201-12": dataclasses.replace(_NASBENCH201, epochs=12),
}
"""Published protocols for CIFAR.

``"darts-cifar"``: the evaluation of Liu, Simonyan and Yang (ICLR 2019), by which NASI is judged in the DARTS space; an
error of 2.76 ± 0.09 % on CIFAR-10 with DARTS_V2, of 2.79 ± 0.07 % with NASI-FIX's cells.

``"nasbench201"``: that of Dong and Yang (ICLR 2020), of which NAS-Bench-201's accuracies come; 94.37 % on CIFAR-10 with
the best cell. ``"nasbench201-12"``: the same in 12 epochs.
"""


def network(space: SearchSpace, genotype: Any, recipe: Recipe, classes: int) -> nn.Module:
    """Returns the network that a recipe trains.

    Args:
        space: the search space.
        genotype: a concrete architecture.
        recipe: settings.
        classes: number of labels.

    Returns:
        A module called as `module(x)`.

    Raises:
        ValueError: a size is out of range, or the recipe asks for what the networks of the space do not have.
    """
    size: dict[str, Any] = {"channels": recipe.channels, "cells": recipe.cells, "classes": classes}
    module = space.network(genotype, **size)
    if recipe.drop_path and "drop_path" not in inspect.signature(type(module).__call__).parameters:
        raise ValueError(f"drop_path: expected 0, networks of {space.name} have none, got {recipe.drop_path}")
    if not recipe.auxiliary:
        return module
    if not hasattr(module, "auxiliary"):
        raise ValueError(f"auxiliary: expected 0, networks of {space.name} have no such head, got {recipe.auxiliary}")
    return space.network(genotype, **size, auxiliary=True)
