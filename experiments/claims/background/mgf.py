"""Claims about moment generating functions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import background
from experiments.claim import Axes, Claim, Variant, generator
from experiments.claims.background._problems import hermite_grid, legendre_grid, random_covariance
from experiments.curves import Curve
from experiments.judges import AtLeast, Equal

__all__ = ["CLAIMS"]

_ARGUMENTS = np.linspace(-1.5, 1.5, 31)
_RATE, _COUNT, _HEADS, _MEAN = 2.0, 12, 0.3, 1.5
_LOG_MGFS = {
    "exponential": (background.exponential_log_mgf, (_RATE,)),
    "Bernoulli": (background.bernoulli_log_mgf, (_HEADS,)),
    "binomial": (background.binomial_log_mgf, (_COUNT, _HEADS)),
    "Poisson": (background.poisson_log_mgf, (_MEAN,)),
}


@jax.jit
def _closed_forms(arguments):
    def at(log_mgf, parameters):
        return jax.vmap(lambda t: log_mgf(*parameters, t))(arguments)

    return {name: at(log_mgf, parameters) for name, (log_mgf, parameters) in _LOG_MGFS.items()}


def _integrals(_):
    """Logarithms of E exp(tX) as sums over outcomes, for the exponential law as a quadrature."""
    nodes, weights = legendre_grid(0, 100, 50)
    laws = {
        "exponential": (nodes, weights * stats.expon.pdf(nodes, scale=1 / _RATE)),
        "Bernoulli": (np.arange(2), stats.bernoulli.pmf(np.arange(2), _HEADS)),
        "binomial": (np.arange(_COUNT + 1), stats.binom.pmf(np.arange(_COUNT + 1), _COUNT, _HEADS)),
        "Poisson": (np.arange(80), stats.poisson.pmf(np.arange(80), _MEAN)),
    }
    return {name: Curve(_log_mean_exp(x, w, _ARGUMENTS), _ARGUMENTS) for name, (x, w) in laws.items()}


def _log_mean_exp(values, weights, arguments):
    return np.log(np.exp(np.outer(arguments, values)) @ weights)


# Convexity.

_RADII = np.linspace(0, 3, 16)


@jax.jit
def _curvatures(samples, directions):
    """Along rays the least eigenvalue of the Hessian of an empirical log M; the second derivative of a coin's."""

    def least(t):
        return jnp.linalg.eigvalsh(jax.hessian(background.empirical_log_mgf, argnums=1)(samples, t))[0]

    along = jax.vmap(jax.vmap(lambda radius, u: least(radius * u), in_axes=(0, None)), in_axes=(None, 0))
    rays = along(jnp.asarray(_RADII), directions)
    curvature = jax.vmap(jax.grad(jax.grad(background.bernoulli_log_mgf, argnums=1), argnums=1), in_axes=(None, 0))
    coin = curvature(jnp.asarray(_HEADS), jnp.asarray(_RADII))
    return {"twenty points": rays[0], "twenty points, another direction": rays[1], "Bernoulli": coin}


