"""GenNAS on NAS-Bench-201's network in PyTorch: the peer of another benchmark."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch_nasbench201
from torch import nn  # pyright: ignore[reportMissingImports]

_STAGE_WEIGHTS = (0.25, 0.5, 1.0)


class Network(nn.Module):
    """NAS-Bench-201's network up to the end of each stage, cells bare, and a head for each stage.

    Args:
        genotype: a NAS-Bench-201 genotype.
        channels: channels of the first stage.
        depth: cells a stage.
        targets: channels of the target of each stage.
        side: height and width of the targets.
    """

    def __init__(self, genotype: Any, channels: int, depth: int, targets: tuple[int, ...], side: int):
        super().__init__()
        whole = torch_nasbench201.network(genotype, channels, depth)
        parts = list(whole.children())[: 2 + 3 * depth + 2]
        for cell in parts:
            if isinstance(cell, torch_nasbench201.Cell):
                _make_bare(cell)
        first, later = 2 + depth, 1 + depth
        bounds = (0, first, first + later, first + 2 * later)
        self.stages = nn.ModuleList(nn.Sequential(*parts[a:b]) for a, b in itertools.pairwise(bounds))
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Upsample((side, side)), nn.BatchNorm2d(channels * 2**i), nn.Conv2d(channels * 2**i, c, 1))
            for i, c in enumerate(targets)
        )

    def forward(self, x: Any) -> list[Any]:
        """Maps images (batch, 3, height, width) to what is compared with the targets."""
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            found.append(head(x))
        return found


def _make_bare(cell: nn.Module) -> None:
    """Gives convolutions a bias, and takes scale, shift and running statistics from the normalisations."""
    for block in cell.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i, layer in enumerate(block):
            if isinstance(layer, nn.Conv2d):
                block[i] = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, 1, layer.padding)
            elif isinstance(layer, nn.BatchNorm2d):
                block[i] = nn.BatchNorm2d(layer.num_features, affine=False, track_running_stats=False)


def losses(
    network: Network, x: np.ndarray, targets: list[np.ndarray], noise: float, steps: int, every: int
) -> list[float]:
    """Trains a network to fit targets, and returns its losses.

    Args:
        network: the network, drawn anew.
        x: images, (batch, height, width, 3).
        targets: for each stage (batch, side, side, channels).
        noise: uniform noise on the images, from minus that to that.
        steps: number of steps.
        every: steps from one evaluation to the next.

    Returns:
        The loss on images with fresh noise, by running statistics, after each `every` steps.
    """
    images = _first(x)
    wanted = [_first(target) for target in targets]
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 4e-5},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9)

    def loss() -> Any:
        outputs = network(images + noise * (2 * torch.rand_like(images) - 1))
        terms = zip(_STAGE_WEIGHTS, outputs, wanted, strict=True)
        return sum(weight * ((output - target) ** 2).mean() for weight, output, target in terms)

    found = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step % every == 0:
            network.eval()
            with torch.no_grad():
                found.append(float(loss()))
            network.train()
    return found


def _first(x: np.ndarray) -> Any:
    """Puts the channels first."""
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
