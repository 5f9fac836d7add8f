import os
import signal
import sys
import threading

import pytest

from nasi_jax.runs.interruption import interruptible

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


class Disposed:
    def __init__(self, number):
        self._number = number

    def __del__(self):
        os.kill(os.getpid(), self._number)
        sum(range(10))  # the handler runs before the next bytecode


@SIGNALS
def test_an_interruption_while_an_object_is_disposed_of_is_not_lost(monkeypatch, number):
    discarded = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: discarded.append(unraisable.exc_type))
    before = signal.getsignal(number)
    with interruptible() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.raising():
            Disposed(number)
        assert discarded == [KeyboardInterrupt]
        noted, interruption.signum = interruption.signum, None
    assert noted == number
    assert signal.getsignal(number) is before


@SIGNALS
def test_what_a_library_makes_of_an_interruption_is_one(number):
    def call_back():
        try:
            os.kill(os.getpid(), number)
            sum(range(10))
        except KeyboardInterrupt:
            raise RuntimeError("a callback failed") from None

    with interruptible() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.raising():
            call_back()
        interruption.signum = None


@SIGNALS
def test_outside_of_a_block_it_waits_for_the_next(number):
    done = []
    with interruptible() as interruption:
        with interruption.raising():
            done.append("first")
        os.kill(os.getpid(), number)
        sum(range(10))
        done.append("between")
        with pytest.raises(KeyboardInterrupt), interruption.raising():
            done.append("second")
        interruption.signum = None
    assert done == ["first", "between"]


def test_one_that_came_too_late_is_passed_on():
    taken = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [signal.SIGTERM]


def test_outside_of_the_main_thread_there_are_no_handlers():
    failed = []

    def work():
        try:
            with interruptible() as interruption, interruption.raising():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed
