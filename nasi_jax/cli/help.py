"""What `--help` says besides the options, in words of the command and not of Python."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap

from nasi_jax import spaces
from nasi_jax.cli.search import presets, strategies, strategy_class

EXAMPLES = {
    "search": {
        "NASI in NAS-Bench-201 on random inputs, without data": "nasi search --out runs/first",
        "images of yours, three seeds, a limit": "nasi search --data mine.npz --seeds 3 --max-params 1e6",
        "evolution by training-free scores": "nasi search --strategy evolution --score transfer --evaluations 500",
    },
    "score": {
        "three scores of a thousand architectures": "nasi score --sample 1000 --score zico naswot params",
        "architectures of a file, on images of yours": "nasi score --genotypes cells.txt --data mine.npz --score zico",
        "a quarter of a whole space, one of four jobs": "nasi score --all --score swap --shard 0/4 --out part0.csv",
    },
    "correlate": {
        "scores against accuracies": "nasi correlate --scores scores.csv --table nb201.csv.gz --column cifar10_test",
        "with a sum of ranks": "nasi correlate --scores scores.csv --table t.csv --column a --combine zico+naswot",
        "shards together": "nasi correlate --scores part0.csv part1.csv part2.csv --table t.csv --column a",
    },
    "train": {
        "what a search found, on data of yours": "nasi train --genotype runs/mine/genotype.json --data mine.npz",
        "a published protocol": "nasi train --genotype runs/d/genotype.json --data cifar10 --recipe darts-cifar",
        "a protocol made shorter": "nasi train --genotype runs/d/genotype.json --data mine.npz --epochs 5 --channels 8",
    },
    "draw": {
        "what a search found": "nasi draw --genotype runs/first/genotype.json --out cell.svg",
        "a cell by its text": "nasi draw --genotype "
        '"|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|" --out cell.png',
        "a cell by its number in NAS-Bench-201": "nasi draw --genotype 8142 --format naslib",
    },
}
"""For each verb three commands, by what they do."""

_TITLE = re.compile(r"^(╭─)? (?:[^─\n]*\.)?([^─.\n]+) options(?: (─+)╮)? *$", re.MULTILINE)
_DEFAULT = re.compile(r"\(default:([\s│]+)(None|False|True)?\)")
_ANSWERS = {"False": "no", "True": "yes"}


def readable(text: str, verb: str | None) -> str:
    """Returns the help of a verb as it is shown.

    Args:
        text: what tyro writes.
        verb: name of the verb; None of the command itself.

    Returns:
        The text without Python's names for what is not there, with a heading for each group of options, and for a verb
        with examples.
    """
    width = shutil.get_terminal_size().columns
    text = _DEFAULT.sub(_answer, text)
    text = re.sub(r"\{None\}\|(\S+)", lambda found: found[1].ljust(len(found[0])), text)
    text = re.sub(r"\{None,(\S+)", lambda found: ("{" + found[1]).ljust(len(found[0])), text)
    text = _TITLE.sub(_heading, text)
    lines = [line.rstrip() for line in text.splitlines() if not re.fullmatch(r"│?\s+│?", line)]
    shown = [line if line[:1] in tuple("╭│╰ ") else textwrap.fill(line, width) for line in lines]
    if verb in EXAMPLES:
        shown += _strategies(width) if verb == "search" else []
        shown += ["", *textwrap.wrap(f"Spaces: {', '.join(spaces.SPACES)}.", width, break_on_hyphens=False)]
        shown += ["", "Examples:"]
        shown += [line for what, command in EXAMPLES[verb].items() for line in (f"  # {what}", f"  {command}")]
    return "\n".join(shown) + "\n"


def described(strategy: str) -> str:
    """Returns what a strategy does, in a sentence.

    Args:
        strategy: one of `nasi_jax.cli.search.strategies`.

    Returns:
        The first paragraph of its class's docstring.
    """
    if strategy == "gdas":  # settings of another strategy's class
        return "DARTS with one straight-through sample a step."
    of_class = strategy_class(strategy)
    return " ".join((inspect.getdoc(of_class) or "").split("\n\n")[0].split())


def _answer(found: re.Match[str]) -> str:
    """Returns a default without Python's words, as long as it was and in as many lines."""
    if found[2] in _ANSWERS:
        return f"(default:{found[1]}{_ANSWERS[found[2]]})".ljust(len(found[0]))
    return re.sub(r"[^\s│]", " ", found[0])


def _heading(found: re.Match[str]) -> str:
    if found[1] is None:  # without frames, where what is written to has no letters for them
        return f" {found[2]}"
    title = f"╭─ {found[2]} "
    return title + "─" * (len(found[0]) - len(title) - 1) + "╮"


def _strategies(width: int) -> list[str]:
    lines = ["", "Strategies, and the names that --preset takes for them:"]
    for name in strategies():
        others = presets(name)[1:]
        about = f"{described(name)} Presets: {', '.join(others)}." if others else described(name)
        lines += textwrap.wrap(f"  {name:<10} {about}", width, subsequent_indent=" " * 13, break_on_hyphens=False)
    return lines
