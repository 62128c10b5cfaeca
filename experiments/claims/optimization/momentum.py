"""Claims about the heavy ball and Nesterov's method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import optimization
from experiments.claim import Axes, Claim, Variant
from experiments.claims.optimization._problems import logistic_data, rotated
from experiments.curves import Curve
from experiments.judges import AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_HESSIAN = rotated([0.3, 1.0, 4.0], seed=2)
_START = np.array([1.0, -2.0, 1.5])
_RATE, _MOMENTUM = 0.2, 0.7
_STEPS = 40


def _coordinates(**sequences):
    return {
        f"{name}, coordinate {j + 1}": Curve(path[:, j], np.arange(len(path)))
        for name, path in sequences.items()
        for j in range(3)
    }


def _nesterov_run(_):
    objective = optimization.quadratic(jnp.asarray(_HESSIAN)).value
    optimizer = optimization.nesterov(_RATE, _MOMENTUM)
    run = jax.jit(lambda x: optimization.run_optimizer(optimizer, objective, x, _STEPS))(jnp.asarray(_START))
    return _coordinates(x=np.asarray(run.state.iterate), y=np.asarray(run.params))


def _nesterov_recurrence(_, *, gradient_at_y=True):
    """The two sequences as the textbook writes them."""
    before, x = _START, _START
    xs, ys = [], []
    for _ in range(_STEPS + 1):
        y = x + _MOMENTUM * (x - before)
        xs.append(x)
        ys.append(y)
        before, x = x, y - _RATE * _HESSIAN @ (y if gradient_at_y else x)
    return _coordinates(x=np.array(xs), y=np.array(ys))


_FEATURES, _LABELS = logistic_data(4, 30, 3)


def _heavy_ball_run(optimizer):
    def measure(_):
        objective = optimization.ridge_logistic(jnp.asarray(_FEATURES), jnp.asarray(_LABELS), 0.1).value
        path = jax.jit(lambda x: optimization.run_optimizer(optimizer, objective, x, _STEPS).params)(_START)
        return _coordinates(x=np.asarray(path))

    return measure


def _heavy_ball_recurrence(_):
    path = [_START, _START]
    for _ in range(_STEPS):
        before, x = path[-2:]
        weights = _LABELS / (1 + np.exp(_LABELS * (_FEATURES @ x)))
        gradient = 0.1 * x - _FEATURES.T @ weights / len(_LABELS)
        path.append(x - _RATE * gradient + _MOMENTUM * (x - before))
    return _coordinates(x=np.array(path[1:]))


_EIGENVALUES = np.linspace(0.02, 1.0, 50)
_SETTINGS = {"momentum 0.3": 0.3, "momentum 0.6": 0.6, "momentum 0.9": 0.9}


def _iteration_matrix(optimizer_fn, eigenvalue, learning_rate, momentum):
    """The linear map that one step applies to parameters and state, as its Jacobian."""
    objective = optimization.quadratic(jnp.full((1, 1), eigenvalue)).value
    optimizer = optimizer_fn(learning_rate, momentum)
    origin = jnp.zeros(1)
    leaves, structure = jax.tree.flatten(optimizer.init(origin))
    moving = [leaf.dtype == origin.dtype for leaf in leaves]

    def step(vector):
        values = iter(vector[1:])
        state = jax.tree.unflatten(
            structure, [next(values)[None] if moves else leaf for leaf, moves in zip(leaves, moving, strict=True)]
        )
        params = vector[:1]
        updates, state = optimizer.update(jax.grad(objective)(params), state, params)
        kept = [leaf for leaf, moves in zip(jax.tree.leaves(state), moving, strict=True) if moves]
        return jnp.concatenate([params + updates, *kept])

    return jax.jacfwd(step)(jnp.zeros(1 + sum(moving)))


def _measured_rates(optimizer_fn):
    def measure(_):
        @jax.jit
        def matrices(momenta):
            def matrix(eigenvalue, momentum):
                return _iteration_matrix(optimizer_fn, eigenvalue, 1.0, momentum)

            return jax.vmap(jax.vmap(matrix, (0, None)), (None, 0))(jnp.asarray(_EIGENVALUES), momenta)

        radii = np.abs(np.linalg.eigvals(np.asarray(matrices(jnp.array([*_SETTINGS.values()]))))).max(axis=-1)
        return {name: Curve(radius, _EIGENVALUES) for name, radius in zip(_SETTINGS, radii, strict=True)}

    return measure


def _predicted_rates(rate_fn):
    def predict(_):
        at = jax.vmap(jax.vmap(rate_fn, (0, None, None)), (None, None, 0))
        rates = at(jnp.asarray(_EIGENVALUES), 1.0, jnp.array([*_SETTINGS.values()]))
        return dict(zip(_SETTINGS, rates, strict=True))

    return predict


_CONDITIONS = 2.0 ** np.arange(1, 11)


def _nesterov_optimal_rates(_):
    @jax.jit
    def matrices(conditions):
        def matrix(condition):
            settings = optimization.nesterov_optimal(1.0, condition)
            return _iteration_matrix(optimization.nesterov, 1.0, *settings)

        return jax.vmap(matrix)(conditions)

    return Curve(np.abs(np.linalg.eigvals(np.asarray(matrices(_CONDITIONS)))).max(axis=-1), _CONDITIONS)


_PRINTED_CONDITIONS = np.array([2.0, 4.0])
_PRINTED_STEPS = 30


def _printed_gaps(_):
    """The print: an implicit step, for y_{k+1} contains x_{k+1}; along an eigenvector it can be solved for."""
    gaps = {}
    for condition in _PRINTED_CONDITIONS:
        rate, beta = 1 / condition, (np.sqrt(condition) - 1) / (np.sqrt(condition) + 1)
        before = x = 1.0
        values = []
        for _ in range(_PRINTED_STEPS):
            values.append(x**2 / 2)
            y = x + beta * (x - before)
            before, x = x, (y + rate * beta * x) / (1 + rate * (1 + beta))
        gaps[f"condition {condition:g}"] = Curve(values, np.arange(_PRINTED_STEPS))
    return gaps


@jax.jit
def _nesterov_values(condition):
    objective = optimization.quadratic(jnp.diag(jnp.array([1.0, condition]))).value
    optimizer = optimization.nesterov(*optimization.nesterov_optimal(1.0, condition))
    run = optimization.run_optimizer(optimizer, objective, jnp.array([1.0, 0.0]), _PRINTED_STEPS - 1)
    return jax.vmap(objective)(run.state.iterate)


def _nesterov_gaps(_):
    return {
        f"condition {condition:g}": Curve(_nesterov_values(condition), np.arange(_PRINTED_STEPS))
        for condition in _PRINTED_CONDITIONS
    }


def _sheet_bound(_, *, power=0.5):
    """L (1 - sqrt(mu / L))^t ||x_0 - x*||^2, the sheet's own rate."""
    steps = np.arange(_PRINTED_STEPS)
    return {
        f"condition {condition:g}": condition * (1 - condition**-power) ** steps for condition in _PRINTED_CONDITIONS
    }


