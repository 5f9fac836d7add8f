import csv
import gzip
import types
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from flax import linen as nn

from nasi_jax import data, ntk, proxies, scores, spaces
from nasi_jax.nn import FEATURES, PERTURBATIONS, PREACTIVATIONS, Style

SPACE = spaces.NASBench201()
SOURCE = data.Gaussian((8, 8, 3), 4)
CONFIG = scores.ScoreConfig(SPACE.Size(2, 1), batch=4)
CELLS = (
    "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    "|none~0|+|avg_pool_3x3~0|none~1|+|nor_conv_3x3~0|none~1|skip_connect~2|",
)


FEW = ("ntk-one-batch", "naswot", "zico", "params", "swap", "expressivity", "trainability")
ALL = tuple(name for name, score in scores.SCORES.items() if not score.trains)  # the others: test_trained_scores
WHOLE = tuple(name for name in ALL if not scores.SCORES[name].derived)


BY_EIGENVALUES = ("meco", "expressivity", "progressivity", "trainability", "feature-effective-rank")


def preactivations(module, params, x):
    leaves = jax.tree.leaves(module.apply({"params": params}, x, mutable=[PREACTIVATIONS])[1])
    return list(zip(leaves[::2], leaves[1::2], strict=True))


def features(module, params, x):
    found = module.apply({"params": params}, x, mutable=[FEATURES])[1][FEATURES]
    return [found[name] for name in sorted(found)]


def passages(module, params, x, key):
    """Block by block: the network from the output of one block on, whose next output is what is looked at."""
    outputs = features(module, params, x)
    found = []
    for i, (block_key, above) in enumerate(zip(jax.random.split(key, len(outputs)), outputs, strict=True)):
        if i:
            cotangent = jax.random.rademacher(block_key, above.shape, above.dtype)

            def block(shift, i=i):
                shifts = {f"{j:03d}": shift if j == i - 1 else jnp.zeros_like(y) for j, y in enumerate(outputs)}
                variables = {"params": params, PERTURBATIONS: shifts}
                return module.apply(variables, x, mutable=[FEATURES])[1][FEATURES][f"{i:03d}"]

            (below,) = jax.vjp(block, jnp.zeros_like(outputs[i - 1]))[1](cotangent)
            found.append(proxies.Passage(cotangent, below))
    return found


@pytest.fixture(
    scope="module",
    params=[("space", FEW), ("blocks", ALL),
            pytest.param(("space", WHOLE), marks=pytest.mark.slow)],
    ids=["space-few", "blocks", "space"],
)  # fmt: skip
def scored(request):
    compilation, names = request.param
    scorer = scores.Scorer(SPACE, SOURCE, names, CONFIG, compilation=compilation)
    draw = scorer.draw(0)
    return draw, [scorer.score(draw, [SPACE.parse(cell)])[0] for cell in CELLS]


@pytest.mark.parametrize("number", [0, 1])
def test_every_score_is_that_of_the_derived_network(number, scored):
    """Programs that serve all cells against a network with only what the cell names, to 1e-5."""
    draw, scores = scored
    genotype = SPACE.parse(CELLS[number])
    module = SPACE.network(genotype, SPACE.Size(2, 1), 4)
    like = jax.eval_shape(module.init, jax.random.key(0), draw.batch.x)["params"]
    params = spaces.restrict(draw.params, like)
    drawn = jax.jit(module.init)(
        jax.random.key(jax.random.bits(jax.random.split(jax.random.key(0), 3)[0]), impl="unsafe_rbg"), draw.batch.x
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, drawn["params"])

    @jax.jit
    def apply_fn(p, x):
        return module.apply({"params": p}, x)

    x, y, got = draw.batch.x, draw.batch.y, scores[number]
    expected = {
        "ntk-trace": lambda: ntk.trace(apply_fn, params, x).value,
        "ntk-probe": lambda: ntk.participation_ratio(apply_fn, params, x, draw.key).trace,
        "ntk-participation-ratio": lambda: ntk.participation_ratio(apply_fn, params, x, draw.key).ratio,
        "ntk-one-batch": lambda: ntk.one_batch(apply_fn, params, x, y),
        "ntk-per-sample": lambda: ntk.per_sample(apply_fn, params, x, y),
        "grad_norm": lambda: proxies.grad_norm(apply_fn, params, x, y),
        "snip": lambda: proxies.snip(apply_fn, params, x, y),
        "jacob_cov": lambda: proxies.jacob_cov(apply_fn, params, x),
        "zico": lambda: proxies.zico(apply_fn, params, x, y),
        "params": lambda: sum(leaf.size for leaf in jax.tree.leaves(params)),
        "plain": lambda: proxies.plain(apply_fn, params, x, y),
        "l2_norm": lambda: proxies.l2_norm(params),
        "epe_nas": lambda: proxies.epe_nas(apply_fn, params, x, y, 4),
        "swap": lambda: proxies.swap(preactivations(module, params, x)),
        "meco": lambda: proxies.meco(preactivations(module, params, x)),
        "expressivity": lambda: proxies.expressivity(features(module, params, x)),
        "progressivity": lambda: proxies.progressivity(features(module, params, x)),
        "trainability": lambda: proxies.trainability(passages(module, params, x, draw.key)),
        "feature-effective-rank": lambda: proxies.effective_rank(features(module, params, x)),
        "feature-participation-ratio": lambda: proxies.participation_ratio(features(module, params, x)),
    }
    for name in expected.keys() & got.keys():
        rtol = 2e-3 if name in ("zico", "jacob_cov", "epe_nas") else 1e-4 if name in BY_EIGENVALUES else 1e-5
        np.testing.assert_allclose(got[name], expected[name](), rtol=rtol, atol=1e-5, err_msg=name)
    if "synflow" not in got:
        return
    summed = ntk.spectrum(ntk.kernel(apply_fn, params, x, form="summed"))
    np.testing.assert_allclose(got["ntk-effective-rank"], summed.effective_rank, rtol=1e-5)
    np.testing.assert_allclose(got["ntk-condition-number"], summed.condition_number, rtol=1e-2)
    np.testing.assert_allclose(got["grasp"], proxies.grasp(apply_fn, params, x, y), rtol=1e-3)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        bare = SPACE.network(genotype, SPACE.Size(2, 1), 4, Style(normalisation="fixed"))
        flow = proxies.synflow(lambda p, x: bare.apply({"params": p}, x), wide, x.astype(jnp.float64))
    np.testing.assert_allclose(got["synflow"], flow, rtol=1e-10)


