"""Zero-cost proxies other than the NTK's, as functions of `apply_fn(params, x)` and arrays."""

from nasi_jax.proxies.activations import jacob_cov, naswot
from nasi_jax.proxies.gradients import fisher, grad_norm, grasp, snip, synflow, weights_of, zico

__all__ = ["fisher", "grad_norm", "grasp", "jacob_cov", "naswot", "snip", "synflow", "weights_of", "zico"]
