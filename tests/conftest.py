import importlib.metadata
import os
import pathlib
import tempfile

# set before JAX starts; it reads them once
os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
# compiling is nearly all that the tests do, and small programs do not repay optimisation
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
# the older emitters compile in a third of the time; before jaxlib 0.10 they take 10 GB for a pool of 5x5, and from 0.11
# on the option is refused
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) == (0, 10):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# compiled once for all processes of a run, and not kept in the user's folder
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# a busy machine takes seconds for what takes a millisecond, and a slow example is no failure
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

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
