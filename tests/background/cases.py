"""Rows of the chapter Background."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import background
from tests.cases import Case

_VECTOR = np.array([0.5, -1.0, 2.0])
_OTHER = np.array([1.5, 0.3, -0.7])
_COV = np.array([[2.0, 0.3, -0.4], [0.3, 1.0, 0.2], [-0.4, 0.2, 0.7]])
_COV_OTHER = np.array([[1.0, -0.2, 0.1], [-0.2, 1.5, 0.3], [0.1, 0.3, 0.9]])
_LAW = np.array([0.1, 0.2, 0.3, 0.4])
_LAW_OTHER = np.array([0.4, 0.1, 0.25, 0.25])
_INPUTS = np.array([[0.0, 0.3], [1.0, -0.2], [0.4, 0.9]])
_INPUTS_NEW = np.array([[0.5, 0.5], [-0.3, 0.1]])


def _scalar(x):
    return np.array(float(x))


def _wrong_scalars(*names, args):
    """For each named argument (in their order) the arguments with a vector in its place."""
    return {name: (*args[:i], np.ones(2), *args[i + 1 :]) for i, name in enumerate(names)}


def _scalar_case(name, *args, names, **fields):
    return Case(f"dltheory.background.{name}", args=args, wrong=_wrong_scalars(*names, args=args), **fields)


def _kernel(x1, x2):
    return jnp.exp(-jnp.sum((x1[:, None, :] - x2[None, :, :]) ** 2, axis=-1))


def _chernoff(a, rate):
    return background.chernoff_bound(lambda t: background.exponential_log_mgf(rate, t), a)


def _moment(mean, cov):
    def mgf(t):
        return jnp.exp(background.gaussian_log_mgf(mean, cov, t))

    return background.moment_from_mgf(mgf, (1, 2, 1), dtype=mean.dtype)


def _sum_of_two(t, rate):
    return background.log_mgf_of_sum(
        lambda t: background.poisson_log_mgf(rate, t), lambda t: background.exponential_log_mgf(3 * rate, t)
    )(t)


def _kl_estimate(samples, scale):
    return background.kl_monte_carlo(lambda x: -jnp.sum(x**2), lambda x: -scale * jnp.sum(jnp.cosh(x)), samples)


def _posterior(x, y, x_new, noise):
    return background.gp_posterior(_kernel, x, y, x_new, noise)


CASES = (
    # elementary
    Case("dltheory.background.log1p_linear_error", args=(np.array([-0.9, -0.3, -1e-5, 1e-8, 0.2, 0.7, 4.0]),)),
    _scalar_case("geometric_partial_sum", _scalar(-0.8), np.array(6), names=("r", "n")),
    _scalar_case("geometric_partial_sum", _scalar(1.0), np.array(6), names=("r", "n"), label="r = 1"),
    _scalar_case("geometric_partial_sum", _scalar(1.001), np.array(40), names=("r", "n"), label="r near 1"),
    Case("dltheory.background.geometric_limit", args=(np.array([-0.9, 0.0, 0.5]),)),
    Case(
        "dltheory.background.logdet_product",
        args=(_COV, _COV_OTHER - 2 * np.eye(3)),
        wrong={"a": (np.ones((2, 3)), np.eye(2)), "b": (np.eye(3), np.eye(2))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.background.ridge_function",
        args=(_VECTOR, _scalar(0.2), _OTHER),
        call=lambda w, b, x: background.ridge_function(jnp.tanh, w, b, x),
        wrong={"b": (_VECTOR, np.ones(1), _OTHER), "x": (_VECTOR, _scalar(0.2), np.ones(2))},
        grad=(0, 1, 2),
    ),
    # inequalities
    _scalar_case("markov_bound", _scalar(0.7), _scalar(2.0), names=("mean", "a"), grad=(0, 1)),
    _scalar_case("chernoff_bound", _scalar(2.0), _scalar(1.3), names=("a",), call=_chernoff, grad=(0, 1)),
    Case(
        "dltheory.background.hoeffding_bound",
        args=(np.array([1.0, 0.5, 2.0]), _scalar(0.3)),
        wrong={"widths": (np.ones((2, 2)), _scalar(0.3)), "t": (np.ones(2), np.ones(2))},
        grad=(0, 1),
    ),
    _scalar_case(
        "hoeffding_sample_size",
        *map(_scalar, (0.11, 0.02, 1.5)),
        names=("t", "probability", "width"),
        grad=(),
    ),
    Case("dltheory.background.dual_exponent", args=(np.array([1.2, 2.0, 7.0]),)),
    *(
        Case(
            "dltheory.background.p_norm",
            args=(_VECTOR, _scalar(p)),
            wrong={"v": (np.ones((2, 2)), _scalar(p)), "p": (_VECTOR, np.ones(3))},
            grad=grad,
            vmap=p > 1.1,  # the mapped exponent must stay at least 1
            label=f"p = {p}",
        )
        for p, grad in ((1.0, (0,)), (2.5, (0, 1)), (np.inf, (0,)))
    ),
    Case(
        "dltheory.background.holder_gap",
        args=(_OTHER, _VECTOR, _scalar(3.0)),
        wrong={"v": (np.ones(2), np.ones(3), _scalar(3.0)), "p": (_OTHER, _VECTOR, np.ones(3))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.background.holder_extremal",
        args=(_VECTOR, _scalar(3.0)),
        wrong={"v": (np.ones((2, 2)), _scalar(3.0)), "p": (_VECTOR, np.ones(3))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.background.jensen_gap",
        args=(_INPUTS, np.array([0.2, 0.5, 0.3])),
        call=lambda samples, weights: background.jensen_gap(jax.nn.logsumexp, samples, weights),
        wrong={"weights": (_INPUTS, np.ones((3, 1))), "samples": (_INPUTS, np.ones(2) / 2)},
        grad=(0, 1),
    ),
    # divergences
    Case("dltheory.background.entropy", args=(_LAW,), wrong={"p": (np.eye(2),)}),
    Case(
        "dltheory.background.cross_entropy",
        args=(_LAW, _LAW_OTHER),
        wrong={"p": (np.eye(2), np.ones(2)), "q": (_LAW, np.ones(3) / 3)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.background.kl_discrete",
        args=(_LAW, _LAW_OTHER),
        wrong={"q": (np.eye(2), np.ones(2)), "p": (_LAW, np.ones(3) / 3)},
        grad=(0, 1),
    ),
    _scalar_case("kl_bernoulli", _scalar(0.2), _scalar(0.3), names=("q", "p"), grad=(0, 1)),
    _scalar_case("kl_bernoulli", _scalar(0.9), _scalar(0.1), names=("q", "p"), grad=(0, 1), label="far apart"),
    _scalar_case("kl_bernoulli", _scalar(0.0), _scalar(0.1), names=("q", "p"), grad=(1,), label="q = 0"),
    _scalar_case("kl_bernoulli_inverse", _scalar(0.2), _scalar(0.1), names=("q", "bound"), grad=(0, 1)),
    _scalar_case("kl_bernoulli_inverse", _scalar(0.0), _scalar(0.1), names=("q", "bound"), grad=(1,), label="q = 0"),
    Case(
        "dltheory.background.kl_monte_carlo",
        args=(_INPUTS, _scalar(1.2)),
        call=_kl_estimate,
        wrong={"samples": (np.ones(()), _scalar(1.2))},
        grad=(0, 1),
    ),
    # distributions
    _scalar_case("exponential_logpdf", _scalar(0.4), _scalar(1.3), names=("x", "rate"), grad=(0, 1)),
    _scalar_case("bernoulli_logpmf", np.array(1), _scalar(0.3), names=("x", "p"), grad=(1,)),
    _scalar_case("binomial_logpmf", np.array(3), np.array(20), _scalar(0.3), names=("x", "n", "p"), grad=(2,)),
    _scalar_case("poisson_logpmf", np.array(3), _scalar(2.5), names=("x", "rate"), grad=(1,)),
    # generating functions
    Case(
        "dltheory.background.empirical_log_mgf",
        args=(_INPUTS, np.array([0.3, -0.8])),
        wrong={"samples": (np.ones(3), np.ones(3)), "t": (_INPUTS, np.ones(3))},
        grad=(0, 1),
    ),
    _scalar_case("exponential_log_mgf", _scalar(2.0), _scalar(1.2), names=("rate", "t"), grad=(0, 1)),
    _scalar_case("bernoulli_log_mgf", _scalar(0.3), _scalar(0.4), names=("p", "t"), grad=(0, 1)),
    _scalar_case("bernoulli_log_mgf", _scalar(0.3), _scalar(-3.0), names=("p", "t"), grad=(0, 1), label="large t"),
    _scalar_case("binomial_log_mgf", np.array(7), _scalar(0.3), _scalar(0.4), names=("n", "p", "t"), grad=(1, 2)),
    _scalar_case("poisson_log_mgf", _scalar(2.0), _scalar(0.4), names=("rate", "t"), grad=(0, 1)),
    Case("dltheory.background.log_mgf_of_sum", args=(_scalar(0.4), _scalar(1.1)), call=_sum_of_two, grad=(0, 1)),
    Case(
        "dltheory.background.moment_from_mgf",
        args=(_VECTOR, _COV),
        call=_moment,
        grad=(0, 1),
    ),
    # the normal law
    Case(
        "dltheory.background.gaussian_logpdf",
        args=(_OTHER, _VECTOR, _COV),
        wrong={"mean": (_OTHER, np.ones(2), _COV), "cov": (_OTHER, _VECTOR, np.ones((3, 2)))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.background.gaussian_sample",
        args=(jax.random.key(0), _VECTOR, _COV),
        call=lambda key, mean, cov: background.gaussian_sample(key, mean, cov, shape=(2,)),
        wrong={"mean": (jax.random.key(0), np.ones((2, 2)), _COV), "cov": (jax.random.key(0), _VECTOR, np.eye(2))},
        grad=(1, 2),
    ),
    Case(
        "dltheory.background.gaussian_log_mgf",
        args=(_VECTOR, _COV, _OTHER),
        wrong={"cov": (_VECTOR, np.eye(2), _OTHER), "t": (_VECTOR, _COV, np.ones(2))},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.background.gaussian_kl",
        args=(_VECTOR, _COV, _OTHER, _COV_OTHER),
        wrong={
            "cov_p": (_VECTOR, np.eye(2), _OTHER, _COV),
            "mean_q": (_VECTOR, _COV, np.ones(2), _COV),
            "cov_q": (_VECTOR, _COV, _OTHER, np.ones(3)),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.background.gaussian_kl_diag",
        args=(_VECTOR, np.array([0.5, 1.0, 2.0]), _OTHER, np.array([1.0, 1.1, 0.3])),
        wrong={
            "mean_p": (np.eye(3), np.ones(3), _OTHER, np.ones(3)),
            "var_p": (_VECTOR, np.eye(3), _OTHER, np.ones(3)),
            "mean_q": (_VECTOR, np.ones(3), np.ones(2), np.ones(3)),
            "var_q": (_VECTOR, np.ones(3), _OTHER, np.ones(2)),
        },
        grad=(0, 1, 2, 3),
    ),
    # Gaussian processes
    Case(
        "dltheory.background.gp_sample",
        args=(jax.random.key(0), _INPUTS),
        call=lambda key, x: background.gp_sample(key, _kernel, x),
        wrong={"x": (jax.random.key(0), np.ones(3))},
        grad=(1,),
    ),
    Case(
        "dltheory.background.gp_posterior",
        args=(_INPUTS, _VECTOR, _INPUTS_NEW, _scalar(0.1)),
        call=_posterior,
        wrong={
            "x": (np.ones(3), _VECTOR, _INPUTS_NEW, _scalar(0.1)),
            "y": (_INPUTS, np.ones(2), _INPUTS_NEW, _scalar(0.1)),
            "x_new": (_INPUTS, _VECTOR, np.ones((2, 3)), _scalar(0.1)),
            "noise": (_INPUTS, _VECTOR, _INPUTS_NEW, np.ones(3)),
        },
        grad=(0, 1, 2, 3),
    ),
)
