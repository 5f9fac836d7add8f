"""How good an architecture is, estimated without training it, and what it costs."""

from nasi_jax.scores.catalogue import SCORES, Candidate, Score
from nasi_jax.scores.costs import Counter
from nasi_jax.scores.scorer import Compilation, Draw, ScoreConfig, Scorer

__all__ = ["SCORES", "Candidate", "Compilation", "Counter", "Draw", "Score", "ScoreConfig", "Scorer"]
