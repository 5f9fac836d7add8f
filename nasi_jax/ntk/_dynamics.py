"""Training in the linear regime: the linearised network, and what its training comes to, from kernels alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.special

from nasi_jax.ntk._network import (
    ApplyFn,
    as_matrix,
    as_outputs,
    check_like,
    check_not_traced,
    check_positive,
    over_reals,
)
from nasi_jax.ntk.probes import pushforward

LossName = Literal["mse", "cross-entropy"]
r"""What is minimised over n samples: half the mean squared distance, :math:`\frac{1}{2n} \sum_i \|f(x_i) - y_i\|^2`, or
the mean cross entropy of the softmax."""


def linearize(apply_fn: ApplyFn, params: Any) -> ApplyFn:
    r"""Returns the first-order expansion of a network in its parameters.

    .. math:: f_{\mathrm{lin}}(\theta, x) = f(\theta_0, x) + J(x) (\theta - \theta_0)

    Its kernel is at all parameters that of the network at `params`.

    Args:
        apply_fn: the network; `apply_fn(params, x)` returns outputs (batch, ...), see `ApplyFn`.
        params: pytree of parameters, where it is expanded.

    Returns:
        A network that takes parameters like `params` and gives outputs like those of `apply_fn`. It raises ValueError
        where parameters have another structure or other shapes.
    """

    def linearized(new: Any, x: Any) -> Any:
        check_like("params", new, "those at which the network was expanded", params)
        network, reals, x = over_reals(apply_fn, params, x)
        outputs = network(reals, x)
        change = jax.tree.map(jnp.subtract, over_reals(apply_fn, new)[1], reals)
        move = as_outputs(pushforward(as_matrix(network), reals, x, change), outputs)
        return jax.tree.map(jnp.add, outputs, move)

    return linearized


class Prediction(NamedTuple):
    """What a training in the linear regime comes to.

    Attributes:
        outputs: of the training inputs, like `y` or (n, outputs); with a leading axis of times where there is one.
        test_outputs: of other inputs, or None.
        coefficients: how far each output of each training input has moved the parameters along its gradient, like
            `outputs`.
    """

    outputs: jax.Array
    test_outputs: jax.Array | None
    coefficients: jax.Array


def predict(
    kernel: jax.Array,
    y: jax.Array,
    outputs: jax.Array | None = None,
    *,
    test_kernel: jax.Array | None = None,
    test_outputs: jax.Array | None = None,
    times: Any = math.inf,
    rate: float | None = None,
    loss: LossName = "mse",
    ridge: float = 0.0,
) -> Prediction:
    r"""Predicts the outputs of a network that is trained, as its linearisation has them.

    The parameters move by :math:`\theta_t - \theta_0 = J^\top a_t`, so that the outputs are

    .. math:: f_t = f_0 + \Theta a_t, \quad \dot a = -\tfrac{1}{n} (\nabla_f \ell(f_t) + \rho a)

    By gradient flow, or by gradient descent with a rate. For the squared error both have a closed form; after an
    infinite time it is kernel regression, with the ridge :math:`\rho`:

    .. math:: a_\infty = (\Theta + \rho I)^{-1} (y - f_0)

    Args:
        kernel: of the training inputs, full (n, n, outputs, outputs); or (n, n) for one that all outputs have alike and
            apart, such as the traced kernel divided by their number.
        y: targets (n, outputs) or, of a single output, (n,); integer labels (n,) for the cross entropy.
        outputs: of the training inputs before the training, (n, outputs) or (n,); None for zero.
        test_kernel: between other inputs and the training inputs, (m, n, outputs, outputs) or (m, n), as `kernel`.
        test_outputs: of the other inputs before the training, (m, outputs) or (m,); None for zero.
        times: how long is trained, a number or an array of such; of gradient descent, the number of steps.
        rate: learning rate of gradient descent, None for gradient flow.
        loss: see `LossName`. May be jitted and differentiated for "mse". For "cross-entropy" gradient flow is
            integrated, to relative errors of 1e-6, by SciPy.
        ridge: rho: n times the factor of half the squared distance from the initial parameters that is added to the
            loss.

    Returns:
        The outputs.

    Raises:
        ValueError: shapes do not go together, a number is out of range, or `times` are infinite with the cross entropy,
            which comes to no end.
        TypeError: with the cross entropy, an argument is traced.

    References:
        Lee et al., "Wide neural networks of any depth evolve as linear models under gradient descent", NeurIPS 2019.
    """
    if loss not in get_args(LossName):
        raise ValueError(f"loss: expected one of {get_args(LossName)}, got {loss!r}")
    if not ridge >= 0:
        raise ValueError(f"ridge: expected a number from 0 on, got {ridge}")
    if rate is not None:
        check_positive("rate", rate, "a positive number, or None for gradient flow")
    kernel, times = jnp.asarray(kernel), jnp.asarray(times)
    shape = kernel.shape
    if len(shape) not in {2, 4} or shape[0] != shape[1] or shape[2:3] != shape[3:]:
        raise ValueError(f"kernel: expected shape (n, n) or (n, n, outputs, outputs), got {shape}")
    n, columns = shape[0], _columns(shape, jnp.shape(y), outputs, loss)
    start = _matrix("outputs", outputs, (n, columns), kernel.dtype)
    flat = columns if len(shape) == 4 else 1
    square = _square(kernel)
    if loss == "cross-entropy":
        check_not_traced("predict", kernel=kernel, y=y, outputs=outputs, times=times)
        if not np.isfinite(times).all():
            raise ValueError(f"times: expected finite numbers with loss='cross-entropy', got {times}")
        labels = np.asarray(y)
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (n,):
            raise ValueError(f"y: expected integer labels of shape ({n},), got {labels.dtype} of shape {labels.shape}")
        if labels.min() < 0 or labels.max() >= columns:
            raise ValueError(f"y: expected labels from 0 to {columns - 1}, got {labels.min()} to {labels.max()}")
        found = _cross_entropy(np.asarray(square), labels, np.asarray(start), np.atleast_1d(times), rate, ridge)
        coefficients = jnp.asarray(found, kernel.dtype)
    else:
        error = start - _matrix("y", y, (n, columns), kernel.dtype)
        error = error.reshape(n * flat, -1)
        coefficients = _squared_error(square, error, jnp.atleast_1d(times), n, rate, ridge)
    coefficients = coefficients.reshape(-1, n * flat, columns // flat)
    trained = start[None] + _moved(square, coefficients).reshape(-1, n, columns)
    tested = None
    if test_kernel is not None:
        test_kernel = jnp.asarray(test_kernel)
        if test_kernel.shape[1:] != shape[1:]:
            raise ValueError(
                f"test_kernel: expected shape (m, {', '.join(map(str, shape[1:]))}), got {test_kernel.shape}"
            )
        m = len(test_kernel)
        before = _matrix("test_outputs", test_outputs, (m, columns), kernel.dtype)
        tested = before[None] + _moved(_square(test_kernel), coefficients).reshape(-1, m, columns)
    elif test_outputs is not None:
        raise ValueError("test_kernel: expected one with test_outputs, got None")
    vector = loss == "mse" and jnp.ndim(y) == 1

    def as_given(leaf: jax.Array) -> jax.Array:
        leaf = leaf[..., 0] if vector else leaf
        return leaf if jnp.ndim(times) else leaf[0]

    coefficients = coefficients.reshape(-1, n, columns)
    return Prediction(as_given(trained), None if tested is None else as_given(tested), as_given(coefficients))


def _columns(shape: tuple[int, ...], of_y: tuple[int, ...], outputs: Any, loss: str) -> int:
    """Returns the number of outputs."""
    if len(shape) == 4:
        return shape[2]
    given = jnp.shape(outputs) if loss == "cross-entropy" and outputs is not None else of_y
    if loss == "cross-entropy" and outputs is None:
        raise ValueError("outputs: expected those before the training, by which classes are counted, got None")
    return given[1] if len(given) == 2 else 1


def _matrix(name: str, value: Any, shape: tuple[int, int], dtype: Any) -> jax.Array:
    if value is None:
        return jnp.zeros(shape, dtype)
    value = jnp.asarray(value, dtype)
    if value.shape != shape and (value.shape != shape[:1] or shape[1] != 1):
        raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
    return value.reshape(shape)


def _square(kernel: jax.Array) -> jax.Array:
    """Returns a full kernel with the outputs of a sample one after the other."""
    if kernel.ndim == 2:
        return kernel
    n1, n2, outputs, _ = kernel.shape
    return jnp.transpose(kernel, (0, 2, 1, 3)).reshape(n1 * outputs, n2 * outputs)


def _moved(kernel: jax.Array, coefficients: jax.Array) -> jax.Array:
    return jnp.einsum("ij,tjc->tic", kernel, coefficients, precision=jax.lax.Precision.HIGHEST)


def _squared_error(
    kernel: jax.Array, error: jax.Array, times: jax.Array, n: int, rate: float | None, ridge: float
) -> jax.Array:
    """Returns the coefficients at all times, (times, rows of the kernel, columns)."""
    values, vectors = jnp.linalg.eigh(kernel)
    # along directions of eigenvalue zero nothing moves any output
    moves = values > len(kernel) * jnp.finfo(kernel.dtype).eps * jnp.max(jnp.abs(values))
    total = (jnp.where(moves, values, 1) + ridge)[None]
    times = times.astype(kernel.dtype)[:, None]
    endless = jnp.isinf(times)
    times = jnp.where(endless, 0, times)  # of the end itself there is no derivative
    if rate is None:
        left, end = -jnp.expm1(-total * times / n), 1.0
    else:
        factor = 1 - rate * total / n
        sign = jnp.where(factor < 0, 1 - 2 * jnp.mod(times, 2), 1)
        left, end = 1 - sign * jnp.abs(factor) ** times, jnp.where(jnp.abs(factor) < 1, 1.0, jnp.inf)
    left = jnp.where(endless, end, left)
    shares = jnp.where(moves[None], left / total, 0)
    return -jnp.einsum("ij,tj,jc->tic", vectors, shares, vectors.T @ error, precision=jax.lax.Precision.HIGHEST)


def _cross_entropy(
    kernel: np.ndarray, labels: np.ndarray, start: np.ndarray, times: np.ndarray, rate: float | None, ridge: float
) -> np.ndarray:
    """Returns the coefficients at all times, (times, samples times outputs)."""
    kernel, start = kernel.astype(float), start.astype(float)
    n, columns = start.shape
    target = np.eye(columns)[labels]

    def probabilities(coefficients: np.ndarray) -> np.ndarray:
        return scipy.special.softmax(start + (kernel @ coefficients.reshape(len(kernel), -1)).reshape(n, -1), axis=1)

    def slope(_: float, coefficients: np.ndarray) -> np.ndarray:
        return -((probabilities(coefficients) - target).ravel() + ridge * coefficients) / n

    def slope_of_slope(_: float, coefficients: np.ndarray) -> np.ndarray:
        p = probabilities(coefficients)
        of_logits = p[:, :, None] * (np.eye(columns) - p[:, None, :])
        whole = kernel if len(kernel) == n * columns else np.kron(kernel, np.eye(columns))
        product = np.einsum("ikl,ilj->ikj", of_logits, whole.reshape(n, columns, -1)).reshape(n * columns, -1)
        return -(product + ridge * np.eye(n * columns)) / n

    if rate is None:
        order = np.argsort(times)
        path = _integrate(slope, slope_of_slope, n * columns, times[order])
        return path[np.argsort(order)]
    if np.any(times != np.round(times)) or np.any(times < 0):
        raise ValueError(f"times: expected numbers of steps with a rate, got {times}")
    found, current = {}, np.zeros(n * columns)
    for step in range(int(times.max()) + 1):
        found[step] = current
        current = current + rate * slope(0.0, current)
    return np.stack([found[int(time)] for time in times])


def _integrate(slope: Callable[..., Any], jacobian: Callable[..., Any], size: int, times: np.ndarray) -> np.ndarray:
    if times[0] < 0:
        raise ValueError(f"times: expected numbers from 0 on, got {times[0]}")
    span = (0.0, max(float(times[-1]), np.finfo(float).tiny))
    options: dict[str, Any] = {"method": "LSODA", "jac": jacobian, "rtol": 1e-6, "atol": 1e-9}
    return scipy.integrate.solve_ivp(slope, span, np.zeros(size), t_eval=times, **options).y.T
