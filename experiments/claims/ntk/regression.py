"""Claims about what the linearised network learns: kernel regression, at every time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from experiments.claim import Axes, Claim, Variant
from experiments.claims.ntk._networks import (
    features_by_hand,
    kernel_by_hand,
    outputs_by_hand,
    problem,
    sphere,
    variables_of,
)
from experiments.curves import Curve
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]


def _spread(key, budget):
    """Five examples in eight dimensions, where no mode of the kernel is slow."""
    return problem(key, budget, width=128, n=5, d=8)


def _residual(at):
    return at.y - outputs_by_hand("tanh", at.variables, at.x)


def _kernel(at, x=None):
    return kernel_by_hand("tanh", at.variables, at.x if x is None else x, at.x)


def _features(at, x=None):
    return features_by_hand("tanh", at.variables, at.x if x is None else x)


# The coefficients, also where the kernel is singular.


@jax.jit
def _regression(kernel, residual):
    return ntk.kernel_regression(kernel, residual)


def _situations(key, budget):
    """Examples that the kernel tells apart, one of them twice with conflicting labels, and more than parameters."""
    spread = _spread(key, budget)
    spread.y[:2] = 1.0, -1.0
    twice = spread._replace(x=np.concatenate([spread.x[:1], spread.x[:-1]]))
    w, v = np.array([[1.5, -1.0, 0.5]]), np.ones((1, 1))
    many = spread._replace(variables=variables_of(w, v), x=sphere(spread.rng, 5))  # four parameters
    return {"distinct": spread, "one twice": twice, "more than parameters": many}


def _coefficients(situations):
    return {name: _regression(_kernel(at), _residual(at)).coefficients for name, at in situations.items()}


def _shortest_coefficients(situations, damping=0.0):
    """The shortest minimiser of the squared error, by singular values of the features rather than of the kernel."""
    coefficients = {}
    for name, at in situations.items():
        left, singular, _ = np.linalg.svd(_features(at), full_matrices=False)
        inverse = np.where(singular > 1e-6 * singular[0], 1 / (singular**2 + damping), 0.0)
        coefficients[name] = left @ (inverse * (left.T @ _residual(at)))
    return coefficients


def _one_twice(key, budget):
    return _situations(key, budget)["one twice"]


def _unexplained(at):
    """What kernel regression leaves of the residual."""
    kernel = _kernel(at)
    left = _residual(at) - kernel @ np.asarray(_regression(kernel, _residual(at)).coefficients)
    return Curve(left, np.arange(1, left.size + 1))


def _half_the_conflict(at, share=0.5):
    return share * (at.y[0] - at.y[1]) * np.array([1.0, -1.0, 0.0, 0.0, 0.0])


_STEPS = 3000


@jax.jit
def _descend(features, residual, rate):
    """Parameter shifts after each step of gradient descent on the linearised loss, the start first."""

    def step(shift, _):
        return shift - rate * features.T @ (features @ shift - residual), shift

    return jax.lax.scan(step, jnp.zeros_like(features[0]), length=_STEPS + 1)[1]


def _rate(at):
    return 1 / np.linalg.norm(_features(at), 2) ** 2


def _descended(at):
    """Outputs of the linearised network after many steps, at the examples and elsewhere."""
    shift = np.asarray(_descend(_features(at), _residual(at), _rate(at)))[-1]
    return {
        name: outputs_by_hand("tanh", at.variables, x) + _features(at, x) @ shift
        for name, x in (("examples", at.x), ("other inputs", at.x_test))
    }


def _regressed(at, start=True):
    """Initial outputs (or none) plus the kernel times the coefficients."""
    outputs = {}
    residual = _residual(at) if start else at.y
    coefficients = np.asarray(_regression(_kernel(at), residual).coefficients)
    for name, x in (("examples", at.x), ("other inputs", at.x_test)):
        outputs[name] = start * outputs_by_hand("tanh", at.variables, x) + _kernel(at, x) @ coefficients
    return outputs


# The predictor, after finitely many steps and at finite times.


@jax.jit
def _predict(kernel_train, kernel_test_train, y, outputs_train, outputs_test, times):
    return ntk.predict(kernel_train, kernel_test_train, y, outputs_train, outputs_test, time=times)


def _predictions(at, times):
    """The library's predictions at the examples and at other inputs, for all times."""
    starts = (outputs_by_hand("tanh", at.variables, x) for x in (at.x, at.x_test))
    return _predict(_kernel(at), _kernel(at, at.x_test), at.y, *starts, jnp.asarray(times))


_COUNTS = np.unique(np.concatenate([[0], np.geomspace(1, _STEPS, 30).astype(int)]))


def _on_the_way(at):
    """Outputs at three inputs that are not examples, after each number of steps at half the stable rate."""
    shifts = np.asarray(_descend(_features(at), _residual(at), _rate(at)))[_COUNTS]
    outputs = outputs_by_hand("tanh", at.variables, at.x_test) + shifts @ _features(at, at.x_test).T
    return {f"input {i + 1}": Curve(outputs[:, i], _COUNTS + 1) for i in range(3)}


def _powers(at, discrete=True):
    """f0 + K(x, X) K^-1 (1 - (1 - rate K)^steps) (y - f0), or with the exponential of continuous time."""
    kernel, rate = _kernel(at), _rate(at)
    values, vectors = np.linalg.eigh(kernel)
    left = (1 - rate * values) ** _COUNTS[:, None] if discrete else np.exp(-rate * values * _COUNTS[:, None])
    coefficients = ((1 - left) / values * (vectors.T @ _residual(at))) @ vectors.T
    outputs = outputs_by_hand("tanh", at.variables, at.x_test) + coefficients @ _kernel(at, at.x_test).T
    return {f"input {i + 1}": outputs[:, i] for i in range(3)}


