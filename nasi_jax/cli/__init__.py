"""The `nasi` command: a file for each of its verbs, and run folders that all of them share.

Verbs name `nasi_jax.report` and `nasi_jax.tabular` in full, which load at the first use: a command starts in half the
time without matplotlib and scipy.stats.
"""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from nasi_jax.cli.compiled import keep_compiled_programs
from nasi_jax.cli.correlate import Correlate
from nasi_jax.cli.draw import Draw
from nasi_jax.cli.score import ScoreVerb
from nasi_jax.cli.search import Search, with_preset
from nasi_jax.cli.train import Train, with_recipe

DESCRIPTION = "Neural architecture search at initialisation (NASI)."


def main(arguments: list[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: command line without the program's name; that of the process when None.

    Returns:
        Exit status: 0 success, 1 a computation that could not go on, 2 bad input, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    keep_compiled_programs()
    try:
        return parse(arguments).run()
    except FloatingPointError as error:
        return _fail(error, 1)
    except (ValueError, TypeError, OSError) as error:
        return _fail(error, 2)


def parse(arguments: list[str]) -> Search | ScoreVerb | Correlate | Draw | Train:
    """Reads a command line; as tyro does, prints and exits where it is malformed.

    Args:
        arguments: command line without the program's name.

    Returns:
        The verb with its options.
    """
    return tyro.cli(
        Annotated[Search, tyro.conf.subcommand("search", default=with_preset(arguments))]
        | Annotated[ScoreVerb, tyro.conf.subcommand("score")]
        | Annotated[Correlate, tyro.conf.subcommand("correlate")]
        | Annotated[Train, tyro.conf.subcommand("train", default=with_recipe(arguments))]
        | Annotated[Draw, tyro.conf.subcommand("draw")],
        prog="nasi",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    )


def _fail(error: Exception, status: int) -> int:
    print(f"nasi: error: {error}", file=sys.stderr)
    return status


__all__ = ["main", "parse"]
