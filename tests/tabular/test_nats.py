import bz2
import gzip
import pickle

import numpy as np
import pytest
from nats_bench.api_utils import ArchResults, ResultsCount

from nasi_jax import tabular

CELLS = [
    "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|",
    "|avg_pool_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
]
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}


def accuracy(cell, name, part, epochs, seed):
    """A figure that says where it stands: 10 * data set + part, plus hundredths for the trial."""
    return 20 * list(SETS).index(name) + 3 * SETS[name].index(part) + cell + (epochs == 12) / 2 + seed / 100


def results(cell, epochs):
    found = ArchResults(cell, CELLS[cell])
    for name, parts in SETS.items():
        for seed in (1, 3):
            trial = ResultsCount(
                name, None, {0: 50.0}, {0: 1.0}, 0.07 + cell, 7.78 + cell, {"arch_str": CELLS[cell]}, seed, 1, None
            )
            keys = {f"{part}@0": accuracy(cell, name, part, epochs, seed) for part in parts}
            trial.update_train_info({0: 50.0}, {0: 90.0}, {0: 1.0}, {0: 1.0})
            trial.update_eval(keys, dict.fromkeys(keys, 1.0), dict.fromkeys(keys, 1.0))
            found.all_results[name, seed] = trial
            found.dataset_seed.setdefault(name, []).append(seed)
    return found.state_dict()


@pytest.fixture
def official(tmp_path):
    content = {
        "meta_archs": CELLS,
        "arch2infos": {i: {"12": results(i, 12), "200": results(i, 200)} for i in range(2)},
        "evaluated_indexes": [0, 1],
    }
    path = tmp_path / "NATS-tss-v1_0-small.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(content)))
    return path


def test_a_small_official_file(official, tmp_path):
    assert tabular.from_nats_bench(official, tmp_path / "table.csv.gz") == 2
    columns = ["cifar10_test", "cifar100_test", "imagenet16_val", "cifar10_val_12ep", "params_m", "flops_m"]
    found = tabular.Table.read(tmp_path / "table.csv.gz", columns).lookup(CELLS)
    expected = {
        "cifar10_test": [accuracy(i, "cifar10", "ori-test", 200, 2) for i in range(2)],  # mean of trials 1 and 3
        "cifar100_test": [accuracy(i, "cifar100", "x-test", 200, 2) for i in range(2)],
        "imagenet16_val": [accuracy(i, "ImageNet16-120", "x-valid", 200, 2) for i in range(2)],
        "cifar10_val_12ep": [accuracy(i, "cifar10-valid", "x-valid", 12, 2) for i in range(2)],
        "params_m": [0.07, 1.07],
        "flops_m": [7.78, 8.78],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name)


def test_the_same_source_gives_the_same_bytes_plain_or_gzipped(official, tmp_path):
    for name in ("a.csv.gz", "b.csv.gz", "c.csv"):
        tabular.from_nats_bench(official, tmp_path / name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()) == (tmp_path / "c.csv").read_bytes()


def test_what_is_missing_is_named(official, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is none at"):
        tabular.from_nats_bench(tmp_path / "absent", tmp_path / "table.csv")
    monkeypatch.setitem(__import__("sys").modules, "nats_bench", None)
    with pytest.raises(ImportError, match=r"nasi_jax\[nats\]"):
        tabular.from_nats_bench(official, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()
