"""Claims about scores and the losses that fit them: what they equal, what they cannot see, and what noise cures."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import diffusion
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.diffusion import _line
from experiments.claims.diffusion._line import FINE, MODELS, model, random_models
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]

_GRID = np.linspace(-4.0, 4.0, 81)

# The score itself.


def _log_density(constant):
    return lambda x: diffusion.mixture_log_density(_line.mixture(), x[None]) + constant


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, None))
def _score_at(x, constant):
    return diffusion.score(_log_density(constant), x)


def _scores(_):
    return {name: Curve(_score_at(_GRID, np.log(factor)), _GRID) for name, factor in (("p", 1.0), ("1000 p", 1e3))}


def _slopes_of_the_density():
    peaks = _line.WEIGHTS * stats.norm.pdf(_GRID[:, None], _line.MEANS, _line.STDS)
    return np.sum(-peaks * (_GRID[:, None] - _line.MEANS) / _line.STDS**2, axis=1)


def _mean_score(draw):
    points = _line.draws(generator(draw.key), 0.0, draw.budget)
    return estimate(_score_at(points, 0.0)[:, None], [0.0])


def _mean_score_of_an_exponential(draw):
    points = generator(draw.key).exponential(size=draw.budget)
    scores = jax.jit(jax.vmap(lambda x: diffusion.score(lambda x: -x, x)))(points)
    return estimate(scores[:, None], [0.0])


# Score matching.


def _on_the_line(x):
    """Models and slopes in NumPy, [models, points]."""
    return lambda w: (
        np.einsum("mh,mhp->mp", w[:, 0], np.tanh(w[:, 1, :, None] * x + w[:, 2, :, None])),
        np.einsum("mh,mhp->mp", w[:, 0] * w[:, 1], np.cosh(w[:, 1, :, None] * x + w[:, 2, :, None]) ** -2.0),
    )


def _implicit(draw):
    weights = jnp.asarray(random_models(draw.key))
    points = jnp.asarray(FINE)

    def losses(weights):
        return jax.vmap(lambda x: diffusion.implicit_score_matching_loss(model(weights), x[None]))(points)

    mass = _line.pdf(FINE, 0.0) * (FINE[1] - FINE[0])
    return Curve(np.asarray(jax.jit(jax.vmap(losses))(weights)) @ mass, np.arange(MODELS))


def _divergence_less_constant(draw, factor=1.0):
    mass = _line.pdf(FINE, 0.0) * (FINE[1] - FINE[0])
    truth = _line.score_on(FINE, _line.MEANS, _line.STDS)
    models, slopes = _on_the_line(FINE)(random_models(draw.key))
    return ((models - truth) ** 2 - truth**2 + 2 * (factor - 1) * slopes) @ mass


_LEVELS = np.linspace(0.2, 1.4, 7)


def _exponential_implicit(_):
    """The right-hand side with C = 1 for the exponential law and constant scores."""
    x = np.linspace(0.05, 5.0, 100)  # the integrand does not depend on x
    losses = jax.vmap(lambda c: diffusion.implicit_score_matching_loss(lambda x: c + 0 * x, jnp.asarray(x)))
    return Curve(np.asarray(jax.jit(losses)(_LEVELS)) + 1, _LEVELS)


def _exponential_explicit(_):
    return (-1 - _LEVELS) ** 2


def _affine_fit(draw):
    """The minimiser of the loss over affine scores; the loss is quadratic, so that one Newton step finds it."""

    @jax.jit
    def derivatives(x):
        def loss(flat):
            return diffusion.implicit_score_matching_loss(lambda x: flat[:9].reshape(3, 3) @ x + flat[9:], x)

        return jax.hessian(loss)(jnp.zeros(12)), jax.grad(loss)(jnp.zeros(12))

    return -np.linalg.solve(*derivatives(_correlated(draw.key)))


def _correlated(key):
    rng = generator(key)
    return rng.exponential(size=(30, 3)) @ rng.normal(size=(3, 3))


def _fitted_normal(draw, ddof=0):
    x = _correlated(draw.key)
    precision = np.linalg.inv(np.cov(x.T, ddof=ddof))
    return np.concatenate([-precision.ravel(), precision @ x.mean(0)])


# Slices.

_D = 5
_KINDS = ("rademacher", "gaussian", "sphere")


def _network(key):
    rng = generator(key)
    return rng.normal(size=(_D, 8)), rng.normal(size=(8, _D)), rng.normal(size=(10, _D))


@functools.partial(jax.jit, static_argnums=4)
def _slices(keys, outer, inner, x, kind):
    def loss(key):
        return diffusion.sliced_score_matching_loss(key, lambda x: outer @ jnp.tanh(inner @ x), x, 1, kind)

    return jax.vmap(loss)(keys)


def _sliced(draw, divisor=1):
    outer, inner, x = map(jnp.asarray, _network(draw.key))
    curves = {}
    for number, kind in enumerate(_KINDS):
        keys = jax.random.split(jax.random.fold_in(draw.key, number), draw.budget)
        curves[kind] = estimate(np.asarray(_slices(keys, outer, inner, x, kind))[:, None] / divisor, [float(number)])
    return curves


def _on_the_unit_sphere(draw):
    """The bracket as printed, without the library."""
    outer, inner, x = _network(draw.key)
    v = generator(jax.random.fold_in(draw.key, 1)).normal(size=(draw.budget, *x.shape))
    v /= np.linalg.norm(v, axis=-1, keepdims=True)
    hidden = np.tanh(x @ inner.T)
    along = np.einsum("bnd,nd->bn", v, hidden @ outer.T)
    slope = np.einsum("bnh,nh,bnh->bn", v @ outer, 1 - hidden**2, v @ inner.T)
    return estimate(np.mean(along**2 + 2 * slope, axis=1)[:, None], [0.0])


def _full(draw):
    """||s||^2 + 2 tr of the Jacobian, of the network in closed form."""
    outer, inner, x = _network(draw.key)
    hidden = np.tanh(x @ inner.T)
    traces = (1 - hidden**2) @ np.einsum("dh,hd->h", outer, inner)
    return np.array([np.mean(np.sum((hidden @ outer.T) ** 2, axis=1) + 2 * traces)])


def _matrices():
    """Symmetric matrices whose diagonal grows."""
    rng = np.random.default_rng(1)
    square = rng.normal(size=(6, 6))
    return [square + square.T + np.diag(np.full(6, shift)) for shift in (0.0, 1.0, 2.0, 4.0)]


@functools.partial(jax.jit, static_argnums=2)
def _traces(keys, matrix, kind):
    return jax.vmap(lambda key: diffusion.hutchinson_trace(key, lambda x: matrix @ x, jnp.ones(6), 1, kind)[1])(keys)


def _trace_variances(draw):
    curves = {}
    for kind in ("rademacher", "gaussian"):
        columns = []
        for number, matrix in enumerate(_matrices()):
            keys = jax.random.split(jax.random.fold_in(draw.key, number), draw.budget)
            columns.append((np.asarray(_traces(keys, jnp.asarray(matrix), kind)) - np.trace(matrix)) ** 2)
        curves[kind] = estimate(np.stack(columns, axis=1), [np.trace(matrix) for matrix in _matrices()])
    return curves


def _variance_formulas(_):
    squares = np.array([np.sum(matrix**2) for matrix in _matrices()])
    diagonals = np.array([np.sum(np.diag(matrix) ** 2) for matrix in _matrices()])
    return {"rademacher": 2 * (squares - diagonals), "gaussian": 2 * squares}


CLAIMS = (
    Claim(
        "score.definition",
        says="The gradient of a log density is the slope of the density over its height, whatever its normaliser.",
        measure=_scores,
        predict=lambda _: _slopes_of_the_density() / _line.pdf(_GRID, 0.0),
        judge=Equal(1e-9, atol=1e-9),
        control=Variant("the slope of the density itself", predict=lambda _: _slopes_of_the_density()),
        axes=Axes("x", "score"),
    ),
    Claim(
        "score.definition",
        part="mean",
        says="The score has mean zero under its own law.",
        measure=_mean_score,
        predict=lambda _: np.zeros(1),
        judge=Mean(floor=0.2),
        control=Variant("an exponential law, whose density jumps at 0", measure=_mean_score_of_an_exponential),
        budget=Budget(10_000, 1_000_000),
        axes=Axes("", "mean of the score"),
    ),
    Claim(
        "score.fisher_divergence",
        says="For twenty random models the implicit loss is the Fisher divergence less E |score|^2.",
        measure=_implicit,
        predict=_divergence_less_constant,
        judge=Equal(1e-8, atol=1e-8),
        control=Variant("the trace counted twice", predict=lambda draw: _divergence_less_constant(draw, 2.0)),
        axes=Axes("model", "implicit loss"),
    ),
    Claim(
        "score.fisher_divergence@printed",
        says="The same for every differentiable density: an exponential law and constant scores.",
        measure=_exponential_implicit,
        predict=_exponential_explicit,
        judge=Equal(1e-9),
        control=Variant("half the divergence", predict=lambda _: _exponential_explicit(_) / 2),
        corrected=Variant(
            "with the term 2 p(0) s(0) of the boundary", predict=lambda _: _exponential_explicit(_) - 2 * _LEVELS
        ),
        axes=Axes("score of the model", "loss"),
    ),
    Claim(
        "score.fisher_divergence",
        part="normal",
        says="Of all affine scores the loss chooses that of the normal law with the mean and covariance of the data.",
        measure=_affine_fit,
        predict=_fitted_normal,
        judge=Equal(1e-8, atol=1e-9),
        control=Variant("the covariance divided by n - 1", predict=lambda draw: _fitted_normal(draw, ddof=1)),
        axes=Axes("coefficient", "value"),
    ),
    Claim(
        "score.sliced",
        says="With E v v^T = I the sliced loss has the mean of the full one: signs, normal numbers, a sphere.",
        measure=_sliced,
        predict=_full,
        judge=Mean(resolution=0.2),
        control=Variant("directions of length 1", measure=lambda draw: _sliced(draw, divisor=_D)),
        budget=Budget(4_000, 200_000),
        axes=Axes("law of v", "loss"),
    ),
    Claim(
        "score.sliced@printed",
        says="With directions on the unit sphere the sliced loss has the mean of the full one.",
        measure=_on_the_unit_sphere,
        predict=_full,
        judge=Mean(resolution=0.2),
        control=Variant("twice that", predict=lambda draw: 2 * _full(draw)),
        corrected=Variant("a d-th of it", predict=lambda draw: _full(draw) / _D),
        budget=Budget(4_000, 200_000),
        axes=Axes("", "loss"),
    ),
    Claim(
        "score.sliced",
        part="variance",
        says="One probe estimates a trace with variance 2 sum A_ij^2, for signs over i != j, else over all.",
        measure=_trace_variances,
        predict=_variance_formulas,
        judge=Mean(resolution=0.25),
        control=Variant(
            "signs as good as normal numbers",
            predict=lambda _: dict.fromkeys(("rademacher", "gaussian"), _variance_formulas(_)["gaussian"]),
        ),
        budget=Budget(8_000, 400_000),
        axes=Axes("trace", "variance"),
    ),
)
