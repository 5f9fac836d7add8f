"""Losses of single examples: what a source says its outputs are for."""

from nasi_jax.ntk.gradients import Loss, cross_entropy

__all__ = ["Loss", "cross_entropy"]
