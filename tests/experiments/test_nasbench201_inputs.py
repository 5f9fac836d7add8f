import importlib.util
import subprocess
import sys

import documents
import numpy as np
import pytest

SCRIPT = documents.ROOT / "experiments" / "nasbench201_inputs.py"


@pytest.fixture(scope="module")
def inputs():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("nasbench201_inputs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.fixture
def images():
    """Smooth images that resemble each other."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 6, 6, 2))
    return noise + 0.6 * np.roll(noise, 1, axis=1) + rng.normal(size=(6, 6, 2))


def test_a_flat_spectrum_leaves_no_likeness_of_near_pixels(inputs, images):
    x = images - images.mean(0)
    x = x + x[..., ::-1]  # colours that are alike
    changed = inputs.flattened(x + 0.3 * np.random.default_rng(2).normal(size=x.shape))
    near = [np.corrcoef(changed[..., 0].ravel(), np.roll(changed, 1, axis)[..., 0].ravel())[0, 1] for axis in (1, 2)]
    np.testing.assert_allclose(near, 0, atol=0.02)
    assert np.corrcoef(changed[..., 0].ravel(), changed[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.02)
    np.testing.assert_allclose(changed.var(), 1, atol=0.02)


def test_random_phases_keep_every_amplitude(inputs, images):
    changed = inputs.random_phases(images)
    amplitudes, before = (np.abs(np.fft.fft2(x, axes=(1, 2))) for x in (changed, images))
    np.testing.assert_allclose(amplitudes, before, atol=1e-9)
    assert np.abs(changed - images).max() > 1


def test_exchanged_places_keep_the_likeness_of_images(inputs, images):
    first, changed = images.reshape(400, -1), inputs.shuffled(images).reshape(400, -1)
    np.testing.assert_allclose(changed @ changed.T, first @ first.T)
    assert not np.allclose(changed, first)


def test_mixtures_keep_the_variance(inputs):
    x = np.random.default_rng(5).normal(size=(200, 6, 6, 2))
    mixed = inputs.mixed(0.25)(x)
    assert np.var(mixed) == pytest.approx(1, abs=0.05)
    assert np.corrcoef(mixed.ravel(), x.ravel())[0, 1] == pytest.approx(0.75**0.5, abs=0.02)


@pytest.mark.slow
def test_smoke(inputs, tmp_path):
    """The script runs as documented, and does not compute again what is there."""
    lines = ["arch,cifar10_test,cifar100_test,imagenet16_test"]
    lines += [f"{text},{i},{i / 2},{i / 4}" for i, text in enumerate(inputs.all_cells().texts)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    x = np.random.default_rng(0).integers(0, 255, (40, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "images.npz", x=x, y=np.arange(40) % 10)
    files = ["--table", "table.csv", "--images", "images.npz", "--out", "results"]
    command = [sys.executable, SCRIPT, *files, "--draws", "1", "--smoke"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    stored = (tmp_path / "results" / "objective.json").read_bytes()
    for name in ("noise", *inputs.CHANGES, "images, whitened"):
        assert f"| {name} |" in done.stdout
    assert (tmp_path / "results" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert (tmp_path / "results" / "objective.json").read_bytes() == stored
