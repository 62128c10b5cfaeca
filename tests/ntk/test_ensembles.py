"""The law of an ensemble of trained networks."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dltheory import ntk
from dltheory.debug import checked

pytestmark = pytest.mark.statement("ntk.ensemble_distribution", "ntk.kernel_machine")
RNG = np.random.default_rng(0)
N, M, K = 5, 3, 2
TANGENT, PRIOR = RNG.normal(size=(N + M, 20)), RNG.normal(size=(N + M, 12))
NTK, NNGP = TANGENT @ TANGENT.T, PRIOR @ PRIOR.T
Y = RNG.normal(size=(N, K))
TIMES = np.array([0.0, 0.05, 1.0])


def blocks(kernel):
    return kernel[:N, :N], kernel[N:, :N], kernel[N:, N:]


ensemble_moments = jax.jit(ntk.ensemble_moments)


def moments(ntk_kernel, nngp_kernel, y=Y, time=np.inf):
    return ensemble_moments(*blocks(ntk_kernel)[:2], *blocks(nngp_kernel), y, time=time)


def solution(time):
    """The map from outputs at the start, at all inputs, and from targets to the outputs at a time: exp of the flow."""
    train, cross, _ = blocks(NTK)
    system = np.zeros((N + M, N + M))
    system[:N, :N], system[N:, :N] = -train, -cross
    of_start = scipy.linalg.expm(time * system)
    return of_start, np.eye(N + M)[:, :N] - of_start[:, :N]


def test_moments_are_those_of_a_gaussian_start_moved_by_the_linear_flow(x64):
    law = moments(NTK, NNGP, time=TIMES)
    for i, time in enumerate(TIMES):
        of_start, of_targets = solution(time)
        np.testing.assert_allclose(law.mean[i], (of_targets @ Y)[N:], atol=1e-11)
        np.testing.assert_allclose(law.covariance[i], (of_start @ NNGP @ of_start.T)[N:, N:], atol=1e-11)


def test_moments_at_the_training_inputs(x64):
    train, prior = NTK[:N, :N], NNGP[:N, :N]
    law = ensemble_moments(train, train, prior, prior, prior, Y, time=np.array([*TIMES, np.inf]))
    decay = scipy.linalg.expm(-TIMES[1] * train)
    np.testing.assert_allclose(law.mean[1], Y - decay @ Y, atol=1e-11)
    np.testing.assert_allclose(law.covariance[1], decay @ prior @ decay, atol=1e-11)
    np.testing.assert_allclose(law.mean[-1], Y, atol=1e-10)
    np.testing.assert_allclose(law.covariance[-1], 0, atol=1e-9)


def test_it_is_the_gaussian_process_posterior_only_for_proportional_kernels(x64):
    train, cross, test = blocks(NNGP)
    mean = cross @ np.linalg.solve(train, Y)
    cov = test - cross @ np.linalg.solve(train, cross.T)
    same = moments(3 * NNGP, NNGP)
    np.testing.assert_allclose(same.mean, mean, atol=1e-10)
    np.testing.assert_allclose(same.covariance, cov, atol=1e-10)
    other = moments(NTK, NNGP)
    assert np.min(np.linalg.eigvalsh(other.covariance - cov)) > -1e-10  # the posterior has the least covariance
    assert np.trace(other.covariance - cov) > 0.1 * np.trace(cov)


def test_an_ensemble_of_drawn_starts_has_these_moments(x64):
    """Each member starts from a draw of the prior and is trained by `predict`."""
    root = np.linalg.cholesky(NNGP + 1e-12 * np.eye(N + M))
    starts = RNG.normal(size=(20_000, N + M)) @ root.T
    train, cross, _ = blocks(NTK)

    @jax.jit
    @jax.vmap
    def member(start):
        return ntk.predict(train, cross, Y[:, 0], start[:N], start[N:], time=0.05).test

    outputs = np.asarray(member(starts))
    law = moments(NTK, NNGP, y=Y[:, 0], time=0.05)
    error = np.sqrt(np.diag(law.covariance) / len(starts))
    assert np.all(np.abs(outputs.mean(0) - law.mean) < 5 * error)
    np.testing.assert_allclose(np.var(outputs, axis=0), np.diag(law.covariance), rtol=5 * np.sqrt(2 / len(starts)))


def test_forms_of_the_kernel_agree(x64):
    shared = moments(NTK, NNGP, time=0.05)

    def by_output(kernel):
        return np.repeat(kernel[:, :, None], K, axis=2)

    def full(kernel):
        return by_output(kernel)[:, :, :, None] * np.eye(K)

    for form in (by_output, full):
        law = moments(form(NTK), form(NNGP), time=0.05)
        np.testing.assert_allclose(law.mean, shared.mean, atol=1e-12)
        np.testing.assert_allclose(law.covariance, form(np.asarray(shared.covariance)), atol=1e-12)
    one = moments(NTK, NNGP, y=Y[:, 0], time=0.05)
    np.testing.assert_allclose(one.mean, shared.mean[:, 0], atol=1e-12)


def test_a_repeated_input_is_no_harm_and_shows_in_the_rank(x64):
    order = np.array([0, 0, *range(1, N + M)])
    tangent, prior = TANGENT[order], PRIOR[order]
    ntk_kernel, nngp_kernel = tangent @ tangent.T, prior @ prior.T
    n = N + 1
    law = ensemble_moments(
        ntk_kernel[:n, :n], ntk_kernel[n:, :n], nngp_kernel[:n, :n], nngp_kernel[n:, :n], nngp_kernel[n:, n:],
        np.concatenate([Y[:1], Y]),
    )  # fmt: skip
    once = moments(NTK, NNGP)
    assert int(law.rank) == N
    np.testing.assert_allclose(law.mean, once.mean, atol=1e-9)
    np.testing.assert_allclose(law.covariance, once.covariance, atol=1e-9)


def test_bad_values_give_nan_and_an_error_when_checked():
    for train, time in ((-np.eye(N), jnp.array(1.0)), (np.eye(N), jnp.array(-1.0))):
        arguments = (train, np.ones((M, N)), np.eye(N), np.ones((M, N)), np.eye(M), Y)
        assert np.all(np.isnan(ensemble_moments(*arguments, time=time).covariance))
        with pytest.raises(ValueError, match=r"`time`|the kernel on the training set"):
            checked(ensemble_moments)(*arguments, time=time)


def test_kernels_of_different_forms_are_refused():
    with pytest.raises(ValueError, match="`nngp_test` must have as many axes as `ntk_train`"):
        ntk.ensemble_moments(np.eye(N), np.ones((M, N)), np.eye(N), np.ones((M, N)), np.ones((M, M, 1)), Y)
