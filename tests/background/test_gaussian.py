"""Normal distributions and Gaussian processes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dltheory import background, debug

_logpdf = jax.jit(jax.vmap(background.gaussian_logpdf, in_axes=(0, None, None)))
_log_mgf = jax.jit(background.gaussian_log_mgf)
_kl = jax.jit(background.gaussian_kl)


def law(seed, d):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(d, d))
    return rng.normal(size=d), factor @ factor.T + 0.5 * np.eye(d)


@pytest.mark.statement("background.gaussian_density")
@pytest.mark.parametrize("d", [1, 2, 6])
def test_gaussian_logpdf_equals_scipy(d, x64):
    mean, cov = law(0, d)
    x = np.random.default_rng(1).normal(size=(20, d))
    expected = stats.multivariate_normal.logpdf(x, mean, cov)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(_logpdf(x, mean, cov), expected, rtol=1e-12)


@pytest.mark.statement("background.gaussian_density")
def test_gaussian_logpdf_in_high_dimension_does_not_underflow():
    value = background.gaussian_logpdf(jnp.zeros(300), jnp.zeros(300), 1e-4 * jnp.eye(300))
    assert float(value) == pytest.approx(-150 * np.log(2 * np.pi * 1e-4), rel=1e-5)


@pytest.mark.statement("background.gaussian_density")
def test_gaussian_sample_is_white_after_whitening():
    mean, cov = (jnp.asarray(part, jnp.float32) for part in law(2, 3))
    x = np.asarray(background.gaussian_sample(jax.random.key(0), mean, cov, (100, 200)), float)
    assert x.shape == (100, 200, 3)
    white = np.linalg.solve(np.linalg.cholesky(np.asarray(cov, float)), (x.reshape(-1, 3) - np.asarray(mean)).T)
    n = white.shape[1]
    assert np.all(np.abs(white.mean(1)) < 5 / np.sqrt(n))
    assert np.all(np.abs(white @ white.T / n - np.eye(3)) < 5 * np.sqrt(2 / n))


@pytest.mark.statement("background.gaussian_mgf")
def test_gaussian_log_mgf_is_that_of_a_projection(x64):
    mean, cov = law(3, 3)
    t = np.array([0.5, -1.0, 0.2])
    found = _log_mgf(mean, cov, t)
    one = _log_mgf(np.atleast_1d(t @ mean), np.atleast_2d(t @ cov @ t), np.ones(1))
    assert float(found) == pytest.approx(t @ mean + t @ cov @ t / 2, rel=1e-14)
    assert float(found) == pytest.approx(float(one), rel=1e-14)


@pytest.mark.statement("background.gaussian_kl")
@pytest.mark.parametrize("d", [1, 3])
def test_gaussian_kl_equals_the_textbook_formula(d, x64):
    (mean_p, cov_p), (mean_q, cov_q) = law(4, d), law(5, d)
    delta = mean_q - mean_p
    expected = 0.5 * (
        delta @ np.linalg.solve(cov_q, delta)
        + np.trace(np.linalg.solve(cov_q, cov_p))
        - np.log(np.linalg.det(cov_p) / np.linalg.det(cov_q))
        - d
    )
    found = _kl(mean_p, cov_p, mean_q, cov_q)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.statement("background.gaussian_kl")
def test_gaussian_kl_is_precise_where_the_laws_are_close(x64):
    """The divergence of N(0, v) from N(0, 1) is (v - 1 - log v) / 2, whose terms cancel in sixteen digits."""
    for excess in (1e-8, -1e-8, 1e-5):
        found = _kl(np.zeros(1), np.full((1, 1), 1 + excess), np.zeros(1), np.eye(1))
        assert float(found) == pytest.approx(excess**2 / 4 - excess**3 / 6, rel=1e-6)
    mean, cov = law(6, 3)
    assert float(_kl(mean, cov, mean, cov)) == pytest.approx(0, abs=1e-30)


@pytest.mark.statement("background.gaussian_kl")
def test_gaussian_kl_diag_equals_the_full_divergence(x64):
    rng = np.random.default_rng(7)
    mean_p, mean_q = rng.normal(size=(2, 4))
    var_p, var_q = rng.gamma(2.0, size=(2, 4))
    full = _kl(mean_p, np.diag(var_p), mean_q, np.diag(var_q))
    found, gradient = jax.value_and_grad(background.gaussian_kl_diag, argnums=1)(mean_p, var_p, mean_q, var_q)
    assert float(found) == pytest.approx(float(full), rel=1e-13)
    np.testing.assert_allclose(gradient, (1 / var_q - 1 / var_p) / 2, rtol=1e-12)


@pytest.mark.statement("background.gaussian_kl")
def test_gaussian_kl_diag_of_variances_that_are_not_positive():
    zero, one = jnp.zeros(2), jnp.ones(2)
    degenerate = one.at[0].set(0.0)
    for variances in ((degenerate, one), (one, degenerate)):
        assert float(background.gaussian_kl_diag(zero, variances[0], zero, variances[1])) == np.inf
    assert np.isnan(background.gaussian_kl_diag(zero, -one, zero, one))


@pytest.mark.statement("background.gaussian_density", "background.gaussian_kl")
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (lambda cov: background.gaussian_logpdf(jnp.zeros(2), jnp.zeros(2), cov), "cov"),
        (lambda cov: background.gaussian_sample(jax.random.key(0), jnp.zeros(2), cov), "cov"),
        (lambda cov: background.gaussian_kl(jnp.zeros(2), cov, jnp.zeros(2), jnp.eye(2)), "cov_p"),
        (lambda cov: background.gaussian_kl(jnp.zeros(2), jnp.eye(2), jnp.zeros(2), cov), "cov_q"),
    ],
)
@pytest.mark.parametrize("cov", [-np.eye(2), np.ones((2, 2)), np.array([[1.0, 2.0], [2.0, 1.0]])])
def test_covariances_that_are_not_positive_definite(function, argument, cov):
    assert np.all(np.isnan(function(jnp.asarray(cov))))
    with pytest.raises(ValueError, match=f"`{argument}` must be positive definite"):
        debug.checked(function)(jnp.asarray(cov))


@pytest.mark.statement("background.gaussian_kl")
@pytest.mark.parametrize("argument", ["var_p", "var_q"])
def test_variances_are_checked(argument):
    variances = {"var_p": jnp.ones(2), "var_q": jnp.ones(2)} | {argument: jnp.zeros(2)}

    def divergence(var_p, var_q):
        return background.gaussian_kl_diag(jnp.zeros(2), var_p, jnp.zeros(2), var_q)

    with pytest.raises(ValueError, match=f"`{argument}` must be positive"):
        debug.checked(divergence)(**variances)


# Gaussian processes.


def smooth(x1, x2):
    return jnp.exp(-jnp.sum((x1[:, None, :] - x2[None, :, :]) ** 2, axis=-1))


def negative(x1, x2):
    return -smooth(x1, x2)


@pytest.mark.statement("background.gaussian_process")
def test_gp_sample_of_a_kernel_that_is_singular_to_rounding():
    x = jnp.linspace(0, 1, 40)[:, None]
    path = background.gp_sample(jax.random.key(0), smooth, x)
    assert np.all(np.isfinite(path))
    assert np.max(np.abs(np.diff(path, n=2))) < 0.05  # smooth as the kernel is: jitter does not show


@pytest.mark.statement("background.gaussian_process")
def test_gp_sample_has_the_covariance_of_the_kernel():
    x = jnp.array([[0.0], [0.5], [2.0]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    paths = np.asarray(jax.jit(jax.vmap(lambda key: background.gp_sample(key, smooth, x)))(keys), float)
    products = paths[:, :, None] * paths[:, None, :]
    error = products.std(0) / np.sqrt(len(paths))
    assert np.all(np.abs(products.mean(0) - np.asarray(smooth(x, x))) < 5 * error)


@pytest.mark.statement("background.gaussian_process")
def test_gp_posterior_equals_the_formula_with_an_inverse(x64):
    rng = np.random.default_rng(0)
    x, y, x_new = rng.normal(size=(5, 2)), rng.normal(size=5), rng.normal(size=(3, 2))
    gram, cross, prior = (np.exp(-((a[:, None] - b) ** 2).sum(-1)) for a, b in ((x, x), (x_new, x), (x_new, x_new)))
    inverse = np.linalg.inv(gram + 0.1 * np.eye(5))
    posterior = jax.jit(lambda *args: background.gp_posterior(smooth, *args))(x, y, x_new, 0.1)
    np.testing.assert_allclose(posterior.mean, cross @ inverse @ y, rtol=1e-10)
    np.testing.assert_allclose(posterior.covariance, prior - cross @ inverse @ cross.T, rtol=1e-10, atol=1e-12)
    assert float(posterior.jitter) == 0


@pytest.mark.statement("background.gaussian_process")
def test_gp_posterior_without_noise_interpolates_and_reports_its_jitter():
    x = jnp.linspace(0, 1, 12)[:, None]
    posterior = background.gp_posterior(smooth, x, jnp.sin(3 * x[:, 0]), x, jnp.array(0.0))
    np.testing.assert_allclose(posterior.mean, jnp.sin(3 * x[:, 0]), atol=2e-3)
    assert 0 < float(posterior.jitter) < 1e-4


@pytest.mark.statement("background.gaussian_process")
def test_gp_posterior_learns_its_kernel_by_gradients(x64):
    """Reverse derivatives pass through the factorisation."""
    x, y = jnp.linspace(0, 1, 6)[:, None], jnp.arange(6.0)

    def total_variance(scale, noise):
        posterior = background.gp_posterior(lambda a, b: scale * smooth(a, b), x, y, x + 0.05, noise)
        return jnp.trace(posterior.covariance)

    gradient = jax.jit(jax.grad(total_variance, argnums=(0, 1)))(1.3, 0.1)
    step = 1e-5
    numeric = [
        (total_variance(1.3 + step, 0.1) - total_variance(1.3 - step, 0.1)) / (2 * step),
        (total_variance(1.3, 0.1 + step) - total_variance(1.3, 0.1 - step)) / (2 * step),
    ]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


@pytest.mark.statement("background.gaussian_process")
def test_gaussian_processes_need_a_positive_kernel_and_noise():
    x, key = jnp.array([[0.0], [1.0]]), jax.random.key(0)
    sample = background.gp_sample(key, negative, x)
    assert np.all(np.isnan(sample))
    with pytest.raises(ValueError, match="`kernel` must be positive"):
        debug.checked(lambda x: background.gp_sample(key, negative, x))(x)
    with pytest.raises(ValueError, match="`kernel`"):
        background.gp_sample(key, lambda x1, x2: smooth(x1, x2)[:1], x)

    def posterior(noise):
        return background.gp_posterior(smooth, x, jnp.zeros(2), x, noise)

    assert np.all(np.isnan(posterior(jnp.array(-1.0)).mean))
    with pytest.raises(ValueError, match="`noise`"):
        debug.checked(posterior)(jnp.array(-1.0))