def test_naswot_counts_a_relu_for_every_convolution_that_reads_it(scored):
    """The first cell has 4 convolutions, of which two read the input: stem and 2 reductions add 4 + 1."""
    draw, scores = scored
    genotype = SPACE.parse(CELLS[0])
    module = SPACE.network(genotype, SPACE.Size(2, 1), 4)
    like = jax.eval_shape(module.init, jax.random.key(0), draw.batch.x)["params"]
    _, seen = module.apply({"params": spaces.restrict(draw.params, like)}, draw.batch.x, mutable=[PREACTIVATIONS])
    leaves = jax.tree.leaves(seen[PREACTIVATIONS])
    assert sum(float(uses) for uses in leaves[1::2]) == 3 * 4 + 2 * 2 + 1
    expected = proxies.naswot(zip(leaves[::2], leaves[1::2], strict=True))
    np.testing.assert_allclose(scores[0]["naswot"], expected, rtol=1e-5)


def test_a_cell_of_known_blocks_compiles_nothing(caplog):
    names = ("ntk-one-batch", "naswot", "zico", "synflow")
    size = scores.ScoreConfig(SPACE.Size(3, 1), batch=6)  # unlike that of other tests, whose programs are kept
    scorer = scores.Scorer(SPACE, SOURCE, names, size, compilation="blocks")
    draw = scorer.draw(0)
    compiled = []
    for cell in (
        CELLS[1],
        "|avg_pool_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_3x3~0|skip_connect~1|nor_conv_3x3~2|",
        CELLS[0],  # has the first 1x1 convolutions
    ):
        caplog.clear()
        with jax.log_compiles(True):
            scorer.score(draw, [SPACE.parse(cell)])
        compiled.append(sum("Finished XLA compilation" in message for message in caplog.messages))
    assert compiled[0] > 0
    assert compiled[1] == 0
    assert compiled[2] > 0


def test_the_programs_of_the_space_are_compiled_while_parameters_are_drawn(caplog):
    scorer = scores.Scorer(
        SPACE, SOURCE, ("ntk-one-batch", "ntk-condition-number"), scores.ScoreConfig(SPACE.Size(2, 1), 5), per_device=2
    )
    draw = scorer.draw(0)
    with jax.log_compiles(True):
        scorer.score(draw, [SPACE.parse(cell) for cell in CELLS[:2]])
    assert not [message for message in caplog.messages if "several" in message]


