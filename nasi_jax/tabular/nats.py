"""From the official files of NATS-Bench to a compact table."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import pathlib
from typing import Any

_COLUMNS = {
    "cifar10_test": ("cifar10", "200", "test-accuracy"),
    "cifar100_test": ("cifar100", "200", "test-accuracy"),
    "imagenet16_test": ("ImageNet16-120", "200", "test-accuracy"),
    "cifar10_val": ("cifar10-valid", "200", "valid-accuracy"),
    "cifar100_val": ("cifar100", "200", "valid-accuracy"),
    "imagenet16_val": ("ImageNet16-120", "200", "valid-accuracy"),
    "cifar10_val_12ep": ("cifar10-valid", "12", "valid-accuracy"),
    "cifar100_val_12ep": ("cifar100", "12", "valid-accuracy"),
    "imagenet16_val_12ep": ("ImageNet16-120", "12", "valid-accuracy"),
}


def from_nats_bench(source: str | pathlib.Path, out: str | pathlib.Path) -> int:
    """Converts an official NATS-Bench topology file to a table that `Table.read` reads.

    The table has the columns arch, test and validation accuracy (%) after 200 epochs and validation accuracy after 12,
    means over the trials, for each data set, and params_m and flops_m of the CIFAR-10 network, in millions.

    Args:
        source: NATS-tss-v1_0-3ffb9.pickle.pbz2, or the folder of the same name that ends in -simple. It is a pickle:
            only open files that you trust.
        out: CSV file to write, gzipped where its name ends in .gz.

    Returns:
        The number of architectures.

    Raises:
        ImportError: nats-bench is not installed.
        FileNotFoundError: there is no such file or folder.
        ValueError: an architecture lacks a figure.

    References:
        Dong, Liu, Musial and Gabrys, "NATS-Bench: benchmarking NAS algorithms for architecture topology and size",
        TPAMI 2021.
    """
    try:
        nats_bench: Any = importlib.import_module("nats_bench")
    except ImportError as error:
        raise ImportError(
            "nats-bench: expected an installation, there is none; pip install 'nasi_jax[nats]'"
        ) from error
    source, out = pathlib.Path(source), pathlib.Path(out)
    if not source.exists():
        raise FileNotFoundError(f"source: expected a NATS-Bench file or folder, there is none at {str(source)!r}")
    api = nats_bench.create(str(source), "tss", fast_mode=source.is_dir(), verbose=False)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arch", *_COLUMNS, "params_m", "flops_m"])
    for index, arch in enumerate(api.meta_archs):
        row: list[Any] = [arch]
        for name, (data, epochs, figure) in _COLUMNS.items():
            value = api.get_more_info(index, data, hp=epochs, is_random=False).get(figure)
            if value is None:
                raise ValueError(f"source: expected {figure} of {arch!r} on {data} after {epochs} epochs, for {name}")
            row.append(f"{value:.4f}")
        costs = api.get_cost_info(index, "cifar10")
        writer.writerow([*row, costs["params"], costs["flops"]])
    temporary = out.with_name(f".{out.name}.part")
    data = text.getvalue().encode()
    # without a time in the header, so that the same source gives the same bytes
    temporary.write_bytes(gzip.compress(data, mtime=0) if out.suffix == ".gz" else data)
    temporary.replace(out)
    return len(api.meta_archs)
