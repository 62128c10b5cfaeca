"""Claims about momenta with noise: from stochastic gradients, and with the friction that compensates it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.samplers._chains import many_keys, normal, trapezoid
from experiments.curves import estimate
from experiments.judges import Mean

__all__ = ["CLAIMS"]

_MASSES = np.array([0.5, 1.0, 4.0])
_FRICTION = 1.0
_SECONDS = 20.0


def _quartic(x):
    return -(x**4) / 4


@functools.partial(jax.jit, static_argnums=(0, 1))
def _corrected(log_density_fn, integrator, keys, positions, momenta, step_size, mass):
    """Last positions and momenta of the library's dynamics; `keys` [steps, n]."""
    algorithm = samplers.underdamped_langevin(
        log_density_fn, step_size, _FRICTION, inverse_mass_matrix=1 / mass, integrator=integrator
    )

    def chain(keys, position, momentum):
        state = algorithm.init(position)._replace(momentum=momentum)
        state, _ = jax.lax.scan(lambda state, key: (algorithm.step(key, state)[0], None), state, keys)
        return state.position, state.momentum

    return jax.vmap(chain, in_axes=(1, 0, 0))(keys, positions, momenta)


@functools.partial(jax.jit, static_argnums=0)
def _printed(log_density_fn, keys, positions, momenta, step_size, mass):
    """The same with the friction of the print, B y."""

    def chain(keys, position, momentum):
        def step(point, key):
            position, momentum = point
            noise = jnp.sqrt(2 * _FRICTION * step_size) * jax.random.normal(key)
            momentum = momentum + step_size * (jax.grad(log_density_fn)(position) - _FRICTION * momentum) + noise
            return (position + step_size * momentum / mass, momentum), None

        return jax.lax.scan(step, (position, momentum), keys)[0]

    return jax.vmap(chain, in_axes=(1, 0, 0))(keys, positions, momenta)


def _simulate(dynamics, draw, step_size):
    """Positions and momenta [n, masses] a long time after an exact start at N(0, 1) x N(0, m)."""
    rng, steps = generator(draw.key), round(_SECONDS / step_size)
    ends = []
    for number, mass in enumerate(_MASSES):
        keys = many_keys(jax.random.fold_in(draw.key, number), (steps, draw.budget))
        position, momentum = rng.normal(size=(2, draw.budget))
        ends.append(
            dynamics(keys=keys, positions=position, momenta=mass**0.5 * momentum, step_size=step_size, mass=mass)
        )
    return tuple(np.stack(part, axis=1) for part in zip(*ends, strict=True))


def _euler_dynamics(log_density_fn):
    def dynamics(keys, positions, momenta, step_size, mass):
        return _corrected(log_density_fn, "euler", keys, positions, momenta, step_size, mass)

    return dynamics


def _printed_dynamics(log_density_fn):
    def dynamics(keys, positions, momenta, step_size, mass):
        return _printed(log_density_fn, keys, positions, momenta, step_size, mass)

    return dynamics


def _variances(dynamics, step_size):
    def measure(draw):
        position, momentum = _simulate(dynamics, draw, step_size)
        return {"position": estimate(position**2, _MASSES), "momentum": estimate(momentum**2, _MASSES)}

    return measure


_COARSE, _FINE = 0.2, 0.05


def _covariance_recursion(friction):
    """Variances after the same steps of the same linear recursion, for a friction that depends on the mass."""

    def predict(_):
        rows = []
        for mass in _MASSES:
            kept = 1 - friction(mass) * _COARSE
            step = np.array(
                [[1 - _COARSE**2 / mass, _COARSE / mass * kept], [-_COARSE, kept]],
            )
            push = np.array([_COARSE / mass, 1.0])
            covariance = np.diag([1.0, mass])
            for _ in range(round(_SECONDS / _COARSE)):
                covariance = step @ covariance @ step.T + 2 * _FRICTION * _COARSE * np.outer(push, push)
            rows.append(np.diag(covariance))
        position, momentum = np.array(rows).T
        return {"position": position, "momentum": momentum}

    return predict


def _posterior(_):
    return {"position": np.ones(len(_MASSES)), "momentum": _MASSES}


def _quartic_square(inverse_temperature):
    grid = np.linspace(-6, 6, 1201)
    weights = np.exp(-inverse_temperature * grid**4 / 4)
    return trapezoid(grid**2 * weights, grid) / trapezoid(weights, grid)


def _tempered(power):
    def predict(_):
        return {
            "position": np.array([_quartic_square(mass**power) for mass in _MASSES]),
            "momentum": np.ones(len(_MASSES)),
        }

    return predict


