import os
import signal
import sys

import pytest

from nasi_jax.runs.folder import interruptible


class Disposed:
    def __init__(self, number):
        self._number = number

    def __del__(self):
        os.kill(os.getpid(), self._number)
        sum(range(10))  # the handler runs before the next bytecode


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_an_object_is_disposed_of_is_not_lost(monkeypatch, number):
    discarded = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: discarded.append(unraisable.exc_type))
    before = signal.getsignal(number)
    with interruptible() as check:
        check()
        Disposed(number)
        assert discarded == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(number) is before
