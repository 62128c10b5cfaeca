"""Diffusion models of a mixture of eight normal laws, beside diffrax and beside the same thing written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.case import Absent, Case, Contender

__all__ = ["CASES"]

Array = Any
Law = tuple[Array, Array, Array]  # log weights [k], means [k, d], variances [k, d]

_SEED = 0
_COMPONENTS, _RADIUS, _VARIANCE = 8, 1.5, 0.04
_BETA_MIN, _BETA_MAX = 0.1, 20.0
_SAMPLES, _STEPS, _MIN_TIME = 10_000, 500, 1e-3
_POINTS, _TOLERANCE = 1000, 1e-5
_WIDTHS, _TIME_FEATURES, _BATCH, _EXAMPLES, _LEVELS, _UPDATES = (256, 256, 256), 64, 4096, 65_536, 1000, 20
_LEARNING_RATE, _DECAY = 1e-3, 0.999


def _law() -> Law:
    """Eight components on a circle, the last eight times as likely as the first."""
    angles = 2 * np.pi * np.arange(_COMPONENTS) / _COMPONENTS
    weights = np.arange(1, _COMPONENTS + 1) / np.sum(np.arange(1, _COMPONENTS + 1))
    means = _RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.log(weights), means, np.full((_COMPONENTS, 2), _VARIANCE)


def _draws(num_draws: int, seed: int) -> np.ndarray:
    log_weights, means, variances = _law()
    rng = np.random.default_rng(seed)
    which = rng.choice(len(means), size=num_draws, p=np.exp(log_weights))
    return means[which] + np.sqrt(variances[which]) * rng.normal(size=(num_draws, 2))


def _single(*arrays: np.ndarray) -> tuple[Array, ...]:
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def _log_densities(law: Law, x: np.ndarray) -> np.ndarray:
    log_weights, means, variances = law
    squares = (x[:, None] - means) ** 2 / variances + np.log(2 * np.pi * variances)
    return np.logaddexp.reduce(log_weights - squares.sum(axis=2) / 2, axis=1)


def _hand_diffused(law: Law, t: Array) -> Law:
    log_weights, means, variances = law
    scale = jnp.exp(-(_BETA_MIN + (_BETA_MAX - _BETA_MIN) * t / 2) * t / 2)
    return log_weights, scale * means, scale**2 * variances + 1 - scale**2


def _hand_score(law: Law, x: Array, t: Array) -> Array:
    """The score of the mixture at one point and one time, as one writes it down."""
    log_weights, means, variances = _hand_diffused(law, t)
    offsets = means - x
    weights = jax.nn.softmax(log_weights - jnp.sum(offsets**2 / variances + jnp.log(variances), axis=1) / 2)
    return weights @ (offsets / variances)


def _hand_log_density(law: Law, x: Array, t: Array) -> Array:
    log_weights, means, variances = _hand_diffused(law, t)
    squares = jnp.sum((means - x) ** 2 / variances + jnp.log(2 * jnp.pi * variances), axis=1)
    return jax.nn.logsumexp(log_weights - squares / 2)


def _hand_beta(t: Array) -> Array:
    return _BETA_MIN + (_BETA_MAX - _BETA_MIN) * t


def _our_law(diffusion: Any, sde: Any, law: Law) -> Callable[[Array], Any]:
    """The mixture at a time."""
    mixture = diffusion.GaussianMixture(*law)
    return lambda t: diffusion.diffused(mixture, *sde.marginal_prob(jnp.ones(()), t))


def _diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        raise Absent(str(error)) from None
    return diffrax


# Sampling by the reverse equation.


def _sampling_data() -> tuple[Array, ...]:
    """A seed, the law of the data, and the times of the steps."""
    return np.uint32(_SEED), _single(*_law()), jnp.linspace(1.0, _MIN_TIME, _STEPS + 1)


def _sampling_view(draws: np.ndarray, _seed: Any, law: Law, _times: Any) -> np.ndarray:
    """The share of each component, and its mean and variances in units of its own, plus one."""
    _, means, variances = (np.asarray(part, np.float64) for part in law)
    draws = np.asarray(draws, np.float64)
    nearest = np.argmin(((draws[:, None] - means) ** 2).sum(axis=2), axis=1)
    share = np.bincount(nearest, minlength=len(means)) / len(draws)
    units = (draws - means[nearest]) / np.sqrt(variances[nearest])
    return np.concatenate([share, 1 + units.mean(axis=0), (units**2).mean(axis=0)])


def _sampling_reference(_seed: Any, law: Law, times: Array) -> np.ndarray:
    """The law of the equation at its last time, by formula; the components do not overlap."""
    log_weights, means, variances = law
    scale = np.exp(-(_BETA_MIN + (_BETA_MAX - _BETA_MIN) * times[-1] / 2) * times[-1] / 2)
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    shift = (scale - 1) * means / np.sqrt(variances)
    noisy = (scale**2 * variances + 1 - scale**2) / variances
    return np.concatenate([weights, 1 + weights @ shift, weights @ (noisy + shift**2)])


def _our_samples(vmapped: bool) -> Callable[..., Array]:
    from dltheory import diffusion

    def batch(seed, law, times):
        sde = diffusion.vp_sde(_BETA_MIN, _BETA_MAX)
        law_at = _our_law(diffusion, sde, law)

        def score(x, t):
            return jax.vmap(diffusion.mixture_score, in_axes=(None, 0))(law_at(t), x)

        return diffusion.sample_reverse(jax.random.key(seed), sde, score, (_SAMPLES, 2), times)

    def single(seed, law, times):
        sde = diffusion.vp_sde(_BETA_MIN, _BETA_MAX)
        law_at = _our_law(diffusion, sde, law)

        def score(x, t):
            return diffusion.mixture_score(law_at(t), x)

        keys = jax.random.split(jax.random.key(seed), _SAMPLES)
        return jax.vmap(lambda key: diffusion.sample_reverse(key, sde, score, (2,), times))(keys)

    return single if vmapped else batch


def _scanned_samples() -> Callable[..., Array]:
    def samples(seed, law, times):
        key_start, key_steps = jax.random.split(jax.random.key(seed))

        def step(x, inputs):
            t, next_t, key = inputs
            beta, dt = _hand_beta(t), t - next_t
            score = jax.vmap(lambda x: _hand_score(law, x, t))(x)
            noise = jax.random.normal(key, x.shape)
            return x + dt * beta * (x / 2 + score) + jnp.sqrt(beta * dt) * noise, None

        start = jax.random.normal(key_start, (_SAMPLES, 2))
        keys = jax.random.split(key_steps, len(times) - 1)
        return jax.lax.scan(step, start, (times[:-1], times[1:], keys))[0]

    return samples


def _diffrax_samples(vmapped: bool) -> Callable[..., Array]:
    """On a clock that runs forward. The path is drawn as it is needed: its tree is seventeen times slower."""
    diffrax = _diffrax()
    import lineax

    def solved(key, start, score, last):
        path = diffrax.UnsafeBrownianPath(shape=start.shape, key=key)

        def drift(clock, x, _):
            return _hand_beta(1 - clock) * (x / 2 + score(x, 1 - clock))

        def spread(clock, _x, _args):
            return lineax.DiagonalLinearOperator(jnp.broadcast_to(jnp.sqrt(_hand_beta(1 - clock)), start.shape))

        return diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(spread, path)),
            diffrax.Euler(),
            t0=0.0,
            t1=1 - last,
            dt0=(1 - last) / _STEPS,
            y0=start,
            adjoint=diffrax.ForwardMode(),  # the default would keep what only a gradient needs
            max_steps=_STEPS + 1,
        ).ys[0]

    def samples(seed, law, times):
        key_start, key_steps = jax.random.split(jax.random.key(seed))
        start = jax.random.normal(key_start, (_SAMPLES, 2))
        score = functools.partial(_hand_score, law)
        if not vmapped:
            return solved(key_steps, start, jax.vmap(score, in_axes=(0, None)), times[-1])
        keys = jax.random.split(key_steps, _SAMPLES)
        return jax.vmap(lambda key, start: solved(key, start, score, times[-1]))(keys, start)

    return samples


# Likelihoods by the probability flow.


def _likelihood_data() -> tuple[Array, ...]:
    """The law of the data, from which also comes that of the codes, and the points."""
    return _single(*_law()), *_single(_draws(_POINTS, _SEED))


def _our_log_likelihoods() -> Callable[..., Array]:
    from dltheory import diffusion

    def log_likelihoods(law, x):
        sde = diffusion.vp_sde(_BETA_MIN, _BETA_MAX)
        law_at = _our_law(diffusion, sde, law)
        sde = sde._replace(prior_logp=lambda z: diffusion.mixture_log_density(law_at(sde.horizon), z))

        def score(x, t):
            return diffusion.mixture_score(law_at(t), x)

        def one(x):
            return diffusion.flow_log_likelihood(sde, score, x, rtol=_TOLERANCE, atol=_TOLERANCE).log_likelihood

        return jax.vmap(one)(x)

    return log_likelihoods


def _diffrax_log_likelihoods() -> Callable[..., Array]:
    """As in its documentation's example of a continuous normalising flow, with adaptive steps."""
    diffrax = _diffrax()

    def log_likelihoods(law, x):
        def velocity(t, x):
            return -_hand_beta(t) / 2 * (x + _hand_score(law, x, t))

        def with_trace(t, state, _):
            value, pull = jax.vjp(lambda x: velocity(t, x), state[0])
            (jacobian,) = jax.vmap(pull)(jnp.eye(len(value)))
            return value, jnp.trace(jacobian)

        def one(x):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(with_trace),
                diffrax.Tsit5(),
                t0=0.0,
                t1=1.0,
                dt0=None,
                y0=(x, jnp.zeros(())),
                stepsize_controller=diffrax.PIDController(rtol=_TOLERANCE, atol=_TOLERANCE),
            )
            latent, expansion = (leaf[0] for leaf in solution.ys)
            return expansion + _hand_log_density(law, latent, 1.0)

        return jax.vmap(one)(x)

    return log_likelihoods


