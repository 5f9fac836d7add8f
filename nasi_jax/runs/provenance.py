"""What a result depends on beside its settings."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import jax

from nasi_jax.programs import numerics

_PACKAGES = ("nasi_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def provenance(precision: str) -> dict[str, Any]:
    """Returns what a result depends on beside its settings: versions, device, precision, options of JAX and XLA."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    return {
        "versions": versions,
        "device": f"{jax.default_backend()}: {jax.devices()[0].device_kind}",
        "precision": f"{precision}, matrix products at highest precision",
        "numerics": numerics(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("JAX_", "XLA_")) and "CACHE" not in name
        },
    }
