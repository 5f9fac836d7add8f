"""How architectures are chosen: strategies, each a frozen dataclass of its settings, and the loops that run them."""

from nasi_jax.search.blackbox import BlackBox, Evaluation, Unique, incumbents
from nasi_jax.search.blockwise import BLOCKWISE, BlockEstimate, Blockwise, BlockwiseInfo, BlockwiseState, table
from nasi_jax.search.controller import LSTMController
from nasi_jax.search.darts import DARTS, DARTSInfo, Mixture, Order
from nasi_jax.search.eigenvalue import largest_eigenvalue, stop_at
from nasi_jax.search.evolution import Evolution
from nasi_jax.search.feasible import most_likely
from nasi_jax.search.grid_search import GridSearch
from nasi_jax.search.local_search import LocalSearch
from nasi_jax.search.loop import NonFiniteError, SearchResult, Trial, check, init_states, iterate, search, trial
from nasi_jax.search.methods import METHODS, method
from nasi_jax.search.nasi import NASI, PRESETS, Estimator, NASIInfo, NASIState, Optimizer, preset
from nasi_jax.search.objectives import OBJECTIVES, Measurement, Objective, Sample, measure, measure_with_gradient
from nasi_jax.search.random_search import RandomSearch
from nasi_jax.search.reinforce import Reinforce
from nasi_jax.search.relaxation import Relaxation, gumbel_softmax, sample_discrete
from nasi_jax.search.relaxed import Begun, Relaxed
from nasi_jax.search.selection import Chain, Selected
from nasi_jax.search.simulation import Simulation, simulate
from nasi_jax.search.snas import SNAS, CostGradient, SNASInfo
from nasi_jax.search.strategy import Strategy, StrategyState, choose, common, draw, fitness
from nasi_jax.search.supernet import Supernet, SupernetState
from nasi_jax.search.update import normalised_expected_gradient, scale_by_largest_norm
from nasi_jax.search.variants import STRATEGIES, VARIANTS

__all__ = [
    "BLOCKWISE",
    "DARTS",
    "METHODS",
    "NASI",
    "OBJECTIVES",
    "PRESETS",
    "SNAS",
    "STRATEGIES",
    "VARIANTS",
    "Begun",
    "BlackBox",
    "BlockEstimate",
    "Blockwise",
    "BlockwiseInfo",
    "BlockwiseState",
    "Chain",
    "CostGradient",
    "DARTSInfo",
    "Estimator",
    "Evaluation",
    "Evolution",
    "GridSearch",
    "LSTMController",
    "LocalSearch",
    "Measurement",
    "Mixture",
    "NASIInfo",
    "NASIState",
    "NonFiniteError",
    "Objective",
    "Optimizer",
    "Order",
    "RandomSearch",
    "Reinforce",
    "Relaxation",
    "Relaxed",
    "SNASInfo",
    "Sample",
    "SearchResult",
    "Selected",
    "Simulation",
    "Strategy",
    "StrategyState",
    "Supernet",
    "SupernetState",
    "Trial",
    "Unique",
    "check",
    "choose",
    "common",
    "draw",
    "fitness",
    "gumbel_softmax",
    "incumbents",
    "init_states",
    "iterate",
    "largest_eigenvalue",
    "measure",
    "measure_with_gradient",
    "method",
    "most_likely",
    "normalised_expected_gradient",
    "preset",
    "sample_discrete",
    "scale_by_largest_norm",
    "search",
    "simulate",
    "stop_at",
    "table",
    "trial",
]
