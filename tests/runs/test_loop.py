"""Runs made with the library alone, without the command."""

import json
import os
import signal

import jax
import numpy as np
import pytest

from nasi_jax import data, runs, search, spaces


def counting(stop_at=None, error=KeyboardInterrupt):
    """A run of ten steps whose state is the sum of the steps' numbers."""

    def begin(state, rows):
        state = {"step": np.zeros((), int), "sum": np.zeros(())} if state is None else state
        for step in range(int(state["step"]), 10):
            if step == stop_at:
                raise error
            state = {"step": np.asarray(step + 1), "sum": state["sum"] + step}
            yield runs.Step(step + 1, state, [{"step": step, "sum": float(state["sum"])}])

    return begin


def replaying(stop_at=None):
    """The same without a state: what was done follows from the rows."""

    def begin(_, rows):
        total = rows[-1]["sum"] if rows else 0.0
        for step in range(len(rows), 10):
            if step == stop_at:
                raise KeyboardInterrupt
            total += step
            yield runs.Step(step + 1, None, [{"step": step, "sum": total}])

    return begin


def folder(path):
    return runs.RunFolder.open(path, "counting", {"steps": 10}, results=("result.json",))


LIKE = {"step": np.zeros((), int), "sum": np.zeros(())}
EXPECTED = [{"step": step, "sum": step * (step + 1) / 2} for step in range(10)]


@pytest.mark.parametrize("every", [0.0, 1e9])
@pytest.mark.parametrize("stops", [(0,), (1,), (10,), (3, 3, 7)])
def test_interrupted_anywhere_it_comes_to_the_same(tmp_path, stops, every):
    for stop in stops:
        begin = counting(stop) if stop < 10 else _raising_at_the_end
        with folder(tmp_path) as run, pytest.raises(runs.Interrupted, match="the same command continues"):
            runs.run(run, begin, runs.SmallStore(run, LIKE), total=10, every=every)
    with folder(tmp_path) as run:
        ended = runs.run(run, counting(), runs.SmallStore(run, LIKE), total=10)
    assert ended.rows == EXPECTED
    assert ended.state["sum"] == 45
    assert [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()] == EXPECTED


def _raising_at_the_end(state, rows):
    yield from counting()(state, rows)
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [0, 4, 9])
def test_rows_alone_continue_a_run(tmp_path, stop):
    with folder(tmp_path) as run, pytest.raises(runs.Interrupted):
        runs.run(run, replaying(stop), total=10)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "su')
    with folder(tmp_path) as run:
        assert runs.run(run, replaying(), total=10).rows == EXPECTED


@pytest.mark.parametrize("failure", [FloatingPointError, FileNotFoundError])
def test_another_failure_keeps_what_was_done(tmp_path, failure):
    with folder(tmp_path) as run, pytest.raises(failure):
        runs.run(run, counting(6, failure), runs.SmallStore(run, LIKE), total=10)
    with folder(tmp_path) as run:
        stored = runs.SmallStore(run, LIKE).load()
        assert stored is not None
        assert stored.done == 6
        assert run.load(stored.mark) == EXPECTED[:6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_steps_is_taken_at_once(tmp_path, monkeypatch, number):
    """As it comes while a state is saved: what is saved is whole, and no further step is taken."""
    saved = []
    whole = runs.SmallStore.save

    def save(self, stored):
        if stored.done == 3 and not saved:
            os.kill(os.getpid(), number)
            sum(range(10))
        saved.append(stored.done)
        whole(self, stored)

    monkeypatch.setattr(runs.SmallStore, "save", save)
    with folder(tmp_path) as run, pytest.raises(runs.Interrupted) as caught:
        runs.run(run, _saving_the_third, runs.SmallStore(run, LIKE), total=10, every=1e9)
    assert caught.value.signum == number
    assert set(saved) == {3}
    with folder(tmp_path) as run:
        assert runs.run(run, counting(), runs.SmallStore(run, LIKE), total=10).rows == EXPECTED


def _saving_the_third(state, rows):
    for step in counting()(state, rows):
        yield step._replace(save=step.done == 3)


@pytest.mark.parametrize("content", [b"", b"\x00", b"\xc1", b"{}", b"\x81\xa4done\x01"])
def test_a_damaged_checkpoint_is_named_and_stays(tmp_path, content):
    with folder(tmp_path) as run:
        runs.run(run, counting(), runs.SmallStore(run, LIKE), total=10)
    (tmp_path / "checkpoint.msgpack").write_bytes(content)
    with folder(tmp_path) as run, pytest.raises(runs.RunFolderError, match=r"checkpoint\.msgpack'; pass --overwrite"):
        runs.run(run, counting(), runs.SmallStore(run, LIKE), total=10)
    assert (tmp_path / "checkpoint.msgpack").read_bytes() == content
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 10


def test_a_search_of_the_librarys_own_is_continued(tmp_path):
    """What a notebook does: no command, the same folder, and the result of an uninterrupted search."""
    space, source = spaces.get("nasbench201"), data.Gaussian((8, 8, 3))
    config = search.NASI(steps=4, batch=2, size=space.Size(1, 1))
    keys = jax.random.key(0)[None]

    def begin(stop):
        def iterate(states, rows):
            for latest, infos in search.iterate(keys, space, source, config, states):
                done = int(latest.step[0])
                if done > stop:
                    raise KeyboardInterrupt
                yield runs.Step(done, latest, [{"step": done - 1, "trace": float(infos.trace[0, -1])}])

        return iterate

    def made(path, stop=4):
        with runs.RunFolder.open(path, "my search", {"steps": 4}, results=("genotype.json",)) as run:
            store = runs.SmallStore(run, search.init_states(keys, space, source, config))
            ended = runs.run(run, begin(stop), store, total=config.steps)
            genotype = space.decode(jax.tree.map(lambda leaf: leaf[0], ended.state.alphas))
            run.write("genotype.json", json.dumps(spaces.to_json(space, genotype)))

    made(tmp_path / "whole")
    with pytest.raises(runs.Interrupted):
        made(tmp_path / "cut", stop=2)
    made(tmp_path / "cut")
    for name in ("genotype.json", "history.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
