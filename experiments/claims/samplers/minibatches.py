"""Claims about Langevin and Hamiltonian chains whose gradients are those of mini-batches."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import many_keys
from experiments.curves import estimate
from experiments.judges import Mean

__all__ = ["CLAIMS"]

# A slope with a normal prior of variance one: y_i = theta z_i + noise of variance s^2, whose residuals are given.

_EXAMPLES, _VARIANCE = 12, 4.0
_INPUTS = np.linspace(0.4, 1.6, _EXAMPLES)
_RESIDUALS = 2.0 * np.cos(2.5 * np.arange(_EXAMPLES))
_OUTPUTS = 1.5 * _INPUTS + _RESIDUALS
_PRECISION = 1 + np.sum(_INPUTS**2) / _VARIANCE
_MEAN = np.sum(_INPUTS * _OUTPUTS) / _VARIANCE / _PRECISION
_BATCHES = {"1 of 12 examples": 1, "4 of 12 examples": 4, "all examples": _EXAMPLES}


def _log_prior(theta):
    return -(theta**2) / 2


def _log_likelihood(theta, example):
    z, y = example
    return -((y - theta * z) ** 2) / (2 * _VARIANCE)


def _sgld(batch):
    """Without replacement."""
    data = jnp.asarray(_INPUTS, jnp.float32), jnp.asarray(_OUTPUTS, jnp.float32)
    estimator = samplers.minibatch_score(_log_prior, _log_likelihood, data, batch, replace=False)
    return lambda step_size: samplers.sgld(estimator, step_size)


def _noise(batch):
    """Variance of the estimate at the posterior's mean, and the factor of (theta - mean)^2 in it elsewhere."""
    scale = _EXAMPLES**2 / batch * (_EXAMPLES - batch) / (_EXAMPLES - 1) / _VARIANCE**2
    return scale * np.var(_INPUTS * (_OUTPUTS - _MEAN * _INPUTS)), scale * np.var(_INPUTS**2)


@functools.partial(jax.jit, static_argnums=0)
def _last(make, keys, positions, momenta, *settings):
    """Last positions and momenta of independent chains; `keys` [steps, n]."""

    def chain(keys, position, momentum):
        algorithm = make(*settings)
        state = algorithm.init(position)
        if hasattr(state, "momentum"):
            state = state._replace(momentum=momentum)
        state = jax.lax.scan(lambda state, key: (algorithm.step(key, state)[0], None), state, keys)[0]
        return state.position, getattr(state, "momentum", momentum)

    return jax.vmap(chain, in_axes=(1, 0, 0))(keys, positions, momenta)


# Langevin dynamics: the second moment by step size.

_STEPS = np.array([0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]) / _PRECISION
_NUM_STEPS = 60


def _squares(draw):
    """Squared distances to the posterior's mean, six or more relaxation times from the target's law."""
    rng, curves = generator(draw.key), {}
    for name, batch in _BATCHES.items():
        make, rows = _sgld(batch), []
        for number, step_size in enumerate(_STEPS):
            keys = many_keys(jax.random.fold_in(draw.key, 100 * batch + number), (_NUM_STEPS, draw.budget))
            start = _MEAN + rng.normal(size=draw.budget) / np.sqrt(_PRECISION)
            rows.append((np.asarray(_last(make, keys, start, 0 * start, step_size)[0], float) - _MEAN) ** 2)
        curves[name] = estimate(np.stack(rows, axis=1), _STEPS)
    return curves


def _second_moments(noise):
    """(1 + eta V / 2) / (p - eta (p^2 + W) / 2) for precision p and gradients of variance V + W (theta - mean)^2."""

    def predict(_):
        curves = {}
        for name, batch in _BATCHES.items():
            at_mean, slope = noise(batch)
            curves[name] = (1 + _STEPS * at_mean / 2) / (_PRECISION - _STEPS * (_PRECISION**2 + slope) / 2)
        return curves

    return predict