_FITTED = np.arange(1000, 3001, 50)  # late, for at the optimum the rate has a factor k in front


def _heavy_ball_errors(_):
    @jax.jit
    def errors(condition):
        spectrum = condition ** jnp.linspace(0.0, 1.0, 12)
        optimizer = optimization.heavy_ball(*optimization.heavy_ball_optimal(1.0, condition))
        objective = optimization.quadratic(jnp.diag(spectrum)).value
        path = optimization.run_optimizer(optimizer, objective, jnp.ones(12), int(_FITTED[-1])).params
        return jnp.max(jnp.abs(path[_FITTED]), axis=1)  # squares would underflow

    return {f"condition {kappa}": Curve(errors(float(kappa)), _FITTED) for kappa in (100, 400, 1000)}


def _log_rates(rate):
    return lambda _: {f"condition {kappa}": np.log(rate(np.sqrt(kappa))) for kappa in (100, 400, 1000)}


_DAMPINGS = np.array([0.0, 0.9, 0.95, 0.99])
_GRADIENT = 3.0
_TIME = np.arange(1, 201)


def _velocities(momenta, num_steps):
    """Steps of the heavy ball in a constant gradient field, one row a momentum."""

    @jax.jit
    def steps(momentum):
        optimizer = optimization.heavy_ball(_RATE, momentum)

        def step(state, _):
            update, state = optimizer.update(jnp.array(_GRADIENT), state)
            return state, update

        return jax.lax.scan(step, optimizer.init(jnp.array(0.0)), length=num_steps)[1]

    return np.asarray(jax.vmap(steps)(momenta))


def _by_momentum(rows):
    momenta = _DAMPINGS[-len(rows) :]
    return {f"momentum {beta}": Curve(row, _TIME) for beta, row in zip(momenta, rows, strict=True)}


def _distances_to(limits):
    return lambda _: _by_momentum(np.abs(_velocities(_DAMPINGS, len(_TIME)) / limits()[:, None] - 1)[1:])


def _limits(momenta):
    at = jax.vmap(optimization.terminal_velocity, in_axes=(None, 0, None))
    return np.asarray(at(_RATE, jnp.asarray(momenta), jnp.array(_GRADIENT)))


_LONG = 3000


