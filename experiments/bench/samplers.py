"""Chains on the posterior of a logistic regression, against blackjax and numpyro: effective draws for the time."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.case import Absent, Case, Contender

__all__ = ["CASES"]

Array = Any
LogDensity = Callable[[Array], Array]
Run = Callable[[Array, LogDensity, Array], Array]  # (key, log density, starts [c, d]) -> draws [c, s, d]

_EXAMPLES, _INPUTS = 1000, 25
_SEED = 0


def _log_prior(weights: Array) -> Array:
    return -jnp.sum(weights**2) / 2


def _softplus(x: Array) -> Array:
    """The logarithm of 1 + exp(x), without overflow, and with a derivative that costs no logarithm."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


def _log_likelihood(weights: Array, example: tuple[Array, Array]) -> Array:
    """Of one example, or of many together."""
    x, y = example
    logits = x @ weights
    return jnp.sum(y * logits - _softplus(logits))


def _log_posterior(x: Array, y: Array) -> LogDensity:
    return lambda weights: _log_prior(weights) + _log_likelihood(weights, (x, y))


def _problem() -> tuple[np.ndarray, np.ndarray]:
    """Inputs whose correlations are 1/2, 1/4, ..., and labels drawn from the model."""
    rng = np.random.default_rng(_SEED)
    lags = np.abs(np.subtract.outer(np.arange(_INPUTS), np.arange(_INPUTS)))
    x = rng.normal(size=(_EXAMPLES, _INPUTS)) @ np.linalg.cholesky(0.5**lags).T
    chance = 1 / (1 + np.exp(-x @ rng.normal(size=_INPUTS) / 2))
    return x, (rng.uniform(size=_EXAMPLES) < chance).astype(float)