def _measured_curvatures(draw):
    rng = generator(draw.key)
    directions = rng.normal(size=(2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = _curvatures(rng.normal(size=(20, 3)), directions)
    return {name: Curve(values, _RADII) for name, values in found.items()}


# Sums.

_PAIRS = {
    "binomials with one p": (stats.binom, background.binomial_log_mgf, (5, 0.3), (9, 0.3)),
    "binomials with two": (stats.binom, background.binomial_log_mgf, (5, 0.3), (9, 0.7)),
    "Poisson": (stats.poisson, background.poisson_log_mgf, (1.0,), (2.5,)),
}


@jax.jit
def _sums_of_logs(arguments):
    def of_pair(log_mgf, first, second):
        total = background.log_mgf_of_sum(lambda t: log_mgf(*first, t), lambda t: log_mgf(*second, t))
        return jax.vmap(total)(arguments)

    return {name: of_pair(*rest) for name, (_, *rest) in _PAIRS.items()}


_SUPPORT = np.arange(60)


def _convolved(_):
    """The same from the probabilities of sums of independent counts, by convolution."""
    result = {}
    for name, (law, _, first, second) in _PAIRS.items():
        pmf = np.convolve(law.pmf(_SUPPORT, *first), law.pmf(_SUPPORT, *second))
        result[name] = Curve(_log_mean_exp(np.arange(pmf.size), pmf, _ARGUMENTS), _ARGUMENTS)
    return result


def _doubled(_):
    """The same for twice the first count: the second is not independent but equal."""
    return {
        name: Curve(_log_mean_exp(2 * _SUPPORT, law.pmf(_SUPPORT, *first), _ARGUMENTS), _ARGUMENTS)
        for name, (law, _, first, _) in _PAIRS.items()
    }


def _normal_sum(correlation):
    """Log M of X + Y for standard normal X, Y of a given correlation, by quadrature over both."""
    nodes, weights = hermite_grid(60, 2)
    x, z = nodes.T
    y = correlation * x + np.sqrt(1 - correlation**2) * z
    return Curve(_log_mean_exp(x + y, weights, _ARGUMENTS), _ARGUMENTS)


@jax.jit
def _normal_product(arguments):
    def log_mgf(t):
        return background.gaussian_log_mgf(jnp.zeros(1), jnp.eye(1), t[None])

    return jax.vmap(background.log_mgf_of_sum(log_mgf, log_mgf))(arguments)


# Moments.

_ORDERS = {"E xxyy": (2, 2), "E xxxy": (3, 1), "E xxxx": (4, 0), "E xxy": (2, 1), "E xy": (1, 1)}
_SCALES = np.linspace(0.5, 1.5, 11)


def _normal_law(key, _):
    rng = generator(key)
    return rng.normal(size=2), random_covariance(rng, 2)


def _derivatives_at_zero(log_of):
    """Mixed derivatives at 0 for normal laws whose means are scaled; of log M instead of M if `log_of`."""

    @jax.jit
    def derivatives(mean, cov):
        def moments(scale):
            def log_mgf(t):
                return background.gaussian_log_mgf(scale * mean, cov, t)

            mgf = log_mgf if log_of else lambda t: jnp.exp(log_mgf(t))
            return {name: background.moment_from_mgf(mgf, orders) for name, orders in _ORDERS.items()}

        return jax.vmap(moments)(jnp.asarray(_SCALES))

    return lambda law: {name: Curve(values, _SCALES) for name, values in derivatives(*law).items()}


def _isserlis(law):
    """Mixed moments of normal laws: products of covariances and means over all ways to pair factors up."""
    mean, cov = law

    def moment(factors, mean):
        if not factors:
            return 1.0
        first, *rest = factors
        paired = (cov[first, other] * moment(rest[:i] + rest[i + 1 :], mean) for i, other in enumerate(rest))
        return mean[first] * moment(rest, mean) + sum(paired)

    return {
        name: np.array([moment([0] * k[0] + [1] * k[1], scale * mean) for scale in _SCALES])
        for name, k in _ORDERS.items()
    }


_HIGHEST = np.arange(1, 9)


@jax.jit
def _poisson_derivatives(rates):
    def moments(rate):
        def mgf(t):
            return jnp.exp(background.poisson_log_mgf(rate, t[0]))

        return jnp.stack([background.moment_from_mgf(mgf, (int(k),)) for k in _HIGHEST])

    return jax.vmap(moments)(rates)


_RATES = (0.5, 1.0, 3.0)


def _poisson_moments(_):
    moments = _poisson_derivatives(jnp.asarray(_RATES))
    return {f"rate {rate:g}": Curve(row, _HIGHEST) for rate, row in zip(_RATES, np.asarray(moments), strict=True)}


def _stirling(k, j):
    """The number of ways to split k things into j groups."""
    return sum((-1) ** (j - i) * math.comb(j, i) * i**k for i in range(j + 1)) // math.factorial(j)


def _touchard(_):
    """Moments of Poisson laws: sums over the ways to split the factors into groups, a rate for each group."""
    return {
        f"rate {rate:g}": np.array([sum(_stirling(int(k), j) * rate**j for j in range(k + 1)) for k in _HIGHEST])
        for rate in _RATES
    }


def _factorial_moments(_):
    return {f"rate {rate:g}": rate ** _HIGHEST.astype(float) for rate in _RATES}


# The normal law.

_NORMAL_ARGUMENTS = np.linspace(-1.2, 1.2, 13)


def _normal_laws(key, _):
    """For each dimension a mean, a covariance, and a direction in which the argument moves."""
    rng = generator(key)
    return {d: (rng.normal(size=d), random_covariance(rng, d), np.eye(d)[0] - np.eye(d)[-1] / 2) for d in (1, 2, 3)}


def _quadratures(laws):
    result = {}
    for d, (mean, cov, direction) in laws.items():
        nodes, weights = hermite_grid(40, d)
        x = (mean + nodes @ np.linalg.cholesky(cov).T) @ direction
        result[f"d = {d}"] = Curve(_log_mean_exp(x, weights, _NORMAL_ARGUMENTS), _NORMAL_ARGUMENTS)
    return result


_normal_log_mgf = jax.jit(jax.vmap(background.gaussian_log_mgf, in_axes=(None, None, 0)))


def _normal_forms(laws, cov_factor):
    return {
        f"d = {d}": _normal_log_mgf(mean, cov_factor * cov, np.outer(_NORMAL_ARGUMENTS, direction))
        for d, (mean, cov, direction) in laws.items()
    }


@jax.jit
def _cumulants(mean, cov, t):
    """Gradient at 0 and Hessian at t of log M, and Hessian of M at 0."""

    def log_mgf(t):
        return background.gaussian_log_mgf(mean, cov, t)

    zero = jnp.zeros_like(t)
    return jax.grad(log_mgf)(zero), jax.hessian(log_mgf)(t), jax.hessian(lambda t: jnp.exp(log_mgf(t)))(zero)


def _normal_cumulants(laws, *, of_log):
    gradient, of_log_mgf, of_mgf = _cumulants(*laws[3])
    hessian = of_log_mgf if of_log else of_mgf
    return {"gradient": Curve(gradient, np.arange(1, 4)), "Hessian": Curve(np.ravel(hessian), np.arange(1, 10))}


CLAIMS = (
    Claim(
        "background.mgf",
        says="The closed forms equal sums and integrals of exp(tx), in logarithms.",
        measure=_integrals,
        predict=lambda _: _closed_forms(_ARGUMENTS),
        judge=Equal(atol=1e-12),
        control=Variant("of -X", predict=lambda _: _closed_forms(-_ARGUMENTS)),
        axes=Axes("t", "log M(t)"),
    ),
    Claim(
        "background.mgf",
        part="convexity",
        says="Second derivatives of log M are non-negative, for vectors positive semi-definite.",
        measure=_measured_curvatures,
        predict=lambda _: 0.0,
        judge=AtLeast(atol=1e-12),
        control=Variant(
            "log of the characteristic function of a random sign",
            measure=lambda _: Curve(-1 / np.cos(_RADII / 3) ** 2, _RADII),
        ),
        axes=Axes("distance from 0", "least second derivative"),
    ),
    Claim(
        "background.mgf_sum",
        says="For independent counts the logarithms add up to that of the convolved law.",
        measure=_convolved,
        predict=lambda _: _sums_of_logs(_ARGUMENTS),
        judge=Equal(atol=1e-12),
        control=Variant("twice the first count (independence violated)", measure=_doubled),
        axes=Axes("t", "log M(t) of the sum"),
    ),
    Claim(
        "background.mgf_sum@printed",
        says="The product is the moment generating function of the sum for any X and Y (here Y = X, standard normal).",
        measure=lambda _: _normal_sum(correlation=1.0),
        predict=lambda _: _normal_product(_ARGUMENTS),
        judge=Equal(atol=1e-12),
        control=Variant("Y = -X", measure=lambda _: _normal_sum(correlation=-1.0)),
        corrected=Variant("independent X and Y", measure=lambda _: _normal_sum(correlation=0.0)),
        axes=Axes("t", "log M(t) of the sum"),
    ),
    Claim(
        "background.moment_representation",
        says="Mixed derivatives of a normal law's M at 0 are its mixed moments.",
        setup=_normal_law,
        measure=_derivatives_at_zero(log_of=False),
        predict=_isserlis,
        judge=Equal(atol=1e-12),
        control=Variant("derivatives of log M", measure=_derivatives_at_zero(log_of=True)),
        axes=Axes("scale of the mean", "moment"),
    ),
    Claim(
        "background.moment_representation",
        part="Poisson",
        says="Derivatives of a Poisson law's M at 0 are Touchard's polynomials in the rate.",
        measure=_poisson_moments,
        predict=_touchard,
        judge=Equal(),
        control=Variant("the factorial moments", predict=_factorial_moments),
        axes=Axes("order", "moment", log="y"),
    ),
    Claim(
        "background.gaussian_mgf",
        says="The closed form equals a tensor quadrature of exp(t x), in logarithms.",
        setup=_normal_laws,
        measure=_quadratures,
        predict=lambda laws: _normal_forms(laws, 1.0),
        judge=Equal(atol=1e-12),
        control=Variant("without the factor 1/2", predict=lambda laws: _normal_forms(laws, 2.0)),
        axes=Axes("size of t", "log M(t)"),
    ),
    Claim(
        "background.gaussian_mgf",
        part="cumulants",
        says="The gradient of log M at 0 is the mean, its Hessian anywhere the covariance.",
        setup=_normal_laws,
        measure=lambda laws: _normal_cumulants(laws, of_log=True),
        predict=lambda laws: {"gradient": laws[3][0], "Hessian": np.ravel(laws[3][1])},
        judge=Equal(atol=1e-12),
        control=Variant("the Hessian of M", measure=lambda laws: _normal_cumulants(laws, of_log=False)),
        axes=Axes("entry", "derivative"),
    ),
)
