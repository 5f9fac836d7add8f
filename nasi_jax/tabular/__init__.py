"""Published benchmark tables."""

from nasi_jax.tabular.table import Table

__all__ = ["Table"]
