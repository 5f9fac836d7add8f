import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from nasi_jax import data, proxies
from nasi_jax.proxies import signals
from nasi_jax.proxies.gennas import Regression

KEY = jax.random.key(3)
FREQUENCIES = (0.1, 0.23, 0.41)
X = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))


def waves(maps, axis):
    """Whether each map (side, side) obeys s(i + 1) + s(i - 1) = 2 cos(2 pi f) s(i) along an axis, for each f."""
    maps = np.moveaxis(maps, axis, 0)
    sums, middle = maps[2:] + maps[:-2], maps[1:-1]
    gaps = [np.abs(sums - 2 * np.cos(2 * np.pi * f) * middle).max(axis=(0, 1)) for f in FREQUENCIES]
    return np.array(gaps) < 1e-4


def test_plane_waves_are_constant_along_one_axis_and_have_the_frequencies():
    maps = np.asarray(signals.Sin1D(frequencies=FREQUENCIES).maps(KEY, 8, 64))
    constant = [np.ptp(maps, axis=axis).max(axis=0) < 1e-6 for axis in (0, 1)]
    assert (constant[0] ^ constant[1]).all()
    assert 10 < constant[0].sum() < 54
    down, across = waves(maps, 0), waves(maps, 1)
    assert (np.where(constant[1], down, across).sum(axis=0) == 1).all()
    assert np.where(constant[1], down, across).any(axis=1).all()
    np.testing.assert_allclose(np.mean(maps**2), 0.5, atol=0.1)


def test_oblique_waves_come_with_their_mirror_images():
    maps = np.asarray(signals.Sin2D(frequencies=(0.23,)).maps(KEY, 8, 64))  # all that there are
    flat = maps.reshape(64, 64).T
    gaps = np.abs(flat[:, None] - maps[::-1].reshape(64, 64).T[None]).max(axis=-1)
    assert (np.sort(gaps, axis=1)[:, 0] < 1e-4).all()
    assert len(np.unique(flat.round(4), axis=0)) == 64
    several = np.asarray(signals.Sin2D(frequencies=FREQUENCIES).maps(KEY, 8, 96))
    pairs = waves(several, 0)[:, None] & waves(several, 1)[None]
    assert (pairs.sum(axis=(0, 1)) == 1).all()
    assert pairs.any(axis=2).all()


@pytest.mark.parametrize(("partial", "count"), [(1.0, 64), (0.578, 36), (0.02, 1)])
def test_dots_are_as_many_as_asked_for_and_blurred_ones_what_scipy_makes_of_them(partial, count):
    dots = np.asarray(signals.Dot(partial=partial).maps(KEY, 8, 48))
    assert set(np.unique(dots)) <= {-1, 0, 1}
    assert (np.abs(dots).sum(axis=(0, 1)) == count).all()
    assert abs(dots.sum()) < 4 * np.sqrt(48 * count)
    assert count == 64 or len({tuple(places) for places in np.abs(dots).reshape(64, 48).T}) > 20
    blurred = np.asarray(signals.GDot(partial=partial).maps(KEY, 8, 48))
    for c in range(48):
        expected = scipy.ndimage.gaussian_filter(dots[..., c], 1.0)
        np.testing.assert_allclose(blurred[..., c], expected / np.abs(expected).max(), atol=1e-5)


@pytest.mark.parametrize("kind", [signals.Sin1D, signals.Sin2D, signals.Dot, signals.GDot])
def test_all_images_share_a_signal_unless_it_is_local(kind):
    options = {"frequencies": FREQUENCIES} if kind in (signals.Sin1D, signals.Sin2D) else {"partial": 0.5}
    shared = kind(2.0, False, **options).draw(KEY, X, 4, 5)
    local = np.asarray(kind(2.0, True, **options).draw(KEY, X, 4, 5))
    assert shared.shape == (1, 4, 4, 5)
    assert local.shape == (3, 4, 4, 5)
    assert np.abs(local[0] - local[1]).max() > 0.1
    np.testing.assert_allclose(shared[0], 2 * kind(1.0, **options).maps(jax.random.split(KEY, 1)[0], 4, 5), atol=1e-6)