# Hamiltonian dynamics: variances by how much of the friction the gradient's noise takes up.

_SHARES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_DT = 0.1
_TIME = 20.0
_PARTS = np.linspace(-1.0, 1.0, _EXAMPLES)
_FRICTION, _MASS = 1.5, 2.0
_BATCH = 2


def _scale_for(share):
    """Of examples x_i whose mean is estimated, such that dt V / 2 is the share of the friction."""
    return np.sqrt(2 * share * _FRICTION / _DT * _BATCH / np.var(_PARTS)) / _EXAMPLES


def _sghmc(scale, known):
    """For a posterior N(0, 1): n examples of variance n / 0.75, a prior of precision 0.25."""
    log_likelihood = lambda theta, x: 0.75 / _EXAMPLES * -((x - theta) ** 2) / 2  # noqa: E731
    data = scale * _EXAMPLES / 0.75 * jnp.asarray(_PARTS, jnp.float32)
    estimator = samplers.minibatch_score(lambda theta: -0.25 * theta**2 / 2, log_likelihood, data, _BATCH)
    return samplers.sghmc(
        estimator, _DT, _FRICTION, inverse_mass_matrix=1 / _MASS, noise_estimate=known, integrator="euler"
    )


def _variances(draw):
    rng, curves = generator(draw.key), {}
    for name, factor in (("noise known", 1.0), ("noise ignored", 0.0)):
        squares = []
        for number, share in enumerate(_SHARES):
            keys = many_keys(jax.random.fold_in(draw.key, number), (round(_TIME / _DT), draw.budget))
            position, momentum = rng.normal(size=(2, draw.budget))
            settings = _scale_for(share), factor * share * _FRICTION
            squares.append(np.asarray(_last(_sghmc, keys, position, _MASS**0.5 * momentum, *settings)[0], float) ** 2)
        curves[name] = estimate(np.stack(squares, axis=1), _SHARES)
    return curves


def _recursion(compensated):
    """Variances of the position after the same steps of the linear recursion."""

    def after(known, share):
        kept = 1 - _DT * _FRICTION / _MASS
        step = np.array([[1 - _DT**2 / _MASS, _DT / _MASS * kept], [-_DT, kept]])
        push = np.array([_DT / _MASS, 1.0])
        added = 2 * (_FRICTION - known) * _DT + 2 * share * _FRICTION * _DT
        covariance = np.diag([1.0, _MASS])
        for _ in range(round(_TIME / _DT)):
            covariance = step @ covariance @ step.T + added * np.outer(push, push)
        return covariance[0, 0]

    def predict(_):
        return {
            "noise known": np.array([after(share * _FRICTION, share) for share in _SHARES]),
            "noise ignored": np.array([after(compensated * share * _FRICTION, share) for share in _SHARES]),
        }

    return predict


CLAIMS = (
    Claim(
        "samplers.ula",
        part="mini-batches",
        says="With gradients of mini-batches (SGLD), of variance V at the mean and V + W d^2 at a distance d from it, "
        "the variance is (1 + eta V / 2) / (p - eta (p^2 + W) / 2) for a posterior of precision p.",
        measure=_squares,
        predict=_second_moments(_noise),
        judge=Mean(resolution=0.1),
        control=Variant("without the noise of the gradient", predict=_second_moments(lambda _: (0.0, 0.0))),
        budget=Budget(8_000, 400_000),
        axes=Axes("step size", "variance"),
    ),
    Claim(
        "samplers.sghmc",
        part="mini-batches",
        says="Mini-batches heat the chain by the share B'/B that their noise B' has of the friction B, unless only "
        "N(0, 2 (B - B') dt) is added to it.",
        measure=_variances,
        predict=_recursion(0.0),
        judge=Mean(resolution=0.1),
        control=Variant("as if the noise did no harm where it is ignored", predict=_recursion(1.0)),
        budget=Budget(8_000, 200_000),
        axes=Axes("share of the noise, B'/B", "variance of the position"),
    ),
)
