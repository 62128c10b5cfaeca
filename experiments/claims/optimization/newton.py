"""Claims about Newton's method."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import optimization
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.claims.optimization._problems import logistic_data, tilted
from experiments.curves import Curve
from experiments.judges import AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_DIMENSION = 4


def _definite_quadratics(key, budget):
    """Random positive definite Hessians [n, d, d] with linear terms [n, d]."""
    rng = generator(key)
    roots = rng.normal(size=(budget, _DIMENSION, _DIMENSION))
    return roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(_DIMENSION), rng.normal(size=(budget, _DIMENSION))


def _quadratics(key, budget):
    """Random symmetric Hessians, most of them indefinite, with linear terms."""
    hessians, linear = _definite_quadratics(key, budget)
    return hessians - np.median(np.linalg.eigvalsh(hessians)) * np.eye(_DIMENSION), linear


def _first_steps(*optimizers):
    """The first step from zero, one row a problem."""

    @jax.jit
    def steps(hessians, linear):
        def run(optimizer, hessian, b):
            objective = optimization.quadratic(hessian, b).value
            return optimization.run_optimizer(optimizer, objective, jnp.zeros(_DIMENSION), 1).params[-1]

        return {
            name: jax.vmap(lambda h, b, optimizer=optimizer: run(optimizer, h, b))(hessians, linear)
            for name, optimizer in optimizers
        }

    return lambda problem: steps(*problem)


def _minimisers(problem):
    return np.stack([np.linalg.solve(hessian, b) for hessian, b in zip(*problem, strict=True)])


_MAP = np.array([[2.0, 0.3, -0.5], [0.1, 0.05, 0.4], [0.0, 1.2, 3.0]])
_WARPED_START = np.array([0.8, -1.0, 0.4])
_WARPED_STEPS = 5


def _iterates(optimizer, *, warped):
    """Iterates on x -> f(x), or on the same function in other coordinates, mapped back."""
    features, labels = logistic_data(2, 25, 3)

    @jax.jit
    def path(mapping):
        def objective(z):
            return optimization.ridge_logistic(jnp.asarray(features), jnp.asarray(labels), 0.2).value(mapping @ z)

        start = jnp.linalg.solve(mapping, jnp.asarray(_WARPED_START))
        return optimization.run_optimizer(optimizer, objective, start, _WARPED_STEPS).params @ mapping.T

    def measure(_):
        original = np.asarray(path(_MAP if warped else np.eye(3)))
        return {f"coordinate {j + 1}": Curve(original[:, j], np.arange(_WARPED_STEPS + 1)) for j in range(3)}

    return measure


_DISTANCES = 2.0 ** -np.arange(3, 11)
_MINIMISER = np.array([0.5, -1.0, 0.25])


def _errors_after_a_step(*optimizers):
    """Distance to the minimiser after one step, from points at given distances."""

    def measure(_):
        features, labels = logistic_data(3, 25, 3)
        logistic = optimization.ridge_logistic(jnp.asarray(2 * features), jnp.asarray(labels), 0.05)
        objective = tilted(logistic.value, jnp.asarray(_MINIMISER))
        away = jnp.array([2.0, 1.0, -2.0]) / 3

        @jax.jit
        def after(distances):
            def error(optimizer, distance):
                start = _MINIMISER + distance * away
                moved = optimization.run_optimizer(optimizer, objective, start, 1).params[-1]
                return jnp.linalg.norm(moved - _MINIMISER)

            return [jax.vmap(lambda r, o=optimizer: error(o, r))(distances) for _, optimizer in optimizers]

        errors = after(jnp.asarray(_DISTANCES))
        return {name: Curve(error, _DISTANCES) for (name, _), error in zip(optimizers, errors, strict=True)}

    return measure


_NEWTON = "Newton", optimization.newton()
_NEWTON_CG = "Newton-CG", optimization.newton_cg(tolerance=1e-12)


_newton_steps = _first_steps(_NEWTON, _NEWTON_CG)


def _model_at(fraction):
    """Change of the second-order model by a fraction of the Newton step, one number a problem."""

    def measure(problem):
        step = fraction * np.asarray(_newton_steps(problem)["Newton"])
        return Curve(_model(problem, step), np.arange(len(step)))

    return measure


def _best_model(problem):
    """The same for the best of the points around the step, and for gradient steps."""
    step, linear = _minimisers(problem), problem[1]
    around = np.random.default_rng(0).normal(size=(20, *step.shape))
    along = np.linspace(0.01, 1.0, 20)[:, None, None] * linear
    return np.min([_model(problem, point) for point in (*(step + around), *along)], axis=0)


def _model(problem, step):
    hessians, linear = problem
    return 0.5 * np.einsum("ni,nij,nj->n", step, hessians, step) - np.sum(linear * step, axis=1)


_CURVATURES = np.array([0.1, 1.0, 10.0])
_BASE_POINT = np.array([0.6, -1.1, 0.3, 2.0])


def _isotropic(_key, _budget):
    """Hessians at the base point; the functions are cubic, so that they vary elsewhere."""
    return _CURVATURES[:, None, None] * np.eye(_DIMENSION)


def _anisotropic(_key, _budget):
    return _CURVATURES[:, None, None] * np.diag([0.5, 1.0, 1.0, 2.0])


def _cubic(hessian):
    return lambda x: 0.5 * x @ (hessian @ x) + jnp.sum((x - _BASE_POINT) ** 3)


@jax.jit
def _newton_directions(hessians):
    point = jnp.asarray(_BASE_POINT)
    return jax.vmap(lambda hessian: optimization.newton_direction(_cubic(hessian), point).direction)(hessians)


def _by_curvature(directions):
    return {
        f"curvature {curvature}": Curve(direction, np.arange(1, _DIMENSION + 1))
        for curvature, direction in zip(_CURVATURES, np.asarray(directions), strict=True)
    }


CLAIMS = (
    Claim(
        "optimizers.newton",
        says="On positive definite quadratics one step, by elimination or conjugate gradients, lands on the minimiser.",
        setup=_definite_quadratics,
        measure=_newton_steps,
        predict=lambda problem: {"Newton": _minimisers(problem), "Newton-CG": _minimisers(problem)},
        judge=Equal(rtol=1e-8, atol=1e-9),
        control=Variant(
            "damped with 0.1 times the identity",
            measure=_first_steps(
                ("Newton", optimization.newton(damping=0.1)), ("Newton-CG", optimization.newton_cg(damping=0.1))
            ),
        ),
        assumptions=(
            Assumption("the Hessians are positive definite", lambda problem: np.linalg.eigvalsh(problem[0]) > 0),
        ),
        budget=Budget(quick=40, full=400),
    ),
    Claim(
        "optimizers.newton",
        part="affine invariance",
        says="Newton's method takes the same steps in any linear coordinates.",
        measure=_iterates(optimization.newton(), warped=True),
        predict=_iterates(optimization.newton(), warped=False),
        judge=Equal(rtol=1e-9, atol=1e-9),
        control=Variant("gradient descent", measure=_iterates(optimization.gradient_descent(0.5), warped=True)),
        axes=Axes("step", "parameters in the original coordinates"),
    ),
    Claim(
        "optimizers.newton",
        part="local rate",
        says="Near a minimiser of regularised logistic regression one step squares the error.",
        measure=_errors_after_a_step(_NEWTON, _NEWTON_CG),
        predict=lambda _: 2.0,
        judge=Slope(0.1),
        control=Variant(
            "gradient descent", measure=_errors_after_a_step(("gradient descent", optimization.gradient_descent(1.0)))
        ),
        axes=Axes("error before the step", "error after the step", log="xy"),
    ),
    Claim(
        "optimizers.newton@printed",
        says="Whatever the Hessian, the step takes the second-order model at least as low as any other point tried.",
        setup=_quadratics,
        measure=_model_at(1.0),
        predict=_best_model,
        judge=AtMost(),
        control=Variant("a quarter of the step", measure=_model_at(0.25)),
        corrected=Variant("positive definite Hessians only", setup=_definite_quadratics),
        budget=Budget(quick=40, full=400),
        axes=Axes("problem", "change of the model"),
    ),
    Claim(
        "optimizers.newton_isotropy",
        says="Where the Hessian is I / eta, the Newton direction is minus eta times the gradient.",
        setup=_isotropic,
        measure=lambda hessians: _by_curvature(_newton_directions(hessians)),
        predict=lambda hessians: _by_curvature(-(hessians @ _BASE_POINT) / _CURVATURES[:, None]),
        judge=Equal(rtol=1e-10),
        control=Variant("curvatures that differ between coordinates", setup=_anisotropic),
        axes=Axes("coordinate", "direction"),
    ),
)
