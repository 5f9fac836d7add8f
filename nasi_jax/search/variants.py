"""The black-box strategies by name, and their variants in the literature."""

from __future__ import annotations

from typing import Any

from nasi_jax.search.controller import LSTMController
from nasi_jax.search.evolution import Evolution
from nasi_jax.search.grid_search import GridSearch
from nasi_jax.search.local_search import LocalSearch
from nasi_jax.search.random_search import RandomSearch
from nasi_jax.search.reinforce import Reinforce
from nasi_jax.search.strategy import Strategy

STRATEGIES: dict[str, type[Strategy[Any]]] = {
    "random": RandomSearch,
    "grid": GridSearch,
    "evolution": Evolution,
    "local": LocalSearch,
    "reinforce": Reinforce,
}
"""Every strategy by name; its options have defaults. `LSTMController` is "reinforce" with another policy."""

VARIANTS: dict[str, Strategy[Any]] = {
    "random": RandomSearch(),
    "random-without-replacement": RandomSearch(replace=False),
    "grid": GridSearch(),
    "evolution": Evolution(),
    "evolution-real2019": Evolution(100, 25),
    "evolution-nasbench201": Evolution(10, 3, replace=True),
    "evolution-naslib": Evolution(30, 10, replace=True),
    "evolution-plain": Evolution(20, 10, "truncation", remove="worst", crossover=0.5),
    "local": LocalSearch(),
    "reinforce": Reinforce(),
    "reinforce-natsbench": Reinforce(0.01),
    "reinforce-ppo": Reinforce(0.02, samples=10, epochs=4, normalise=True),
    "reinforce-lstm": LSTMController(),
    "reinforce-enas": LSTMController(1e-3, samples=20, decay=0.99, hidden=32, layers=2, temperature=5.0),
}
"""Settings by name. Those of evolution are from Real et al. (AAAI 2019), the code of NAS-Bench-201 (Dong and Yang, ICLR
2020) and NASLib; those of the policies from NATS-Bench (Dong et al., TPAMI 2021) and the code of NAS-Bench-201 for ENAS
(Pham et al., ICML 2018)."""
