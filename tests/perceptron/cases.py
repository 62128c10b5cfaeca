"""Rows of the chapter The perceptron."""

import jax
import numpy as np

from dltheory import perceptron
from tests.cases import Case

_RNG = np.random.default_rng(0)
THETA = np.array([0.3, -1.2, 0.5])
X = _RNG.normal(size=(6, 3))
Y = np.sign(X @ THETA)
EXAMPLE = (THETA, X[0], Y[0])

CASES = (
    Case(
        "dltheory.perceptron.perceptron_predict",
        args=(THETA, X[0]),
        wrong={"x": (THETA, np.ones(2)), "theta": (np.ones((2, 3)), X[0])},
        grad=(),
    ),
    Case(
        "dltheory.perceptron.perceptron_update",
        args=EXAMPLE,
        wrong={"x": (THETA, np.ones(2), Y[0]), "y": (THETA, X[0], Y[:2])},
        grad=(0,),
    ),
    Case(
        "dltheory.perceptron.perceptron_loss",
        args=(-THETA, X[0], Y[0]),
        wrong={"x": (THETA, np.ones(2), Y[0]), "y": (THETA, X[0], Y[:2])},
        grad=(0, 1),
    ),
    Case(
        "dltheory.perceptron.perceptron_path",
        call=lambda x, y, theta: perceptron.perceptron_path(x, y, theta, num_epochs=3),
        args=(X, Y, np.zeros(3)),
        wrong={"y": (X, Y[:4], np.zeros(3)), "theta": (X, Y, np.zeros(2)), "x": (X[0], Y, np.zeros(3))},
        grad=(),
    ),
    Case(
        "dltheory.perceptron.perceptron_fit",
        args=(X, Y),
        wrong={"y": (X, Y[:4]), "x": (X[0], Y)},
        grad=(),
    ),
    Case(
        "dltheory.perceptron.margin",
        args=(THETA, X, Y),
        wrong={"x": (THETA, X[:, :2], Y), "y": (THETA, X, Y[:2])},
        grad=(0, 1),
    ),
    Case(
        "dltheory.perceptron.max_margin",
        call=lambda x, y: perceptron.max_margin(x, y, tolerance=1e-3),
        args=(X, Y),
        wrong={"y": (X, Y[:4]), "x": (X[0], Y)},
        grad=(),
        rtol=1e-2,
    ),
    Case(
        "dltheory.perceptron.make_separable",
        call=lambda key, gamma: perceptron.make_separable(key, 5, 3, gamma),
        args=(jax.random.key(0), np.array(0.2)),
        wrong={"gamma": (jax.random.key(0), np.ones(2))},
        grad=(),
    ),
    Case(
        "dltheory.perceptron.novikov_bound",
        args=(np.array(2.0), np.array(0.3)),
        wrong={"radius": (np.ones(2), np.array(0.3)), "gamma": (np.array(1.0), np.ones(2))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.perceptron.novikov_certificate",
        args=(X, np.array([True, False, True, True, False, True]), THETA / np.linalg.norm(THETA)),
        wrong={"mistake": (X, np.ones(2, bool), THETA), "theta_star": (X, np.ones(6, bool), THETA[:2])},
        grad=(0,),
    ),
)
