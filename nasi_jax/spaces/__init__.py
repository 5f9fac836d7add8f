"""Search spaces: what can be chosen, and the Flax networks of what was chosen."""

from nasi_jax.spaces.base import (
    Alphas,
    Edge,
    Genotype,
    Network,
    SearchSpace,
    Weights,
    from_json,
    no_one_shot,
    restrict,
    to_json,
)
from nasi_jax.spaces.darts import DARTS, DARTS_V1, DARTS_V2, DARTSGenotype
from nasi_jax.spaces.darts_nds import DARTSNDS, DARTSNDSGenotype
from nasi_jax.spaces.darts_network import DARTSNetwork, DARTSSize
from nasi_jax.spaces.nasbench1shot1 import NASBench1Shot1, NASBench1Shot1Genotype
from nasi_jax.spaces.nasbench1shot1_network import NASBench1Shot1Network, NASBench1Shot1Size
from nasi_jax.spaces.nasbench101 import NASBench101, NASBench101Genotype
from nasi_jax.spaces.nasbench101_network import NASBench101Network, NASBench101Size
from nasi_jax.spaces.nasbench201 import NASBench201, NASBench201Genotype
from nasi_jax.spaces.nasbench201_network import NASBench201Network, NASBench201Size
from nasi_jax.spaces.nasbench_graph import NASBENCH_GRAPH_SIZES, NASBenchGraph, NASBenchGraphGenotype
from nasi_jax.spaces.nasbench_graph_network import NASBenchGraphNetwork, NASBenchGraphSize
from nasi_jax.spaces.restricted import IMPOSSIBLE, Restricted, restricted
from nasi_jax.spaces.text import unknown
from nasi_jax.spaces.transnas import TransNASGenotype, TransNASMicro, TransNASNetwork, TransNASSize

_SPACES: tuple[SearchSpace, ...] = (
    NASBench201(),
    NASBench101(),
    *(NASBench1Shot1(number) for number in (1, 2, 3)),
    TransNASMicro(),
    DARTS(),
    DARTS(none=True),
    DARTSNDS(),
    NASBenchGraph(),
)
SPACES = {space.name: space for space in _SPACES}
"""Every search space by name. A space that joins here is held to the contract by the shared tests."""


def get(name: str) -> SearchSpace:
    """Returns the search space registered under `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SPACES:
        raise ValueError(unknown("space", name, SPACES))
    return SPACES[name]


__all__ = [
    "DARTS",
    "DARTSNDS",
    "DARTS_V1",
    "DARTS_V2",
    "IMPOSSIBLE",
    "NASBENCH_GRAPH_SIZES",
    "SPACES",
    "Alphas",
    "DARTSGenotype",
    "DARTSNDSGenotype",
    "DARTSNetwork",
    "DARTSSize",
    "Edge",
    "Genotype",
    "NASBench1Shot1",
    "NASBench1Shot1Genotype",
    "NASBench1Shot1Network",
    "NASBench1Shot1Size",
    "NASBench101",
    "NASBench101Genotype",
    "NASBench101Network",
    "NASBench101Size",
    "NASBench201",
    "NASBench201Genotype",
    "NASBench201Network",
    "NASBench201Size",
    "NASBenchGraph",
    "NASBenchGraphGenotype",
    "NASBenchGraphNetwork",
    "NASBenchGraphSize",
    "Network",
    "Restricted",
    "SearchSpace",
    "TransNASGenotype",
    "TransNASMicro",
    "TransNASNetwork",
    "TransNASSize",
    "Weights",
    "from_json",
    "get",
    "no_one_shot",
    "restrict",
    "restricted",
    "to_json",
]
