"""How networks are trained: published protocols as settings."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from nasi_jax.programs import choose_execution
from nasi_jax.spaces import Network, SearchSpace


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a training by stochastic gradient descent.

    Attributes:
        epochs: passes over the training images. The last images of a pass, fewer than a batch, are left out.
        batch: images in a step.
        learning_rate: highest rate.
        warmup: epochs, or a part of one, in which the rate rises to it from zero.
        decay: factor of the rate from each epoch to the next, 1 leaving it as it is; 0 is half a cosine over the steps,
            down to zero.
        optimizer: "sgd", or "adam" without momentum and Nesterov's.
        momentum: factor of the velocity.
        nesterov: whether momentum is Nesterov's.
        weight_decay: of all parameters, added to the gradient as PyTorch does.
        gradient_clip: largest norm of the gradient of all parameters, before weight decay; 0 is no limit.
        label_smoothing: share of the label that all classes have in common.
        crop: pixels of black around an image, from which one of the same size is cut; 0 is none.
        flip: whether half of the images are mirrored.
        resized_crop: smallest share of an image's area that a crop of random size and shape takes; images are then read
            while the network trains, and may differ in size (Szegedy et al., 2015); 0 is none.
        jitter: strength of random changes of brightness, contrast, saturation and hue; 0 is none.
        cutout: side of the square that is set to the mean in every image (DeVries and Taylor, 2017); 0 is none.
        drop_path: probability that an edge is dropped in the last epoch, to which it rises linearly.
        dropout: share of the entries that are dropped, in networks of graphs and of text.
        auxiliary: weight of the loss of the auxiliary head; 0 is no such head.
        precision: type in which the network computes; parameters, statistics and losses stay float32.
        initialisation: how kernels are drawn: "he" with variance 2 / inputs as for a search, or "pytorch" as its layers
            do by default, uniformly with variance 1 / (3 inputs), which published protocols rely on, or "bert" normal
            of deviation 0.02.
        average: decay of the moving average of the parameters, by which the network is evaluated; 0 is none.
        channels: channels of the first cells.
        cells: size in cells, as the space counts them.
        stem: what comes before the cells, in spaces that know several; "imagenet" is for large images.
        hidden: channels of a network of NAS-Bench-Graph, or of a wide one of NAS-Bench-BERT.
        width: channels of the widest blocks of NAS-BERT.
        embedding: channels of a token's embedding; 0 leaves them as the space has them.
        pre: whether it has a layer before its nodes.
        post: whether it has one after them.
        image_size: height and width that images are brought to; 0 leaves them as they are.

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int
    batch: int
    learning_rate: float
    warmup: float = 0
    decay: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    gradient_clip: float = 0.0
    label_smoothing: float = 0.0
    crop: int = 0
    flip: bool = False
    resized_crop: float = 0.0
    jitter: float = 0.0
    cutout: int = 0
    drop_path: float = 0.0
    dropout: float = 0.0
    auxiliary: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    initialisation: Literal["he", "pytorch", "bert"] = "he"
    average: float = 0.0
    channels: int = 16
    cells: int = 5
    stem: Literal["cifar", "imagenet"] = "cifar"
    hidden: int = 256
    width: int = 512
    embedding: int = 0
    pre: bool = False
    post: bool = True
    image_size: int = 0

    def __post_init__(self) -> None:
        """Checks every setting."""
        for name in ("epochs", "batch", "channels", "cells", "hidden", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a positive integer, got {getattr(self, name)!r}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate!r}")
        for name in (
            "warmup",
            "weight_decay",
            "gradient_clip",
            "crop",
            "cutout",
            "auxiliary",
            "embedding",
            "image_size",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a number of at least 0, got {getattr(self, name)!r}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay: expected a number from 0 to 1, got {self.decay!r}")
        for name in ("momentum", "label_smoothing", "resized_crop", "jitter", "drop_path", "dropout", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a number from 0 to below 1, got {getattr(self, name)!r}")
        choices = {
            "precision": ("float32", "bfloat16"),
            "initialisation": ("he", "pytorch", "bert"),
            "stem": ("cifar", "imagenet"),
            "optimizer": ("sgd", "adam"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                expected = " or ".join(map(repr, known))
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        if self.resized_crop and not self.image_size:
            raise ValueError("image_size: expected a positive integer with resized_crop, got 0")
        if self.warmup >= self.epochs:
            raise ValueError(f"warmup: expected fewer than the {self.epochs} epochs, got {self.warmup}")


_NASBENCH201 = Recipe(
    epochs=200,
    batch=256,
    learning_rate=0.1,
    nesterov=True,
    weight_decay=5e-4,
    crop=4,
    flip=True,
    initialisation="pytorch",
    channels=16,
    cells=5,
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
        initialisation="pytorch",
        channels=36,
        cells=20,
    ),
    "nasbench201": _NASBENCH201,
    "nasbench201-12": dataclasses.replace(_NASBENCH201, epochs=12),
    "imagenet-mobile": Recipe(
        epochs=250,
        batch=128,
        learning_rate=0.1,
        decay=0.97,
        weight_decay=3e-5,
        gradient_clip=5.0,
        label_smoothing=0.1,
        flip=True,
        resized_crop=0.08,
        jitter=0.4,
        auxiliary=0.4,
        initialisation="pytorch",
        channels=48,
        cells=14,
        stem="imagenet",
        image_size=224,
    ),
    "nasbench-graph-cora": Recipe(
        epochs=400,
        batch=140,
        learning_rate=0.1,
        decay=1.0,
        momentum=0.0,
        weight_decay=5e-4,
        dropout=0.7,
        initialisation="pytorch",
        hidden=256,
    ),
    "egnas": Recipe(
        epochs=100,
        batch=32,
        learning_rate=1e-3,
        optimizer="adam",
        gradient_clip=5.0,
        initialisation="pytorch",
    ),
    "masked-words": Recipe(
        epochs=20,
        batch=32,
        learning_rate=5e-4,
        warmup=2,
        optimizer="adam",
        gradient_clip=1.0,
        dropout=0.1,
        initialisation="bert",
    ),
    "sentences": Recipe(
        epochs=3,
        batch=32,
        learning_rate=5e-4,
        optimizer="adam",
        gradient_clip=1.0,
        dropout=0.1,
        initialisation="bert",
    ),
}
"""Published protocols.

