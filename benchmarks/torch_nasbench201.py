"""NAS-Bench-201's network in PyTorch: the peer of other benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from nasi_jax.spaces.nasbench201 import EDGES, OPERATIONS

_WINDOWS = {"nor_conv_3x3": 3, "nor_conv_1x1": 1}


def network(genotype: Any, channels: int, depth: int) -> nn.Module:
    """Returns the network of a cell, with PyTorch's own initialisation.

    Args:
        genotype: a NAS-Bench-201 genotype.
        channels: channels of the first stage.
        depth: cells a stage.

    Returns:
        A module from (batch, 3, height, width) to (batch, 10).
    """
    choices = [OPERATIONS[i] for i in np.asarray(genotype.operations)]
    layers = [nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)]
    for stage in range(3):
        features = channels * 2**stage
        layers += [Reduction(features // 2, features)] if stage else []
        layers += [Cell(features, choices) for _ in range(depth)]
    head = [nn.BatchNorm2d(4 * channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * channels, 10)]
    return nn.Sequential(*layers, *head)


class Cell(nn.Module):
    """A cell of chosen operations."""

    def __init__(self, features: int, choices: list[str]):
        super().__init__()
        self.choices = choices
        self.layers = nn.ModuleList(_operation(features, choice) for choice in choices)

    def forward(self, x: Any) -> Any:
        """Maps images to images of the same shape."""
        nodes = [x, 0, 0, 0]
        for (source, target), choice, layer in zip(EDGES, self.choices, self.layers, strict=True):
            nodes[target] = nodes[target] + (torch.zeros_like(x) if choice == "none" else layer(nodes[source]))
        return nodes[3]


class Reduction(nn.Module):
    """The residual block between stages."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.main = nn.Sequential(_relu_conv_norm(inputs, outputs, 3, 2), _relu_conv_norm(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Any) -> Any:
        """Halves the images."""
        return self.main(x) + self.shortcut(x)


def _operation(features: int, choice: str) -> nn.Module:
    if choice in _WINDOWS:
        return _relu_conv_norm(features, features, _WINDOWS[choice])
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False) if choice == "avg_pool_3x3" else nn.Identity()


def _relu_conv_norm(inputs: int, outputs: int, window: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, window, stride, window // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(outputs))
