"""Proxies other than the NTK's, as functions of a network and arrays: zero-cost ones, and a short training."""

from nasi_jax.proxies.activations import epe_nas, jacob_cov, meco, naswot, swap, zen
from nasi_jax.proxies.alignment import alignment
from nasi_jax.proxies.blocks import (
    Of,
    Passage,
    effective_rank,
    entropies,
    expressivity,
    participation_ratio,
    progressivity,
    trainability,
)
from nasi_jax.proxies.gennas import gennas
from nasi_jax.proxies.gradients import fisher, grad_norm, grasp, l2_norm, plain, snip, synflow, weights_of, zico
from nasi_jax.proxies.information import vkdnw
from nasi_jax.proxies.signals import TASKS, Task

__all__ = [
    "TASKS",
    "Of",
    "Passage",
    "Task",
    "alignment",
    "effective_rank",
    "entropies",
    "epe_nas",
    "expressivity",
    "fisher",
    "gennas",
    "grad_norm",
    "grasp",
    "jacob_cov",
    "l2_norm",
    "meco",
    "naswot",
    "participation_ratio",
    "plain",
    "progressivity",
    "snip",
    "swap",
    "synflow",
    "trainability",
    "vkdnw",
    "weights_of",
    "zen",
    "zico",
]