# Training.


def _training_data() -> tuple[Array, ...]:
    """A seed, the network's parameters, the examples, and alpha-bar at all times of the cosine schedule."""
    from dltheory import diffusion, networks

    (x,) = _single(_draws(_EXAMPLES, _SEED))
    network = networks.TimeMLP(_WIDTHS, _TIME_FEATURES)
    params = network.init(jax.random.key(_SEED), x[:1], jnp.ones(1))
    return np.uint32(_SEED), params, x, diffusion.cosine_schedule(_LEVELS).alpha_bars


def _training_view(result: tuple[Array, ...], _seed: Any, params: Any, *_: Any) -> np.ndarray:
    """Losses, by quarters of the run, and how far parameters and their average have gone, in units of the former."""
    losses, trained, average = result
    quarters = np.asarray(losses, np.float64).reshape(4, -1).mean(axis=1)
    gone = [_distance(params, to) for to in (trained, average)]
    return np.concatenate([quarters, gone, [gone[1] / gone[0]]])


def _distance(params: Any, others: Any) -> float:
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(others), strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2) for a, b in pairs)))


def _training_reference(seed: Any, params: Any, x: Array, alpha_bars: Array) -> np.ndarray:
    """The program written by hand, in double precision and with other random numbers."""
    result = jax.jit(_trained_by_hand())(seed + 1, params, x, alpha_bars)
    return _training_view(jax.tree.map(np.asarray, result), seed, params)


