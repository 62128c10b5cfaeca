"""Linear equations against their moments' equations, reversals against the Fokker-Planck equation."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false, reportOptionalCall=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from dltheory import diffusion

KEY = jax.random.key(2)
RNG = np.random.default_rng(3)
MIXTURE = diffusion.GaussianMixture(
    log_weights=np.log([0.3, 0.7]), means=np.array([[-1.0, 0.5], [1.5, -0.5]]), variances=np.array([[0.3, 0.5]] * 2)
)
FORWARD = pytest.mark.statement("sde.forward")
REVERSE = pytest.mark.statement("sde.reverse")
SDES = {
    "vp": diffusion.vp_sde(),
    "sub-vp": diffusion.sub_vp_sde(0.2, 9.0),
    "ve": diffusion.ve_sde(0.1, 8.0),
    "linear": diffusion.linear_sde(lambda t: -1 - jnp.sin(3 * t), lambda t: jnp.sqrt(2 + t**2), horizon=2.0),
}


def law(sde, t):
    """The law of the mixture at a time."""
    return diffusion.diffused(jax.tree.map(jnp.asarray, MIXTURE), *sde.marginal_prob(jnp.ones(()), t))


def log_density(sde, x, t):
    return diffusion.mixture_log_density(law(sde, t), x)


def score_of(sde):
    return lambda x, t: diffusion.mixture_score(law(sde, t), x)


@FORWARD
@pytest.mark.parametrize("name", SDES)
def test_conditional_laws_solve_the_equations_of_their_moments(x64, name):
    sde = SDES[name]
    coefficients = jax.jit(lambda t: (sde.drift(jnp.ones(()), t), sde.diffusion(t)))

    def slope(t, moments):
        drift, noise = map(float, coefficients(t))
        return [drift * moments[0], 2 * drift * moments[1] + noise**2]

    times = np.array([1e-3, 0.1, 0.5, 1.0]) * sde.horizon
    exact = integrate.solve_ivp(slope, (0, sde.horizon), [1.0, 0.0], t_eval=times, rtol=1e-11, atol=1e-13).y
    scale, std = jax.jit(jax.vmap(lambda t: sde.marginal_prob(jnp.ones(()), t)))(jnp.asarray(times))
    np.testing.assert_allclose(scale, exact[0], rtol=1e-8)
    np.testing.assert_allclose(std**2, exact[1], rtol=1e-7)


@FORWARD
def test_quadrature_gives_the_closed_forms(x64):
    one = jnp.ones(())
    for closed in (SDES["vp"], SDES["sub-vp"], SDES["ve"]):
        numeric = diffusion.linear_sde(lambda t, sde=closed: sde.drift(one, t), closed.diffusion)
        for t in (0.01, 0.3, 1.0):
            np.testing.assert_allclose(numeric.marginal_prob(one, t), closed.marginal_prob(one, t), rtol=1e-9)


@FORWARD
@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve"])
def test_small_noise_is_precise_in_single_precision(name):
    times = [1e-7, 1e-5, 1e-3]
    single = [float(SDES[name].marginal_prob(jnp.float32(1), jnp.float32(t))[1]) for t in times]
    with jax.enable_x64():
        double = [float(SDES[name].marginal_prob(jnp.ones(()), jnp.asarray(np.float32(t), float))[1]) for t in times]
    np.testing.assert_allclose(single, double, rtol=2e-6)
    if name == "vp":  # the formula as it is written loses the noise
        naive = [np.sqrt(1 - np.exp(-np.float32(0.1 * t + 19.9 * t**2 / 2))) for t in times]
        assert np.max(np.abs(np.array(naive) / double - 1)) > 0.01


@FORWARD
@pytest.mark.parametrize("name", SDES)
def test_prior_is_a_normal_law(x64, name):
    sde, z = SDES[name], np.array([0.3, -1.2, 2.0])
    std = 1.0 if "vp" in name else float(sde.marginal_prob(jnp.ones(()), sde.horizon)[1])
    assert float(sde.prior_logp(z)) == pytest.approx(stats.norm.logpdf(z, scale=std).sum(), rel=1e-10)
    draws = np.asarray(sde.prior_sampling(KEY, (20_000,)))
    assert abs(np.mean(draws**2) / std**2 - 1) < 5 * np.sqrt(2 / len(draws))
    assert sde.prior_sampling(KEY, (2,), jnp.float32).dtype == jnp.float32


def slopes(function, x, step=1e-3):
    """Derivatives of a function of points [n, 2] with respect to their entries, by differences of fourth order."""
    columns = []
    for direction in step * np.eye(2):
        ahead, behind = (function(x + direction) - function(x - direction) for direction in (direction, 2 * direction))
        columns.append((8 * ahead - behind) / (12 * step))
    return np.stack(columns, axis=-1)


@FORWARD
@REVERSE
@pytest.mark.parametrize("name", SDES)
def test_all_equations_carry_the_same_laws(x64, name):
    """The Fokker-Planck equation, divided by p: d log p / dt + drift terms = +- g^2 / 2 noise terms."""
    sde, score_fn = SDES[name], score_of(SDES[name])
    equations = {
        "forward": sde,
        "reverse": diffusion.reverse_sde(sde, score_fn),
        "half the noise": diffusion.reverse_sde(sde, score_fn, noise_scale=0.5),
        "flow": diffusion.probability_flow(sde, score_fn),
    }
    wrong = {
        "sign of the score": diffusion.reverse_sde(sde, lambda x, t: -score_fn(x, t)),
        "time forwards": diffusion.reverse_sde(sde, score_fn)._replace(time_direction=1),
        "whole score in the flow": diffusion.probability_flow(sde, lambda x, t: 2 * score_fn(x, t)),
    }
    x, t, step = RNG.normal(size=(6, 2)), 0.3, 1e-4
    log_p = jax.jit(lambda x, t: jax.vmap(lambda x: log_density(sde, x, t))(x))
    every = [*equations.values(), *wrong.values()]
    drifts = jax.jit(jax.vmap(lambda x: jnp.stack([equation.drift(x, jnp.asarray(t)) for equation in every])))

    rate = (log_p(x, t + step) - log_p(x, t - step)) / (2 * step)
    score = slopes(lambda x: np.asarray(log_p(x, t)), x)
    hessian = slopes(lambda x: slopes(lambda x: np.asarray(log_p(x, t)), x), x)
    spread = np.trace(hessian, axis1=1, axis2=2) + np.sum(score**2, axis=1)
    jacobians = slopes(lambda x: np.asarray(drifts(x)), x)
    moved = np.trace(jacobians, axis1=2, axis2=3) + np.einsum("ned,nd->ne", drifts(x), score)
    for number, equation in enumerate(every):
        noise = 0.0 if equation.diffusion is None else equation.time_direction * equation.diffusion(t) ** 2 / 2
        residual = rate + moved[:, number] - noise * spread
        if number < len(equations):
            np.testing.assert_allclose(residual, 0, atol=1e-5)
        else:
            assert np.max(np.abs(residual)) > 0.1


@REVERSE
def test_reversed_twice_is_as_before(x64):
    sde = diffusion.Sde(lambda x, t: jnp.sin(x) * t, lambda t: 1 + t)
    score_fn = lambda x, t: jnp.cos(x) + t  # noqa: E731
    twice = diffusion.reverse_sde(diffusion.reverse_sde(sde, score_fn), score_fn)
    x, t = jnp.array([0.3, -2.0]), jnp.array(0.7)
    assert twice.time_direction == 1
    np.testing.assert_allclose(twice.drift(x, t), sde.drift(x, t), rtol=1e-12)
    assert float(twice.diffusion(t)) == float(sde.diffusion(t))


@REVERSE
def test_the_reverse_of_a_brownian_path_is_a_bridge(x64):
    """Data in a point: the drift of the reverse is -(x - x_0) / t, whatever the noise."""
    sde = diffusion.Sde(lambda x, t: jnp.zeros_like(x), lambda t: jnp.ones_like(t))
    reverse = diffusion.reverse_sde(sde, lambda x, t: -(x - 2.0) / t)
    np.testing.assert_allclose(-reverse.drift(jnp.array(3.0), jnp.array(0.5)), -(3.0 - 2.0) / 0.5)


@REVERSE
def test_settings_are_checked():
    ode = diffusion.Sde(lambda x, t: x, None)
    with pytest.raises(ValueError, match="`sde` must have noise"):
        diffusion.reverse_sde(ode, lambda x, t: x)
    with pytest.raises(ValueError, match="`sde` must have noise"):
        diffusion.probability_flow(ode, lambda x, t: x)
    with pytest.raises(ValueError, match="`noise_scale`"):
        diffusion.reverse_sde(diffusion.vp_sde(), lambda x, t: x, noise_scale=-1.0)
    with pytest.raises(ValueError, match="`sigma_min`"):
        diffusion.ve_sde(2.0, 1.0)
    with pytest.raises(ValueError, match="`beta_max`"):
        diffusion.vp_sde(0.1, 0.0)
    with pytest.raises(ValueError, match="`num_nodes`"):
        diffusion.linear_sde(lambda t: t, lambda t: t, num_nodes=0)
    with pytest.raises(ValueError, match="`horizon`"):
        diffusion.linear_sde(lambda t: t, lambda t: t, horizon=0.0)
