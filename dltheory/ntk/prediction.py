"""What a network with a constant kernel has learned at any time: in closed form for squares, by an ODE for any loss.

Time is learning rate times steps of gradient descent on the sum of losses over examples (`squared_loss` for squares). A
mean over the examples, or over all n k numbers, makes that time n, or n k, times longer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.ntk._outputs import (
    as_blocks,
    as_columns,
    floating,
    from_columns,
    kernel_pattern,
    modes_from_columns,
    of_outputs,
    output_pattern,
)
from dltheory.ntk._spectral import Descent, Flow, decompose, growth, remainder, spectral_product
from dltheory.typing import Array, Scalar

__all__ = [
    "LossPrediction",
    "Prediction",
    "kernel_modes",
    "max_learning_rate",
    "predict",
    "predict_loss",
    "predict_steps",
]


class Prediction(NamedTuple):
    """Outputs that gradient descent reaches with a constant kernel; [...] are the axes of the times asked for.

    Attributes:
        train: outputs at the training inputs, shape [..., n, k] (or [..., n]).
        test: outputs at the test inputs, shape [..., m, k] (or [..., m]).
        eigenvalues: of the kernel on the training set, largest first; zero where they count as zero. Shape [n] for
            kernels [n, n], [n, k] for [n, n, k], and [n k] for [n, n, k, k].
        mode_residuals: targets minus outputs along the eigenvectors, shape [..., n, k] (or [..., n]), for kernels
            [n, n, k, k] shape [..., n k]. Each is exact however small; derivatives hold the eigenvectors fixed.
        rank: number of modes that learn (numerical rank of the kernel plus ridge), shape [], or [k] for [n, n, k].
    """

    train: Array
    test: Array
    eigenvalues: Array
    mode_residuals: Array
    rank: Array


def predict(
    kernel_train: Array,
    kernel_test_train: Array,
    y: Array,
    outputs_train: Array | float = 0.0,
    outputs_test: Array | float = 0.0,
    *,
    time: Array | float = jnp.inf,
    ridge: Scalar = 0.0,
    rcond: Scalar | None = None,
) -> Prediction:
    r"""Gradient flow on the squared loss with a constant kernel: outputs at any time, infinity included.

    .. math::
        f_t(X) &= y + e^{-K t} (f_0(X) - y) \\
        f_t(x) &= f_0(x) + K(x, X) K^{-1} (1 - e^{-K t}) (y - f_0(X)) \\
        f_\infty(x) &= f_0(x) + K(x, X) K^\dagger (y - f_0(X))

    With the kernel of a network at initialisation this is the linearised network; with the limit of infinite width,
    the kernel machine that wide networks become. Both kernels are blocks of one kernel, in one of three forms: [n, n]
    is one kernel for every output, each by itself (what users of neural-tangents get by tracing the outputs); [n, n, k]
    one for each; [n, n, k, k] the full kernel.

    Modes of eigenvalue zero do not learn. On the training set they stay; elsewhere they have no effect, up to rounding
    that grows with time and is dropped once an eigenvalue at the cutoff would have shown, which leaves the
    pseudo-inverse at infinity.

    Args:
        kernel_train: K on the training set, symmetric positive semi-definite, shape [n, n], [n, n, k] or [n, n, k, k].
        kernel_test_train: K between test and training inputs, shape [m, n], [m, n, k] or [m, n, k, k].
        y: targets, shape [n, k]; with kernels [n, n] also [n].
        outputs_train: outputs f_0 at the training inputs, like `y`, or a scalar.
        outputs_test: outputs f_0 at the test inputs, shape [m, k] (or [m]), or a scalar.
        time: learning rate times steps on `squared_loss`, non-negative, of any shape [...]; infinity by default.
        ridge: rho, non-negative, shape []; adds rho / 2 times the squared distance of the parameters from
            initialisation to the loss, that is rho to the kernel's diagonal.
        rcond: eigenvalues (plus ridge) up to this multiple of the largest count as zero; by default the size of the
            matrix times the precision.

    Returns:
        Outputs on both sets, and the training residual mode by mode. NaN at negative times, and everywhere if the
        kernel is not symmetric or is indefinite beyond the square root of the precision.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.predictor, ntk.kernel_machine.  Source: Lee et al. 2019, section 2.2.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> kernel, cross = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([[1.0, 1.0]])
    >>> learned = ntk.predict(kernel, cross, jnp.array([3.0, 0.0]), time=jnp.array([0.0, 1.0, jnp.inf]))
    >>> print(f"{learned.test[1, 0]:.3f} {learned.test[2, 0]:.3f}", learned.eigenvalues)
    0.950 1.000 [3. 1.]
    """
    _require_shapes(kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond)
    kernel_train, kernel_test_train, y, outputs_train, outputs_test = floating(
        kernel_train, kernel_test_train, y, outputs_train, outputs_test
    )
    ridge, time = (jnp.asarray(setting, y.dtype) for setting in (ridge, time))
    require(time >= 0, "`time` must be non-negative")
    time = jnp.where(time >= 0, time, jnp.nan)
    return _evolve(
        lambda cutoff: lambda t: Flow(time=t, ridge=ridge, cutoff=cutoff),
        time, kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond,
    )  # fmt: skip


def predict_steps(
    kernel_train: Array,
    kernel_test_train: Array,
    y: Array,
    outputs_train: Array | float = 0.0,
    outputs_test: Array | float = 0.0,
    *,
    learning_rate: Scalar,
    num_steps: Array | int,
    ridge: Scalar = 0.0,
    rcond: Scalar | None = None,
) -> Prediction:
    r"""Gradient descent on the squared loss with a constant kernel: outputs after any number of steps, in closed form.

    .. math::
        f_t(X) &= y + (I - \eta K)^t (f_0(X) - y) \\
        f_t(x) &= f_0(x) + K(x, X) K^{-1} (I - (I - \eta K)^t) (y - f_0(X))

    Beyond the learning rate 2 / lambda_max modes grow, as they do in gradient descent.

    Args:
        kernel_train: K on the training set, symmetric positive semi-definite, shape [n, n], [n, n, k] or [n, n, k, k];
            see `predict`.
        kernel_test_train: K between test and training inputs, shape [m, n], [m, n, k] or [m, n, k, k].
        y: targets, shape [n, k]; with kernels [n, n] also [n].
        outputs_train: outputs f_0 at the training inputs, like `y`, or a scalar.
        outputs_test: outputs f_0 at the test inputs, shape [m, k] (or [m]), or a scalar.
        learning_rate: eta on `squared_loss`, positive, shape [].
        num_steps: number of steps t, non-negative integers of any shape [...].
        ridge: rho, non-negative, shape []; adds rho / 2 times the squared distance of the parameters from
            initialisation to the loss.
        rcond: eigenvalues (plus ridge) up to this multiple of the largest count as zero; by default the size of the
            matrix times the precision.

    Returns:
        Outputs on both sets, and the training residual mode by mode. NaN where the number of steps is negative, and
        everywhere if the kernel is not symmetric or is indefinite beyond the square root of the precision.

    Raises:
        ValueError: if shapes disagree, or `num_steps` is not integer.

    Statement: ntk.predictor.  Source: Lee et al. 2019, section 2.2, for gradient flow.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> kernel, cross = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([[1.0, 1.0]])
    >>> y, steps = jnp.array([3.0, 0.0]), jnp.array([0, 1, 2])
    >>> print(ntk.predict_steps(kernel, cross, y, learning_rate=0.25, num_steps=steps).test.ravel().round(4))
    [0.     0.75   0.9375]
    """
    _require_shapes(kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond)
    shapes(learning_rate=(learning_rate, ""))
    require(jnp.issubdtype(jnp.result_type(num_steps), jnp.integer), "`num_steps` must be integer")
    kernel_train, kernel_test_train, y, outputs_train, outputs_test = floating(
        kernel_train, kernel_test_train, y, outputs_train, outputs_test
    )
    ridge, learning_rate, steps = (jnp.asarray(setting, y.dtype) for setting in (ridge, learning_rate, num_steps))
    require(steps >= 0, "`num_steps` must be non-negative")
    steps = jnp.where(steps >= 0, steps, jnp.nan)
    return _evolve(
        lambda cutoff: lambda t: Descent(learning_rate=learning_rate, num_steps=t, ridge=ridge, cutoff=cutoff),
        steps, kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond,
    )  # fmt: skip


def kernel_modes(kernel: Array, residual: Array) -> tuple[Array, Array]:
    r"""A residual of the training set, taken apart along the eigenvectors of the kernel.

    .. math:: K = V \operatorname{diag}(\lambda) V^T, \quad c = V^T r; \qquad c_i(t) = e^{-\lambda_i t} c_i(0)

    Under gradient flow with a constant kernel each coefficient decays by itself, at the rate of its eigenvalue. The
    eigenvectors, which are determined up to sign, are those that `predict` uses for the same kernel.

    Args:
        kernel: K on the training set, symmetric, shape [n, n], [n, n, k] or [n, n, k, k]; see `predict`.
        residual: r, shape [..., n, k]; with a kernel [n, n] also [n].

    Returns:
        Eigenvalues, largest first, shape [n], [n, k] or [n k]; and coefficients, shape [..., n, k] (or [n]), for
        kernels [n, n, k, k] shape [..., n k]. Derivatives hold the eigenvectors fixed.

    Raises:
        ValueError: if shapes disagree.

    Statement: ntk.predictor.  Source: Jacot, Gabriel and Hongler 2018, section 5.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> eigenvalues, coefficients = ntk.kernel_modes(jnp.diag(jnp.array([1.0, 4.0])), jnp.array([0.5, -3.0]))
    >>> print(eigenvalues, abs(coefficients))
    [4. 1.] [3.  0.5]
    """
    pattern = output_pattern(kernel, residual)
    leading = "... " if jnp.ndim(residual) > 1 else ""
    shapes(kernel=(kernel, kernel_pattern("kernel", kernel)), residual=(residual, leading + pattern))
    kernel, residual = floating(kernel, residual)
    outputs = residual.shape[residual.ndim - len(pattern.split()) + 1 :]
    flat = residual.reshape(-1, kernel.shape[0], *outputs)
    values, vectors = jax.vmap(jnp.linalg.eigh)(as_blocks(kernel))
    columns = jax.vmap(lambda r: as_columns(r, kernel.ndim))(flat)
    coefficients = jax.lax.stop_gradient(jnp.swapaxes(vectors[:, :, ::-1], 1, 2))[None] @ columns
    modes = modes_from_columns(coefficients, kernel.ndim, outputs)
    leading_shape = residual.shape[: residual.ndim - len(pattern.split())]
    return (
        modes_from_columns(values[:, ::-1, None], kernel.ndim, ()),
        modes.reshape(*leading_shape, *modes.shape[1:]),
    )


def max_learning_rate(kernel: Array, momentum: Scalar = 0.0) -> Array:
    r"""The learning rate at which gradient descent with a constant kernel becomes unstable.

    .. math:: \eta_{\max} = \frac{2 (1 + \beta)}{\lambda_{\max}(K)}

    Below it gradient descent with heavy-ball momentum on the squared loss converges for the linearised network. It is
    for the sum of squares over 2: for the mean over n examples (n k numbers) it is n (n k) times larger.

    Args:
        kernel: K on the training set, symmetric positive semi-definite, shape [n, n], [n, n, k] or [n, n, k, k].
        momentum: beta of the heavy ball, in [0, 1), shape [].

    Returns:
        The learning rate, shape []; infinite for the zero kernel, NaN for a momentum out of its range.

    Raises:
        ValueError: if shapes disagree, or a static momentum is out of its range.

    Statement: ntk.predictor.  Source: Polyak 1987, section 3.2.1.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> print(ntk.max_learning_rate(jnp.diag(jnp.array([1.0, 4.0]))))
    0.5
    """
    shapes(kernel=(kernel, kernel_pattern("kernel", kernel)), momentum=(momentum, ""))
    fits = (momentum >= 0) & (momentum < 1)
    require(fits, "`momentum` must lie in [0, 1)")
    (kernel,) = floating(kernel)
    momentum = jnp.asarray(momentum, kernel.dtype)
    largest = jnp.max(jax.vmap(jnp.linalg.eigvalsh)(as_blocks(kernel)))
    rate = 2 * (1 + momentum) / jnp.where(largest > 0, largest, 1.0)
    return jnp.where(fits, jnp.where(largest > 0, rate, jnp.where(largest == 0, jnp.inf, jnp.nan)), jnp.nan)


class LossPrediction(NamedTuple):
    """Outputs that gradient descent on some loss reaches with a constant kernel.

    Attributes:
        train: outputs at the training inputs at the times asked for, shape [t, n, k].
        test: outputs at the test inputs, shape [t, m, k].
        converged: whether the solver reached the last time within its steps, shape []; if not, the outputs after it
            gave up are not finite.
    """

    train: Array
    test: Array
    converged: Array


def predict_loss(
    loss_fn: Callable[[Array], Array],
    kernel_train: Array,
    kernel_test_train: Array,
    outputs_train: Array,
    outputs_test: Array,
    times: Array,
    *,
    momentum: Scalar | None = None,
    learning_rate: Scalar | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-9,
    max_steps: int = 4096,
) -> LossPrediction:
    r"""Gradient flow on any loss with a constant kernel, with or without momentum, by an adaptive ODE solver.

    .. math:: f_t = f_0 + K(\cdot, X) \alpha_t, \qquad \dot\alpha = -\nabla L(f_t(X)), \quad \alpha_0 = 0

    The ODE is that of the dual coefficients, so that it does not grow with the test set. Heavy-ball momentum beta gives
    them inertia:

    .. math:: \eta \tfrac{1 + \beta}{2} \ddot\alpha + (1 - \beta) \dot\alpha = -\nabla L(f_t(X)),
        \qquad \dot\alpha_0 = -\frac{\nabla L(f_0(X))}{1 + \beta}

    after which the outputs at time eta t are those after t steps up to an error of order eta^2; that of the plain flow
    is of order eta. Solved by diffrax with an explicit Runge-Kutta method of order five (Tsitouras); its steps grow in
    number with the largest eigenvalue times the curvature of the loss times the last time, and with momentum also with
    the steps of gradient descent.

    Args:
        loss_fn: L, outputs at the training inputs [n, k] -> shape [], with the targets closed over; a sum over the
            examples.
        kernel_train: K on the training set, shape [n, n], [n, n, k] or [n, n, k, k]; see `predict`.
        kernel_test_train: K between test and training inputs, shape [m, n], [m, n, k] or [m, n, k, k].
        outputs_train: outputs f_0 at the training inputs, shape [n, k]; with kernels [n, n] also [n].
        outputs_test: outputs f_0 at the test inputs, shape [m, k] (or [m]).
        times: increasing, non-negative and finite, in units of learning rate times steps, shape [t].
        momentum: beta of the heavy ball, in [0, 1), shape []; plain gradient flow if None.
        learning_rate: eta, positive, shape []; with momentum only.
        rtol: relative tolerance of one step, positive.
        atol: absolute tolerance of one step, positive, in units of the outputs.
        max_steps: of the solver, positive.

    Returns:
        Outputs at `times` on both sets, NaN if these are not increasing, non-negative and finite, and whether the
        solver got there.

    Raises:
        ValueError: if shapes disagree, only one of momentum and learning rate is given, a static setting is out of its
            range or `loss_fn` does not return a scalar.

    Statement: ntk.function_space_flow.  Source: Lee et al. 2019, section 2.1; Kovachki and Stuart 2021
    for momentum.

    >>> import jax.numpy as jnp
    >>> from dltheory import ntk
    >>> kernel, cross, labels = jnp.eye(2), jnp.array([[1.0, 0.0]]), jnp.array([1.0, -1.0])
    >>> logistic = lambda outputs: jnp.sum(jnp.logaddexp(0.0, -labels * outputs))
    >>> start, test = jnp.zeros(2), jnp.zeros(1)
    >>> later = ntk.predict_loss(logistic, kernel, cross, start, test, jnp.array([1.0, 10.0]))
    >>> bool(later.converged), later.test.shape
    (True, (2, 1))
    """
    import diffrax  # takes a second to import, and nothing else here needs it

    pattern = output_pattern(kernel_train, outputs_train)
    outputs = pattern.split()[1:]
    shapes(
        kernel_train=(kernel_train, kernel_pattern("kernel_train", kernel_train)),
        kernel_test_train=(kernel_test_train, _cross_pattern(kernel_train, kernel_test_train)),
        outputs_train=(outputs_train, pattern),
        outputs_test=(outputs_test, " ".join(["m", *outputs])),
        times=(times, "t"),
    )
    require((momentum is None) == (learning_rate is None), "`momentum` and `learning_rate` must be given together")
    require(rtol > 0, "`rtol` must be positive")
    require(atol > 0, "`atol` must be positive")
    require(max_steps >= 1, "`max_steps` must be positive")
    require(jnp.size(times) >= 1, "`times` must hold at least one time")
    kernel_train, kernel_test_train, outputs_train, outputs_test = floating(
        kernel_train, kernel_test_train, outputs_train, outputs_test
    )
    times = jnp.asarray(times, outputs_train.dtype)
    value = jax.eval_shape(loss_fn, outputs_train)
    require(getattr(value, "shape", None) == (), "`loss_fn` must return a scalar")
    ordered = jnp.all(jnp.diff(times) > 0) & jnp.all((times >= 0) & (times < jnp.inf))
    require(ordered, "`times` must be increasing, non-negative and finite")
    safe_times = jnp.where(ordered, times, jnp.arange(times.size, dtype=times.dtype))  # diffrax would stop the program

    # In units of the outputs, the tolerances mean the same for all kernels: no output moves further than the dual.
    unit = jnp.max(jnp.sum(jnp.abs(as_blocks(jax.lax.stop_gradient(kernel_train))), axis=-1))
    unit = jnp.where(unit > 0, unit, 1.0)

    def force(dual):
        moved = outputs_train + _apply(kernel_train, dual / unit)
        return -unit * jax.grad(loss_fn)(moved)

    still = jnp.zeros_like(outputs_train)
    if momentum is None or learning_rate is None:
        start, velocity = (still,), lambda state: (force(state[0]),)
    else:
        start, velocity = _with_momentum(force, still, momentum, learning_rate)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, state, args: velocity(state)),  # noqa: ARG005
        diffrax.Tsit5(),
        t0=jnp.zeros((), times.dtype),
        t1=safe_times[-1],
        dt0=None,
        y0=start,
        saveat=diffrax.SaveAt(ts=safe_times),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
    )
    (path, *_) = solution.ys  # pyright: ignore[reportGeneralTypeIssues]
    dual = jnp.where(ordered, path, jnp.nan) / unit
    return LossPrediction(
        train=outputs_train[None] + jax.vmap(lambda a: _apply(kernel_train, a))(dual),
        test=outputs_test[None] + jax.vmap(lambda a: _apply(kernel_test_train, a))(dual),
        converged=ordered & (solution.result == diffrax.RESULTS.successful),
    )


def _with_momentum(force, still: Array, momentum: Scalar, learning_rate: Scalar):
    """Start and velocity of position and speed, such that the flow follows the heavy ball to second order."""
    shapes(momentum=(momentum, ""), learning_rate=(learning_rate, ""))
    require((momentum >= 0) & (momentum < 1), "`momentum` must lie in [0, 1)")
    require(learning_rate > 0, "`learning_rate` must be positive")
    momentum, learning_rate = (jnp.asarray(setting, still.dtype) for setting in (momentum, learning_rate))

    def velocity(state):
        position, speed = state
        return speed, (force(position) - (1 - momentum) * speed) * 2 / ((1 + momentum) * learning_rate)

    return (still, force(still) / (1 + momentum)), velocity


def _apply(kernel: Array, dual: Array) -> Array:
    """The function with dual coefficients [n, k] or [n], at the inputs of the kernel's rows."""
    return from_columns(as_blocks(kernel) @ as_columns(dual, kernel.ndim), kernel.ndim, dual.shape[1:])


