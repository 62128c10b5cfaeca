import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import networks, ntk


def gaussian_mean(function, covariance):
    """E f(u) f(v) for centred Gaussians, by the trapezoidal rule in the plane of independent ones."""
    factor = np.linalg.cholesky(covariance)
    a, step = np.linspace(-9, 9, 401, retstep=True)
    density = np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi) * step
    v = factor[1, 0] * a[:, None] + factor[1, 1] * a[None, :]
    return np.einsum("a,b,a,ab->", density, density, function(factor[0, 0] * a), function(v))


@pytest.mark.statement("ntk.analytic_recursion")
def test_two_layers_by_quadrature(x64):
    """The recursion written out for one pair of inputs and two hidden layers of tanh."""
    x = np.random.default_rng(0).normal(size=(2, 3))
    sigma_w, sigma_b = 1.4, 0.3
    covariance = sigma_w**2 * x @ x.T / 3 + sigma_b**2
    tangent = covariance[0, 1]
    for _ in range(2):
        pairs = [covariance[np.ix_(rows, rows)] for rows in ((0, 0), (0, 1), (1, 1))]
        pairs = [pair + 1e-12 * np.eye(2) for pair in pairs]
        squares = [gaussian_mean(np.tanh, pair) for pair in pairs]
        slope = gaussian_mean(lambda u: 1 / np.cosh(u) ** 2, pairs[1])
        new = sigma_w**2 * np.array([[squares[0], squares[1]], [squares[1], squares[2]]]) + sigma_b**2
        covariance, tangent = new, new[0, 1] + sigma_w**2 * tangent * slope
    nngp, kernel = jax.jit(lambda x: ntk.analytic_ntk(x, depth=2, sigma_w=sigma_w, sigma_b=sigma_b, activation="tanh"))(
        x
    )
    np.testing.assert_allclose(nngp, covariance, rtol=1e-6)
    np.testing.assert_allclose(kernel[0, 1], tangent, rtol=1e-6)


@pytest.mark.statement("ntk.init_convergence")
def test_wide_networks_have_it_on_average(x64):
    """The mean kernel of networks of width 256 lies within five standard errors of the limit, and of no other."""
    network = networks.MLP((256, 256, 1), sigma_w=2.0**0.5, sigma_b=0.1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))

    def kernel(key):
        return ntk.empirical_ntk(network.apply, network.init(key, x), x, trace_axes=(-1,))

    kernels = np.asarray(jax.jit(lambda keys: jax.lax.map(kernel, keys))(jax.random.split(jax.random.key(0), 40)))
    error = kernels.std(0, ddof=1) / np.sqrt(len(kernels))
    limit = jax.jit(lambda scale: ntk.analytic_ntk(x, depth=2, sigma_w=scale, sigma_b=0.1, activation="relu")[1])
    distance = [np.max(np.abs(kernels.mean(0) - limit(scale)) / error) for scale in (2.0**0.5, 1.0)]
    assert distance[0] < 5
    assert distance[1] > 20
