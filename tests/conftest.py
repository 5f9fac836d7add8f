import os
import pathlib

# set before JAX starts; it reads them once
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# compiling is nearly all that the tests do, and small programs do not repay optimisation
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# tests of the command must not fill the user's folder
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="module")
def release_programs():
    """Drops what a module compiled: a process can map only so much memory, and crashes where XLA maps more."""
    yield
    jax.clear_caches()


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def shared_file(name: str) -> pathlib.Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name}, which is not part of the project")
    return path


@pytest.fixture(scope="session")
def benchmark_table() -> pathlib.Path:
    return shared_file("nasbench201.csv.gz")


@pytest.fixture(scope="session")
def cifar10_file() -> pathlib.Path:
    return shared_file("cifar10_subset.npz")
