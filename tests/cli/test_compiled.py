import os
import stat
import subprocess
import sys

import pytest

SCORE = ["score", "--sample", "1", "--channels", "1", "--cells", "1", "--batch", "2", "--image-size", "4"]


def nasi(tmp_path, out, **environment):
    names = ("JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "nasi_jax.cli", *SCORE, "--out", str(tmp_path / out)]
    subprocess.run(command, check=True, capture_output=True, env=kept | environment)


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-atime")}


def test_a_second_command_compiles_nothing_and_finds_the_same(tmp_path):
    home = tmp_path / "cache"
    nasi(tmp_path, "first.csv", XDG_CACHE_HOME=str(home))
    folder = home / "nasi_jax" / "compiled"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = files(folder)
    assert kept
    nasi(tmp_path, "second.csv", XDG_CACHE_HOME=str(home))
    assert files(folder) == kept
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs the permissions of a POSIX system")
def test_a_folder_that_others_can_write_is_left_alone(tmp_path):
    folder = tmp_path / "nasi_jax" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    nasi(tmp_path, "scores.csv", XDG_CACHE_HOME=str(tmp_path))
    assert not files(folder)


def test_the_users_own_setting_goes_before(tmp_path):
    nasi(tmp_path, "scores.csv", XDG_CACHE_HOME=str(tmp_path / "ours"), JAX_ENABLE_COMPILATION_CACHE="false")
    assert not (tmp_path / "ours" / "nasi_jax").exists()
