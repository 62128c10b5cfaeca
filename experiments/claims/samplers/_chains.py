"""Many independent chains in one program, and the densities that several claims are about."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import samplers
from experiments.claim import generator

__all__ = [
    "advance",
    "integrate",
    "many_keys",
    "metropolised",
    "mixture",
    "mixture_draws",
    "mixture_second_moment",
    "normal",
    "trapezoid",
]


def advance(make, num_steps, key, positions, *settings):
    """Runs the sampler `make(*settings)` from each of the `positions` [c, ...]: the last states and infos, [c, ...].

    Chains are independent, and so are the numbers read off them: standard errors need no autocorrelation time.
    """
    keys = many_keys(key, (num_steps, len(jax.tree.leaves(positions)[0])))
    return _advance(make, keys, positions, *settings)


@functools.partial(jax.jit, static_argnums=0)
def _advance(make, keys, positions, *settings):
    def chain(keys, position):
        algorithm = make(*settings)
        state = algorithm.init(position)
        info = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(algorithm.step, keys[0], state)[1])
        step = lambda pair, key: (algorithm.step(key, pair[0]), None)  # noqa: E731
        return jax.lax.scan(step, (state, info), keys)[0]

    return jax.vmap(chain, in_axes=(1, 0))(keys, positions)


def many_keys(key, shape):
    """Independent keys without a program for their shape."""
    data = generator(key).integers(0, 2**32, (*shape, 2), np.uint32)
    return jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")


def normal(x):
    """Log density of N(0, I) up to a constant."""
    return -jnp.sum(x**2) / 2


def mixture(a):
    """Log density, up to a constant, of the equal mixture of N(-a, 1) and N(a, 1)."""
    return lambda t: jnp.logaddexp(-((t - a) ** 2) / 2, -((t + a) ** 2) / 2)


def mixture_draws(rng, a, shape):
    """Exact draws from the mixture."""
    return rng.choice([-1.0, 1.0], shape) * a + rng.normal(size=shape)


def mixture_second_moment(a):
    """Mean square of the mixture."""
    return 1 + a**2


def metropolised(log_density_fn, integrator, step_size, num_steps, inverse_mass, momentum_sd=None):
    """Hamiltonian Monte Carlo with any integrator, and with momenta of any variance.

    Args:
        log_density_fn: minus the potential.
        integrator: (log_density_fn, position, momentum, step_size, num_steps, inverse_mass) -> position, momentum.
        step_size: of the integrator.
        num_steps: of the integrator.
        inverse_mass: 1 / m.
        momentum_sd: standard deviation of the momenta; None for the right one, sqrt(m).
    """
    momentum_sd = 1 / jnp.sqrt(inverse_mass) if momentum_sd is None else momentum_sd

    def energy(position, momentum):
        return samplers.hamiltonian(log_density_fn, position, momentum, inverse_mass_matrix=inverse_mass)

    def step(key, position):
        key_momentum, key_accept = jax.random.split(key)
        momentum = momentum_sd * jax.random.normal(key_momentum, jnp.shape(position))
        end = integrator(log_density_fn, position, momentum, step_size, num_steps, inverse_mass)
        rate = samplers.acceptance_probability(-energy(position, momentum), -energy(*end))
        return jnp.where(jax.random.uniform(key_accept) < rate, end[0], position), rate

    return samplers.SamplingAlgorithm(lambda position: position, step)


def integrate(scheme):
    """The integrators by name: "leapfrog", the library's, and "Euler", the explicit one, which is neither."""

    def euler(log_density_fn, position, momentum, step_size, num_steps, inverse_mass):
        def step(_, point):
            position, momentum = point
            return (
                position + step_size * inverse_mass * momentum,
                momentum + step_size * jax.grad(log_density_fn)(position),
            )

        return jax.lax.fori_loop(0, num_steps, step, (position, momentum))

    def leapfrog(log_density_fn, position, momentum, step_size, num_steps, inverse_mass):
        end = samplers.leapfrog(
            log_density_fn, position, momentum, step_size, num_steps, inverse_mass_matrix=inverse_mass
        )
        return end.position, end.momentum

    return {"Euler": euler, "leapfrog": leapfrog}[scheme]


def trapezoid(values, grid):
    """The integral of `values` over an even `grid`, along the last axis."""
    return np.sum(values, axis=-1) * (grid[1] - grid[0])
