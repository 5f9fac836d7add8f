"""Search spaces: what can be chosen, and the Flax networks of what was chosen."""

from nasi_jax.spaces.base import (
    Alphas,
    Edge,
    Genotype,
    Network,
    SearchSpace,
    Weights,
    check_images,
    check_positive,
    checked,
    from_json,
    no_one_shot,
    restrict,
    to_json,
)
from nasi_jax.spaces.blocks import BlockSpace, Piece, SharedBlock
from nasi_jax.spaces.darts import DARTS, DARTS_V1, DARTS_V2, DARTSGenotype
from nasi_jax.spaces.darts_nds import DARTSNDS, DARTSNDSGenotype
from nasi_jax.spaces.darts_network import DARTSNetwork, DARTSSize
from nasi_jax.spaces.egnas import EGNAS, EGNASGenotype
from nasi_jax.spaces.egnas_network import EGNASNetwork, EGNASSize
from nasi_jax.spaces.nasbench1shot1 import NASBench1Shot1, NASBench1Shot1Genotype
from nasi_jax.spaces.nasbench1shot1_network import NASBench1Shot1Network, NASBench1Shot1Size
from nasi_jax.spaces.nasbench101 import NASBench101, NASBench101Genotype
from nasi_jax.spaces.nasbench101_network import NASBench101Network, NASBench101Size
from nasi_jax.spaces.nasbench201 import NASBench201, NASBench201Genotype
from nasi_jax.spaces.nasbench201_network import NASBench201Network, NASBench201Size
from nasi_jax.spaces.nasbench_bert import NASBenchBERT, NASBenchBERTGenotype
from nasi_jax.spaces.nasbench_bert_network import NASBenchBERTNetwork, NASBenchBERTSize
from nasi_jax.spaces.nasbench_graph import NASBENCH_GRAPH_SIZES, NASBenchGraph, NASBenchGraphGenotype
from nasi_jax.spaces.nasbench_graph_network import NASBenchGraphNetwork, NASBenchGraphSize
from nasi_jax.spaces.nasbert import NASBERT, NASBERTGenotype
from nasi_jax.spaces.nasbert_network import NASBERTNetwork, NASBERTSize
from nasi_jax.spaces.restricted import IMPOSSIBLE, Restricted, restricted
from nasi_jax.spaces.text import configured
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
    EGNAS(),
    NASBERT(),
    NASBenchBERT(),
)
SPACES = {space.name: space for space in _SPACES}
"""Every search space by name. A space that joins here is held to the contract by the shared tests."""


def get(name: str) -> SearchSpace:
    """Returns the search space registered under `name`.

    Args:
        name: one of `SPACES`, or one with attributes of its class, such as ``egnas(cells=4,vertices=4)``.

    Raises:
        ValueError: there is none of that name, or an attribute is unknown or out of range.
    """
    return configured("space", name, SPACES)


__all__ = [
    "DARTS",
    "DARTSNDS",
    "DARTS_V1",
    "DARTS_V2",
    "EGNAS",
    "IMPOSSIBLE",
    "NASBENCH_GRAPH_SIZES",
    "NASBERT",
    "SPACES",
    "Alphas",
    "BlockSpace",
    "DARTSGenotype",
    "DARTSNDSGenotype",
    "DARTSNetwork",
    "DARTSSize",
    "EGNASGenotype",
    "EGNASNetwork",
    "EGNASSize",
    "Edge",
    "Genotype",
    "NASBERTGenotype",
    "NASBERTNetwork",
    "NASBERTSize",
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
    "NASBenchBERT",
    "NASBenchBERTGenotype",
    "NASBenchBERTNetwork",
    "NASBenchBERTSize",
    "NASBenchGraph",
    "NASBenchGraphGenotype",
    "NASBenchGraphNetwork",
    "NASBenchGraphSize",
    "Network",
    "Piece",
    "Restricted",
    "SearchSpace",
    "SharedBlock",
    "TransNASGenotype",
    "TransNASMicro",
    "TransNASNetwork",
    "TransNASSize",
    "Weights",
    "check_images",
    "check_positive",
    "checked",
    "from_json",
    "get",
    "no_one_shot",
    "restrict",
    "restricted",
    "to_json",
]
