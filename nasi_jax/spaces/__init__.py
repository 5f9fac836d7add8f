"""Search spaces: what can be chosen, and the Flax networks of what was chosen."""

from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, from_json, restrict, to_json
from nasi_jax.spaces.darts import DARTS, DARTS_V1, DARTS_V2, DARTSGenotype
from nasi_jax.spaces.darts_network import DARTSNetwork
from nasi_jax.spaces.nasbench201 import NASBench201, NASBench201Genotype, NASBench201Network

SPACES: dict[str, SearchSpace] = {space.name: space for space in (NASBench201(), DARTS(), DARTS(none=True))}
"""Every search space by name. A space that joins here is held to the contract by the shared tests."""


def get(name: str) -> SearchSpace:
    """Returns the search space registered under `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SPACES:
        raise ValueError(f"space: expected one of {sorted(SPACES)}, got {name!r}")
    return SPACES[name]


__all__ = [
    "DARTS",
    "DARTS_V1",
    "DARTS_V2",
    "SPACES",
    "Alphas",
    "DARTSGenotype",
    "DARTSNetwork",
    "Edge",
    "Genotype",
    "NASBench201",
    "NASBench201Genotype",
    "NASBench201Network",
    "SearchSpace",
    "Weights",
    "from_json",
    "get",
    "restrict",
    "to_json",
]
