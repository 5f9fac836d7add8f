"""Search: NASI and its parts."""

from nasi_jax.search.costs import Counter
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
from nasi_jax.search.scorer import Compilation, Draw, ScoreConfig, Scorer
from nasi_jax.search.scores import SCORES, Candidate, Score
from nasi_jax.search.update import normalised_expected_gradient, scale_by_largest_norm

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "SCORES",
    "Candidate",
    "Compilation",
    "Counter",
    "Draw",
    "Estimator",
    "Measurement",
    "NASIConfig",
    "NASIInfo",
    "NASIState",
    "NonFiniteTraceError",
    "Objective",
    "Optimizer",
    "Score",
    "ScoreConfig",
    "Scorer",
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