_FLOW_STEPS = 600
_MOMENTS = np.arange(0, _FLOW_STEPS + 1, 20)
_TIMES = 0.05 * _MOMENTS  # in units in which the fastest mode has rate one


@jax.jit
def _flow(features, residual, step):
    """Parameter shifts along the gradient flow of the linearised loss, by the method of Runge and Kutta."""

    def velocity(shift):
        return features.T @ (residual - features @ shift)

    def advance(shift, _):
        k1 = velocity(shift)
        k2 = velocity(shift + 0.5 * step * k1)
        k3 = velocity(shift + 0.5 * step * k2)
        k4 = velocity(shift + step * k3)
        return shift + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), shift

    return jax.lax.scan(advance, jnp.zeros_like(features[0]), length=_FLOW_STEPS + 1)[1]


def _flow_shifts(at):
    return np.asarray(_flow(_features(at), _residual(at), 0.05 * _rate(at)))[_MOMENTS]


def _along_flow(at):
    shifts = _flow_shifts(at)
    outputs = outputs_by_hand("tanh", at.variables, at.x_test) + shifts @ _features(at, at.x_test).T
    return {f"input {i + 1}": Curve(outputs[:, i], _TIMES) for i in range(3)}


def _predicted_along_flow(at, start=True):
    test = np.asarray(_predictions(at, _TIMES * _rate(at)).test)
    if not start:
        test = test - outputs_by_hand("tanh", at.variables, at.x_test)
    return {f"input {i + 1}": test[:, i] for i in range(3)}


def _modes(at):
    """How the error shrinks in each eigenvector of the kernel, to a hundredth at most."""
    values, vectors = np.linalg.eigh(_kernel(at))
    errors = (_residual(at) - _flow_shifts(at) @ _features(at).T) @ vectors
    curves = {}
    for k in range(len(values) - 1, -1, -1):
        share = np.abs(errors[:, k] / errors[0, k])
        seen = share > 0.01
        curves[_mode(len(values) - k)] = Curve(share[seen], _TIMES[seen])
    return curves


def _mode(k):
    return f"mode {k}"


def _mode_rates(at, equal=False):
    values = np.linalg.eigvalsh(_kernel(at))[::-1] * _rate(at)
    values = np.full_like(values, values.mean()) if equal else values
    return {_mode(k + 1): -value for k, value in enumerate(values)}


CLAIMS = (
    Claim(
        "ntk.kernel_regression",
        says="The coefficients are the shortest that minimise the squared error, though the kernel be singular.",
        setup=_situations,
        measure=_coefficients,
        predict=_shortest_coefficients,
        judge=Equal(rtol=1e-7, atol=1e-7),
        control=Variant("with a ridge of 0.01", predict=lambda at: _shortest_coefficients(at, damping=0.01)),
        axes=Axes(y=r"$\alpha^*$"),
    ),
    Claim(
        "ntk.kernel_regression",
        part="conflicting labels",
        says="Of one input with two labels half the difference remains, of the other examples nothing.",
        setup=_one_twice,
        measure=_unexplained,
        predict=_half_the_conflict,
        judge=Equal(rtol=1e-8, atol=1e-8),
        control=Variant("the second label wins", predict=lambda at: _half_the_conflict(at, share=1.0)),
        axes=Axes("example", r"$y - f_{\theta_0} - K \alpha^*$"),
    ),
    Claim(
        "ntk.kernel_regression",
        part="gradient descent",
        says="Gradient descent on the linearised loss ends there, also where one input has two labels.",
        setup=_one_twice,
        measure=_descended,
        predict=_regressed,
        judge=Equal(rtol=1e-6, atol=1e-6),
        control=Variant("initial outputs left out", predict=lambda at: _regressed(at, start=False)),
        axes=Axes(y=r"$f^*(x)$"),
    ),
    Claim(
        "ntk.predictor",
        says="The linearised network under gradient flow makes the predictions of the kernel formula at every time.",
        setup=_spread,
        measure=_along_flow,
        predict=_predicted_along_flow,
        judge=Equal(rtol=1e-6, atol=1e-6),
        control=Variant("initial outputs left out", predict=lambda at: _predicted_along_flow(at, start=False)),
        axes=Axes(r"time $\lambda_{\max} t$", r"$f_t(x)$"),
    ),
    Claim(
        "ntk.predictor",
        part="steps",
        says="After n steps of gradient descent the exponential of the kernel is the power (1 − ηK)ⁿ.",
        setup=_spread,
        measure=_on_the_way,
        predict=_powers,
        judge=Equal(rtol=1e-8, atol=1e-8),
        control=Variant("the exponential", predict=lambda at: _powers(at, discrete=False)),
        axes=Axes("steps + 1", r"$f_n(x)$", log="x"),
    ),
    Claim(
        "ntk.predictor",
        part="modes",
        says="The error in each eigenvector of the kernel decays at the rate of its eigenvalue, within a hundredth.",
        setup=_spread,
        measure=_modes,
        predict=_mode_rates,
        judge=Slope(tolerance=0.01, log="y"),
        control=Variant("all modes at the mean rate", predict=lambda at: _mode_rates(at, equal=True)),
        axes=Axes(r"time $\lambda_{\max} t$", "error / initial error", log="y"),
    ),
)
