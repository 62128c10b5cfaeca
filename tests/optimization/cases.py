"""Rows of the chapter Gradient descent and optimizers."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import optimization
from tests.cases import Case

_RNG = np.random.default_rng(0)
ROOT = _RNG.normal(size=(3, 3))
HESSIAN = ROOT @ ROOT.T + np.eye(3)
LINEAR = _RNG.normal(size=3)
FEATURES = _RNG.normal(size=(6, 3))
LABELS = np.array([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
X = np.array([0.7, -0.4, 1.3])
GRADIENTS = _RNG.normal(size=(3, 2))
RATE = np.array(0.1)


def _objective(x):
    """Smooth and strictly convex, not quadratic."""
    return jnp.sum(jnp.cosh(x)) + 0.5 * jnp.sum(x) ** 2


def _after(factory):
    """(gradients [t, d], settings...) -> steps of the optimizer that the settings make."""

    def steps(gradients, *settings):
        optimizer = factory(*settings)
        state, taken = optimizer.init(gradients[0]), []
        for gradient in gradients:
            update, state = optimizer.update(gradient, state, jnp.ones_like(gradient))
            taken.append(update)
        return jnp.stack(taken)

    return steps


def _runs(factory):
    """(start, settings...) -> where two steps on `_objective` lead."""

    def final(x, *settings):
        return optimization.run_optimizer(factory(*settings), _objective, x, 2).params[-1]

    return final


def _numbers(objective, x):
    """What an objective holds, with its value at x in place of the function."""
    return objective._replace(value=objective.value(x))


def _known(objective, x):
    """The value at x and the constants of an objective without a closed-form minimum."""
    return objective.value(x), objective.smoothness, objective.strong_convexity


def _component(theta, i):
    return 0.5 * (theta @ jnp.asarray(FEATURES, theta.dtype)[i] - 1) ** 2


CASES = (
    Case(
        "dltheory.optimization.quadratic",
        call=lambda hessian, linear: _numbers(optimization.quadratic(hessian, linear), jnp.ones_like(linear)),
        args=(HESSIAN, LINEAR),
        wrong={"hessian": (np.ones((3, 2)), LINEAR), "linear": (HESSIAN, np.ones(2))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.ridge_logistic",
        call=lambda features, labels, ridge: _known(optimization.ridge_logistic(features, labels, ridge), features[0]),
        args=(FEATURES, LABELS, np.array(0.3)),
        wrong={
            "labels": (FEATURES, LABELS[:2], np.array(0.3)),
            "features": (LABELS, LABELS, np.array(0.3)),
            "ridge": (FEATURES, LABELS, np.ones(2)),
        },
        grad=(0, 2),
        vmap=False,  # labels would no longer be signs
    ),
    Case(
        "dltheory.optimization.huber",
        call=lambda x, delta: optimization.huber(3, delta).value(x),
        args=(X, np.array(0.9)),
        wrong={"delta": (X, np.ones(2))},
        grad=(0, 1),
    ),
    Case("dltheory.optimization.sine_quadratic", call=lambda x: optimization.sine_quadratic(3).value(x), args=(X,)),
    Case(
        "dltheory.optimization.log_sum_exp",
        call=lambda features, offsets: _known(optimization.log_sum_exp(features, offsets), features[0]),
        args=(FEATURES, LABELS),
        wrong={"features": (LABELS, LABELS), "offsets": (FEATURES, LABELS[:2])},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.run_optimizer",
        call=lambda x, rate: optimization.run_optimizer(
            optimization.nesterov(rate, 0.5), lambda p: _objective(p["x"]), {"x": x}, 3
        ),
        args=(X, RATE),
        wrong={"learning_rate": (X, X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.run_online",
        call=lambda x, data: optimization.run_online(
            optimization.adam(0.1), lambda p, d: jnp.sum((p - d[0]) ** 2) + d[1], x, data, jnp.tanh
        ),
        args=(X, (FEATURES, LABELS)),
        wrong={"data": (X, (FEATURES, LABELS[:2]))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.hessian_vector_product",
        call=lambda x, v: optimization.hessian_vector_product(_objective, x, v),
        args=(X, LINEAR),
        wrong={"vector": (X, np.ones(2))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.newton_direction",
        call=lambda x, damping: optimization.newton_direction(_objective, x, damping),
        args=(X, RATE),
        wrong={"damping": (X, X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.newton",
        call=_runs(optimization.newton),
        args=(X, RATE),
        wrong={"damping": (X, X)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.newton_cg_direction",
        call=lambda x, damping: optimization.newton_cg_direction(_objective, x, damping).direction,
        args=(X, RATE),
        wrong={"damping": (X, X)},
        grad=(),
    ),
    Case(
        "dltheory.optimization.newton_cg",
        call=_runs(optimization.newton_cg),
        args=(X, RATE),
        wrong={"damping": (X, X)},
        grad=(),
    ),
    *(
        Case(
            "dltheory.optimization.steepest_descent_direction",
            call=lambda gradient, norm=norm: optimization.steepest_descent_direction(gradient, norm),
            args=(X,),
            wrong={"gradient": (np.ones((2, 2)),)},
            label=norm,
        )
        for norm in ("l1", "l2", "linf")
    ),
    Case(
        "dltheory.optimization.steepest_descent_direction",
        args=(X, HESSIAN),
        wrong={"gradient": (np.ones((2, 2)), HESSIAN), "norm": (X, np.ones((2, 2)))},
        grad=(0, 1),
        label="matrix",
    ),
    Case(
        "dltheory.optimization.gradient_descent",
        call=_after(optimization.gradient_descent),
        args=(GRADIENTS, RATE),
        wrong={"learning_rate": (GRADIENTS, GRADIENTS)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.gradient_flow",
        call=lambda x, times: optimization.gradient_flow(_objective, x, times, max_steps=64).params,
        args=(X, np.array([0.0, 0.1, 0.3])),
        wrong={"times": (X, np.array(1.0))},
        grad=(),
    ),
    Case(
        "dltheory.optimization.heavy_ball",
        call=_after(optimization.heavy_ball),
        args=(GRADIENTS, RATE, np.array(0.6)),
        wrong={"learning_rate": (GRADIENTS, X, RATE), "momentum": (GRADIENTS, RATE, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.optimization.nesterov",
        call=_after(optimization.nesterov),
        args=(GRADIENTS, RATE, np.array(0.6)),
        wrong={"learning_rate": (GRADIENTS, X, RATE), "momentum": (GRADIENTS, RATE, X)},
        grad=(0, 1, 2),
    ),
    *(
        Case(
            f"dltheory.optimization.{name}",
            args=(np.array(0.5), np.array(4.0)),
            wrong={"strong_convexity": (X, np.array(4.0)), "smoothness": (np.array(0.5), X)},
            grad=(0, 1),
        )
        for name in ("heavy_ball_optimal", "nesterov_optimal")
    ),
    *(
        Case(
            f"dltheory.optimization.{name}",
            args=(np.array(2.0), np.array(0.3), np.array(momentum)),
            wrong={
                "eigenvalue": (X, RATE, RATE),
                "learning_rate": (RATE, X, RATE),
                "momentum": (RATE, RATE, X),
            },
            grad=(0, 1, 2),
            label=label,
        )
        for name in ("heavy_ball_quadratic_rate", "nesterov_quadratic_rate")
        for label, momentum in (("complex", 0.7), ("real", 0.02))
    ),
    Case(
        "dltheory.optimization.terminal_velocity",
        args=(RATE, np.array(0.9), X),
        wrong={"learning_rate": (X, RATE, X), "momentum": (RATE, X, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.optimization.sign_sgd",
        call=_after(optimization.sign_sgd),
        args=(GRADIENTS, RATE),
        wrong={"learning_rate": (GRADIENTS, GRADIENTS)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.optimization.error_feedback_sign_sgd",
        call=_after(optimization.error_feedback_sign_sgd),
        args=(GRADIENTS, RATE),
        wrong={"learning_rate": (GRADIENTS, GRADIENTS)},
        grad=(0, 1),
    ),
    *(
        Case(
            f"dltheory.optimization.{name}",
            call=_after(getattr(optimization, name)),
            args=(GRADIENTS, RATE),
            wrong={"learning_rate": (GRADIENTS, GRADIENTS)},
            grad=(0, 1),
        )
        for name in ("adagrad", "adam", "adamw", "amsgrad")
    ),
    Case(
        "dltheory.optimization.adam_max_step",
        args=(np.array(5.0), np.array(0.9), np.array(0.99)),
        wrong={"num_steps": (X, RATE, RATE), "b1": (RATE, X, RATE), "b2": (RATE, RATE, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.optimization.sample_batch",
        call=lambda key: optimization.sample_batch(key, 100, 5, replace=False),
        args=(jax.random.key(0),),
        grad=(),
    ),
    Case(
        "dltheory.optimization.minibatch_gradient",
        call=lambda theta, x, y: optimization.minibatch_gradient(
            lambda p, example: (p @ example[0] - example[1]) ** 2, theta, (x, y)
        ),
        args=(X, FEATURES, LABELS),
        wrong={"batch": (X, FEATURES, LABELS[:2])},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.optimization.svrg_gradient",
        call=lambda *points: optimization.svrg_gradient(_component, *points, index=jnp.array(2)),
        args=(X, LINEAR, FEATURES[0]),
        wrong={"snapshot": (X, np.ones(2), FEATURES[0]), "snapshot_gradient": (X, LINEAR, np.ones(2))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.optimization.svrg",
        call=lambda key, theta, rate: optimization.svrg(key, _component, theta, 6, rate, 5, 2),
        args=(jax.random.key(0), X, RATE),
        wrong={"learning_rate": (jax.random.key(0), X, X)},
        grad=(1, 2),
    ),
)
