"""How long a command says that it will take, on a clock of the test's own."""

import re

import pytest

from nasi_jax.runs import progress

STEPS = 800


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def run(clock, seconds, done=0):
    """Takes steps that last so many seconds each."""
    with progress.Progress("search", len(seconds) + done, done) as shown:
        for second in seconds:
            clock.now += second
            shown.advance(1, {})


@pytest.mark.parametrize("a_step", [0.01, 0.08, 3.0, 40.0])
def test_it_says_at_the_start_how_long_it_takes(clock, capsys, a_step):
    run(clock, [25.0, *[a_step] * (STEPS - 1)])  # the first step compiles
    lines = capsys.readouterr().err.splitlines()
    place, (number, unit) = next(
        (i, found.groups()) for i, line in enumerate(lines) if (found := re.search(r"about (a|\d+) (\w+?)s?$", line))
    )
    assert place <= 2  # after the line of the start and that of the first step
    told = (1 if number == "a" else int(number)) * {"second": 1, "minute": 60, "hour": 3600}[unit]
    assert told / 2 <= a_step * STEPS <= told * 2


@pytest.mark.parametrize(
    "seconds",
    [
        [25.0, *[0.08] * STEPS],
        [25.0, *[0.08] * 50, 5.0, *[0.08] * STEPS],  # a second program compiles
        [60.0, *[0.5 + 0.25 * (i % 2) for i in range(STEPS)]],
        [25.0, *[0.08 + 0.08 * i / STEPS for i in range(STEPS)]],  # it grows slower and slower
        [25.0, *[0.16 - 0.08 * i / STEPS for i in range(STEPS)]],  # and faster
    ],
    ids=["steady", "compiles again", "uneven", "slower", "faster"],
)
def test_what_is_left_is_right_within_a_factor_of_two(clock, capsys, seconds):
    begun, end = clock.now, clock.now + sum(seconds)
    told = []
    with progress.Progress("search", len(seconds)) as shown:
        for second in seconds:
            clock.now += second
            shown.advance(1, {})
            for left in re.findall(r"([\d.]+) s left", capsys.readouterr().err):
                told.append((float(left), end - clock.now))
    assert told
    assert clock.now - begun == pytest.approx(sum(seconds))
    for left, truly in told:
        if truly > 10:
            assert truly / 2 <= left <= truly * 2


def test_a_run_that_goes_on_counts_its_own_steps(clock, capsys):
    run(clock, [20.0, *[1.0] * 99], done=900)
    assert "about 2 minutes" in capsys.readouterr().err


def test_a_pace_that_halves_counts_in_full_after_as_long(clock):
    pace = progress.Pace()
    for second in range(101):
        pace.report(float(second), 2 * min(second, 50) + max(second - 50, 0))
    assert pace.rate() == pytest.approx(1.0, rel=0.05)


def test_nothing_is_said_of_a_run_that_is_done(clock, capsys):
    run(clock, [], done=5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "1 second"),
        (12.4, "12 seconds"),
        (45, "a minute"),
        (100, "2 minutes"),
        (5000, "83 minutes"),
        (9e3, "2 hours"),
    ],
)
def test_a_time_is_said_as_a_person_says_it(seconds, said):
    assert progress.duration(seconds) == said