@pytest.mark.parametrize("wide", [False, True])
def test_scores_side_by_side_come_in_turn_and_not_long_before_they_are_asked_for(wide):
    with jax.enable_x64(wide):
        scorer = scores.Scorer(SPACE, SOURCE, ("ntk-one-batch", "synflow", "params"), CONFIG)
        draw, taken = scorer.draw(0), []
        genotypes = [SPACE.sample(jax.random.key(i)) for i in range(40)]
        stream = scorer.stream(draw, (taken.append(g) or g for g in genotypes))
        found = [next(stream) for _ in range(3)]
        assert len(taken) <= 3 + 16
        found += stream
        expected = [scorer.score(draw, [genotype])[0] for genotype in genotypes[::8]]
    assert found[::8] == expected
    assert len({values["ntk-one-batch"] for values in found}) > 20
    assert draw.batch.x.dtype == ("float64" if wide else "float32")
    # what float32 cannot hold is there where the caller computes in float64
    figures = [values["ntk-one-batch"] for values in found]
    assert any(float(np.float32(figure)) != figure for figure in figures) == wide


@pytest.mark.parametrize("space", spaces.SPACES.values(), ids=spaces.SPACES)
def test_by_default_no_operation_is_computed_in_vain_on_a_cpu(space):
    arguments = (space, toys.small_noise(space), ("naswot",), scores.ScoreConfig(toys.smallest(space), 2))
    branches = "branches" in space.network(space.at(0), space.Size(), 1).capabilities
    assert scores.Scorer(*arguments).compilation == ("space" if branches else "blocks")
    if space.one_shot:
        assert scores.Scorer(*arguments, per_device=2).compilation == "space"


def test_a_disconnected_cell_has_the_trace_of_its_head():
    scorer = scores.Scorer(SPACE, SOURCE, ("ntk-trace", "naswot"), CONFIG)
    empty = SPACE.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    got = scorer.score(scorer.draw(0), [empty])[0]
    np.testing.assert_allclose(got["ntk-trace"], 4 * 4)  # the bias alone: one for each sample and class
    assert got["naswot"] == -np.inf


@pytest.mark.slow
def test_several_at_once_and_several_devices_give_the_same():
    genotypes = [SPACE.sample(jax.random.key(i)) for i in range(3)]
    names = ("ntk-one-batch", "synflow")  # one in float32, one in float64
    alone = scores.Scorer(SPACE, SOURCE, names, CONFIG)
    expected = [alone.score(alone.draw(1), [g])[0] for g in genotypes]
    mesh = jax.make_mesh((2,), ("architectures",), devices=jax.devices()[:2])
    for options in ({"per_device": 4}, {"mesh": mesh}, {"mesh": mesh, "per_device": 2}):
        scorer = scores.Scorer(SPACE, SOURCE, names, CONFIG, **options)
        found = scorer.score(scorer.draw(1), genotypes)
        for a, b in zip(found, expected, strict=True):
            for name in names:
                np.testing.assert_allclose(a[name], b[name], rtol=1e-4)


def test_costs_are_the_published_ones(benchmark_table):
    counter = scores.Counter(SPACE, data.shapes(SPACE.noise(), 2).x, SPACE.Size(), 10)
    with gzip.open(benchmark_table, "rt") as file:
        rows = list(csv.DictReader(file))[::500]
    # beside convolutions and products the benchmark counts, for each element, 3 for a ReLU and batch normalisation and
    # 9 for a pool, and the same once outside the cells
    elements = 5 * (32**2 * 16 + 16**2 * 32 + 8**2 * 64)
    outside = set()
    for row in rows:
        counts = counter(SPACE.parse(row["arch"]))
        np.testing.assert_allclose(counts["params"] / 1e6, float(row["params_m"]), rtol=1e-6)
        extra = elements * (3 * row["arch"].count("nor_conv") + 9 * row["arch"].count("avg_pool"))
        outside.add(round(float(row["flops_m"]) * 1e6 - counts["flops"] - extra))
    assert outside == {160832}


def test_parameters_are_counted_at_the_size_that_is_scored_and_at_that_of_a_training():
    scorer = scores.Scorer(SPACE, SOURCE, ("params", "trained-params"), CONFIG)
    genotype = SPACE.parse(CELLS[0])
    counted = [
        scores.Counter(SPACE, data.shapes(SOURCE, 2).x, size, SOURCE.outputs)(genotype)["params"]
        for size in (CONFIG.size, SPACE.evaluation_size)
    ]
    assert [*scorer.score(scorer.draw(0), [genotype])[0].values()] == counted
    assert counted[0] < counted[1]


def test_costs_of_a_space_whose_architectures_differ_in_their_edges():
    """DARTS_V2 for ImageNet, by hand; its reduction cell has only pools and identities between inputs and nodes."""
    expected = 9 * (3 * 24 * 112**2 + 24 * 48 * 56**2 + 48 * 48 * 28**2)  # stem
    before, last, side, channels = 48, 48, 28, 48
    for cell in range(14):
        if cell in (4, 9):
            channels *= 2
            expected += (before + last) * channels * side**2  # both inputs are preprocessed before they are halved
            side //= 2
        else:
            # five separable convolutions, each twice, and a dilated one
            expected += ((before + last) * channels + 11 * (9 * channels + channels**2)) * side**2
        before, last = last, 4 * channels
    x = data.shapes(data.Gaussian((224, 224, 3)), 2).x
    counts = scores.Counter(spaces.DARTS(), x, spaces.DARTSSize(48, 14, "imagenet"), 1000)
    found = counts(spaces.DARTS_V2)
    assert (found["params"], found["flops"]) == (4718752, expected + last * 1000)


def test_costs_of_a_space_of_anybodys_own_layers():
    layers = [nn.Conv(6, (3, 3), use_bias=False), nn.Conv(6, (5, 5), strides=2, feature_group_count=6, use_bias=False)]
    own = types.SimpleNamespace(additive=False, network=lambda *_: nn.Sequential(layers))
    counts = scores.Counter(cast(Any, own), jnp.zeros((2, 8, 8, 3)), None, 6)(None)
    assert (counts["params"], counts["flops"]) == (9 * 3 * 6 + 25 * 6, 64 * 9 * 3 * 6 + 16 * 25 * 6)


def test_scores_of_the_darts_space():
    names = ("ntk-one-batch", "naswot", "params")
    config = scores.ScoreConfig(spaces.DARTSSize(2, 3), batch=4)
    scorer = scores.Scorer(spaces.DARTS(), SOURCE, names, config)
    draw, genotype = scorer.draw(0), spaces.DARTS_V2
    found = scorer.score(draw, [genotype])[0]
    module = spaces.DARTS().network(genotype, config.size, 4)
    like = jax.eval_shape(module.init, jax.random.key(0), draw.batch.x)["params"]
    params = spaces.restrict(draw.params, like)
    expected = ntk.one_batch(lambda p, x: module.apply({"params": p}, x), params, draw.batch.x, draw.batch.y)
    np.testing.assert_allclose(found["ntk-one-batch"], expected, rtol=1e-5)
    assert found["params"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert np.isfinite(found["naswot"])


@pytest.mark.slow
def test_loose_ends_have_no_part_in_a_score():
    """In NAS-Bench-1Shot1 the one-shot network computes blocks that nothing reads, the derived one does not."""
    space, names = spaces.NASBench1Shot1(2), ("ntk-one-batch", "naswot", "fisher", "snip", "synflow", "params")
    genotypes = [space.sample(jax.random.key(seed)) for seed in range(4)]
    assert any(len(space.nasbench101(genotype)[1]) < 6 for genotype in genotypes)
    config = scores.ScoreConfig(space.Size(2, 1), batch=4)
    found = {}
    for compilation in ("space", "blocks"):
        scorer = scores.Scorer(space, SOURCE, names, config, compilation=compilation)
        found[compilation] = [scorer.score(scorer.draw(0), [genotype])[0] for genotype in genotypes]
    for whole, by_block in zip(found["space"], found["blocks"], strict=True):
        for name in names:
            np.testing.assert_allclose(whole[name], by_block[name], rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("names", "config", "options", "message"),
    [
        (("guess",), CONFIG, {}, "score: expected one of"),
        ((), CONFIG, {}, "scores: expected at least one"),
        (("snip", "snip"), CONFIG, {}, "each once"),
        (("snip",), CONFIG, {"per_device": 0}, "per_device: expected"),
        (("snip",), CONFIG, {"compilation": "cells"}, "compilation: expected one of"),
        (("snip",), CONFIG, {"compilation": "blocks", "per_device": 2}, "compilation: expected 'space'"),
        (("zen",), CONFIG, {"compilation": "space"}, "'blocks' and one architecture at once for zen"),
        (("vkdnw",), CONFIG, {"per_device": 2}, "'blocks' and one architecture at once for vkdnw"),
    ],
)
def test_bad_arguments_are_refused(names, config, options, message):
    with pytest.raises(ValueError, match=message):
        scores.Scorer(SPACE, SOURCE, names, config, **options)


def test_a_score_of_blocks_needs_networks_that_show_them():
    space = spaces.NASBench1Shot1(1)
    with pytest.raises(ValueError, match="expressivity needs networks that show their blocks"):
        scores.Scorer(space, SOURCE, ["expressivity"], scores.ScoreConfig(space.Size(2, 1), 4))


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="batch: expected at least 2"):
        scores.ScoreConfig(batch=1)


def test_a_batch_larger_than_the_data_is_refused_also_of_a_single_example():
    single = data.from_arrays(np.zeros((1, 8, 8, 3), np.float32), np.zeros(1, int))
    with pytest.raises(ValueError, match="batch: expected 1 to 1, the number of examples, got 4"):
        scores.Scorer(SPACE, single, ["naswot"], CONFIG)