``"darts-cifar"``: the evaluation of Liu, Simonyan and Yang (ICLR 2019), by which NASI is judged in the DARTS space; an
error of 2.76 ± 0.09 % on CIFAR-10 with DARTS_V2, of 2.79 ± 0.07 % with NASI-FIX's cells.

``"nasbench201"``: that of Dong and Yang (ICLR 2020), of which NAS-Bench-201's accuracies come; 94.37 % on CIFAR-10 with
the best cell. ``"nasbench201-12"``: the same in 12 epochs.

``"imagenet-mobile"``: the evaluation of Liu, Simonyan and Yang on ImageNet at 224x224 with less than 600 million
multiply-adds; a top-1 / top-5 error of 26.7 / 8.7 % with DARTS_V2, of 25.0 / 7.8 % with NASI-ADA's cells.

``"nasbench-graph-cora"``: that of NAS-Bench-Graph (Qin et al., NeurIPS 2022) on Cora, all 140 labelled nodes in a step.
``"egnas"``: after the final training of EGNAS, for small graphs: its rate is halved when the validation loss does not
fall, over 400 epochs, in the place of which there is a cosine over 100.

``"masked-words"``: pre-training on the words that are masked out of a text, with the rate, warm-up and initialisation
of BERT and ELECTRA for small networks, for a text of minutes instead of days. ``"sentences"``: the fine-tuning of
ELECTRA (Clark et al., ICLR 2020) by which NAS-Bench-BERT's encoders were judged, without a rate for each layer.
"""


def network(space: SearchSpace, genotype: Any, recipe: Recipe, outputs: int) -> Network:
    """Returns the network that a recipe trains.

    Args:
        space: the search space.
        genotype: a concrete architecture.
        recipe: settings.
        outputs: number of outputs.

    Returns:
        A module called as `module(x)`.

    Raises:
        ValueError: a size is out of range, or the recipe asks for what the networks of the space do not have.
    """
    module = space.network(genotype, size(space, recipe), outputs, execution=choose_execution("train"))
    if recipe.drop_path and "drop_path" not in module.capabilities:
        raise ValueError(f"drop_path: expected 0, networks of {space.name} have none, got {recipe.drop_path}")
    if recipe.dropout and "dropout" not in module.capabilities:
        raise ValueError(f"dropout: expected 0, networks of {space.name} have none, got {recipe.dropout}")
    if not recipe.auxiliary:
        return module
    if "auxiliary" not in module.capabilities:
        raise ValueError(f"auxiliary: expected 0, networks of {space.name} have no such head, got {recipe.auxiliary}")
    return module.clone(auxiliary=True)


def size(space: SearchSpace, recipe: Recipe) -> Any:
    """Returns the size of the network that a recipe trains.

    Args:
        space: the search space.
        recipe: settings. Those that the space's `Size` has by the same name are taken, the others are its defaults.

    Returns:
        A `Size` of the space.

    Raises:
        ValueError: a size is out of range, or the networks of the space do not have the stem.
    """
    if recipe.stem != "cifar" and "stem" not in _names(space):
        raise ValueError(f"stem: expected 'cifar', networks of {space.name} have no other, got {recipe.stem!r}")
    known = {"channels", "cells", "stem", "hidden", "width", "embedding", "pre", "post"} & _names(space)
    left_out = set() if recipe.embedding else {"embedding"}
    return space.Size(**{name: getattr(recipe, name) for name in known - left_out})


def _names(space: SearchSpace) -> set[str]:
    return {field.name for field in dataclasses.fields(space.Size)}