def _trained_by_us() -> Callable[..., Any]:
    from dltheory import diffusion, networks, training

    network = networks.TimeMLP(_WIDTHS, _TIME_FEATURES)

    def trained(seed, params, x, _):
        schedule = diffusion.cosine_schedule(_LEVELS)

        def loss_fn(params, batch, key):
            def predict(xt, t):
                noise = jnp.asarray(network.apply(params, xt, t))
                return diffusion.prediction_from_noise(noise, xt, t, schedule)

            keys = jax.random.split(key, len(batch))
            return jnp.mean(jax.vmap(lambda key, x: diffusion.simple_loss(key, predict, x, schedule))(keys, batch))

        key_batches, key_noise = jax.random.split(jax.random.key(seed))
        optimizer = training.with_ema(optax.adam(_LEARNING_RATE), _DECAY)
        run = training.fit(
            loss_fn, params, optimizer, x, _UPDATES, key=key_batches, batch_size=_BATCH, loss_key=key_noise
        )
        return run.loss, run.params, training.ema_params(run.state, run.params)

    return trained


def _hand_network(params: Any, x: Array, t: Array) -> Array:
    """The time-conditioned network, of its parameters, for a batch."""

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    params = params["params"]
    half = _TIME_FEATURES // 2
    angles = t[:, None] * jnp.exp(-jnp.log(10_000.0) * jnp.arange(half) / half)
    context = params["_Context_0"]
    waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)
    context = jax.nn.silu(dense(context["Dense_1"], jax.nn.silu(dense(context["Dense_0"], waves))))
    for i in range(len(_WIDTHS)):
        scale, shift = jnp.split(dense(params[f"_Modulation_{i}"]["Dense_0"], context), 2, axis=1)
        x = jax.nn.silu(dense(params[f"Dense_{i}"], x) * (1 + scale) + shift)
    return dense(params[f"Dense_{len(_WIDTHS)}"], x)


