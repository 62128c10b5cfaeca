"""Whole families of networks trained at once, beside their linearisations."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from experiments.claim import generator
from experiments.claims.ntk._networks import INPUTS, family, sphere, spread, switched, widths_up_to
from experiments.curves import Curve, estimate

__all__ = ["SEEDS", "Runs", "flattened", "in_blocks", "trained", "typical"]

SEEDS = 24


class Runs(NamedTuple):
    """Training runs of networks of several widths, each from its own start, recorded ten times.

    Attributes:
        dynamics: the networks and their linearisations, every leaf with leading axes [width, seed].
        diagonals: of the tangent kernel at the examples, first and last, shape [r, seeds, 2, n].
        targets: shape [r, seeds, n].
        widths: shape [r].
        stability: learning rate times the largest eigenvalue of the kernel.
        x, x_test: examples [n, d] and other inputs [m, d].
    """

    dynamics: ntk.NtkDynamics
    diagonals: np.ndarray
    targets: np.ndarray
    widths: np.ndarray
    stability: float
    x: np.ndarray
    x_test: np.ndarray


@functools.partial(jax.jit, static_argnums=5)
def _train(variables, x, x_test, errors, stability, num_steps):
    """Gradient descent on the squared loss for every network in the leading axis."""

    def run(variables):
        start = ntk.gram(switched, variables, x)
        targets = switched(variables, x) + errors[:, None]
        rate = stability / jnp.linalg.eigvalsh(start)[-1]
        dynamics = ntk.ntk_dynamics(
            switched, variables, x, targets, x_test,
            learning_rate=rate, num_steps=num_steps, record_every=num_steps // 10,
        )  # fmt: skip
        last = ntk.gram(switched, dynamics.params, x)
        return dynamics._replace(params=()), jnp.stack([jnp.diag(start), jnp.diag(last)]), targets[:, 0]

    return jax.lax.map(run, variables)  # one by one, so that a network and its gradient stay in the cache


def flattened(tree: Any) -> Any:
    """Leaves with leading axes [width, seed] as leaves with one."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def trained(
    key: Any,
    largest: int,
    *,
    activation: str = "tanh",
    bent: bool = False,
    seeds: int = SEEDS,
    n: int = 6,
    num_steps: int = 200,
    power: float = -0.5,
    distance: float = 1.0,
    stability: float = 1.0,
) -> Runs:
    """Networks of widths from 64 to `largest`, `seeds` of each, that learn `n` examples on a sphere.

    Targets are initial outputs plus a smooth function of the inputs: all networks have equally far to go.

    Args:
        key: makes inputs, targets and starts.
        largest: the largest width, a power of two.
        activation: "tanh" or "ReLU".
        bent: whether outputs pass through tanh.
        seeds: number of networks of each width.
        n: number of examples.
        num_steps: steps of gradient descent, a multiple of ten.
        power: outputs are scaled by width^power.
        distance: of the targets from the initial outputs, at most.
        stability: learning rate times the kernel's largest eigenvalue.
    """
    rng = generator(key)
    x, x_test = spread(rng, n), sphere(rng, 20)
    errors = distance * np.sin(x @ rng.normal(size=INPUTS))
    members = family(rng, widths_up_to(largest), seeds, activation=activation, bent=bent, power=power)

    def train(variables):
        return _train(variables, x, x_test, errors, stability, num_steps)

    results = in_blocks(train, (flattened(members.variables),), SEEDS)
    shape = (len(members.widths), seeds)
    dynamics, diagonals, targets = jax.tree.map(lambda leaf: np.reshape(leaf, (*shape, *leaf.shape[1:])), results)
    return Runs(dynamics, diagonals, targets, members.widths, stability, x, x_test)


def in_blocks(function, args, size):
    """A function of arrays with one leading axis, called on `size` rows at a time: few shapes need few compilations."""
    rows = len(jax.tree.leaves(args)[0])
    parts = [function(*jax.tree.map(lambda leaf, i=i: leaf[i : i + size], args)) for i in range(0, rows, size)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def typical(samples, widths):
    """Geometric mean over networks, of samples [r, seeds]: no outlier decides it."""
    log = estimate(np.log(samples).T)
    return Curve(np.exp(log.y), widths, np.exp(log.y) * log.standard_error)