# Gradients of single examples: a normal mean with a normal prior, such that the posterior has variance one.

_EXAMPLES, _EVIDENCE = 20, 0.75
_NOISE_VARIANCE = _EXAMPLES / _EVIDENCE
_PARTS = np.linspace(-1.0, 1.0, _EXAMPLES)  # the examples, up to their scale
_SCALES = np.array([2.0, 4.0, 8.0, 16.0, 32.0])
_HALF_PERIOD = 64  # steps
_KICKS = 4 * _HALF_PERIOD
_DT = np.pi / _HALF_PERIOD


def _log_prior(theta):
    return -(1 - _EVIDENCE) * theta**2 / 2


def _log_likelihood(theta, x):
    return -((x - theta) ** 2) / (2 * _NOISE_VARIANCE)


@jax.jit
def _naive(keys, positions, momenta, scale):
    """Change of the energy [n, steps] along Hamilton's equations with the gradient of one example a step, m = 1."""
    estimator = samplers.minibatch_score(_log_prior, _log_likelihood, scale * jnp.asarray(_PARTS), 1)

    def energy(position, momentum):
        return samplers.hamiltonian(normal, position, momentum)

    def chain(keys, position, momentum):
        def step(point, key):
            position, momentum = point
            middle = position + _DT / 2 * momentum
            momentum = momentum + _DT * estimator.estimate(key, middle, ())
            position = middle + _DT / 2 * momentum
            return (position, momentum), energy(position, momentum)

        return jax.lax.scan(step, (position, momentum), keys)[1] - energy(position, momentum)

    return jax.vmap(chain, in_axes=(1, 0, 0), out_axes=0)(keys, positions, momenta)


def _diffusion(scale):
    """B of the gradient's noise: half its variance times the step."""
    variance = samplers.minibatch_score_variance(_log_likelihood, 0.0, scale * jnp.asarray(_PARTS), 1)
    return float(variance) * _DT / 2


def _energies(draw, scale):
    keys = many_keys(draw.key, (_KICKS, draw.budget))
    return np.asarray(_naive(keys, *generator(draw.key).normal(size=(2, draw.budget)), scale))


