"""Graphs from an .npz file or a folder of .npy files."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from nasi_jax.data.arrays import Labels
from nasi_jax.data.graphs import Graph, GraphData, Level, from_graphs

_EDGES = "edge_index"
_SPLITS = {"train": 0, "val": 1, "validation": 1, "test": 2}
_NOT_FEATURES = ("ptr", "index", "label", "vocab", "attr", "y")


def holds_graphs(name: str | pathlib.Path) -> bool:
    """Whether there is an .npz file or a folder of .npy files of that name with an array `edge_index`."""
    path = pathlib.Path(name)
    if path.is_dir():
        return (path / f"{_EDGES}.npy").is_file()
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return _EDGES in file.files
    except Exception:  # what is no such file is said by whoever reads it
        return False


def from_graph_files(
    path: str | pathlib.Path,
    *,
    split: str = "train",
    labels: Labels = "true",
    classes: int | None = None,
    fold: int = 0,
) -> GraphData:
    """Reads graphs from an .npz file, or from a folder with an .npy file for each array.

    `edge_index` (2, edges) has the ends of all edges, an undirected one in both directions. Features of nodes are `x`
    (nodes, features), or its parts in compressed rows `x_indptr`, `x_indices`, `x_shape` and, unless all are 1,
    `x_values`; or `node_label` (nodes,), integers that become a one and zeros, of as many kinds as `node_vocab` names.
    Those of edges, where there are any, are `edge_attr` or `edge_label`. Other arrays `node_NAME` and `edge_NAME` with
    a number for each are further features. Features are taken as they are, without any scaling.

    Of many graphs, one behind the other, `node_ptr` and `edge_ptr` (graphs + 1,) say where each begins, and ends of
    edges are counted within their graph. `y` is of nodes, or of graphs where there are as many; `edge_y` of edges.
    Integers are labels, floating numbers targets of a regression. Nodes that are labelled in many graphs are read as
    those of a single graph.

    `train_mask`, `val_mask` and `test_mask` say which are whose; or `split` with 0, 1, 2; or `fold`, of which one is
    the test set. Where there is none of these, all are "train".

    Args:
        path: the file or folder.
        split: "train", "val", "test" or "all".
        labels: see `from_graphs`.
        classes: see `from_graphs`.
        fold: which fold is the test set.

    Returns:
        The source of batches.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it cannot be read, an array is missing or does not fit, masks overlap, or see `from_graphs`.
        TypeError: an array has the wrong type.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"data: expected a file or folder of graphs, there is none at {str(path)!r}")
    try:
        arrays = _arrays(path)
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen types on what is no such file
        raise ValueError(f"data: expected plain arrays of graphs, cannot read {str(path)!r}: {error}") from error
    try:
        if _EDGES not in arrays:
            raise ValueError(f"data: expected an array {_EDGES!r}, found {sorted(arrays)}")
        level, y, count = _level(arrays, labels)
        graphs = _graphs(arrays, level)
        examples = _examples(arrays, count, split, fold)
        return from_graphs(graphs, y, level=level, examples=examples, labels=labels, classes=classes)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{error} (in {str(path)!r})") from error


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        return {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _level(arrays: Mapping[str, np.ndarray], labels: Labels) -> tuple[Level, np.ndarray | None, int]:
    """Returns what the examples are, their labels, and how many there are of both."""
    edges = np.shape(arrays[_EDGES])[-1]
    if "edge_y" in arrays:
        if "y" in arrays:
            raise ValueError("y: expected labels of edges or of nodes and graphs, got both 'y' and 'edge_y'")
        return "edge", arrays["edge_y"], edges
    y, nodes = arrays.get("y"), _node_count(arrays)
    graphs = len(arrays["node_ptr"]) - 1 if "node_ptr" in arrays else None
    if y is None and labels == "true":
        raise ValueError(
            f"y: expected labels 'y' or 'edge_y', because labels='true', found {sorted(arrays)}; "
            "labels='random' needs none"
        )
    if graphs is not None and (y is None or len(y) == graphs):
        return "graph", y, graphs
    if y is not None and len(y) != nodes:
        of = f"{nodes} nodes" + (f" or {graphs} graphs" if graphs is not None else "")
        raise ValueError(f"y: expected one label for each of {of}, got shape {np.shape(y)}")
    return "node", y, nodes


def _node_count(arrays: Mapping[str, np.ndarray]) -> int:
    for name in ("x", "node_label"):
        if name in arrays:
            return len(arrays[name])
    if "x_shape" in arrays:
        return int(arrays["x_shape"][0])
    raise ValueError(
        f"x: expected features of nodes, 'x', 'x_indptr' with 'x_indices' and 'x_shape', or 'node_label', found "
        f"{sorted(arrays)}"
    )


def _graphs(arrays: Mapping[str, np.ndarray], level: Level) -> list[Graph]:
    """Returns the graphs that the arrays hold; all as one where nodes or edges are the examples."""
    index = np.asarray(arrays[_EDGES])
    if index.ndim != 2 or len(index) != 2:
        raise ValueError(f"{_EDGES}: expected integers (2, edges), got shape {index.shape}")
    nodes = _features(arrays, "node", "x", _node_count(arrays))
    edges = _features(arrays, "edge", "edge_attr", index.shape[1])
    assert nodes is not None
    if "node_ptr" not in arrays:
        return [Graph(nodes, index, edges)]
    node_ptr, edge_ptr = (
        _pointers(arrays, name, n) for name, n in (("node_ptr", len(nodes)), ("edge_ptr", index.shape[1]))
    )
    if len(edge_ptr) != len(node_ptr):
        raise ValueError(f"edge_ptr: expected {len(node_ptr)} places as in node_ptr, got {len(edge_ptr)}")
    if level == "graph":
        places = zip(node_ptr[:-1], node_ptr[1:], edge_ptr[:-1], edge_ptr[1:], strict=True)
        return [Graph(nodes[a:b], index[:, c:d], None if edges is None else edges[c:d]) for a, b, c, d in places]
    sizes = np.repeat(np.diff(node_ptr), np.diff(edge_ptr))
    if (index >= sizes[None]).any():
        raise ValueError(f"{_EDGES}: expected ends within the graph of each edge, got {index[index >= sizes[None]][0]}")
    return [Graph(nodes, index + np.repeat(node_ptr[:-1], np.diff(edge_ptr))[None], edges)]


def _pointers(arrays: Mapping[str, np.ndarray], name: str, count: int) -> np.ndarray:
    found = np.asarray(arrays.get(name, ()))
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(f"{name}: expected rising places from 0 to {count}, got shape {found.shape}")
    if found[0] != 0 or found[-1] != count or (np.diff(found) < 0).any():
        few = np.array2string(found, threshold=6)
        raise ValueError(f"{name}: expected rising places from 0 to {count}, got {few}")
    return found.astype(np.int64)


def _features(arrays: Mapping[str, np.ndarray], kind: str, dense: str, count: int) -> np.ndarray | None:
    """Returns features of nodes or edges, (count, features), or None where there are none."""
    parts = []
    if dense in arrays:
        parts.append(arrays[dense])
    elif kind == "node" and "x_indptr" in arrays:
        parts.append(_rows(arrays))
    if f"{kind}_label" in arrays:
        parts.append(_one_hot(arrays[f"{kind}_label"], len(arrays.get(f"{kind}_vocab", ())), f"{kind}_label"))
    parts += [
        array
        for name, array in sorted(arrays.items())
        if name.startswith(f"{kind}_") and name.removeprefix(f"{kind}_") not in _NOT_FEATURES
    ]
    for part in parts:
        if part.ndim not in (1, 2) or len(part) != count:
            raise ValueError(f"{kind}s: expected features of {count} {kind}s, got shape {np.shape(part)}")
    if not parts:
        return None
    return np.concatenate([part[:, None] if part.ndim == 1 else part for part in parts], axis=1)


def _rows(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the dense form of compressed rows."""
    lacking = [name for name in ("x_indices", "x_shape") if name not in arrays]
    if lacking:
        raise ValueError(f"x_indptr: expected {lacking} beside it, found {sorted(arrays)}")
    count, width = (int(n) for n in arrays["x_shape"])
    starts, columns = _pointers(arrays, "x_indptr", len(arrays["x_indices"])), arrays["x_indices"].astype(np.int64)
    values = arrays.get("x_values", np.ones(len(columns), np.float32))
    if len(starts) != count + 1 or len(values) != len(columns):
        raise ValueError(
            f"x_indptr: expected {count + 1} places and as many values as indices, {len(columns)}, got {len(starts)} "
            f"and {len(values)}"
        )
    if len(columns) and not 0 <= columns.min() <= columns.max() < width:
        raise ValueError(f"x_indices: expected 0 to {width - 1}, got {columns.min()} to {columns.max()}")
    dense = np.zeros((count, width), np.float32)
    dense[np.repeat(np.arange(count), np.diff(starts)), columns] = values
    return dense


def _one_hot(labels: np.ndarray, kinds: int, name: str) -> np.ndarray:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name}: expected integers (count,), got {labels.dtype} of shape {labels.shape}")
    kinds = kinds or (int(labels.max()) + 1 if len(labels) else 1)
    if len(labels) and not 0 <= labels.min() <= labels.max() < kinds:
        raise ValueError(f"{name}: expected 0 to {kinds - 1}, got {labels.min()} to {labels.max()}")
    return np.eye(kinds, dtype=np.float32)[labels]


def _examples(arrays: Mapping[str, np.ndarray], count: int, split: str, fold: int) -> np.ndarray:
    """Returns the places of the examples of a split."""
    if split != "all" and split not in _SPLITS:
        raise ValueError(f"split: expected 'all' or one of {tuple(_SPLITS)}, got {split!r}")
    masks = {name: arrays[f"{name}_mask"] for name in ("train", "val", "test") if f"{name}_mask" in arrays}
    for name, mask in masks.items():
        if mask.dtype != bool or mask.shape != (count,):
            raise ValueError(f"{name}_mask: expected booleans ({count},), got {mask.dtype} of shape {mask.shape}")
    overlap = np.sum(list(masks.values()), axis=0, dtype=int) > 1 if masks else np.zeros(0, bool)
    if overlap.any():
        names = [name for name, mask in masks.items() if mask[overlap.argmax()]]
        raise ValueError(f"masks: expected none that overlap, {overlap.sum()} examples are in {' and '.join(names)}")
    for name in ("split", "fold"):
        if name in arrays and np.shape(arrays[name]) != (count,):
            raise ValueError(f"{name}: expected an integer for each of {count}, got shape {np.shape(arrays[name])}")
    if split == "all":
        return np.arange(count)
    if masks:
        wanted = "val" if split == "validation" else split
        if wanted not in masks:
            raise ValueError(f"split: expected one of {tuple(masks)}, which have masks, got {split!r}")
        chosen = masks[wanted]
        if not chosen.any():
            raise ValueError(f"{wanted}_mask: expected at least one example, got an empty mask")
    elif "split" in arrays:
        chosen = arrays["split"] == _SPLITS[split]
    elif "fold" in arrays:
        known = np.unique(arrays["fold"]).tolist()
        if fold not in known:
            raise ValueError(f"fold: expected one of {known}, got {fold}")
        if _SPLITS[split] == 1:
            raise ValueError(f"split: expected 'train' or 'test' where there are folds, got {split!r}")
        chosen = (arrays["fold"] == fold) == (split == "test")
    elif split == "train":
        return np.arange(count)
    else:
        raise ValueError(f"split: expected 'train', the data have no masks, split or folds, got {split!r}")
    return np.flatnonzero(chosen)
