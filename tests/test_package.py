import importlib.metadata
import subprocess
import sys

import nasi_jax


def test_importing_is_light():
    """Beside JAX's own time under a second, and nothing that not every command needs."""
    program = (
        "import sys; import nasi_jax, nasi_jax.cli, nasi_jax.data, nasi_jax.search;"
        "heavy = {'tensorflow', 'neural_tangents', 'matplotlib', 'scipy.stats'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    quick = "import jax, time; start = time.process_time(); import nasi_jax; print(time.process_time() - start)"
    seconds = subprocess.run([sys.executable, "-c", quick], capture_output=True, text=True, check=True).stdout
    assert float(seconds) < 1


def test_every_room_is_reached_from_the_top():
    for name in nasi_jax.__all__:
        assert getattr(nasi_jax, name).__name__ == f"nasi_jax.{name}"
        for public in getattr(nasi_jax, name).__all__:
            assert hasattr(getattr(nasi_jax, name), public)
    assert set(nasi_jax.__all__) <= set(dir(nasi_jax))


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("nasi_jax") == nasi_jax.__version__


def test_kernels_load_neither_neural_tangents_nor_the_other_rooms():
    program = (
        "import sys, nasi_jax.ntk;"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('nasi_jax.')};"
        "assert rooms == {'data', 'ntk', 'programs'}, rooms;"
        "heavy = {'tensorflow', 'neural_tangents', 'matplotlib', 'scipy.stats'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
