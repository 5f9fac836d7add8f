"""The work of a cluster, on a stand-in for Ray that runs in this process; with Ray itself, see tests/cli."""

import math
import sys
import types

import pytest

from nasi_jax.scores.cluster import evaluators


class Ray(types.ModuleType):
    """Nodes that keep what they are asked."""

    class exceptions:  # noqa: N801 (Ray's name)
        RayActorError = RuntimeError

    def __init__(self, nodes):
        super().__init__("ray")
        self.asked = [[] for _ in range(nodes)]
        self.started = 0

    def init(self, **options):
        if options["address"] == "nowhere:1":
            raise ConnectionError("refused")

    def nodes(self):
        return [{"Alive": True} for _ in self.asked] + [{"Alive": False}]

    def put(self, given):
        return given

    def get(self, found):
        return found()

    def remote(self, **options):
        def decorate(worker):
            return types.SimpleNamespace(remote=lambda given: self.start(worker, given))

        return decorate

    def start(self, worker, given):
        number, self.started = self.started, self.started + 1
        node = worker(given)

        def evaluate(seed, genotypes):
            self.asked[number].append(len(genotypes))
            return lambda: node.evaluate(seed, genotypes)

        return types.SimpleNamespace(evaluate=types.SimpleNamespace(remote=evaluate))


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
    monkeypatch.setitem(sys.modules, "ray", ray := Ray(nodes))
    return ray, evaluators("auto", ("value",), lambda: Doubled)


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
    monkeypatch.setitem(sys.modules, "ray", Ray(1))
    with pytest.raises(ValueError, match="ray: cannot reach a cluster at 'nowhere:1': refused"):
        evaluators("nowhere:1", ("value",), lambda: Doubled)
