"""Scores of architectures at initialisation, or after some steps of training without labels, by name."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp

from nasi_jax import ntk, proxies
from nasi_jax.data import GraphInput, Loss, example_arrays
from nasi_jax.nn import (
    CHANNEL_SCALES,
    FEATURES,
    PERTURBATIONS,
    PREACTIVATIONS,
    RUNNING_SHARE,
    RUNNING_STATISTICS,
    initial_statistics,
)
from nasi_jax.nn.graphs import averaged
from nasi_jax.spaces.text import named, unknown


class Candidate(NamedTuple):
    """One architecture with what a score may look at.

    Attributes:
        apply_fn: the network, `apply_fn(params, x)`.
        params: its parameters.
        x: inputs of a batch, a pytree.
        y: what the outputs are compared with, such as labels (batch,).
        loss: loss of each example.
        outputs: number of outputs.
        key: typed random key.
        apply: the network as Flax applies it, with further collections: `apply(variables, x, mutable=...)`; with
            `fixed=True` statistics of normalisation are 0 and 1, and with `bare=True` cells are bare.
        known: what scores have found already that others of the same candidate look at too, see `shared`.
        untrained: its parameters where PyTorch's layers draw the kernels, for scores that train it.
        stages: the network up to the ends of its stages, see `nasi_jax.proxies.gennas`, with bare cells.
    """

    apply_fn: ntk.ApplyFn
    params: Any
    x: Any
    y: Any
    loss: Loss
    outputs: int
    key: jax.Array
    apply: Callable[..., Any]
    known: dict[Any, Any]
    untrained: Any
    stages: Callable[..., Any]

    def shared(self, compute: Callable[[Candidate], Any]) -> Any:
        """Returns what a function of the candidate gives, computed once for all scores."""
        if compute not in self.known:
            self.known[compute] = compute(self)
        return self.known[compute]


class Option(NamedTuple):
    """An option of a score: a word where there are choices, otherwise an integer.

    Attributes:
        default: what it is by default.
        least: the smallest integer.
        choices: the words.
    """

    default: int | str
    least: int = 1
    choices: tuple[str, ...] = ()

    def check(self, name: str, score: str, value: Any) -> None:
        """Raises ValueError where it cannot have a value."""
        if self.choices:
            if value not in self.choices:
                raise ValueError(unknown(f"score: {name} of {score}", value, self.choices))
        elif type(value) is not int or value < self.least:
            expected = "a positive integer" if self.least == 1 else f"an integer of at least {self.least}"
            raise ValueError(f"score: expected {expected} for {name} of {score}, got {value!r}")


@dataclasses.dataclass(frozen=True)
class Score:
    """A training-free score.

    Attributes:
        compute: its value for a candidate, a scalar; may be jitted, and takes the options by name. None where
            `nasi_jax.scores.Counter` counts it under the score's name.
        formula: what it computes, in short.
        paper: where it is from.
        higher_is_better: whether larger values are said to mean better architectures.
        labels: whether it looks at labels.
        data: whether it looks at inputs.
        double: whether float32 overflows in it, so that it needs float64.
        floating: whether it needs inputs that are numbers, and not token ids alone.
        maps: whether it needs layers of channels at several places, which networks of graphs do not show.
        own: whether it needs inputs that are each example's own, and not of one graph that they are all part of.
        classes: whether it needs labels that are classes.
        features: whether it needs a network that shows what its blocks hand on.
        embedding: whether it needs a network that shows what its last block hands on.
        derived: whether it needs a network of nothing but what the architecture names.
        trains: whether it trains the network up to the ends of its stages.
        options: its options, written ``name(option=value)``.
    """

    compute: Callable[..., jax.Array] | None
    formula: str
    paper: str
    higher_is_better: bool = True
    labels: bool = False
    data: bool = True
    double: bool = False
    floating: bool = False
    maps: bool = False
    own: bool = False
    classes: bool = False
    features: bool = False
    embedding: bool = False
    derived: bool = False
    trains: bool = False
    options: dict[str, Option] = dataclasses.field(default_factory=dict)


def _of_gradients(function: Callable[..., jax.Array]) -> Callable[[Candidate], jax.Array]:
    return lambda c: function(c.apply_fn, c.params, c.x, c.y, loss=c.loss)


def _probed(c: Candidate, probes: int) -> ntk.ParticipationRatio:
    """Returns the mean over random probes, of which the first is that of a single one."""
    keys = [c.key, *(jax.random.fold_in(c.key, i) for i in range(1, probes))]
    found = [ntk.participation_ratio(c.apply_fn, c.params, c.x, key) for key in keys]
    return jax.tree.map(lambda *values: sum(values[1:], values[0]) / probes, *found)


def _kernel(c: Candidate) -> jax.Array:
    """Returns the kernel of the summed outputs, (batch, batch), from one vector-Jacobian product for each sample."""
    sums, pullback = jax.vjp(lambda p: jnp.sum(c.apply_fn(p, c.x), axis=1), c.params)
    (gradients,) = jax.vmap(pullback)(jnp.eye(len(sums), dtype=sums.dtype))
    rows = [leaf.reshape(len(sums), -1) for leaf in jax.tree.leaves(gradients)]
    return sum((row @ row.T for row in rows), jnp.zeros((len(sums), len(sums)), sums.dtype))


def _exact_trace(c: Candidate) -> jax.Array:
    outputs, pullback = jax.vjp(lambda p: c.apply_fn(p, c.x), c.params)
    basis = jnp.eye(outputs.size, dtype=outputs.dtype).reshape(-1, *outputs.shape)
    return jnp.sum(jax.vmap(lambda v: ntk.squared_norm(pullback(v)))(basis))


def _synflow(c: Candidate) -> jax.Array:
    return proxies.synflow(lambda p, x: c.apply({"params": p}, x, fixed=True), c.params, c.x)


def _preactivations(c: Candidate) -> list[tuple[jax.Array, jax.Array]]:
    _, observed = c.apply({"params": c.params}, c.x, mutable=[PREACTIVATIONS])
    leaves = jax.tree.leaves(observed[PREACTIVATIONS])
    return list(zip(leaves[::2], leaves[1::2], strict=True))


def _of_units(function: Callable[..., jax.Array]) -> Callable[[Candidate], jax.Array]:
    return lambda c: function(c.shared(_preactivations))


def _features(c: Candidate) -> list[jax.Array]:
    _, found = c.apply({"params": c.params}, c.x, mutable=[FEATURES])
    return [found[FEATURES][name] for name in sorted(found[FEATURES])]


def _passages(c: Candidate) -> list[proxies.Passage]:
    """Returns how a Rademacher cotangent passes each block, from one pass forward and one back."""

    def features(x: Any, perturbations: Any = None) -> dict[str, jax.Array]:
        given = {} if perturbations is None else {PERTURBATIONS: perturbations}
        return c.apply({"params": c.params} | given, x, mutable=[FEATURES])[1][FEATURES]

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(features, c.x))
    found, pullback = jax.vjp(functools.partial(features, c.x), zeros)
    names = sorted(found)
    keys = jax.random.split(c.key, len(names))
    above = {
        name: jax.random.rademacher(key, found[name].shape, found[name].dtype)
        for key, name in zip(keys, names, strict=True)
    }
    (below,) = pullback(above | {names[0]: jnp.zeros_like(above[names[0]])})
    return [proxies.Passage(above[name], below[before]) for before, name in itertools.pairwise(names)]


def _effective_rank(c: Candidate, of: proxies.Of = "eigenvalues") -> jax.Array:
    return proxies.effective_rank(c.shared(_features), of)


def _of_blocks(function: Callable[..., jax.Array]) -> Callable[[Candidate], jax.Array]:
    return lambda c: function(c.shared(_features))


def _alignment(c: Candidate) -> jax.Array:
    last = c.shared(_features)[-1]
    if isinstance(c.x, GraphInput):
        return proxies.alignment(last, averaged(c.x))
    arrays = [leaf for _, leaf in example_arrays(c.x) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return proxies.alignment(last, jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in arrays], axis=1))


def _vkdnw(c: Candidate) -> jax.Array:
    ones = jax.eval_shape(lambda: c.apply({"params": c.params}, c.x, mutable=[CHANNEL_SCALES])[1][CHANNEL_SCALES])
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), ones)

    def scaled(scales: Any, x: Any) -> jax.Array:
        return c.apply({"params": c.params, CHANNEL_SCALES: scales}, x, fixed=True)

    return proxies.vkdnw(scaled, ones, c.x)


_ZEN_NOISE = 0.01


def _zen(c: Candidate) -> jax.Array:
    """Returns the Zen-score: for Gaussian inputs like the batch, whatever is in it."""

    def drawn(key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(c.x)
        keys = jax.random.split(key, len(leaves))
        return jax.tree.unflatten(
            structure,
            [
                jax.random.normal(k, leaf.shape, leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
                for k, leaf in zip(keys, leaves, strict=True)
            ],
        )

    x, noise = (drawn(key) for key in jax.random.split(c.key))
    moved = jax.tree.map(lambda a, b: a + _ZEN_NOISE * b if jnp.issubdtype(a.dtype, jnp.floating) else a, x, noise)
    _, seen = c.apply({"params": c.params}, x, mutable=[FEATURES, RUNNING_STATISTICS])
    _, noisy = c.apply({"params": c.params}, moved, mutable=[FEATURES])
    # the variances of the batch, of which the running ones are a share
    tracked = jax.tree.leaves(seen.get(RUNNING_STATISTICS, {}))[1::2]
    variances = [(moving - (1 - RUNNING_SHARE)) / RUNNING_SHARE for moving in tracked]
    last = max(seen[FEATURES])
    return proxies.zen(seen[FEATURES][last], noisy[FEATURES][last], variances)


def _regularised_swap(c: Candidate, mu: int = 1000, sigma: int = 1000) -> jax.Array:
    thousands = sum(leaf.size for leaf in jax.tree.leaves(c.params)) / 1000
    return proxies.swap(c.shared(_preactivations)) * jnp.exp(-((thousands - mu) ** 2) / sigma**2)


def _fisher(c: Candidate) -> jax.Array:
    _, observed = c.apply({"params": c.params}, c.x, mutable=[CHANNEL_SCALES])
    ones = observed[CHANNEL_SCALES]
    return proxies.fisher(lambda s, x: c.apply({"params": c.params, CHANNEL_SCALES: s}, x), ones, c.x, c.y, loss=c.loss)


def _gennas(c: Candidate, task: str = "nb101", steps: int = 100, batch: int = 16) -> jax.Array:
    tracked = jax.eval_shape(lambda: c.stages(c.untrained, {}, c.x, True)[1])
    start = initial_statistics(tracked)
    return proxies.gennas(c.stages, c.untrained, start, c.x[:batch], proxies.TASKS[task], c.key, steps=steps)


_AZ_NAS = "AZ-NAS, Lee and Ham, CVPR 2024"
_ABDELFATTAH = "Abdelfattah et al., ICLR 2021"
_NASI = "NASI, Shu et al., ICLR 2022"

SCORES: dict[str, Score] = {
    "ntk-trace": Score(_exact_trace, "tr(J J^T), exact", f"{_NASI}, eq. 9"),
    "ntk-probe": Score(
        lambda c, probes=1: _probed(c, probes).trace,
        "||J^T v||^2 for a Rademacher v, or its mean over several probes",
        "Hutchinson, 1990",
        options={"probes": Option(1)},
    ),
    "ntk-per-sample": Score(_of_gradients(ntk.per_sample), "sum_x ||grad L_x||^2", f"{_NASI}, eq. 11", labels=True),
    "ntk-one-batch": Score(
        _of_gradients(ntk.one_batch), "||grad L||^2, L the mean loss of a batch", f"{_NASI}, eq. 12", labels=True
    ),
    "ntk-participation-ratio": Score(
        lambda c, probes=1: _probed(c, probes).ratio,
        "(v^T K v)^2 / ||K v||^2 for a Rademacher v, or its mean over several probes",
        "after NASI, Proposition 1",
        options={"probes": Option(1)},
    ),
    "ntk-condition-number": Score(
        lambda c: ntk.spectrum(_kernel(c)).condition_number,
        "largest over smallest eigenvalue of the kernel of the summed outputs",
        "TE-NAS, Chen et al., ICLR 2021",
        higher_is_better=False,
    ),
    "ntk-effective-rank": Score(
        lambda c: ntk.spectrum(_kernel(c)).effective_rank,
        "exp of the entropy of the normalised eigenvalues of the kernel of the summed outputs",
        "Roy and Vetterli, EUSIPCO 2007",
    ),
    "grad_norm": Score(_of_gradients(proxies.grad_norm), "sum over layers of ||grad L||", _ABDELFATTAH, labels=True),
    "plain": Score(_of_gradients(proxies.plain), "sum theta grad L", _ABDELFATTAH, labels=True),
    "l2_norm": Score(
        lambda c: proxies.l2_norm(c.params), "sum over layers of ||theta||", _ABDELFATTAH, data=False, derived=True
    ),
    "snip": Score(_of_gradients(proxies.snip), "sum |theta grad L|", "Lee et al., ICLR 2019", labels=True),
    "grasp": Score(_of_gradients(proxies.grasp), "-theta^T H grad L", "Wang et al., ICLR 2020", labels=True),
    "synflow": Score(
        _synflow,
        "log sum |theta grad R|, R = 1^T f(1; |theta|)",
        "Tanaka et al., NeurIPS 2020",
        data=False,
        double=True,
        floating=True,
    ),
    "fisher": Score(_fisher, "sum (a grad_a L)^2 over channels", "Turner et al., ICLR 2020", labels=True),
    "jacob_cov": Score(
        lambda c: proxies.jacob_cov(c.apply_fn, c.params, c.x),
        "-sum log(l + k) + 1 / (l + k) over eigenvalues of the correlation of input gradients",
        "Mellor et al., 2020",
        floating=True,
        own=True,
    ),
    "epe_nas": Score(
        lambda c: proxies.epe_nas(c.apply_fn, c.params, c.x, c.y, c.outputs),
        "sum over classes of |sum log(|r| + k)| of correlations r of input gradients",
        "EPE-NAS, Lopes et al., ICANN 2021",
        labels=True,
        floating=True,
        own=True,
        classes=True,
    ),
    "naswot": Score(_of_units(proxies.naswot), "log |det K|, K counts the ReLU that agree", "Mellor et al., ICML 2021"),
    "swap": Score(
        _of_units(proxies.swap), "number of different patterns of units over examples", "SWAP, Peng et al., ICLR 2024"
    ),
    "swap-regularised": Score(
        _regularised_swap,
        "swap times exp(-((params / 1000 - mu) / sigma)^2)",
        "SWAP, Peng et al., ICLR 2024",
        derived=True,
        options={"mu": Option(1000), "sigma": Option(1000)},
    ),
    "meco": Score(
        _of_units(proxies.meco),
        "sum over layers of the least eigenvalue of the channels' correlation for one example",
        "MeCo, Jiang et al., NeurIPS 2023; layers are those that a ReLU reads",
        maps=True,
    ),
    "zen": Score(
        _zen,
        "log E|f(x) - f(x + noise)| + sum log std of normalised layers, Gaussian x",
        "Zen-NAS, Lin et al., ICCV 2021",
        data=False,
        floating=True,
        features=True,
        derived=True,
    ),
    "vkdnw": Score(
        _vkdnw,
        "layers + entropy of the deciles of the Fisher information's eigenvalues, one parameter of each layer",
        "VKDNW, Týbl and Neumann, CVPR 2025; the parameter is the factor of a layer's first channel",
        own=True,
        derived=True,
    ),
    "expressivity": Score(
        _of_blocks(proxies.expressivity),
        "sum over blocks of the entropy of the covariance's eigenvalues",
        _AZ_NAS,
        features=True,
    ),
    "progressivity": Score(
        _of_blocks(proxies.progressivity), "least increase of that entropy from block to block", _AZ_NAS, features=True
    ),
    "trainability": Score(
        lambda c: proxies.trainability(_passages(c)),
        "mean over blocks of 2 - s - 1/s, s the spectral norm of the passage of gradients",
        _AZ_NAS,
        features=True,
    ),
    "feature-participation-ratio": Score(
        _of_blocks(proxies.participation_ratio),
        "sum over blocks of (sum l)^2 / sum l^2 of the covariance's eigenvalues",
        "InTrain, CVPR 2026, for the ratio of activations",
        features=True,
    ),
    "feature-effective-rank": Score(
        _effective_rank,
        "sum over blocks of exp of the entropy of the covariance's eigenvalues, or of their roots",
        "Roy and Vetterli, EUSIPCO 2007",
        features=True,
        options={"of": Option("eigenvalues", choices=get_args(proxies.Of))},
    ),
    "input-alignment": Score(
        _alignment,
        "alignment of the centred kernels of last features, by direction, and of inputs, averaged over neighbours",
        "alignment of Cortes et al., JMLR 2012",
        floating=True,
        embedding=True,
    ),
    "zico": Score(
        _of_gradients(proxies.zico), "sum over layers of log sum E|g| / std|g|", "Li et al., ICLR 2023", labels=True
    ),
    "gennas": Score(
        _gennas,
        "minus the loss after a short training that fits signals of a task to images with noise",
        "Li et al., NeurIPS 2021",
        floating=True,
        trains=True,
        options={
            "task": Option("nb101", choices=tuple(proxies.TASKS)),
            "steps": Option(100),
            "batch": Option(16, least=2),
        },
    ),
    "params": Score(None, "number of parameters", "", data=False),
    "trained-params": Score(
        None, "number of parameters at the size at which architectures are trained in the end", "", data=False
    ),
    "flops": Score(None, "multiply-adds of convolutions and products", "", data=False),
}
"""Every score by its name on the command line."""

FORMULAS = {
    "transfer": "log(swap+meco+feature-effective-rank+trained-params)",
    "transfer-ratio": "log(swap+meco+feature-effective-rank+trained-params+ntk-participation-ratio)",
    "ratio-zico": "zico+ntk-participation-ratio",
}
"""Formulas by name; see `nasi_jax.scores.Formula`.

``"transfer"``: how many patterns units have, how little channels repeat each other, how many directions blocks keep,
and size. Chosen once on parts of NAS-Bench-201, NAS-Bench-101, NAS-Bench-301 and TransNAS-Bench-101, see
experiments/README.md. ``"transfer-ratio"``: on NAS-Bench-201 better with 3 cells a stage, on NAS-Bench-301 worse.
``"ratio-zico"``: for networks that do not show their blocks; on NAS-Bench-201 level with AZ-NAS.
"""


def score(text: str) -> Score:
    """Returns the score that ``name`` or ``name(option=value)`` stands for.

    Args:
        text: the text.

    Returns:
        The score, with its options set.

    Raises:
        ValueError: the name or an option is unknown, or a value is out of range.
    """
    name, given = named(text)
    if name not in SCORES:
        raise ValueError(unknown("score", name, [*SCORES, *FORMULAS]))
    found = SCORES[name]
    for option, value in given.items():
        if option not in found.options:
            known = f"options {', '.join(found.options)}" if found.options else "no options"
            raise ValueError(f"score: {name} has {known}, got {text!r}")
        found.options[option].check(option, name, value)
    if not given or found.compute is None:
        return found
    return dataclasses.replace(found, compute=functools.partial(found.compute, **given))
