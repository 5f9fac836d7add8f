"""NAS-Bench-BERT (Serianni and Kalita, ACL 2023): encoders of two or four layers, as they were trained."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from nasi_jax.data import RandomTokens
from nasi_jax.nn import Style
from nasi_jax.programs import Execution
from nasi_jax.spaces import nasbench_bert_text as text_form
from nasi_jax.spaces.base import Alphas, Edge, Genotype, SearchSpace, Weights, checked
from nasi_jax.spaces.nasbench_bert_network import NASBenchBERTNetwork, NASBenchBERTSize
from nasi_jax.spaces.nasbench_bert_text import LAYERS, WIDTHS

_PAIRS = len(LAYERS) ** 2
_CHOICES = {
    "width": tuple(f"h{width}" for width in WIDTHS),
    "layers": LAYERS,
    "layers 3 and 4": ("none", *(f"{third}|{fourth}" for third in LAYERS for fourth in LAYERS)),
}


@struct.dataclass(eq=False)
class NASBenchBERTGenotype(Genotype):
    """An encoder.

    Attributes:
        width: (1,) int32, 0 for 128 channels and 1 for 256.
        layers: (2,) int32, for the first two layers an index into `LAYERS`.
        more: (1,) int32, 0 for two layers; of four 1 + 6 i + j, with the indices of the third and the fourth one.
    """

    width: jax.Array
    layers: jax.Array
    more: jax.Array


@dataclasses.dataclass(frozen=True)
class NASBenchBERT(SearchSpace):
    """The networks of NAS-Bench-BERT; see `nasi_jax.spaces.SearchSpace` for the contract.

    Two or four layers, each of attention with two or four heads and of a feed-forward part with one or three layers
    between, the latter of 512 or 1024 channels; 2,664 architectures. The benchmark is a part of FlexiBERT, which has
    operations in the place of attention too, but all of its 500 encoders were trained with attention alone
    (experiments/README.md). Hence it has 301 different networks, which are described in 500 ways; both
    forms of text are read.

    References:
        Serianni and Kalita, "Training-free neural architecture search for RNNs and transformers", ACL 2023; Tuli et
        al., "FlexiBERT: are current transformer architectures too homogeneous and rigid?", 2022.
    """

    Size: ClassVar[type] = NASBenchBERTSize
    search_size: ClassVar[NASBenchBERTSize] = NASBenchBERTSize(hidden=64, embedding=32)
    evaluation_size: ClassVar[NASBenchBERTSize] = NASBenchBERTSize()

    @property
    def name(self) -> str:
        """The name under which the space is registered."""
        return "nasbench-bert"

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the layers, and of the widths."""
        return LAYERS + _CHOICES["width"]

    @property
    def edges(self) -> dict[str, tuple[str, ...]]:
        """Names of the rows of `alphas`."""
        return {"width": ("width",), "layers": ("1", "2"), "layers 3 and 4": ("3 and 4",)}

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names of the columns of `alphas`."""
        return _CHOICES

    @property
    def additive(self) -> bool:
        """False: what a layer costs depends on the width."""
        return False

    @property
    def decisions(self) -> tuple[int, ...]:
        """The width, the first two layers, and both others or none."""
        return len(WIDTHS), len(LAYERS), len(LAYERS), 1 + _PAIRS

    def to_decisions(self, genotype: NASBenchBERTGenotype) -> jax.Array:
        """Returns the (4,) options."""
        return jnp.concatenate([genotype.width, genotype.layers, genotype.more])

    def from_decisions(self, options: jax.Array) -> NASBenchBERTGenotype:
        """Returns the architecture of (4,) options."""
        return NASBenchBERTGenotype(options[:1], options[1:3], options[3:])

    def alphas(self) -> Alphas:
        """Returns zeros (1, 2) for "width", (2, 6) for "layers" and (1, 37) for "layers 3 and 4"."""
        return {kind: jnp.zeros((len(self.edges[kind]), len(names))) for kind, names in _CHOICES.items()}

    def canonical(self, genotype: NASBenchBERTGenotype) -> str:
        """Writes the architecture; no two compute the same function."""
        return self.format(genotype)

    def encode(self, genotype: NASBenchBERTGenotype) -> Weights:
        """Returns a one in each row."""
        genotype = checked(self, genotype)
        rows = {"width": genotype.width, "layers": genotype.layers, "layers 3 and 4": genotype.more}
        return {kind: jax.nn.one_hot(options, len(_CHOICES[kind])) for kind, options in rows.items()}

    def decode(self, alphas: Alphas) -> NASBenchBERTGenotype:
        """Takes the largest logit of each row."""
        return NASBenchBERTGenotype(*(jnp.argmax(alphas[kind], axis=-1).astype(jnp.int32) for kind in _CHOICES))

    def graph(self, genotype: NASBenchBERTGenotype) -> dict[str, list[Edge]]:
        """Returns the layers as a chain, from the embedding on."""
        width, layers = self._tuples(genotype)
        names = ("embedding", *map(str, range(1, len(layers))), "output")
        chain = [Edge(names[i], names[i + 1], LAYERS[layer]) for i, layer in enumerate(layers)]
        return {"encoder": [Edge("tokens", "embedding", _CHOICES["width"][width]), *chain]}

    def format(self, genotype: NASBenchBERTGenotype) -> str:
        """Writes what the benchmark trained."""
        return text_form.written(*self._tuples(genotype))

    def parse(self, text: str) -> NASBenchBERTGenotype:
        """Reads what was trained or what is described; see `nasi_jax.spaces.nasbench_bert_text.parse`."""
        width, layers = text_form.parse(text)
        more = 1 + len(LAYERS) * layers[2] + layers[3] if len(layers) > len(self.edges["layers"]) else 0
        return self.from_decisions(jnp.array([width, *layers[:2], more], jnp.int32))

    def noise(self, outputs: int = 10) -> RandomTokens:
        """Returns random sequences of ids of BERT's vocabulary."""
        return RandomTokens(64, outputs=outputs)

    def network(
        self,
        genotype: NASBenchBERTGenotype | None,
        size: NASBenchBERTSize,
        outputs: int,
        style: Style = Style(),
        execution: Execution = Execution(),
    ) -> NASBenchBERTNetwork:
        """Returns the network of one architecture, with the parameters that the benchmark counts and a head, or of all.

        Args:
            genotype: a concrete architecture, or None for the one-shot network.
            size: channels and positions.
            outputs: number of outputs.
            style: see `nasi_jax.nn.Style`.
            execution: see `nasi_jax.programs.Execution`.

        Returns:
            A module called as `module(x)`, or `module(x, weights)` where it is the one-shot network.
        """
        choices = None if genotype is None else self._tuples(genotype)
        return NASBenchBERTNetwork(size, outputs, style, execution, choices)

    def _tuples(self, genotype: NASBenchBERTGenotype) -> tuple[int, tuple[int, ...]]:
        """Returns the index of the width, and those of all layers."""
        genotype = checked(self, genotype)
        layers, more = [int(i) for i in genotype.layers], int(genotype.more[0])
        return int(genotype.width[0]), (*layers, *(divmod(more - 1, len(LAYERS)) if more else ()))
