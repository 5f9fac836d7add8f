"""Search spaces: what can be chosen, and the Flax networks of what was chosen."""

from nasi_jax.spaces.base import Alphas, Discrete, Edge, Genotype, SearchSpace, Weights, from_json, restrict, to_json
from nasi_jax.spaces.darts import DARTS, DARTS_V1, DARTS_V2, DARTSGenotype
from nasi_jax.spaces.darts_network import DARTSNetwork
from nasi_jax.spaces.nasbench1shot1 import NASBench1Shot1, NASBench1Shot1Genotype
from nasi_jax.spaces.nasbench1shot1_network import NASBench1Shot1Network
from nasi_jax.spaces.nasbench201 import NASBench201, NASBench201Genotype, NASBench201Network

_SPACES: tuple[SearchSpace, ...] = (
    NASBench201(),
    *(NASBench1Shot1(number) for number in (1, 2, 3)),
    DARTS(),
    DARTS(none=True),
)
SPACES = {space.name: space for space in _SPACES}
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
    "Discrete",
    "Edge",
    "Genotype",
    "NASBench1Shot1",
    "NASBench1Shot1Genotype",
    "NASBench1Shot1Network",
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
