"""Gradients of NAS-Bench-Graph's networks in PyTorch, with sparse products for the sums over edges.

Written after the benchmark's description, for comparison with ours: parameters have our names and shapes. Sparse
matrices are in compressed rows, as are their transposes for the gradients, which are made once and not at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

_EPSILON = 1e-5
_SECOND = ("cheb", "sage", "arma", "graph")


class _Product(torch.autograd.Function):
    """A product with a sparse matrix, whose transpose is at hand for the gradient."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, transposed: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[None, None, torch.Tensor]:
        return None, None, ctx.transposed @ slopes[0]


def matrices(senders: np.ndarray, receivers: np.ndarray, nodes: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Returns the matrix of each operation that sums over edges, with its transpose, (nodes, nodes)."""
    degree = np.bincount(receivers, minlength=nodes).astype(np.float64)
    looped, plain = (degree + 1) ** -0.5, np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0)
    own = np.arange(nodes)
    loops = np.concatenate([receivers, own]), np.concatenate([senders, own])
    edges = receivers, senders
    laplacian = plain[receivers] * plain[senders]
    weighed = {
        "gcn": (*loops, looped[loops[0]] * looped[loops[1]]),
        "gin": (*loops, np.ones(len(loops[0]))),
        "cheb": (*edges, -laplacian),
        "sage": (*edges, 1 / degree[receivers]),
        "arma": (*edges, laplacian),
        "graph": (*edges, np.ones(len(receivers))),
    }
    return {name: (_sparse(rows, columns, values, nodes), _sparse(columns, rows, values, nodes))
            for name, (rows, columns, values) in weighed.items()}  # fmt: skip


def _sparse(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, nodes: int) -> torch.Tensor:
    places, weights = torch.tensor(np.stack([rows, columns])), torch.tensor(values, dtype=torch.float32)
    return torch.sparse_coo_tensor(places, weights, (nodes, nodes)).coalesce().to_sparse_csr()


def gradient(
    params: Any,
    links: tuple[int, ...],
    operations: tuple[str, ...],
    x: np.ndarray,
    senders: np.ndarray,
    receivers: np.ndarray,
    examples: np.ndarray,
    labels: np.ndarray,
) -> Callable[[], Any]:
    """Returns a function that computes the gradient of the mean cross-entropy of some nodes, over the whole graph.

    Args:
        params: our parameters of the derived network, a dictionary of dictionaries of arrays.
        links: for each node what it reads.
        operations: names of the operations.
        x: features, (nodes, features).
        senders: (edges,).
        receivers: (edges,).
        examples: the nodes that have labels.
        labels: theirs.

    Returns:
        A function of nothing. Its result is like `params`; of parameters that take no part it is None.
    """
    weights = _tensors(params)
    products = matrices(senders, receivers, len(x))
    features, chosen = torch.tensor(x), torch.tensor(np.asarray(examples, np.int64))
    truth = torch.tensor(np.asarray(labels, np.int64))
    loops = torch.arange(len(x))
    ends = torch.cat([torch.tensor(senders).long(), loops]), torch.cat([torch.tensor(receivers).long(), loops])

    def operation(name: str, p: Any, kind: str, h: torch.Tensor) -> torch.Tensor:
        first = h @ p[f"{kind}_kernel"]["kernel"]
        if name == "gat":
            return _attention(first, p, ends) + p["bias"]
        z = _Product.apply(*products[name], first) if name in products else first
        if name in _SECOND:
            z = z + h @ p[f"{kind}_second"]["kernel"]
        z = z + p["bias"]
        return torch.relu(z) if name == "arma" else z

    def outputs() -> torch.Tensor:
        values: list[tuple[bool, torch.Tensor]] = [(True, features)]
        for k, (link, name) in enumerate(zip(links, operations, strict=True), start=1):
            raw, h = values[link]
            if name == "skip":
                values.append((raw, h))
                continue
            p = weights[f"node_{k}"]
            if not raw:
                h = torch.relu(
                    functional.batch_norm(
                        h, None, None, p["norm"]["scale"], p["norm"]["bias"], training=True, eps=_EPSILON
                    )
                )
            values.append((False, operation(name, p, "raw" if raw else "inner", h)))
        last = [k for k in range(1, len(links) + 1) if k not in links and not values[k][0]]
        joined = torch.relu(torch.cat([values[k][1][chosen] for k in last], dim=1))
        kernel = torch.cat([weights["post"][f"node_{k}"]["kernel"] for k in last])
        joined = joined @ kernel / len(last) ** 0.5 + weights["post"]["bias"]
        return joined @ weights["head"]["kernel"] + weights["head"]["bias"]

    def computed() -> Any:
        for leaf in _leaves(weights):
            leaf.grad = None
        functional.cross_entropy(outputs(), truth).backward()
        return _map(weights, lambda leaf: leaf.grad)

    return computed


def _attention(p: torch.Tensor, vectors: Any, ends: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    sending, receiving = (vectors[name]["kernel"] for name in ("sending", "receiving"))
    heads = p.reshape(len(p), sending.shape[1], -1)
    senders, receivers = ends
    scores = torch.einsum("nhd,dh->nh", heads, sending)[senders]
    scores = functional.leaky_relu(scores + torch.einsum("nhd,dh->nh", heads, receiving)[receivers], 0.2)
    places = receivers[:, None].expand_as(scores)
    largest = torch.full((len(p), scores.shape[1]), -torch.inf).scatter_reduce(0, places, scores.detach(), "amax")
    shares = torch.exp(scores - largest[receivers])
    total = torch.zeros(len(p), scores.shape[1]).index_add(0, receivers, shares)
    messages = heads[senders] * (shares / total[receivers])[..., None]
    return torch.zeros_like(heads).index_add(0, receivers, messages).reshape(p.shape)


def _map(tree: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(tree, dict):
        return {name: _map(branch, function) for name, branch in tree.items()}
    return function(tree)


def _tensors(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _tensors(branch) for name, branch in tree.items()}
    return torch.tensor(np.array(tree)).requires_grad_()


def _leaves(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in _leaves(branch)]
    return [tree]
