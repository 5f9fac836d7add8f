"""The networks of the DARTS space in PyTorch, written as in the authors' code: the peer of other benchmarks."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from nasi_jax.spaces.darts_network import EDGES, NODES, OPERATIONS

torch: Any = importlib.import_module("torch")
nn, functional = torch.nn, torch.nn.functional


class Network(nn.Module):
    """All edges and operations, or with a genotype its own, scale and shift, and the auxiliary head."""

    def __init__(self, genotype: Any, channels: int, cells: int):
        """Draws the parameters.

        Args:
            genotype: a DARTS genotype; None for all edges and operations.
            channels: channels of a node in the first cells.
            cells: number of cells.
        """
        super().__init__()
        affine = genotype is not None
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, 1, 1, bias=False), _norm(3 * channels, affine))
        before, last, after_reduction, self.cells = 3 * channels, 3 * channels, False, nn.ModuleList()
        reductions = (cells // 3, 2 * cells // 3)
        for i in range(cells):
            reduction = i in reductions
            channels *= 2 if reduction else 1
            chosen = [[*OPERATIONS] for _ in EDGES] if genotype is None else _chosen(genotype, int(reduction))
            self.cells.append(_Cell(before, last, channels, reduction, after_reduction, chosen, affine))
            before, last, after_reduction = last, 4 * channels, reduction
            if affine and i == reductions[1]:
                self.head_after, self.auxiliary = i, _auxiliary(last)
        self.head = nn.Linear(last, 10)

    def forward(self, x: Any, weights: Any = None) -> Any:
        """Maps (batch, 3, height, width), and weights of both kinds of cell, to logits or to those of two heads."""
        before, auxiliary = self.stem(x), None
        last = before
        for i, cell in enumerate(self.cells):
            before, last = last, cell(before, last, None if weights is None else weights[int(cell.reduction)])
            if weights is None and i == self.head_after:
                auxiliary = self.auxiliary(last)
        logits = self.head(last.mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)


class _Cell(nn.Module):
    def __init__(
        self,
        before: int,
        last: int,
        channels: int,
        reduction: bool,
        after_reduction: bool,
        chosen: list[list[str]],
        affine: bool,
    ):
        super().__init__()
        self.first = _Factorised(before, channels, affine) if after_reduction else _preprocess(before, channels, affine)
        self.second, self.reduction = _preprocess(last, channels, affine), reduction
        self.edges = nn.ModuleList(
            nn.ModuleList(_operation(o, channels, 2 if reduction and source < 2 else 1, affine) for o in operations)
            for (source, _), operations in zip(EDGES, chosen, strict=True)
        )

    def forward(self, before: Any, last: Any, weights: Any) -> Any:
        nodes = [self.first(before), self.second(last)] + [0] * NODES
        for number, ((source, target), edge) in enumerate(zip(EDGES, self.edges, strict=True)):
            for i, operation in enumerate(edge):
                output = operation(nodes[source])
                nodes[2 + target] = nodes[2 + target] + (output if weights is None else weights[number][i] * output)
        return torch.cat(nodes[2:], 1)


class _Factorised(nn.Module):
    def __init__(self, inputs: int, outputs: int, affine: bool):
        super().__init__()
        self.halves = nn.ModuleList(nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False) for _ in range(2))
        self.norm = _norm(outputs, affine)

    def forward(self, x: Any) -> Any:
        x = functional.relu(x)
        return self.norm(torch.cat([self.halves[0](x), self.halves[1](x[:, :, 1:, 1:])], 1))


def _chosen(genotype: Any, kind: int) -> list[list[str]]:
    """Returns the operations of each edge of a cell, none or one."""
    chosen = [[] for _ in EDGES]
    for node in range(NODES):
        for source, operation in zip(genotype.inputs[kind, node], genotype.operations[kind, node], strict=True):
            chosen[EDGES.index((int(source), node))].append(OPERATIONS[int(np.asarray(operation))])
    return chosen


def _operation(name: str, channels: int, strides: int, affine: bool) -> Any:
    if name == "skip_connect":
        return nn.Identity() if strides == 1 else _Factorised(channels, channels, affine)
    if "pool" in name:
        pool = nn.MaxPool2d(3, strides, 1) if "max" in name else nn.AvgPool2d(3, strides, 1, count_include_pad=False)
        return pool if affine else nn.Sequential(pool, _norm(channels, affine))
    window = 5 if "5x5" in name else 3
    dilation, halves = (1, 2) if name.startswith("sep") else (2, 1)
    layers = []
    for half in range(halves):
        step, pad = strides if half == 0 else 1, dilation * (window - 1) // 2
        layers += [nn.ReLU(), nn.Conv2d(channels, channels, window, step, pad, dilation, channels, bias=False)]
        layers += [nn.Conv2d(channels, channels, 1, bias=False), _norm(channels, affine)]
    return nn.Sequential(*layers)


def _preprocess(inputs: int, channels: int, affine: bool) -> Any:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inputs, channels, 1, bias=False), _norm(channels, affine))


def _norm(channels: int, affine: bool) -> Any:
    return nn.BatchNorm2d(channels, affine=affine)


def _auxiliary(channels: int) -> Any:
    return nn.Sequential(
        nn.ReLU(), nn.AvgPool2d(5, 3, count_include_pad=False),
        nn.Conv2d(channels, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Conv2d(128, 768, 2, bias=False), nn.BatchNorm2d(768), nn.ReLU(), nn.Flatten(), nn.Linear(768, 10),
    )  # fmt: skip
