"""How good an architecture is, estimated without training it, and what it costs."""

from nasi_jax.scores.block_ntk import BlockNTK
from nasi_jax.scores.block_states import BlockStates, MappedBlock, Teacher, block_states, untrained
from nasi_jax.scores.blocks import BlockCosts, block_costs
from nasi_jax.scores.catalogue import FORMULAS, SCORES, Candidate, Option, Score, score
from nasi_jax.scores.combination import Combination
from nasi_jax.scores.costs import Costs, Counter
from nasi_jax.scores.evaluator import Evaluator, ScoreEvaluator, TableEvaluator
from nasi_jax.scores.formula import Formula, default_formula
from nasi_jax.scores.latency import Latency, LatencyMethod
from nasi_jax.scores.limits import InfeasibleError, Limits
from nasi_jax.scores.linear import LinearCost
from nasi_jax.scores.scorer import Compilation, Draw, ScoreConfig, Scorer
from nasi_jax.scores.written import ScoreTable, higher_is_better

__all__ = [
    "FORMULAS",
    "SCORES",
    "BlockCosts",
    "BlockNTK",
    "BlockStates",
    "Candidate",
    "Combination",
    "Compilation",
    "Costs",
    "Counter",
    "Draw",
    "Evaluator",
    "Formula",
    "InfeasibleError",
    "Latency",
    "LatencyMethod",
    "Limits",
    "LinearCost",
    "MappedBlock",
    "Option",
    "Score",
    "ScoreConfig",
    "ScoreEvaluator",
    "ScoreTable",
    "Scorer",
    "TableEvaluator",
    "Teacher",
    "block_costs",
    "block_states",
    "default_formula",
    "higher_is_better",
    "score",
    "untrained",
]