def _trained_by_hand() -> Callable[..., Any]:
    optimizer = optax.adam(_LEARNING_RATE)

    def trained(seed, params, x, alpha_bars):
        def loss_fn(params, batch, key):
            key_time, key_noise = jax.random.split(key)
            t = jax.random.randint(key_time, (_BATCH,), 1, _LEVELS + 1)
            noise = jax.random.normal(key_noise, batch.shape, batch.dtype)
            alpha_bar = alpha_bars[t][:, None]
            noisy = jnp.sqrt(alpha_bar) * batch + jnp.sqrt(1 - alpha_bar) * noise
            return jnp.mean(jnp.sum((noise - _hand_network(params, noisy, t.astype(x.dtype))) ** 2, axis=1))

        def step(carry, inputs):
            params, state, average = carry
            number, key = inputs
            key_batch, key_loss = jax.random.split(key)
            batch = x[jax.random.randint(key_batch, (_BATCH,), 0, len(x))]
            loss, grad = jax.value_and_grad(loss_fn)(params, batch, key_loss)
            updates, state = optimizer.update(grad, state)
            params = optax.apply_updates(params, updates)
            kept = jnp.minimum(_DECAY, number / (number + 9)).astype(x.dtype)
            average = jax.tree.map(lambda a, p: kept * a + (1 - kept) * p, average, params)
            return (params, state, average), loss

        keys = jax.random.split(jax.random.key(seed), _UPDATES)
        start = params, optimizer.init(params), params
        (params, _, average), losses = jax.lax.scan(step, start, (jnp.arange(1, _UPDATES + 1), keys))
        return losses, params, average

    return trained


CASES = (
    Case(
        "diffusion.reverse_sde",
        f"reverse VP-SDE, exact score of {_COMPONENTS} components in the plane, {_SAMPLES} samples, "
        f"{_STEPS} Euler-Maruyama steps",
        data=_sampling_data,
        contenders=[
            Contender("dltheory", functools.partial(_our_samples, vmapped=False), ours=True),
            Contender("dltheory, vmapped", functools.partial(_our_samples, vmapped=True), ours=True),
            Contender("scan by hand", _scanned_samples),
            Contender("diffrax, vmapped", functools.partial(_diffrax_samples, vmapped=True)),
            Contender("diffrax, one batch", functools.partial(_diffrax_samples, vmapped=False)),
        ],
        view=_sampling_view,
        reference=_sampling_reference,
        tolerance=0.05,  # Monte-Carlo error and that of the steps
        target=0.91,
    ),
    Case(
        "diffusion.log_likelihood",
        f"log-likelihoods of {_POINTS} points by the probability flow, exact trace, tolerance {_TOLERANCE:g}",
        data=_likelihood_data,
        contenders=[
            Contender("dltheory", _our_log_likelihoods, ours=True),
            Contender("diffrax, Tsit5", _diffrax_log_likelihoods),
        ],
        view=lambda result, *_: np.asarray(result),
        reference=_log_densities,
        target=1,
    ),
    Case(
        "diffusion.training",
        f"{_UPDATES} steps of training on noise, network {'-'.join(map(str, _WIDTHS))}, batches of {_BATCH}, Adam and "
        "its average",
        data=_training_data,
        contenders=[
            Contender("dltheory", _trained_by_us, ours=True),
            Contender("scan by hand", _trained_by_hand),
        ],
        view=_training_view,
        reference=_training_reference,
        tolerance=0.03,
        target=0.95,
    ),
)
