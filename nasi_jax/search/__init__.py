"""Search: NASI and its parts."""

from nasi_jax.search.loop import NonFiniteTraceError, SearchResult, check, init_states, iterate, search
from nasi_jax.search.nasi import (
    PRESETS,
    Estimator,
    NASIConfig,
    NASIInfo,
    NASIState,
    Optimizer,
    init,
    init_params,
    one_shot,
    preset,
    step,
)
from nasi_jax.search.objectives import OBJECTIVES, Measurement, Objective, measure, measure_with_gradient
from nasi_jax.search.update import normalised_expected_gradient, scale_by_largest_norm

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "Estimator",
    "Measurement",
    "NASIConfig",
    "NASIInfo",
    "NASIState",
    "NonFiniteTraceError",
    "Objective",
    "Optimizer",
    "SearchResult",
    "check",
    "init",
    "init_params",
    "init_states",
    "iterate",
    "measure",
    "measure_with_gradient",
    "normalised_expected_gradient",
    "one_shot",
    "preset",
    "scale_by_largest_norm",
    "search",
    "step",
]
