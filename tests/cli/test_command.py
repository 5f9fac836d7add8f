"""What holds for every verb: help, versions, readers that go, signals."""

import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

import nasi_jax
from nasi_jax import cli, search
from nasi_jax.cli.help import EXAMPLES, readable
from nasi_jax.cli.options import named_in
from nasi_jax.cli.search import strategies

NASI = [sys.executable, "-m", "nasi_jax"]


def test_alone_it_prints_its_help(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([])
    assert caught.value.code == 0
    assert "{search,score,correlate,train,draw}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "verb", [["search", "--strategy", name] for name in strategies()] + [["score"], ["correlate"], ["train"], ["draw"]]
)
def test_help_is_for_those_who_do_not_read_the_code(capsys, verb):
    with pytest.raises(SystemExit):
        cli.parse([*verb, "--help"])
    text = " ".join(capsys.readouterr().out.translate(str.maketrans("│╭╮╰╯─", "      ")).split())
    assert re.findall(r"\b(?:None|True|False|NoneType|tuple|dict)\b|\(default: ?\)|\w\.\w+ options", text) == []
    assert text.count(f" nasi {verb[0]} --") >= 3
    assert re.findall(r"`(?!nasi )[^`]*`", text) == []
    assert "nasi_jax" not in text


@pytest.mark.parametrize("verb", EXAMPLES)
def test_the_examples_of_help_are_commands(verb):
    assert len(EXAMPLES[verb]) == 3
    for command in EXAMPLES[verb].values():
        cli.parse(shlex.split(command)[1:])


def test_help_has_options_in_groups_and_lists_what_is_registered(capsys, monkeypatch):
    monkeypatch.setitem(search.STRATEGIES, "mine", search.RandomSearch)
    with pytest.raises(SystemExit):
        cli.parse(["search", "--strategy", "mine", "--help"])
    shown = [line.strip("╭╮│─ ") for line in capsys.readouterr().out.splitlines()]
    groups = ["options", "space", "data", "limits", "estimate and budget", "settings of the strategy"]
    places = [shown.index(group) for group in groups]
    assert places == sorted(places)
    assert any(line.startswith("--evaluations ") for line in shown[places[4] : places[5]])
    assert any(line.startswith("--replace") for line in shown[places[5] :])
    assert "Spaces: nasbench201, " in " ".join(shown)
    assert any(line.startswith("mine ") and "Draws architectures uniformly." in line for line in shown)


@pytest.mark.parametrize(
    ("framed", "readable_text"),
    [
        ("│ --a {None}|INT  b (default: None)  │", "│ --a INT         b                  │"),
        (
            "│ --a {None,x}  b (default:  │\n│    None)             c      │",
            "│ --a {x}       b            │\n│                      c      │",
        ),
        ("╭─ a b.c options ────╮", "╭─ c ────────────────╮"),
        ("  --a, --no-a  b (default: False)", "  --a, --no-a  b (default: no)"),
        ("  --a  b (default:\n       True)", "  --a  b (default:\n       yes)"),
    ],
)
def test_help_says_nothing_in_words_of_python(framed, readable_text):
    assert readable(framed, None) == readable_text + "\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nasi {nasi_jax.__version__}\n"


def test_options_that_decide_others_may_be_last_or_absent():
    assert named_in([], {"--preset": "default"}) == {"--preset": "default"}
    assert named_in(["search", "--preset"], {"--preset": "default"}) == {"--preset": ""}
    assert named_in(["search", "--preset=a", "--preset", "b"], {"--preset": "default"}) == {"--preset": "b"}


def test_help_in_a_locale_without_utf_8_and_a_reader_that_goes():
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = subprocess.Popen([*NASI, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    shown = subprocess.run([*NASI, "search", "--help"], capture_output=True, env=env, check=True)
    assert b"usage: nasi search" in shown.stdout


def test_a_device_that_is_not_there_is_one_line():
    env = os.environ | {"JAX_PLATFORMS": "cuda"}
    found = subprocess.run([*NASI, "search"], capture_output=True, text=True, env=env, check=False)
    assert found.returncode == 2
    assert "JAX_PLATFORMS is 'cuda'" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads of Linux which signals are caught")
@pytest.mark.parametrize(("seconds", "number"), [(0.0, signal.SIGINT), (0.0, signal.SIGTERM), (0.5, signal.SIGINT)])
def test_a_signal_while_the_command_starts(tmp_path, seconds, number):
    """Some time after the command's first line; how long Python takes until then is not the command's."""
    process = subprocess.Popen([*NASI, "search", "--out", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    status = pathlib.Path(f"/proc/{process.pid}/status")
    while not int(re.findall(r"SigCgt:\s*(\w+)", status.read_text())[0], 16) >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.002)
    time.sleep(seconds)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error == "nasi: interrupted\n"


@pytest.mark.parametrize("block", ["contextlib.nullcontext()", "interruptible() as taken, taken.raising()"])
def test_a_signal_that_python_cannot_take_ends_the_command_in_time(block):
    """As in a compilation: a call outside of Python that goes on for long."""
    program = f"""
import contextlib, os, signal, threading
import jax, jax.numpy as jnp
from nasi_jax import cli
from nasi_jax.runs.interruption import interruptible

def compute(arguments):
    endless = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 2.0, jnp.sin, x)).lower(1.0).compile()
    with {block}:
        threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        jax.block_until_ready(endless(1.0))

cli.PATIENCE, cli._run = 0.5, compute
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (143, "nasi: interrupted\n")
