"""The work of a cluster, on a stand-in for Ray that runs in this process; with Ray itself, see tests/cli."""

import math

import pytest
import ray_stand_in

from nasi_jax.scores.cluster import evaluators


class Doubled:
    names = ("value",)

    def __init__(self, seed):
        self.seed = seed

    def stream(self, genotypes):
        for genotype in genotypes:
            if genotype == 13:
                yield {"value": math.nan, "reason": "unlucky"}
            else:
                yield {"value": 2 * genotype + self.seed}


def on(monkeypatch, nodes):
    return ray_stand_in.installed(monkeypatch, nodes), evaluators("auto", ("value",), lambda: Doubled)


@pytest.mark.parametrize("nodes", [1, 3, 20])
def test_figures_are_those_of_one_process_in_order(monkeypatch, nodes):
    _, at = on(monkeypatch, nodes)
    here = evaluators(None, ("value",), lambda: Doubled)
    for genotypes in (list(range(10, 40)), [5], []):
        for seed in (0, 3):
            expected = [repr(row) for row in here(seed).stream(genotypes)]
            assert [repr(row) for row in at(seed).stream(genotypes)] == expected
            assert [repr(row) for row in at(seed).stream(iter(genotypes))] == expected


@pytest.mark.parametrize(("count", "shares"), [(8, [3, 3, 2]), (3, [1, 1, 1]), (2, [1, 1, 0]), (40, [16, 16, 8])])
def test_every_node_has_a_share_of_what_is_chosen_at_once(monkeypatch, count, shares):
    ray, at = on(monkeypatch, 3)
    list(at(0).stream(list(range(count))))
    assert [sum(asked) for asked in ray.asked] == shares
    assert all(part <= 8 for asked in ray.asked for part in asked)


def test_a_cluster_that_is_not_there(monkeypatch):
    ray_stand_in.installed(monkeypatch, 1)
    with pytest.raises(ValueError, match="ray: cannot reach a cluster at 'nowhere:1': refused"):
        evaluators("nowhere:1", ("value",), lambda: Doubled)