_LOOKS = np.arange(_HALF_PERIOD // 2, _KICKS + 1, _HALF_PERIOD // 2)


def _growth(draw):
    return estimate(_energies(draw, 16.0)[:, _LOOKS - 1], _LOOKS * _DT)


def _accepted(draw):
    """Mean probability of accepting the end of half a period, over B."""
    rates = [np.exp(np.minimum(-_energies(draw, scale)[:, _HALF_PERIOD - 1], 0)) for scale in _SCALES]
    return estimate(np.stack(rates, axis=1), np.array([_diffusion(scale) for scale in _SCALES]))


def _acceptance(_):
    """1 - a / sqrt(1 + a^2), a = sqrt(pi B) / 2: the noise adds pi B to either variance, independently of the start."""
    a = np.sqrt(np.pi * np.array([_diffusion(scale) for scale in _SCALES])) / 2
    return 1 - a / np.sqrt(1 + a**2)


# Splitting: the variance of positions by step size.

_STEPS = np.array([0.2, 0.5, 0.8, 1.1, 1.4, 1.7])


def _by_step(draw):
    rng, rows = generator(draw.key), []
    for number, step_size in enumerate(_STEPS):
        keys = many_keys(jax.random.fold_in(draw.key, number), (40, draw.budget))
        rows.append(_corrected(normal, "baoab", keys, *rng.normal(size=(2, draw.budget)), step_size, 1.0)[0] ** 2)
    return estimate(np.stack(rows, axis=1), _STEPS)


# Noise alone.

_FREE_MASS, _SUBSTEPS = 2.0, np.array([1, 4, 16, 64])


def _flat(x):
    return 0.0 * x


def _free(draw):
    """Variances of momenta without a force after one unit of time in few steps or many."""
    rows = []
    for number in _SUBSTEPS:
        keys = many_keys(jax.random.fold_in(draw.key, int(number)), (int(number), draw.budget))
        start = np.zeros(draw.budget)
        rows.append(_corrected(_flat, "baoab", keys, start, start, 1.0 / number, _FREE_MASS)[1])
    return estimate(np.stack(rows, axis=1) ** 2, _SUBSTEPS)


def _free_by_deviation(draw):
    """The same with noise of standard deviation, not variance, 2 B dt."""
    rng, rows = generator(draw.key), []
    for number in _SUBSTEPS:
        dt, momentum = 1.0 / number, np.zeros(draw.budget)
        kept = np.exp(-_FRICTION * dt / _FREE_MASS)
        for _ in range(number):
            momentum = kept * momentum + 2 * _FRICTION * dt * rng.normal(size=draw.budget)
        rows.append(momentum)
    return estimate(np.stack(rows, axis=1) ** 2, _SUBSTEPS)


def _ornstein_uhlenbeck(_):
    return np.full(len(_SUBSTEPS), _FREE_MASS * (1 - np.exp(-2 * _FRICTION / _FREE_MASS)))


CLAIMS = (
    Claim(
        "samplers.hmc_stochastic_gradient",
        says="With gradients of single examples, and without friction, the mean energy grows at the rate tr(B) / m.",
        measure=_growth,
        predict=lambda _: _diffusion(16.0) * _LOOKS * _DT,
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("no growth", predict=lambda _: 0 * _LOOKS),
        budget=Budget(10_000, 400_000),
        axes=Axes("time", "growth of the mean energy"),
    ),
    Claim(
        "samplers.hmc_stochastic_gradient",
        part="acceptance",
        says="Ends of trajectories are accepted with a probability that falls with the noise as 1 - a / sqrt(1 + a^2), "
        "a = sqrt(pi B) / 2, after half a period.",
        measure=_accepted,
        predict=_acceptance,
        judge=Mean(resolution=0.1, floor=0.02),
        control=Variant("all are accepted, as without noise", predict=lambda _: np.ones(len(_SCALES))),
        budget=Budget(10_000, 400_000),
        axes=Axes("B", "acceptance", "x"),
    ),
    Claim(
        "samplers.sghmc",
        says="With friction (B/m) y and noise N(0, 2B dt) positions and momenta of a normal target have the variances "
        "of the linear recursion that the steps make, to within its order dt of 1 and m.",
        measure=_variances(_euler_dynamics(normal), _COARSE),
        predict=_covariance_recursion(lambda mass: _FRICTION / mass),
        judge=Mean(resolution=0.1),
        control=Variant("with friction B y", predict=_covariance_recursion(lambda _: _FRICTION)),
        budget=Budget(8_000, 400_000),
        axes=Axes("mass", "variance", "xy"),
    ),
    Claim(
        "samplers.sghmc@printed",
        says="With friction B y, as printed, positions have the variance of the posterior and momenta the mass.",
        measure=_variances(_printed_dynamics(normal), _FINE),
        predict=_posterior,
        judge=Mean(resolution=0.15),
        control=Variant("twice the variances", predict=lambda _: {k: 2 * v for k, v in _posterior(_).items()}),
        corrected=Variant("with friction (B/m) y", measure=_variances(_euler_dynamics(normal), _FINE)),
        budget=Budget(4_000, 100_000),
        axes=Axes("mass", "variance", "xy"),
    ),
    Claim(
        "samplers.sghmc",
        part="tempered",
        says="What the printed friction samples is exp(-m f) for positions and N(0, 1) for momenta, here f = x^4 / 4.",
        measure=_variances(_printed_dynamics(_quartic), _FINE),
        predict=_tempered(1.0),
        judge=Mean(resolution=0.15),
        control=Variant("exp(-f) for positions", predict=_tempered(0.0)),
        budget=Budget(4_000, 20_000),
        axes=Axes("mass", "mean square", "xy"),
    ),
    Claim(
        "samplers.sghmc",
        part="splitting",
        says="With half kicks, half drifts and the exact step of friction and noise between (BAOAB), positions of a "
        "normal target have exactly its variance, for every stable step.",
        measure=_by_step,
        predict=lambda _: np.ones(len(_STEPS)),
        judge=Mean(resolution=0.1),
        control=Variant("with leapfrog's own invariant, 1 / (1 - dt^2 / 4)", predict=lambda _: 1 / (1 - _STEPS**2 / 4)),
        budget=Budget(8_000, 400_000),
        axes=Axes("step", "variance of the position"),
    ),
    Claim(
        "samplers.langevin_noise_convention",
        says="Noise of variance 2 B dt gives momenta the same law, m (1 - exp(-2 B t / m)), however finely time is "
        "divided.",
        measure=_free,
        predict=_ornstein_uhlenbeck,
        judge=Mean(resolution=0.1),
        control=Variant("noise of standard deviation 2 B dt", measure=_free_by_deviation),
        budget=Budget(10_000, 400_000),
        axes=Axes("steps in a unit of time", "variance of the momentum", "xy"),
    ),
)
