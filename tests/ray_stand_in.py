"""A stand-in for Ray whose nodes run in this process."""

import sys
import types


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


def installed(monkeypatch, nodes):
    """Installs it in the place of Ray, and returns it."""
    monkeypatch.setitem(sys.modules, "ray", ray := Ray(nodes))
    return ray
