"""Neural architecture search at initialisation (NASI) in JAX.

Subpackages load when they are first used: `data`, `extensions`, `nn`, `ntk`, `programs`, `proxies`, `report`, `runs`,
`scores`, `search`, `spaces`, `tabular`, `train`.

References:
    Shu, Cai, Dai, Ooi, Low: "NASI: Label- and Data-agnostic Neural Architecture Search at Initialization", ICLR 2022.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasi_jax import (
        data,
        extensions,
        nn,
        ntk,
        programs,
        proxies,
        report,
        runs,
        scores,
        search,
        spaces,
        tabular,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "data",
    "extensions",
    "nn",
    "ntk",
    "programs",
    "proxies",
    "report",
    "runs",
    "scores",
    "search",
    "spaces",
    "tabular",
    "train",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"nasi_jax.{name}")
    raise AttributeError(f"module 'nasi_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
