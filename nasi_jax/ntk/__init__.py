"""What the neural tangent kernel of a network says at initialisation, as functions of `apply_fn(params, x)`."""

from nasi_jax.data.losses import Loss, cross_entropy
from nasi_jax.ntk._density import SpectralDensity, spectral_density
from nasi_jax.ntk._dynamics import LossName, Prediction, linearize, predict
from nasi_jax.ntk._estimate import Estimate
from nasi_jax.ntk._kernel import Implementation, KernelForm, kernel
from nasi_jax.ntk._network import ApplyFn
from nasi_jax.ntk._operator import Operator, operator
from nasi_jax.ntk._parts import select
from nasi_jax.ntk._spectrum import Spectrum, largest_eigenvalue, spectrum
from nasi_jax.ntk._trace import diagonal, trace
from nasi_jax.ntk.cotangents import TraceMethod
from nasi_jax.ntk.gradients import one_batch, per_sample, squared_norm
from nasi_jax.ntk.neural_tangents import load as load_neural_tangents
from nasi_jax.ntk.probes import ParticipationRatio, participation_ratio, vector_product

__all__ = [
    "ApplyFn",
    "Estimate",
    "Implementation",
    "KernelForm",
    "Loss",
    "LossName",
    "Operator",
    "ParticipationRatio",
    "Prediction",
    "SpectralDensity",
    "Spectrum",
    "TraceMethod",
    "cross_entropy",
    "diagonal",
    "kernel",
    "largest_eigenvalue",
    "linearize",
    "load_neural_tangents",
    "one_batch",
    "operator",
    "participation_ratio",
    "per_sample",
    "predict",
    "select",
    "spectral_density",
    "spectrum",
    "squared_norm",
    "trace",
    "vector_product",
]
