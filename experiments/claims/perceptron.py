"""Claims of the chapter The perceptron."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import perceptron
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal

__all__ = ["CLAIMS"]

_GAMMA = 0.15
_RUNS = Budget(quick=120, full=3000)
_EPOCHS = 50  # more than gamma^-2 passes are never needed; the assumptions check that these were enough


class _Runs(NamedTuple):
    """Many training runs: data, weights after each visit, whether it was a mistake, and the update."""

    x: np.ndarray
    y: np.ndarray
    theta_star: np.ndarray
    theta: np.ndarray
    mistake: np.ndarray
    step: np.ndarray

    @property
    def num_mistakes(self):
        """Mistakes so far, after each visit of each run."""
        return np.cumsum(self.mistake, axis=1)

    @property
    def at_mistakes(self):
        """The visits, of all runs, that made an update."""
        return np.nonzero(self.mistake)


@jax.jit
def _path(x, y):
    return jax.vmap(lambda x, y: perceptron.perceptron_path(x, y, jnp.zeros(x.shape[-1]), _EPOCHS))(x, y)


@jax.jit
@jax.vmap
def _make(key, gamma):
    return perceptron.make_separable(key, 40, 8, gamma)


def _separable(key, gammas):
    """Data sets of forty examples in R^8, one for each margin: the one shape that the chapter compiles."""
    return _make(jax.random.split(key, len(gammas)), jnp.asarray(gammas))


def _runs(key, budget):
    """Runs on separable data."""
    data = _separable(key, np.full(budget, _GAMMA))
    return _Runs(*map(np.asarray, (*data, *_path(data.x, data.y))))


def _noisy_runs(key, budget):
    """Runs on the same inputs with random labels, which no hyperplane explains."""
    data = _separable(key, np.full(budget, _GAMMA))
    y = jnp.asarray(generator(key).choice([-1.0, 1.0], data.y.shape))
    return _Runs(*map(np.asarray, (data.x, y, data.theta_star, *_path(data.x, y))))


def _variant_rule(runs, is_mistake):
    """Weights after each visit when examples are added by another criterion, from zero, in plain NumPy."""
    theta = np.zeros((len(runs.x), runs.x.shape[-1]))
    visited = []
    for _ in range(_EPOCHS):
        for i in range(runs.x.shape[1]):
            x, y = runs.x[:, i], runs.y[:, i]
            mistake = is_mistake(y * np.sum(x * theta, axis=1))
            theta = theta + (mistake * y)[:, None] * x
            visited.append((theta, mistake))
    thetas, mistakes = map(np.array, zip(*visited, strict=True))
    return np.swapaxes(thetas, 0, 1), np.swapaxes(mistakes, 0, 1)


def _training_errors(runs, theta):
    """Fraction of examples on which the sign of the prediction is not the label, for each run."""
    return Curve(np.mean(np.sign(np.einsum("rnd,rd->rn", runs.x, theta)) != runs.y, axis=1), np.arange(len(runs.x)))


def _errors_of_corrected_rule(runs):
    return _training_errors(runs, runs.theta[:, -1])


def _errors_of_printed_rule(runs):
    theta, _ = _variant_rule(runs, lambda margins: margins < 0)
    return _training_errors(runs, theta[:, -1])


_UPDATE_RULE = {
    "setup": _runs,
    "predict": lambda _: 0.0,
    "judge": Equal(),
    "budget": _RUNS,
    "axes": Axes("data set", "training error"),
}


# Inner products of updates with the weights before them.


def _before(runs):
    return np.concatenate([np.zeros_like(runs.theta[:, :1]), runs.theta[:, :-1]], axis=1)


def _opposition(runs):
    inner = np.sum(runs.step * _before(runs), axis=-1)[runs.at_mistakes]
    return Curve(inner, runs.num_mistakes[runs.at_mistakes])


def _opposition_of_blind_rule(runs):
    """The same when every example is added, mistaken or not."""
    theta, _ = _variant_rule(runs, lambda margins: np.ones_like(margins, bool))
    before = np.concatenate([np.zeros_like(theta[:, :1]), theta[:, :-1]], axis=1)
    visits = np.broadcast_to(np.arange(theta.shape[1]), theta.shape[:2])
    return Curve(np.sum((theta - before) * before, axis=-1), visits)


def _ties(runs):
    """Whether each update left the inner product zero, per run and mistake."""
    return Curve(_opposition(runs).y == 0, _opposition(runs).x)


def _first_updates(runs):
    """Ties that theory knows of: the first update of each run starts from zero; later ties have probability zero."""
    return runs.num_mistakes[runs.at_mistakes] == 1


# Subgradients.


class _Points(NamedTuple):
    """Random weights, inputs and labels; in every fourth case the weights are zero."""

    theta: jax.Array
    x: jax.Array
    y: jax.Array


def _points(key, budget):
    rng = generator(key)
    theta = rng.normal(size=(budget, 5)) * (np.arange(budget) % 4 > 0)[:, None]
    return _Points(*map(jnp.asarray, (theta, rng.normal(size=(budget, 5)), rng.choice([-1.0, 1.0], budget))))


def _descended(loss):
    return lambda points: np.asarray(points.theta - jax.jit(jax.vmap(jax.grad(loss)))(*points))


def _updated(points):
    theta, x, y = map(np.asarray, points)
    return theta + np.where(y * np.sum(theta * x, axis=1) <= 0, y, 0.0)[:, None] * x


# Growth of the norm.


def _squared_norms(runs):
    return Curve(np.sum(runs.theta**2, axis=-1)[runs.at_mistakes], runs.num_mistakes[runs.at_mistakes])


def _visited(runs):
    return np.tile(np.sum(runs.x**2, axis=-1), (1, _EPOCHS))


def _sums_of_squares(runs):
    return np.cumsum(np.where(runs.mistake, _visited(runs), 0.0), axis=1)[runs.at_mistakes]


def _both_kinds(quantity):
    """A quantity on separable data, and on random labels."""
    return lambda problem: {name: quantity(runs) for name, runs in problem.items()}


def _separable_and_noisy(key, budget):
    return {"separable": _runs(key, budget), "random labels": _noisy_runs(key, budget)}


def _blind_norms(problem):
    """The same when every example is added, mistaken or not."""

    def norms(runs):
        theta, mistake = _variant_rule(runs, lambda margins: np.ones_like(margins, bool))
        return _squared_norms(runs._replace(theta=theta, mistake=mistake))

    return _both_kinds(norms)(problem)


def _blind_sums(problem):
    return _both_kinds(lambda runs: _sums_of_squares(runs._replace(mistake=np.ones_like(runs.mistake))))(problem)


_DIMENSIONS = (5, 8, 13)


def _orthonormal_runs(scale=1.0):
    """Norms of the weights after each mistake on unit vectors labelled +1, in several dimensions."""

    def norms(_):
        curves = {}
        for d in _DIMENSIONS:
            theta, mistake = np.zeros(d), []
            for x in scale * np.eye(d):
                theta, _ = perceptron.perceptron_update(jnp.asarray(theta), jnp.asarray(x), jnp.array(1.0))
                mistake.append(float(theta @ theta))
            curves[f"d={d}"] = Curve(mistake, np.arange(1, d + 1))
        return curves

    return norms


# Margins.

_GAMMAS = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.7])


def _generated(key, budget):
    return _separable(key, np.resize(_GAMMAS, budget))


def _smallest_margins(data):
    margins = np.min(np.asarray(data.y) * np.einsum("rnd,rd->rn", data.x, data.theta_star), axis=1)
    return Curve(margins, np.resize(_GAMMAS, margins.size))


def _one_label_flipped(key, budget):
    data = _generated(key, budget)
    return data._replace(y=data.y.at[:, 0].multiply(-1))


def _four_corners(labels):
    """Set-up of data sets with the corners of a square, turned and stretched, ten times each, under `labels`."""

    def setup(key, budget):
        rng = generator(key)
        angle = rng.uniform(0, 2 * np.pi, budget)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
        x = rng.uniform(0.5, 2.0, (budget, 4, 1)) * np.einsum("nd,edr->rne", corners, turn)
        x = np.pad(np.tile(x, (1, 10, 1)), ((0, 0), (0, 0), (0, 6)))
        return _train(x, np.broadcast_to(np.tile(labels, 10), x.shape[:2]))

    return setup


# Novikoff's bound.


class _Trainings(NamedTuple):
    """Data sets of different margins, their largest margins, and how many mistakes the training made."""

    gamma: np.ndarray
    gamma_limit: np.ndarray  # no separator has a larger margin
    num_mistakes: np.ndarray
    converged: np.ndarray


def _orthonormal(num_features):
    """Forty unit vectors along the first axes of R^8, in turn; labelled +1, each is a mistake when it is new."""
    return np.eye(8)[np.arange(40) % num_features]


def _orthonormal_sets(budget):
    return np.stack([_orthonormal(1 + i % 8) for i in range(budget)])


def _trainings(key, budget):
    """Data sets of many margins: generic, with every example at the margin, and orthonormal ones."""
    gammas = np.geomspace(0.02, 0.5, budget)
    data = _separable(key, gammas)
    x, y = np.array(data.x), np.array(data.y)
    for i, gamma in enumerate(gammas):
        if i % 3 == 0:
            along = np.outer(y[i], data.theta_star[i])
            across = x[i] - np.outer(x[i] @ np.asarray(data.theta_star[i]), data.theta_star[i])
            x[i] = gamma * along + np.sqrt(1 - gamma**2) * across / np.linalg.norm(across, axis=1, keepdims=True)
        elif i % 10 == 1:
            x[i], y[i] = _orthonormal(2 + i // 10 % 7), 1.0
    return _train(x, y)


@jax.jit
@jax.vmap
def _fit(x, y):
    fit = perceptron.perceptron_fit(x, y, max_epochs=3000)
    best = perceptron.max_margin(x, y)
    return best.margin, best.upper_bound, fit.num_mistakes, fit.converged


def _train(x, y):
    return _Trainings(*map(np.asarray, _fit(jnp.asarray(x), jnp.asarray(y))))


def _bounds(problem):
    return np.asarray(jax.vmap(perceptron.novikov_bound, in_axes=(None, 0))(jnp.array(1.0), jnp.asarray(problem.gamma)))


# The proof's chain of inequalities.


def _certificate(runs, theta_star):
    chain = jax.vmap(perceptron.novikov_certificate)(*map(jnp.asarray, (runs.theta, runs.mistake, theta_star)))
    inner, norm, count = (np.asarray(term)[runs.at_mistakes] for term in chain)
    return {"<theta*, theta>": Curve(inner, count), "|theta|": Curve(norm, count)}


def _chain(runs):
    return _certificate(runs, runs.theta_star)


def _count(runs):
    return runs.num_mistakes[runs.at_mistakes]


def _norms(runs):
    return _chain(runs)["|theta|"]


_SEPARATED = Assumption("every run ends without mistakes", lambda runs: ~runs.mistake[:, -runs.x.shape[1] :].any())
_MISTAKES = "mistakes so far"

CLAIMS = (
    Claim(
        "perceptron.update_rule",
        says="Trained by the corrected rule, the perceptron makes no error on separable data.",
        measure=_errors_of_corrected_rule,
        control=Variant("labels drawn at random (not separable)", setup=_noisy_runs),
        **_UPDATE_RULE,
    ),
    Claim(
        "perceptron.update_rule@printed",
        says="Trained by the printed rule, which lets ties pass, it makes no error either.",
        measure=_errors_of_printed_rule,
        corrected=Variant("ties count as mistakes", measure=_errors_of_corrected_rule),
        control=Variant(
            "ties count, but labels drawn at random (not separable)",
            setup=_noisy_runs,
            measure=_errors_of_corrected_rule,
        ),
        **_UPDATE_RULE,
    ),
    Claim(
        "perceptron.zigzag",
        says="The inner product of every update with the weights before it is at most zero.",
        setup=_runs,
        measure=_opposition,
        predict=lambda _: 0.0,
        judge=AtMost(),
        control=Variant("every example is added, mistaken or not", measure=_opposition_of_blind_rule),
        budget=_RUNS,
        axes=Axes(_MISTAKES, "<update, weights>"),
    ),
    Claim(
        "perceptron.zigzag",
        part="ties",
        says="It is zero exactly at ties: at the first update of a run from zero, and at no other.",
        setup=_runs,
        measure=_ties,
        predict=_first_updates,
        judge=Equal(),
        control=Variant("never zero, as the strict inequality has it", predict=lambda _: 0.0),
        budget=_RUNS,
        axes=Axes(_MISTAKES, "inner product is zero"),
    ),
    Claim(
        "perceptron.loss_sgd",
        says="Weights minus the gradient of the loss are the weights after the update, ties included.",
        setup=_points,
        measure=_descended(perceptron.perceptron_loss),
        predict=_updated,
        judge=Equal(),
        control=Variant(
            "hinge loss max(0, 1 - y x.theta)",
            measure=_descended(lambda theta, x, y: jax.nn.relu(1 - y * (x @ theta))),
        ),
        budget=Budget(quick=400, full=100_000),
        axes=Axes("case", "weights after the step"),
    ),
    Claim(
        "perceptron.norm_growth",
        says="The squared norm of the weights is at most the sum of squared norms of the mistaken inputs.",
        setup=_separable_and_noisy,
        measure=_both_kinds(_squared_norms),
        predict=_both_kinds(_sums_of_squares),
        judge=AtMost(),
        control=Variant("every example is added, mistaken or not", measure=_blind_norms, predict=_blind_sums),
        budget=_RUNS,
        axes=Axes(_MISTAKES, "squared norm"),
    ),
    Claim(
        "perceptron.norm_growth",
        part="attained",
        says="On orthonormal inputs it is the number of mistakes exactly.",
        measure=_orthonormal_runs(),
        predict=lambda _: {f"d={d}": np.arange(1, d + 1) for d in _DIMENSIONS},
        judge=Equal(),
        control=Variant("orthogonal inputs of norm 1/2", measure=_orthonormal_runs(0.5)),
        axes=Axes(_MISTAKES, "squared norm"),
    ),
    Claim(
        "perceptron.linear_separability",
        says="Generated examples keep the margin asked for.",
        setup=_generated,
        measure=_smallest_margins,
        predict=lambda data: np.resize(_GAMMAS, len(data.x)),
        judge=AtLeast(),
        control=Variant("one label flipped", setup=_one_label_flipped),
        budget=_RUNS,
        axes=Axes("margin asked for", "smallest margin"),
    ),
    Claim(
        "perceptron.linear_separability",
        part="exclusive or",
        says="No hyperplane through the origin separates exclusive or: its largest margin is not positive.",
        setup=_four_corners([1.0, 1.0, -1.0, -1.0]),
        measure=lambda problem: Curve(problem.gamma_limit, np.arange(problem.gamma.size)),
        predict=lambda _: 0.0,
        judge=AtMost(atol=1e-5),
        control=Variant("labels by half-planes", setup=_four_corners([1.0, -1.0, 1.0, -1.0])),
        budget=_RUNS,
        axes=Axes("data set", "largest margin"),
    ),
    Claim(
        "perceptron.novikov",
        says="Mistakes until convergence are at most the inverse square of the largest margin.",
        setup=_trainings,
        measure=lambda problem: Curve(problem.num_mistakes, problem.gamma),
        predict=_bounds,
        judge=AtMost(),
        control=Variant("bound 1 / gamma", predict=lambda problem: np.sqrt(_bounds(problem))),
        assumptions=(
            Assumption("the data are separable", lambda problem: problem.gamma > 0),
            Assumption("every run converges", lambda problem: problem.converged),
        ),
        budget=_RUNS,
        axes=Axes("largest margin", "mistakes", log="xy"),
    ),
    Claim(
        "perceptron.novikov",
        part="attained",
        says="On d orthonormal inputs labelled +1 there are exactly d mistakes, the inverse square of the margin.",
        setup=lambda _, budget: _train(_orthonormal_sets(budget), np.ones((budget, 40))),
        measure=lambda problem: Curve(problem.num_mistakes, np.resize(np.arange(1, 9), problem.gamma.size)),
        predict=_bounds,
        judge=Equal(rtol=1e-5),
        control=Variant("one mistake fewer", predict=lambda problem: _bounds(problem) - 1),
        budget=_RUNS,
        axes=Axes("dimension d", "mistakes"),
    ),
    Claim(
        "perceptron.novikov_proof",
        says="The inner product with the unit separator is at most the norm of the weights, and that at most sqrt(s).",
        setup=_runs,
        measure=_chain,
        predict=lambda runs: {"<theta*, theta>": _norms(runs).y, "|theta|": np.sqrt(_count(runs))},
        judge=AtMost(),
        control=Variant("separator of norm 2", measure=lambda runs: _certificate(runs, 2 * runs.theta_star)),
        assumptions=(_SEPARATED,),
        budget=_RUNS,
        axes=Axes(_MISTAKES + ", s", "upper links of the chain"),
    ),
    Claim(
        "perceptron.novikov_proof",
        part="lower links",
        says="They are at least s gamma.",
        setup=_runs,
        measure=_chain,
        predict=lambda runs: dict.fromkeys(("<theta*, theta>", "|theta|"), _GAMMA * _count(runs)),
        judge=AtLeast(),
        control=Variant("labels drawn at random (no margin)", setup=_noisy_runs),
        budget=_RUNS,
        axes=Axes(_MISTAKES + ", s", "lower links of the chain"),
    ),
    Claim(
        "perceptron.novikov_proof@printed",
        says="The norm of the weights is at most 1.",
        setup=_runs,
        measure=_norms,
        predict=lambda _: 1.0,
        judge=AtMost(),
        corrected=Variant(
            "norm over sqrt(s)", measure=lambda runs: _norms(runs)._replace(y=_norms(runs).y / np.sqrt(_count(runs)))
        ),
        control=Variant("at most gamma sqrt(s)", predict=lambda runs: _GAMMA * np.sqrt(_count(runs))),
        assumptions=(_SEPARATED,),
        budget=_RUNS,
        axes=Axes(_MISTAKES, "norm of the weights"),
    ),
)
