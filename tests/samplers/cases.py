"""Rows of the chapter Sampling from the posterior."""

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from tests.cases import Case

_RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = np.array([0.7, -0.4])
MOMENTUM = np.array([0.3, 1.1])
DIAGONAL = np.array([0.5, 2.0])
DRAWS = _RNG.normal(size=(3, 14))
DATA = _RNG.normal(size=(5, 2))
STEP = np.array(0.2)
POSITIONS = _RNG.normal(size=(3, 2))
INTEGERS = np.array([1, 2])
VECTOR = np.zeros(14)


def _log_density(x):
    return -jnp.sum(jnp.cosh(x)) - 0.5 * jnp.sum(x) ** 2


def _log_likelihood(x, example):
    return -0.5 * jnp.sum((example - jnp.sin(x)) ** 2)


def _steps(make):
    """(key, position, settings...) -> state and info after two steps of the sampler that the settings make."""

    def run(key, position, *settings):
        algorithm = make(*settings)
        state = algorithm.init(position)
        first, second = jax.random.split(key)
        state, _ = algorithm.step(first, state)
        return algorithm.step(second, state)

    return run


def _estimate(make):
    """(key, position, data) -> gradient estimated by the estimator that the data make."""

    def run(key, position, data):
        estimator = make(_log_density, _log_likelihood, data, 2)
        return estimator.estimate(key, position, estimator.init(position / 2))

    return run


def _batches(x):
    data = jnp.asarray(DATA, x.dtype)
    return samplers.minibatch_score(_log_density, _log_likelihood, data, 2)


def _psgld(key, position, step):
    return _steps(lambda: samplers.psgld(_batches(position), step, b2=0.5, eps=0.1))(key, position)


def _sghmc(key, position, step, friction, inverse_mass, noise):
    settings = {"inverse_mass_matrix": inverse_mass, "noise_estimate": noise}
    return _steps(lambda: samplers.sghmc(_batches(position), step, friction, **settings))(key, position)


def _blocks(scan):
    def density(position):
        return _log_density(jnp.stack(list(position)))

    def run(key, position, scale):
        kernel = samplers.block_kernel(density, 0, lambda f: samplers.random_walk_metropolis(f, scale))
        draw = lambda key, x: x[0] / 2 + jax.random.normal(key, (), x[0].dtype)  # noqa: E731
        return _steps(lambda: samplers.gibbs((kernel, draw), scan=scan))(key, position)

    return run


def _block(key, position, scale):
    kernel = samplers.block_kernel(
        lambda x: _log_density(x["a"]) + jnp.sum(x["b"]), "a", lambda f: samplers.random_walk_metropolis(f, scale)
    )
    return kernel.step(key, position)


def _tempered(key, position, step, betas):
    make = lambda f, beta: samplers.hmc(f, step / jnp.sqrt(beta), 2)  # noqa: E731
    reference = lambda x: -jnp.sum(x**2) / 2  # noqa: E731
    return _steps(lambda: samplers.parallel_tempering(_log_density, make, betas, log_reference_fn=reference))(
        key, position
    )


def _exact(position):
    estimator = samplers.exact_score(_log_density)
    return estimator.estimate(KEY, position, estimator.init(position))


def _asymmetric(x):
    return samplers.metropolis_hastings(
        _log_density,
        lambda key, x: x * jnp.exp(jax.random.normal(key, x.shape, x.dtype)),
        lambda to, at: -jnp.sum(jnp.log(jnp.abs(to))) - jnp.sum(jnp.log(to / at) ** 2) / 2,
    )


def _independent(x):
    return samplers.independence_sampler(
        _log_density, lambda key: jax.random.normal(key, x.shape, x.dtype), lambda x: -jnp.sum(x**2) / 2
    )


def _run(key, positions, step):
    algorithm = samplers.hmc(_log_density, step, 2)
    return samplers.run(key, algorithm, positions, 5, thinning=2)


def _run_statistics(key, positions, step):
    algorithm = samplers.mala(_log_density, step)
    return samplers.run_statistics(key, algorithm, positions, 5, covariance=True)


def _of_draws(name, *settings, **more):
    args = (DRAWS, *settings)
    return Case(f"dltheory.samplers.{name}", args, wrong={"draws": (VECTOR, *settings)}, **more)