def _laplace(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mode, by Newton's method, and the covariance of the normal law around it."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weights, precision = np.zeros(x.shape[1]), np.eye(x.shape[1])
    for _ in range(20):
        chance = 1 / (1 + np.exp(-x @ weights))
        precision = (x.T * (chance * (1 - chance))) @ x + np.eye(x.shape[1])
        weights = weights + np.linalg.solve(precision, x.T @ (y - chance) - weights)
    return weights, np.linalg.inv(precision)


def _data(chains: int) -> tuple[Array, ...]:
    """A seed, where the chains start, and the examples. The starts are from the normal law: no draw is wasted."""
    x, y = _problem()
    mode, covariance = _laplace(x, y)
    starts = np.random.default_rng(_SEED + 1).multivariate_normal(mode, covariance, size=chains)
    return np.uint32(_SEED), *(jnp.asarray(array, jnp.float32) for array in (starts, x, y))


def _in_deviations(mean: np.ndarray, deviation: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Means and deviations in units of the normal law's, so that an error is one in posterior deviations."""
    mode, covariance = _laplace(x, y)
    unit = np.sqrt(np.diag(covariance))
    return np.concatenate([1 + (mean - mode) / unit, deviation / unit])


def _view(draws: np.ndarray, _seed: Any, _starts: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rows = np.asarray(draws, np.float64).reshape(-1, draws.shape[-1])
    return _in_deviations(rows.mean(axis=0), rows.std(axis=0), x, y)


def _reference(_seed: Any, _starts: Any, x: np.ndarray, y: np.ndarray, num_draws: int = 100_000) -> np.ndarray:
    """By importance sampling from a somewhat wider normal law, in NumPy."""
    mode, covariance = _laplace(x, y)
    factor = np.linalg.cholesky(1.1 * covariance)
    rng = np.random.default_rng(_SEED + 2)
    draws, log_weights = [], []
    for _ in range(0, num_draws, 5000):
        noise = rng.normal(size=(5000, len(mode)))
        weights = mode + noise @ factor.T
        logits = weights @ x.T
        log_density = logits @ y - np.logaddexp(0, logits).sum(axis=1) - (weights**2).sum(axis=1) / 2
        draws.append(weights)
        log_weights.append(log_density + (noise**2).sum(axis=1) / 2)
    rows, log_weight = np.concatenate(draws), np.concatenate(log_weights)
    weight = np.exp(log_weight - log_weight.max())
    mean = np.average(rows, axis=0, weights=weight)
    deviation = np.sqrt(np.average((rows - mean) ** 2, axis=0, weights=weight))
    return _in_deviations(mean, deviation, x, y)


def _min_ess(draws: np.ndarray, *_: Any) -> float:
    """Of the coordinate that is known worst."""
    from dltheory import samplers

    return float(np.min(samplers.ess_bulk(draws)))


def _num_draws(draws: np.ndarray, *_: Any) -> float:
    return float(draws.shape[0] * draws.shape[1])


def _peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Absent(str(error)) from None


def _contender(name: str, build: Callable[[], Run], ours: bool = False) -> Contender:
    def program() -> Callable[..., Array]:
        run = build()
        return lambda seed, starts, x, y: run(jax.random.key(seed), _log_posterior(x, y), starts)

    return Contender(name, program, ours=ours)


def _ours(make: Callable[[Any, LogDensity], Any], num_steps: int) -> Run:
    from dltheory import samplers

    return lambda key, density, starts: samplers.run(key, make(samplers, density), starts, num_steps).positions


def _blackjax(make: Callable[[Any, LogDensity], Any], num_steps: int) -> Run:
    """Its kernel mapped over the chains, in one scan with the keys of all steps split beforehand."""
    blackjax = _peer("blackjax")

    def run(key, density, starts):
        algorithm = make(blackjax, density)
        return _scan(key, algorithm.step, jax.vmap(algorithm.init)(starts), num_steps, lambda state: state.position)

    return run


def _scan(key, step, states, num_steps, position):
    """Draws [c, s, d] of a kernel of one chain."""
    num_chains = len(jax.tree.leaves(states)[0])
    keys = jax.random.split(key, (num_steps, num_chains))

    def one(states, keys):
        states, _ = jax.vmap(step)(keys, states)
        return states, position(states)

    return jnp.swapaxes(jax.lax.scan(one, states, keys)[1], 0, 1)


def _numpyro(make: Callable[[Any, LogDensity], Any], num_steps: int, num_warmup: int = 0) -> Run:
    """Its own loop, with the chains vectorised."""
    infer = _peer("numpyro.infer")

    def run(key, density, starts):
        chains = infer.MCMC(
            make(infer, lambda weights: -density(weights)),
            num_warmup=num_warmup,
            num_samples=num_steps,
            num_chains=len(starts),
            chain_method="vectorized",
            progress_bar=False,
        )
        chains.run(key, init_params=starts)
        return chains.get_samples(group_by_chain=True)

    return run


def _blackjax_ula(step_size: float, num_steps: int) -> Run:
    """Its SGLD, with the gradient itself in place of an estimate."""
    blackjax = _peer("blackjax")

    def run(key, density, starts):
        algorithm = blackjax.sgld(lambda position, _batch: jax.grad(density)(position))

        def step(key, position):
            return algorithm.step(key, position, (), step_size), None

        return _scan(key, step, starts, num_steps, lambda position: position)

    return run


def _our_sgld(step_size: float, batch: int, num_steps: int) -> Callable[..., Array]:
    try:
        from dltheory import samplers

        sgld = samplers.sgld
    except (ImportError, AttributeError) as error:
        raise Absent(str(error)) from None

    def run(seed, starts, x, y):
        estimator = samplers.minibatch_score(_log_prior, _log_likelihood, (x, y), batch)
        return samplers.run(jax.random.key(seed), sgld(estimator, step_size), starts, num_steps).positions

    return run


def _blackjax_sgld(step_size: float, batch: int, num_steps: int) -> Callable[..., Array]:
    """Every chain draws mini-batches of its own."""
    blackjax = _peer("blackjax")
    gradients = _peer("blackjax.sgmcmc.gradients")

    def run(seed, starts, x, y):
        estimate = gradients.grad_estimator(_log_prior, _log_likelihood, len(x))
        algorithm = blackjax.sgld(estimate)

        def step(key, position):
            key_batch, key_step = jax.random.split(key)
            indices = jax.random.randint(key_batch, (batch,), 0, len(x))
            return algorithm.step(key_step, position, (x[indices], y[indices]), step_size), None

        return _scan(jax.random.key(seed), step, starts, num_steps, lambda position: position)

    return run


def _our_nuts(num_warmup: int, num_steps: int) -> Run:
    from dltheory import samplers

    try:
        nuts, warmup = samplers.nuts, samplers.warmup
    except AttributeError as error:
        raise Absent(str(error)) from None

    def run(key, density, starts):
        key_warmup, key_run = jax.random.split(key)

        def make(step_size, inverse_mass_matrix):
            return nuts(density, step_size, inverse_mass_matrix=inverse_mass_matrix)

        found = warmup(key_warmup, make, starts, num_warmup)
        algorithm = make(found.step_size, found.inverse_mass_matrix)
        return samplers.run(key_run, algorithm, found.states.position, num_steps).positions

    return run


def _blackjax_nuts(num_warmup: int, num_steps: int) -> Run:
    """Every chain adapts by itself."""
    blackjax = _peer("blackjax")

    def run(key, density, starts):
        key_warmup, key_run = jax.random.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, density, adaptation_info_fn=lambda *_: None)
        keys = jax.random.split(key_warmup, len(starts))
        found, _ = jax.vmap(lambda key, start: adaptation.run(key, start, num_warmup))(keys, starts)
        kernel = blackjax.nuts.build_kernel()

        def step(key, carried):
            state, parameters = carried
            state, info = kernel(key, state, density, **parameters)
            return (state, parameters), info

        states = found.state, {name: found.parameters[name] for name in ("step_size", "inverse_mass_matrix")}
        return _scan(key_run, step, states, num_steps, lambda carried: carried[0].position)

    return run


def _case(
    name: str, title: str, contenders: list[Contender], chains: int = 64, tolerance: float = 0.05, **settings: Any
) -> Case:
    return Case(
        f"samplers.{name}",
        f"{title}; logistic regression, n = {_EXAMPLES}, d = {_INPUTS}, {chains} chains",
        data=functools.partial(_data, chains),
        contenders=contenders,
        view=_view,
        reference=_reference,
        tolerance=tolerance,
        amounts={"min-ESS": _min_ess, "draws": _num_draws},
        **settings,
    )


# The best of a grid for each: trajectories of random length (7 leaps of 0.06) are best with others than those of one
# length (5 of 0.05), with which a chain soon is where it was. MALA accepts 0.59 of its proposals.
_RANDOM_LENGTH, _FIXED_LENGTH = (0.06, 7), (0.05, 5)
_MALA, _ULA, _SGLD = 0.002, 0.002, 0.0003
_BATCH, _STEPS = 100, 1000


def _hmc_numpyro(infer, potential):
    step_size, num_steps = _FIXED_LENGTH
    return infer.HMC(
        potential_fn=potential,
        step_size=step_size,
        num_steps=num_steps,
        trajectory_length=None,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )


def _hmc_blackjax(peer, density):
    step_size, num_steps = _FIXED_LENGTH
    return peer.hmc(density, step_size, jnp.ones(_INPUTS), num_steps)


CASES = (
    _case(
        "hmc",
        f"HMC, {_STEPS} steps",
        [
            _contender(
                "dltheory",
                lambda: _ours(lambda ours, density: ours.hmc(density, *_RANDOM_LENGTH), _STEPS),
                ours=True,
            ),
            _contender(
                "dltheory, fixed length",
                lambda: _ours(lambda ours, density: ours.hmc(density, *_FIXED_LENGTH, jitter=0.0), _STEPS),
                ours=True,
            ),
            _contender("blackjax", lambda: _blackjax(_hmc_blackjax, _STEPS)),
            _contender("numpyro, vectorized", lambda: _numpyro(_hmc_numpyro, _STEPS)),
        ],
        target=1.5,
    ),
    _case(
        "mala",
        f"MALA, {_STEPS} steps",
        [
            _contender("dltheory", lambda: _ours(lambda ours, density: ours.mala(density, _MALA), _STEPS), ours=True),
            _contender("blackjax", lambda: _blackjax(lambda peer, density: peer.mala(density, _MALA), _STEPS)),
        ],
        target=1.5,
    ),
    _case(
        "ula",
        f"ULA, {_STEPS} steps",
        [
            _contender("dltheory", lambda: _ours(lambda ours, density: ours.ula(density, _ULA), _STEPS), ours=True),
            _contender("blackjax, SGLD of the gradient", lambda: _blackjax_ula(_ULA, _STEPS)),
        ],
        target=2,
        tolerance=0.1,  # the chain itself is biased
    ),
    _case(
        "sgld",
        f"SGLD, batches of {_BATCH}, {_STEPS} steps",
        [
            Contender("dltheory", functools.partial(_our_sgld, _SGLD, _BATCH, _STEPS), ours=True),
            Contender("blackjax", functools.partial(_blackjax_sgld, _SGLD, _BATCH, _STEPS)),
        ],
        target=2,
        tolerance=0.1,
    ),
    _case(
        "nuts",
        "NUTS, 500 steps of warm-up and 500 draws",
        [
            _contender("dltheory, chains adapt together", lambda: _our_nuts(500, 500), ours=True),
            _contender("blackjax, window adaptation", lambda: _blackjax_nuts(500, 500)),
            _contender(
                "numpyro, vectorized",
                lambda: _numpyro(lambda infer, potential: infer.NUTS(potential_fn=potential), 500, 500),
            ),
        ],
        chains=4,
        target=1.5,
    ),
)
