"""The searches over relaxed architectures by name, and their published settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nasi_jax.data import Gaussian
from nasi_jax.search import nasi
from nasi_jax.search.darts import DARTS
from nasi_jax.search.relaxed import Relaxed
from nasi_jax.search.snas import SNAS
from nasi_jax.spaces import SearchSpace

# 50 epochs of 25,000 images in batches of 64; 150 epochs of 50,000
_DARTS_V1 = DARTS(steps=19_500, batch=64, logits_learning_rate=3e-4, auxiliary_skip=0.0, crop=4, flip=True)
_SNAS = SNAS(steps=117_150, batch=64, logits_learning_rate=3e-4, drop_path=0.3, crop=4, flip=True)

METHODS: dict[str, Mapping[str, Relaxed]] = {
    "nasi": nasi.PRESETS,
    "darts": {
        "default": DARTS(),
        "darts-v1": _DARTS_V1,
        "darts-v2": dataclasses.replace(_DARTS_V1, order="second"),
        "darts-single-level": dataclasses.replace(_DARTS_V1, order="single-level", validation=0.1),
        "darts-es": dataclasses.replace(_DARTS_V1, order="second", stop_ratio=1.3),
        "r-darts-l2": dataclasses.replace(_DARTS_V1, order="second", weight_decay=27 * 3e-4),
        "r-darts-dp": dataclasses.replace(_DARTS_V1, order="second", drop_path=0.6, cutout=16),
        "darts-minus": dataclasses.replace(_DARTS_V1, auxiliary_skip=1.0),
        "darts-pt": dataclasses.replace(_DARTS_V1, steps=39_000, perturbation=0.5),
    },
    "gdas": {"default": DARTS(mixture="hard", temperature=10.0, final_temperature=0.1, auxiliary_skip=0.0)},
    "snas": {
        "default": SNAS(),
        "snas": _SNAS,
        "snas-constrained": dataclasses.replace(
            _SNAS, resource=("params", "flops", "memory"), eta=1.5e-3, log_cost=True
        ),
    },
}
"""Every method with its settings by name, "default" first.

``"darts"``: the default has the auxiliary skip of DARTS-; ``"darts-v1"`` and ``"darts-v2"`` are the published
first and second order (Liu, Simonyan and Yang, ICLR 2019), and the others one remedy each on top of them: DARTS-ES and
R-DARTS (Zela et al., ICLR 2020; of its four weight decays and drop rates the largest, to be compared with 1, 3 and 9
times 3e-4 and with 0, 0.2 and 0.4; where edges are dropped, there is cutout too), DARTS- (Chu et al., ICLR 2021) and
DARTS-PT (Wang et al., ICLR 2021). ``"gdas"``: DARTS with straight-through samples (Dong and Yang, CVPR 2019).
``"snas"``: Xie et al. (ICLR 2019), and with the constraint of the authors' README. The paper's mild, moderate and
aggressive constraints are no presets: their `eta` is not published, and whole searches would have to tell which one
leads to the published numbers of parameters. All published settings crop and mirror images, as the authors' code does.
"""


def method(name: str, space: SearchSpace, preset: str = "default") -> Any:
    """Returns named settings for a space.

    Args:
        name: one of `METHODS`.
        space: the search space. The default is for its `search_size`, published settings for the published size, with
            changes of images where it reads images; for NASI see `nasi_jax.search.preset`.
        preset: which of its settings.

    Returns:
        The strategy.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in METHODS:
        raise ValueError(f"strategy: expected one of {tuple(METHODS)}, got {name!r}")
    if preset not in METHODS[name]:
        raise ValueError(f"preset: expected one of {tuple(METHODS[name])}, got {preset!r}")
    if name == "nasi":
        return nasi.preset(preset, space)
    found: Any = METHODS[name][preset]
    if not isinstance(space.noise(), Gaussian):
        found = dataclasses.replace(found, crop=0, flip=False, cutout=0)
    return dataclasses.replace(found, size=space.search_size if preset == "default" else space.Size())