def _net(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["out"]


PARAMS = {"hidden": _RNG.normal(size=(2, 4)), "out": _RNG.normal(size=(4, 3))}
SCALES = {"hidden": np.array(0.5), "out": 1 + PARAMS["out"] ** 2}
PARAM_DRAWS = {"hidden": _RNG.normal(size=(2, 3, 2, 4)), "out": _RNG.normal(size=(2, 3, 4, 3))}
UNEVEN = {"hidden": np.ones((2, 3, 2, 4)), "out": np.ones((2, 4, 4, 3))}
TARGETS = _RNG.normal(size=(5, 3))
LABELS = np.array([0, 2, 1, 1, 0])
OUTPUTS = _RNG.normal(size=(2, 3, 5, 3))
PROBABILITIES = np.exp(TARGETS) / np.exp(TARGETS).sum(axis=1, keepdims=True)


def _with_noise(variance):
    return lambda outputs, targets: samplers.gaussian_log_likelihood(outputs, targets, variance)


def _log_posterior(params, x, y, variance, scale):
    return samplers.log_posterior(_net, x, y, log_likelihood_fn=_with_noise(variance), prior_scale=scale)(params)


def _example_log_likelihood(params, x, y, variance):
    return samplers.example_log_likelihood(_net, _with_noise(variance))(params, (x, y))


def _of_classes(name, **settings):
    return Case(
        f"dltheory.samplers.{name}",
        (PROBABILITIES, LABELS),
        call=lambda p, labels: getattr(samplers, name)(p, labels, **settings),
        wrong={"probabilities": (DATA[0], LABELS), "labels": (PROBABILITIES, LABELS[:2])},
        grad=() if settings else (0,),
    )


def _transitions(log_density, proposal):
    return samplers.transition_matrix(log_density, jax.nn.softmax(proposal, axis=1))


def _average(step_size, rates):
    search = samplers.dual_averaging()
    state = search.init(step_size)
    for rate in rates:
        state = search.update(state, rate)
    return state


def _warm_up(key, positions, step_size):
    def make(step_size, inverse_mass_matrix):
        return samplers.hmc(_log_density, step_size, 2, inverse_mass_matrix=inverse_mass_matrix)

    return samplers.warmup(key, make, positions, 20, initial_step_size=step_size)


CASES = (
    _of_draws("rhat", grad=()),
    _of_draws("ess_bulk", grad=()),
    _of_draws("ess_mean", grad=()),
    Case(
        "dltheory.samplers.ess_tail",
        (DRAWS, np.array(0.1)),
        wrong={"draws": (VECTOR, 0.1), "probability": (DRAWS, np.ones(2))},
        grad=(),
    ),
    Case(
        "dltheory.samplers.ess_quantile",
        (DRAWS, np.array(0.3)),
        wrong={"draws": (VECTOR, 0.3), "probability": (DRAWS, np.ones(2))},
        grad=(),
    ),
    _of_draws("mcse_mean", grad=()),
    _of_draws("mcse_sd", grad=()),
    Case(
        "dltheory.samplers.mcse_quantile",
        (DRAWS, np.array(0.3)),
        wrong={"draws": (VECTOR, 0.3), "probability": (DRAWS, np.ones(2))},
        grad=(),
    ),
    _of_draws("autocorrelation"),
    Case("dltheory.samplers.ebfmi", (DRAWS,), wrong={"draws": (VECTOR,)}),
    Case(
        "dltheory.samplers.kinetic_energy",
        (MOMENTUM, DIAGONAL),
        call=lambda y, m: samplers.kinetic_energy(y, inverse_mass_matrix=m),
        wrong={"inverse_mass_matrix": (MOMENTUM, np.ones(3))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.hamiltonian",
        (X, MOMENTUM, DIAGONAL),
        call=lambda x, y, m: samplers.hamiltonian(_log_density, x, y, inverse_mass_matrix=m),
        wrong={"momentum": (X, np.ones(3), DIAGONAL), "position": (INTEGERS, MOMENTUM, DIAGONAL)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.samplers.leapfrog",
        (X, MOMENTUM, STEP, DIAGONAL),
        call=lambda x, y, step, m: samplers.leapfrog(_log_density, x, y, step, 2, inverse_mass_matrix=m),
        wrong={"momentum": (X, np.ones(3), STEP, DIAGONAL), "step_size": (X, MOMENTUM, DIAGONAL, DIAGONAL)},
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.samplers.sample_momentum",
        (KEY, X, DIAGONAL),
        call=lambda key, x, m: samplers.sample_momentum(key, x, inverse_mass_matrix=m),
        wrong={"inverse_mass_matrix": (KEY, X, np.ones(3)), "like": (KEY, INTEGERS, DIAGONAL)},
        grad=(2,),
    ),
    Case(
        "dltheory.samplers.hmc",
        (KEY, X, STEP, DIAGONAL),
        call=_steps(lambda step, m: samplers.hmc(_log_density, step, 3, inverse_mass_matrix=m)),
        wrong={"inverse_mass_matrix": (KEY, X, STEP, np.ones(3)), "position": (KEY, INTEGERS, STEP, DIAGONAL)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.run",
        (KEY, np.stack([X, -X]), STEP),
        call=_run,
        wrong={"positions": (KEY, np.array(0.5), STEP), "step_size": (KEY, np.stack([X, -X]), DIAGONAL)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.run_statistics",
        (KEY, np.stack([X, -X]), STEP),
        call=_run_statistics,
        wrong={"positions": (KEY, np.array(0.5), STEP), "step_size": (KEY, np.stack([X, -X]), DIAGONAL)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.nuts",
        (KEY, X, STEP, DIAGONAL),
        call=_steps(lambda step, m: samplers.nuts(_log_density, step, inverse_mass_matrix=m, max_num_doublings=4)),
        wrong={"inverse_mass_matrix": (KEY, X, STEP, np.ones(3)), "position": (KEY, INTEGERS, STEP, DIAGONAL)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.dual_averaging",
        (STEP, np.array([0.3, 0.9])),
        call=_average,
        wrong={"step_size": (DIAGONAL, DIAGONAL), "acceptance_rate": (STEP, np.ones((2, 2)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.warmup",
        (KEY, POSITIONS, STEP),
        call=_warm_up,
        wrong={"positions": (KEY, np.array(1.0), STEP), "initial_step_size": (KEY, POSITIONS, DIAGONAL)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.ula",
        (KEY, X, STEP),
        call=_steps(lambda step: samplers.ula(_log_density, step)),
        wrong={"step_size": (KEY, X, DIAGONAL), "position": (KEY, INTEGERS, STEP)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.samplers.mala",
        (KEY, X, STEP),
        call=_steps(lambda step: samplers.mala(_log_density, step)),
        wrong={"step_size": (KEY, X, DIAGONAL), "position": (KEY, INTEGERS, STEP)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.underdamped_langevin",
        (KEY, X, STEP, DIAGONAL),
        call=_steps(lambda step, m: samplers.underdamped_langevin(_log_density, step, 0.7, inverse_mass_matrix=m)),
        wrong={"step_size": (KEY, X, DIAGONAL, DIAGONAL), "inverse_mass_matrix": (KEY, X, STEP, np.eye(2))},
        grad=(1, 2, 3),
    ),
    Case(
        "dltheory.samplers.acceptance_probability",
        (np.array(0.3), np.array(-0.4), np.array(0.1), np.array(-0.2)),
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.samplers.metropolis_hastings",
        (KEY, X),
        call=lambda key, x: _steps(lambda: _asymmetric(x))(key, x),
        grad=(),
    ),
    Case(
        "dltheory.samplers.random_walk_metropolis",
        (KEY, X, STEP),
        call=_steps(lambda scale: samplers.random_walk_metropolis(_log_density, scale)),
        wrong={"scale": (KEY, X, np.ones(3)), "position": (KEY, INTEGERS, STEP)},
        grad=(),
    ),
    Case(
        "dltheory.samplers.independence_sampler",
        (KEY, X),
        call=lambda key, x: _steps(lambda: _independent(x))(key, x),
        grad=(),
    ),
    Case(
        "dltheory.samplers.transition_matrix",
        (np.array([0.1, -0.5, 0.4]), _RNG.normal(size=(3, 3))),
        call=_transitions,
        wrong={"proposal": (np.zeros(3), np.zeros((2, 2)))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.potential",
        (X,),
        call=lambda x: samplers.potential(lambda t: _log_likelihood(t, DATA[0].astype(t.dtype)), _log_density)(x),
    ),
    Case("dltheory.samplers.exact_score", (X,), call=_exact),
    Case(
        "dltheory.samplers.minibatch_score",
        (KEY, X, DATA),
        call=_estimate(samplers.minibatch_score),
        wrong={"data": (KEY, X, np.array(1.0))},
        grad=(1, 2),
    ),
    Case(
        "dltheory.samplers.control_variate_score",
        (KEY, X, DATA),
        call=_estimate(samplers.control_variate_score),
        wrong={"data": (KEY, X, np.array(1.0))},
        grad=(1, 2),
    ),
    Case(
        "dltheory.samplers.minibatch_score_variance",
        (X, DATA),
        call=lambda x, data: samplers.minibatch_score_variance(_log_likelihood, x, data, 2, replace=False),
        wrong={"data": (X, np.array(1.0))},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.gaussian_log_prior",
        (PARAMS, SCALES),
        wrong={"scale": (PARAMS, X), "params": (INTEGERS, STEP)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.gaussian_log_likelihood",
        (TARGETS[0], TARGETS[1], STEP),
        wrong={"targets": (TARGETS[0], X, STEP), "noise_variance": (TARGETS[0], TARGETS[1], X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.samplers.categorical_log_likelihood",
        (TARGETS[0], LABELS[1]),
        wrong={"outputs": (TARGETS, LABELS[1]), "targets": (TARGETS[0], LABELS)},
    ),
    Case(
        "dltheory.samplers.example_log_likelihood",
        (PARAMS, X, TARGETS[0], STEP),
        call=_example_log_likelihood,
        wrong={"targets": (PARAMS, X, TARGETS, STEP)},
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.samplers.log_posterior",
        (PARAMS, DATA, TARGETS, STEP, SCALES),
        call=_log_posterior,
        wrong={"y": (PARAMS, DATA, TARGETS[:2], STEP, SCALES), "targets": (PARAMS, DATA, TARGETS[:, :1], STEP, SCALES)},
        grad=(0, 1, 2, 3, 4),
    ),
    Case(
        "dltheory.samplers.posterior_outputs",
        (PARAM_DRAWS, DATA),
        call=lambda draws, x: samplers.posterior_outputs(_net, draws, x, batch_size=4),
        wrong={"draws": (UNEVEN, DATA)},
        grad=(0, 1),
    ),
    Case(
        "dltheory.samplers.predictive_mean_and_variance",
        (OUTPUTS, STEP),
        wrong={"outputs": (DATA, STEP), "noise_variance": (OUTPUTS, X)},
        grad=(0, 1),
    ),
    Case("dltheory.samplers.predictive_probabilities", (OUTPUTS,), wrong={"logits": (DATA,)}),
    Case(
        "dltheory.samplers.log_predictive_density",
        (OUTPUTS, TARGETS, STEP),
        call=lambda outputs, y, variance: samplers.log_predictive_density(outputs, y, _with_noise(variance)),
        wrong={"outputs": (DATA, TARGETS, STEP), "y": (OUTPUTS, TARGETS[:2], STEP)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.samplers.predictive_cdf",
        (OUTPUTS, TARGETS, STEP),
        wrong={"outputs": (DATA, TARGETS, STEP), "y": (OUTPUTS, DATA, STEP), "noise_variance": (OUTPUTS, TARGETS, X)},
        grad=(0, 1, 2),
    ),
    Case(
        "dltheory.samplers.interval_coverage",
        (PROBABILITIES, np.array([0.3, 0.8])),
        wrong={"probability": (PROBABILITIES, STEP)},
        grad=(),
    ),
    _of_classes("brier_score"),
    _of_classes("reliability_curve", num_bins=2),
    _of_classes("expected_calibration_error", num_bins=2),
    Case(
        "dltheory.samplers.sgld",
        (KEY, X, STEP),
        call=lambda key, x, step: _steps(lambda: samplers.sgld(_batches(x), step))(key, x),
        wrong={"step_size": (KEY, X, DIAGONAL), "position": (KEY, INTEGERS, STEP)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.samplers.psgld",
        (KEY, X, STEP),
        call=_psgld,
        wrong={"step_size": (KEY, X, DIAGONAL), "position": (KEY, INTEGERS, STEP)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.samplers.sghmc",
        (KEY, X, STEP, np.array(0.7), DIAGONAL, np.array([0.1, 0.2])),
        call=_sghmc,
        wrong={
            "step_size": (KEY, X, DIAGONAL, 0.7, DIAGONAL, 0.0),
            "friction": (KEY, X, STEP, np.ones(3), DIAGONAL, 0.0),
            "inverse_mass_matrix": (KEY, X, STEP, 0.7, np.eye(2), 0.0),
            "noise_estimate": (KEY, X, STEP, 0.7, DIAGONAL, np.ones(3)),
            "position": (KEY, INTEGERS, STEP, 0.7, DIAGONAL, 0.0),
        },
        grad=(1, 2, 3, 4, 5),
    ),
    Case(
        "dltheory.samplers.gibbs",
        (KEY, (np.array(0.7), np.array(-0.4)), STEP),
        call=_blocks("systematic"),
        wrong={
            "conditionals": (KEY, (np.array(0.7), np.array(-0.4), np.array(0.1)), STEP),
            "scale": (KEY, (np.array(0.7), np.array(-0.4)), np.ones(3)),
        },
        grad=(),
    ),
    Case(
        "dltheory.samplers.gibbs",
        (KEY, (np.array(0.7), np.array(-0.4)), STEP),
        call=_blocks("random"),
        grad=(),
        label="random",
    ),
    Case(
        "dltheory.samplers.block_kernel",
        (KEY, {"a": X, "b": MOMENTUM}, STEP),
        call=_block,
        wrong={"scale": (KEY, {"a": X, "b": MOMENTUM}, np.ones(3))},
        grad=(),
    ),
    Case(
        "dltheory.samplers.parallel_tempering",
        (KEY, X, STEP, np.array([1.0, 0.5, 0.2])),
        call=_tempered,
        wrong={
            "inverse_temperatures": (KEY, X, STEP, np.ones((1, 1))),
            "position": (KEY, INTEGERS, STEP, np.array([1.0, 0.5])),
        },
        grad=(),
    ),
)
