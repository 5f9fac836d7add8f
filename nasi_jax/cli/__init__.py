"""The `nasi` command: a file for each of its verbs, and run folders that all of them share.

Nothing heavy loads with this module, so that signals are taken before JAX and the verbs load. Verbs name
`nasi_jax.report` and `nasi_jax.tabular` in full, which load at the first use: a command starts in half the time without
matplotlib and scipy.stats.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import operator
import os
import pathlib
import signal
import socket
import sys
import threading
import time
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import nasi_jax

if TYPE_CHECKING:
    from nasi_jax.cli.correlate import Correlate
    from nasi_jax.cli.draw import Draw
    from nasi_jax.cli.score import ScoreVerb
    from nasi_jax.cli.search import Search
    from nasi_jax.cli.train import Train

DESCRIPTION = "Neural architecture search at initialisation (NASI)."
PATIENCE = 10.0
"""Seconds that a signal waits for a compilation or a step to end."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: command line without the program's name; that of the process when None, which then ends at a signal.

    Returns:
        Exit status: 0 success, 1 a computation that could not go on or a loaded file that raised, 2 bad input, 130 and
        143 interrupted by SIGINT and SIGTERM.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        _watch()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # help has letters that the locale may lack
            stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    return status


def parse(arguments: list[str]) -> Search | ScoreVerb | Correlate | Draw | Train:
    """Reads a command line; as tyro does, prints and exits where it is malformed.

    Args:
        arguments: command line without the program's name.

    Returns:
        The verb with its options.

    Raises:
        ValueError: an output has no name, a limit is given twice, an option is one of another strategy, or a file to
            load cannot be, or a setting is out of range.
        SystemExit: help was asked for, or the line is malformed.
    """
    import tyro

    from nasi_jax import extensions
    from nasi_jax.cli.correlate import Correlate
    from nasi_jax.cli.draw import Draw
    from nasi_jax.cli.help import readable
    from nasi_jax.cli.options import files_in, named_space
    from nasi_jax.cli.score import ScoreVerb, with_size
    from nasi_jax.cli.search import typed, with_defaults
    from nasi_jax.cli.train import Train, with_recipe

    # which would be the folder that the command runs in
    if "--out=" in arguments or ("--out", "") in itertools.pairwise(arguments):
        raise ValueError("out: expected a path, got ''")
    for option in ("--max-params", "--max-flops", "--max-latency-ms"):
        times = sum(argument.partition("=")[0] == option for argument in arguments)
        if times > 1:
            raise ValueError(f"{option[2:].replace('-', '_')}: expected once, got it {times} times")
    for file in files_in(arguments):
        extensions.load(file)
    space = named_space(arguments)
    searched = with_defaults(arguments, space)
    # each space has its own sizes and each strategy its own settings, which are options
    verbs: list[Any] = [
        Annotated[typed(searched, space), tyro.conf.subcommand("search", default=searched)],
        Annotated[ScoreVerb[space.Size], tyro.conf.subcommand("score", default=with_size(space))],
        Annotated[Correlate, tyro.conf.subcommand("correlate")],
        Annotated[Train, tyro.conf.subcommand("train", default=with_recipe(arguments))],
        Annotated[Draw, tyro.conf.subcommand("draw")],
    ]
    shown, said = _Captured(sys.stdout), _Captured(sys.stderr)
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
            return tyro.cli(
                functools.reduce(operator.or_, verbs),
                prog="nasi",
                description=DESCRIPTION,
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as error:
        if (refused := _refused_by_a_setting(error)) is not None:
            raise refused from None
        print(said.getvalue(), end="", file=sys.stderr)
        if shown.getvalue():
            print(readable(shown.getvalue(), arguments[0]), end="")
        raise


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"nasi {nasi_jax.__version__}")
        return 0

    import jax

    from nasi_jax.cli.compiled import keep_compiled_programs

    try:
        _check_devices()
        verb = parse(arguments or ["--help"])
        keep_compiled_programs()
        return _outcome(verb)
    except SystemExit:
        sys.stdout.flush()  # of help, in case that its reader has gone
        raise
    except KeyboardInterrupt as interrupted:
        print(f"{_after_echo()}nasi: {interrupted or 'interrupted'}", file=sys.stderr)
        return 128 + getattr(interrupted, "signum", signal.SIGINT)
    except BrokenPipeError:
        raise
    except (FloatingPointError, MemoryError, jax.errors.JaxRuntimeError) as error:
        return _fail(error, 1)
    except (ValueError, TypeError, OSError) as error:
        return _fail(error, 2)


def _outcome(verb: Any) -> int:
    """Runs a verb; one line says where a file that it loaded raised."""
    from nasi_jax.cli.faults import fault_of_a_file

    try:
        return verb.run()
    except BrokenPipeError:
        raise
    except Exception as error:
        if (fault := fault_of_a_file(error)) is None:
            raise
        print(f"nasi: error: {fault}", file=sys.stderr)
        return 1


class _Captured(io.StringIO):
    """What is written to a stream, in letters that the stream has."""

    def __init__(self, stream: Any):
        super().__init__()
        self._encoding = getattr(stream, "encoding", None)

    @property
    def encoding(self) -> str | None:  # type: ignore[override]
        """That of the stream."""
        return self._encoding


def _refused_by_a_setting(error: BaseException) -> ValueError | None:
    """Returns the error of a dataclass of settings for which tyro ends the process, in a box with names of Python."""
    import tyro

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ValueError) and cause.__traceback__ is not None:
            *_, last = traceback.walk_tb(cause.__traceback__)
            if pathlib.Path(tyro.__file__).parent not in pathlib.Path(last[0].f_code.co_filename).parents:
                return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _check_devices() -> None:
    """Raises ValueError where there is no device of the kind asked for, which importing a verb would need."""
    import jax

    try:
        jax.devices()
    except Exception as error:  # JAX raises several types, an AssertionError among them
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX finds no device (JAX_PLATFORMS is {wanted!r}): {error or 'none'}") from error


def _end(signum: int, frame: FrameType | None) -> None:
    """Ends the process: whatever a verb does outside of `nasi_jax.runs.run` can be done again."""
    with contextlib.suppress(OSError):
        os.write(2, f"{_after_echo()}nasi: interrupted\n".encode())
    os._exit(128 + signum)


def _watch() -> None:
    """Ends the process at a signal that nobody takes in time: Python calls no handler while XLA compiles or computes.

    What a run has saved by then is what it continues from, as after any end of its process.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            number = reader.recv(1)[0]
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            handler = signal.getsignal(number)
            time.sleep(PATIENCE)
            if getattr(handler, "signum", None) is None:  # not one of a run, which notes it
                _end(number, None)

    threading.Thread(target=watch, daemon=True).start()


def _after_echo() -> str:
    """Returns a line's end where a terminal shows ^C before what follows."""
    return "\n" if os.isatty(2) else ""


def _fail(error: BaseException, status: int) -> int:
    print(f"nasi: error: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return status


__all__ = ["main", "parse"]
