"""Claims about normal distributions and Gaussian processes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from dltheory import background
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.background._problems import hermite_grid, legendre_grid, random_covariance
from experiments.curves import Curve, estimate
from experiments.judges import ERROR_PER_CLAIM, AtLeast, AtMost, Equal, Mean

__all__ = ["CLAIMS"]

# The density.

_STEPS = np.linspace(-3, 3, 25)
_DIMENSIONS = (1, 2, 5)

_logpdf = jax.jit(jax.vmap(background.gaussian_logpdf, in_axes=(0, None, None)))
_score = jax.jit(jax.vmap(jax.grad(background.gaussian_logpdf), in_axes=(0, None, None)))


def _normal_laws(key, _):
    """For each dimension a mean, a covariance, and points on a line through the mean."""
    rng = generator(key)
    laws = {}
    for d in _DIMENSIONS:
        mean, direction = rng.normal(size=(2, d))
        laws[d] = mean, random_covariance(rng, d), mean + np.outer(_STEPS, direction)
    return laws


def _densities(laws):
    return {f"d = {d}": Curve(_logpdf(x, mean, cov), _STEPS) for d, (mean, cov, x) in laws.items()}


def _textbook_densities(laws, power):
    """The printed formula with the inverse and the determinant written out, and (2 pi)^power in front."""
    result = {}
    for d, (mean, cov, x) in laws.items():
        quadratic = np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(cov), x - mean)
        front = np.sqrt((2 * np.pi) ** power(d) * np.linalg.det(cov))
        result[f"d = {d}"] = np.log(np.exp(-quadratic / 2) / front)
    return result


_WIDTHS = np.linspace(0.3, 2, 9)


@jax.jit
def _masses(line, plane):
    """Integrals of the density over a line and a plane, on grids that grow with the standard deviation."""

    def mass(grid, mean, cov, s):
        nodes, weights = grid
        density = jax.vmap(lambda y: background.gaussian_logpdf(s * y, mean, s**2 * cov))(nodes)
        return s ** len(mean) * jnp.sum(weights * jnp.exp(density))

    tilted = jnp.array([[1.0, 0.6], [0.6, 1.0]])
    scales = jnp.asarray(_WIDTHS)
    return (
        jax.vmap(lambda s: mass(line, jnp.array([0.5]), jnp.eye(1), s))(scales),
        jax.vmap(lambda s: mass(plane, jnp.array([0.5, 0.0]), tilted, s))(scales),
    )


def _measured_masses(_):
    nodes, weights = legendre_grid(-12, 12, 6)
    line = nodes[:, None], weights
    plane = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2), np.outer(weights, weights).ravel()
    return {name: Curve(mass, _WIDTHS) for name, mass in zip(("line", "plane"), _masses(line, plane), strict=True)}


def _scores(laws):
    mean, cov, x = laws[2]
    found = np.asarray(_score(x, mean, cov))
    return {f"coordinate {i + 1}": Curve(found[:, i], _STEPS) for i in range(2)}


def _linear_scores(laws, *, inverse):
    mean, cov, x = laws[2]
    matrix = np.linalg.inv(cov) if inverse else cov
    return {f"coordinate {i + 1}": -(x - mean) @ matrix[i] for i in range(2)}


_sample = jax.jit(background.gaussian_sample, static_argnums=3)


def _sampled_law(key, budget):
    mean, cov, _ = _normal_laws(key, budget)[2]
    return {"mean": mean + 1.0, "cov": cov, "samples": np.asarray(_sample(key, mean + 1.0, cov, (budget,)))}


def _sample_moments(law):
    deviation = law["samples"] - law["mean"]
    products = deviation[:, :, None] * deviation[:, None, :]
    return {"mean": estimate(law["samples"]), "covariance": estimate(products)}


# The divergence.


def _two_laws(key, _):
    """For each dimension two laws whose means lie two standard deviations apart in every coordinate."""
    rng = generator(key)
    laws = {}
    for d in (1, 2, 4):
        (mean, cov_p, cov_q) = rng.normal(size=d), random_covariance(rng, d), random_covariance(rng, d)
        laws[d] = mean, cov_p, mean + 2 * np.sqrt(np.diag(cov_q)) * rng.choice([-1, 1], d), cov_q
    return laws


def _towards(laws, s):
    """Laws on the way from Q (s = 0) to P (s = 1); covariances between positive definite ones are such."""
    mean_p, cov_p, mean_q, cov_q = laws
    s, t = s[:, None], s[:, None, None]
    return mean_q + s * (mean_p - mean_q), cov_q + t * (cov_p - cov_q)


_FRACTIONS = np.linspace(0, 1, 11)

_kl = jax.jit(jax.vmap(background.gaussian_kl, in_axes=(0, 0, None, None)))


def _divergences(problem):
    return {
        f"d = {d}": Curve(_kl(*_towards(laws, _FRACTIONS), laws[2], laws[3]), _FRACTIONS) for d, laws in problem.items()
    }


def _quadratures(problem, sign):
    """E log(p / q) under P: log(p / q) is quadratic, so that three nodes for each coordinate integrate it exactly."""
    result = {}
    for d, laws in problem.items():
        nodes, weights = hermite_grid(3, d)
        mean_q, precision_q = laws[2], np.linalg.inv(laws[3])
        values = []
        for mean, cov in zip(*_towards(laws, _FRACTIONS), strict=True):
            x = mean + nodes @ np.linalg.cholesky(cov).T
            squares_p = np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(cov), x - mean)
            squares_q = np.einsum("ni,ij,nj->n", x - mean_q, precision_q, x - mean_q)
            log_dets = np.linalg.slogdet(laws[3])[1] - np.linalg.slogdet(cov)[1]
            values.append(weights @ (squares_q - squares_p + sign * log_dets) / 2)
        result[f"d = {d}"] = np.array(values)
    return result


def _mapped(problem, *, both):
    """Divergences after an affine map of both laws, or of the first alone."""
    result = {}
    for d, laws in problem.items():
        matrix, shift = np.eye(d) + np.tri(d), np.arange(d)
        mean_p, cov_p = _towards(laws, _FRACTIONS)
        mean_q, cov_q = laws[2:]
        mapped_q = (matrix @ mean_q + shift, matrix @ cov_q @ matrix.T) if both else (mean_q, cov_q)
        divergence = _kl(mean_p @ matrix.T + shift, matrix @ cov_p @ matrix.T, *mapped_q)
        result[f"d = {d}"] = Curve(divergence, _FRACTIONS)
    return result


def _mahalanobis(problem, factor):
    """The part of the divergence that the means contribute."""
    result = {}
    for d, laws in problem.items():
        delta = _towards(laws, _FRACTIONS)[0] - laws[2]
        result[f"d = {d}"] = factor * np.einsum("ni,ij,nj->n", delta, np.linalg.inv(laws[3]), delta)
    return result


# Gaussian processes.

_INPUTS = np.linspace(0, 3, 8)[:, None]
_COMBINATIONS = 6


def _kernel(x1, x2):
    """A smooth kernel plus Brownian motion."""
    return jnp.exp(-((x1 - x2.T) ** 2)) + jnp.minimum(x1, x2.T)


@jax.jit(static_argnums=1)
def _paths(key, count):
    keys = jax.random.split(key, count)
    return jax.vmap(background.gp_sample, in_axes=(0, None, None))(keys, _kernel, jnp.asarray(_INPUTS))


def _combined_paths(key, budget):
    """Sampled values at eight inputs, the Gram matrix, and random weights of linear combinations."""
    x = _INPUTS[:, 0]
    gram = np.exp(-((x[:, None] - x) ** 2)) + np.minimum(x[:, None], x)
    weights = generator(key).normal(size=(x.size, _COMBINATIONS))
    return {"paths": np.asarray(_paths(key, budget)), "gram": gram, "weights": weights}


def _sign_flipped(key, budget):
    """X normal and S X for a random sign S: normal marginals, uncorrelated, but not jointly normal."""
    rng = generator(key)
    x = rng.normal(size=(budget, 1))
    weights = np.stack([np.ones(_COMBINATIONS), np.linspace(0, 1, _COMBINATIONS)])
    return {"paths": np.hstack([x, rng.choice([-1, 1], (budget, 1)) * x]), "gram": np.eye(2), "weights": weights}


def _variances(problem):
    return np.einsum("ik,ij,jk->k", problem["weights"], problem["gram"], problem["weights"])


def _diagonal(problem):
    return problem | {"gram": np.diag(np.diag(problem["gram"]))}


_NUMBERS = np.arange(1, _COMBINATIONS + 1)


def _distances(problem):
    """The largest distance of empirical distribution functions from the normal ones of the predicted variance."""
    standard = problem["paths"] @ problem["weights"] / np.sqrt(_variances(problem))
    distances = [stats.kstest(column, "norm", method="asymp").statistic for column in standard.T]
    return Curve(distances, _NUMBERS)


def _massart(problem):
    """The distance that all empirical distribution functions together exceed with probability `ERROR_PER_CLAIM`."""
    return np.sqrt(np.log(2 * _COMBINATIONS / ERROR_PER_CLAIM) / (2 * len(problem["paths"])))


_NEW = np.linspace(0, 3, 31)[:, None]
_SEEN = np.array([[0.3], [0.8], [1.1], [1.9], [2.6]])
_NOISE = 0.05

_posterior = jax.jit(background.gp_posterior, static_argnums=0)


def _posterior_curves(key, _):
    return {"y": generator(key).normal(size=len(_SEEN))}


def _conditioned(problem, noise_on):
    """Conditioning by the blocks of the joint precision matrix, which the library never forms."""
    everywhere = np.concatenate([_NEW, _SEEN])[:, 0]
    joint = np.exp(-((everywhere[:, None] - everywhere) ** 2)) + np.minimum(everywhere[:, None], everywhere)
    observed = np.arange(len(everywhere)) >= len(_NEW)
    joint += np.diag(_NOISE * (observed if noise_on == "observations" else ~observed))
    mean, deviation = [], []
    for i in range(len(_NEW)):  # one new input at a time: the joint covariance of all of them is singular to rounding
        kept = np.concatenate([[i], np.flatnonzero(observed)])
        precision = np.linalg.inv(joint[np.ix_(kept, kept)])
        mean.append(-precision[0, 1:] @ problem["y"] / precision[0, 0])
        deviation.append(np.sqrt(1 / precision[0, 0]))
    return {"mean": np.array(mean), "standard deviation": np.array(deviation)}


def _posterior_of(problem):
    posterior = _posterior(_kernel, _SEEN, problem["y"], _NEW, _NOISE)
    deviation = np.sqrt(np.diag(posterior.covariance))
    return {"mean": Curve(posterior.mean, _NEW[:, 0]), "standard deviation": Curve(deviation, _NEW[:, 0])}


CLAIMS = (
    Claim(
        "background.gaussian_density",
        says="The log density equals the printed formula with inverse and determinant written out.",
        setup=_normal_laws,
        measure=_densities,
        predict=lambda laws: _textbook_densities(laws, power=lambda d: d),
        judge=Equal(atol=1e-12),
        control=Variant(
            "with (2 pi)^1 in every dimension", predict=lambda laws: _textbook_densities(laws, power=lambda _: 1)
        ),
        axes=Axes("distance from the mean", "log density"),
    ),
    Claim(
        "background.gaussian_density",
        part="mass",
        says="The density integrates to one over a line and a plane.",
        measure=_measured_masses,
        predict=lambda _: {"line": 1.0, "plane": 1.0},
        judge=Equal(),
        control=Variant(
            "with (2 pi)^1 in every dimension", predict=lambda _: {"line": 1.0, "plane": np.sqrt(2 * np.pi)}
        ),
        axes=Axes("standard deviation", "integral"),
    ),
    Claim(
        "background.gaussian_density",
        part="score",
        says="The gradient of the log density is minus the precision times the deviation from the mean.",
        setup=_normal_laws,
        measure=_scores,
        predict=lambda laws: _linear_scores(laws, inverse=True),
        judge=Equal(atol=1e-12),
        control=Variant("the covariance in its place", predict=lambda laws: _linear_scores(laws, inverse=False)),
        axes=Axes("distance from the mean", "score"),
    ),
    Claim(
        "background.gaussian_density",
        part="samples",
        says="Samples have the mean and the covariance of the law.",
        setup=_sampled_law,
        measure=_sample_moments,
        predict=lambda law: {"mean": law["mean"], "covariance": law["cov"]},
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant(
            "the covariance squared", predict=lambda law: {"mean": law["mean"], "covariance": law["cov"] @ law["cov"]}
        ),
        budget=Budget(quick=50_000, full=2_000_000),
        axes=Axes("entry", "moment"),
    ),
    Claim(
        "background.gaussian_kl",
        says="The closed form equals the mean log ratio under P, which a small quadrature integrates exactly.",
        setup=_two_laws,
        measure=_divergences,
        predict=lambda problem: _quadratures(problem, sign=1),
        judge=Equal(atol=1e-12),
        control=Variant(
            "the log ratio of determinants with the other sign", predict=lambda problem: _quadratures(problem, sign=-1)
        ),
        axes=Axes("position of the first law between Q and P", "divergence (nats)"),
    ),
    Claim(
        "background.gaussian_kl",
        part="invariance",
        says="It does not change if both laws undergo the same affine map.",
        setup=_two_laws,
        measure=lambda problem: _mapped(problem, both=True),
        predict=lambda problem: {name: curve.y for name, curve in _divergences(problem).items()},
        judge=Equal(atol=1e-12),
        control=Variant("a map of the first law alone", measure=lambda problem: _mapped(problem, both=False)),
        axes=Axes("position of the first law between Q and P", "divergence (nats)"),
    ),
    Claim(
        "background.gaussian_kl",
        part="bound",
        says="It is at least what the means contribute, so non-negative, and zero for equal laws.",
        setup=_two_laws,
        measure=_divergences,
        predict=lambda problem: _mahalanobis(problem, factor=0.5),
        judge=AtLeast(atol=1e-12),
        control=Variant("without the factor 1/2", predict=lambda problem: _mahalanobis(problem, factor=1.0)),
        axes=Axes("position of the first law between Q and P", "divergence (nats)"),
    ),
    Claim(
        "background.gaussian_process",
        says="Random linear combinations of sampled values have the variance that the kernel gives.",
        setup=_combined_paths,
        measure=lambda problem: estimate((problem["paths"] @ problem["weights"]) ** 2, x=_NUMBERS),
        predict=_variances,
        judge=Mean(),
        control=Variant("if the values were independent", predict=lambda problem: _variances(_diagonal(problem))),
        budget=Budget(quick=20_000, full=500_000),
        axes=Axes("combination", "variance"),
    ),
    Claim(
        "background.gaussian_process",
        part="normality",
        says="Their distribution functions stay as close to normal ones as Massart's inequality allows.",
        setup=_combined_paths,
        measure=_distances,
        predict=_massart,
        judge=AtMost(),
        control=Variant("normal marginals, but not jointly: X and a random sign times X", setup=_sign_flipped),
        budget=Budget(quick=20_000, full=500_000),
        axes=Axes("combination", "Kolmogorov distance", log="y"),
    ),
    Claim(
        "background.gaussian_process",
        part="posterior",
        says="Posterior mean and deviation equal conditioning by the joint precision matrix.",
        setup=_posterior_curves,
        measure=_posterior_of,
        predict=lambda problem: _conditioned(problem, "observations"),
        judge=Equal(rtol=1e-8, atol=1e-10),
        control=Variant("noise on the new values instead", predict=lambda problem: _conditioned(problem, "new values")),
        axes=Axes("x", "posterior"),
    ),
)