def _cross_pattern(kernel_train: Array, kernel_test_train: Array) -> str:
    same = jnp.ndim(kernel_train) == jnp.ndim(kernel_test_train)
    forms = list(jnp.shape(kernel_train)), list(jnp.shape(kernel_test_train))
    require(same, f"`kernel_test_train` must have as many axes as `kernel_train`, {forms[0]}, got {forms[1]}")
    return kernel_pattern("kernel_test_train", kernel_test_train, "m", "n")


def _require_shapes(kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond) -> None:
    pattern = output_pattern(kernel_train, y)
    test_pattern = " ".join(["m", *pattern.split()[1:]])
    shapes(
        kernel_train=(kernel_train, kernel_pattern("kernel_train", kernel_train)),
        kernel_test_train=(kernel_test_train, _cross_pattern(kernel_train, kernel_test_train)),
        y=(y, pattern),
        outputs_train=(outputs_train, pattern if jnp.ndim(outputs_train) else ""),
        outputs_test=(outputs_test, test_pattern if jnp.ndim(outputs_test) else ""),
        ridge=(ridge, ""),
    )
    require(jnp.size(y) > 0, "`y` must not be empty")
    require(rcond is None or jnp.ndim(rcond) == 0, "`rcond` must be a scalar")


def _evolve(
    motion_until, times, kernel_train, kernel_test_train, y, outputs_train, outputs_test, ridge, rcond
) -> Prediction:
    """The prediction at all times, given cutoff -> time -> motion."""
    ndim, outputs = kernel_train.ndim, y.shape[1:]

    def one_block(matrix, cross, columns):
        spectrum = decompose(matrix, ridge, rcond)
        motion = motion_until(spectrum.cutoff)
        coordinates = jax.lax.stop_gradient(spectrum.vectors).T @ columns

        def at(time):
            residual = spectral_product(remainder, spectrum, motion(time), columns)
            dual = spectral_product(growth, spectrum, motion(time), columns)
            return residual, cross @ dual, remainder(spectrum.values, motion(time))[:, None] * coordinates

        return *jax.vmap(at)(times.ravel()), spectrum.values[:, None], spectrum.rank

    blocks = as_blocks(kernel_train), as_blocks(kernel_test_train), as_columns(y - outputs_train, ndim)
    residual, moved, modes, values, rank = jax.vmap(one_block, out_axes=(1, 1, 1, 0, 0))(*blocks)

    def at_times(values):
        return values.reshape(*times.shape, *values.shape[1:])

    return Prediction(
        train=at_times(y[None] - from_columns(residual, ndim, outputs)),
        test=at_times((outputs_test[None] if outputs_test.ndim else outputs_test) + from_columns(moved, ndim, outputs)),
        eigenvalues=modes_from_columns(values, ndim, ()),
        mode_residuals=at_times(modes_from_columns(modes, ndim, outputs)),
        rank=of_outputs(rank, ndim),
    )