def test_images_are_shown_from_minus_one_to_one_in_their_nearest_pixels():
    maps = np.asarray(signals.Resize(3.0).draw(KEY, X, 4, 64))
    small = np.asarray(X)[:, ::2, ::2]
    scaled = 2 * (small - small.min()) / (small.max() - small.min()) - 1
    gaps = np.abs(maps[..., None] - 3 * scaled[..., None, :]).max(axis=(0, 1, 2))
    assert (gaps.min(axis=1) < 1e-5).all()
    assert set(gaps.argmin(axis=1)) == {0, 1, 2}
    np.testing.assert_array_equal(signals.resized(X, 3)[0, :, 0], X[0, [0, 2, 5], 0])


@pytest.mark.parametrize("name", proxies.TASKS)
def test_targets_of_the_published_tasks(name):
    task = proxies.TASKS[name]
    channels = {"combo": (64, 64, 64), "nb101": (64, 48, 16), "darts": (80, 32, 80)}[name]
    draw = jax.jit(task.targets)
    targets = draw(KEY, X)
    assert [t.shape for t in targets] == [(3, 8, 8, c) for c in channels]
    for one, other in zip(targets, draw(jax.random.key(4), X), strict=True):
        assert np.abs(one - other).max() > 0.1
    moved = np.abs(task.noisy(KEY, X) - X)
    assert {"combo": moved.max() == 0, "nb101": 0.09 < moved.max() <= 0.1, "darts": moved.max() > 0.3}[name]
    zero = Regression.of(targets).loss([jnp.zeros_like(t) for t in targets])
    expected = sum(w * np.mean(np.square(t)) for w, t in zip((0.25, 0.5, 1.0), targets, strict=True))
    np.testing.assert_allclose(zero, expected, rtol=1e-5)


def test_targets_have_the_variances_of_the_authors_code(cifar10_file):
    """One draw of theirs on 16 CIFAR-10 images has .616, 7.495 and 3.454; the images move the last two."""
    with np.load(cifar10_file) as file:
        source = data.from_arrays(file["x"], file["y"])
    drawn, draw = [], jax.jit(proxies.TASKS["nb101"].targets)
    for seed in range(6):
        keys = jax.random.split(jax.random.key(seed))
        targets = draw(keys[0], source.batch(keys[1], 16).x)
        drawn.append([float(jnp.mean(t**2)) for t in targets])
    np.testing.assert_allclose(np.mean(drawn, axis=0), [0.616, 7.495, 3.454], rtol=0.08)


def stage(**options):
    return signals.Stage(**({"width": 1.0, "bases": (signals.Dot(),)} | options))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stage(bases=()), "bases: expected at least one"),
        (lambda: stage(width=0.01), "width: expected at least one channel"),
        (lambda: signals.Sin1D(frequencies=(0.2, 0.6)), r"frequencies: .* from 0 to 0.5"),
        (lambda: signals.Sin2D(), "frequencies: expected at least one"),
        (lambda: signals.Sin1D(frequencies=(0.2,)).maps(KEY, 8, 65), "frequencies: expected enough for 65 channels"),
        (lambda: signals.Dot(partial=0.0), "partial: expected a share"),
        (lambda: signals.GDot(partial=0.01).maps(KEY, 8, 1), "partial: expected at least one of 8x8 pixels"),
        (lambda: signals.Resize(float("nan")), "level: expected a positive number"),
        (lambda: signals.Task((stage(), stage())), "stages: expected 3, got 2"),
        (lambda: signals.Task((stage(),) * 3, "pink"), "noise: expected one of"),
        (lambda: signals.Task((stage(),) * 3, "uniform", -1.0), "noise_level: expected a number of at least 0"),
    ],
)
def test_what_is_no_task_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