CLAIMS = (
    Claim(
        "optimizers.nesterov",
        says="On a quadratic the sequences x_k (in the state) and y_k (the parameters) obey the textbook recurrence.",
        measure=_nesterov_run,
        predict=_nesterov_recurrence,
        judge=Equal(rtol=1e-9, atol=1e-12),
        control=Variant(
            "the gradient at x_k: the heavy ball", predict=lambda _: _nesterov_recurrence(_, gradient_at_y=False)
        ),
        axes=Axes("step", "parameters"),
    ),
    Claim(
        "optimizers.nesterov",
        part="iteration matrix",
        says="On a quadratic the spectral radius of one step is the larger root of the characteristic polynomial.",
        measure=_measured_rates(optimization.nesterov),
        predict=_predicted_rates(optimization.nesterov_quadratic_rate),
        judge=Equal(rtol=1e-6),
        control=Variant("that of the heavy ball", predict=_predicted_rates(optimization.heavy_ball_quadratic_rate)),
        axes=Axes("eigenvalue times learning rate", "rate per step"),
    ),
    Claim(
        "optimizers.nesterov",
        part="optimal rate",
        says="With the step 1 / L and the optimal momentum, the slowest direction contracts by 1 - 1 / sqrt(kappa).",
        measure=_nesterov_optimal_rates,
        predict=lambda _: 1 - 1 / np.sqrt(_CONDITIONS),
        judge=Equal(rtol=1e-6),
        control=Variant("the rate of gradient descent", predict=lambda _: 1 - 1 / _CONDITIONS),
        axes=Axes("condition number", "rate per step", log="x"),
    ),
    Claim(
        "optimizers.nesterov@printed",
        says="The step as printed, solved exactly, obeys the sheet's own rate bound.",
        measure=_printed_gaps,
        predict=_sheet_bound,
        judge=AtMost(),
        control=Variant("a bound with the fourth root of mu / L", predict=lambda _: _sheet_bound(_, power=0.25)),
        corrected=Variant("the gradient at y_k", measure=_nesterov_gaps),
        axes=Axes("step", "f(x) - min f", log="y"),
    ),
    Claim(
        "optimizers.heavy_ball",
        says="On regularised logistic regression the iterates obey the recurrence.",
        measure=_heavy_ball_run(optimization.heavy_ball(_RATE, _MOMENTUM)),
        predict=_heavy_ball_recurrence,
        judge=Equal(rtol=1e-10, atol=1e-13),
        control=Variant("Nesterov's method", measure=_heavy_ball_run(optimization.nesterov(_RATE, _MOMENTUM))),
        axes=Axes("step", "parameters"),
    ),
    Claim(
        "optimizers.heavy_ball",
        part="iteration matrix",
        says="On a quadratic the spectral radius of one step is the larger root of the characteristic polynomial.",
        measure=_measured_rates(optimization.heavy_ball),
        predict=_predicted_rates(optimization.heavy_ball_quadratic_rate),
        judge=Equal(rtol=1e-6),
        control=Variant("that of Nesterov's method", predict=_predicted_rates(optimization.nesterov_quadratic_rate)),
        axes=Axes("eigenvalue times learning rate", "rate per step"),
    ),
    Claim(
        "optimizers.heavy_ball",
        part="optimal rate",
        says="With the optimal settings the error on quadratics falls by (sqrt(kappa) - 1) / (sqrt(kappa) + 1) a step.",
        measure=_heavy_ball_errors,
        predict=_log_rates(lambda root: (root - 1) / (root + 1)),
        judge=Slope(0.001, log="y"),
        control=Variant("Nesterov's rate", predict=_log_rates(lambda root: 1 - 1 / root)),
        axes=Axes("step", "distance to the minimum", log="y"),
    ),
    Claim(
        "optimizers.heavy_ball_terminal_velocity",
        says="In a constant gradient field step t is -eta g (1 - beta^t) / (1 - beta).",
        measure=lambda _: _by_momentum(_velocities(_DAMPINGS, len(_TIME))),
        predict=lambda _: _by_momentum(
            -_RATE * _GRADIENT * (1 - _DAMPINGS[:, None] ** _TIME) / (1 - _DAMPINGS[:, None])
        ),
        judge=Equal(rtol=1e-10),
        control=Variant(
            "the terminal velocity at once",
            predict=lambda _: _by_momentum(np.repeat(_limits(_DAMPINGS)[:, None], len(_TIME), axis=1)),
        ),
        axes=Axes("step", "velocity"),
    ),
    Claim(
        "optimizers.heavy_ball_terminal_velocity",
        part="limit",
        says="The step approaches the terminal velocity up to a fraction of beta^t.",
        measure=_distances_to(lambda: _limits(_DAMPINGS)),
        predict=lambda _: _by_momentum(_DAMPINGS[1:, None] ** _TIME),
        judge=AtMost(atol=1e-12),
        control=Variant(
            "the velocity of gradient descent as the limit", measure=_distances_to(lambda: _limits(0 * _DAMPINGS))
        ),
        axes=Axes("step", "relative distance to the limit", log="y"),
    ),
    Claim(
        "optimizers.heavy_ball_terminal_velocity@printed",
        says="For every momentum in [0, 1], 1 included, the step has reached -eta g / (1 - beta) after 3000 steps.",
        setup=lambda _key, _budget: np.append(_DAMPINGS, 1.0),
        measure=lambda momenta: Curve(_velocities(momenta, _LONG)[:, -1], momenta),
        predict=_limits,
        judge=Equal(rtol=1e-8),
        control=Variant("the velocity of gradient descent", predict=lambda momenta: _limits(0 * momenta)),
        corrected=Variant("momentum below 1", setup=lambda _key, _budget: _DAMPINGS),
        axes=Axes("momentum", "velocity"),
    ),
)
