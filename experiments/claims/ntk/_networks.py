"""Networks small enough to write by hand, their tangent kernels on paper, and the data that the claims share.

The library is told nothing about these networks: it sees a function of parameters and inputs. Theory sees them through
the formulas here, in NumPy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from dltheory.typing import Array
from experiments.claim import generator

__all__ = [
    "ACTIVATIONS",
    "Family",
    "Problem",
    "family",
    "features_by_hand",
    "kernel",
    "kernel_by_hand",
    "outputs",
    "outputs_by_hand",
    "problem",
    "shallow",
    "sphere",
    "spread",
    "switched",
    "widths_up_to",
]

INPUTS = 3
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "ReLU": jax.nn.relu}
_BY_HAND = {
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2),
    "ReLU": (lambda u: np.maximum(u, 0.0), lambda u: (u > 0).astype(float)),
}


@functools.cache
def shallow(activation: str):
    """One hidden layer in NTK parametrisation, ``scale * V^T phi(W x / sqrt(d))``.

    The scale is no parameter, and kept where only the collection "params" is differentiated.
    """
    phi = ACTIVATIONS[activation]

    def apply(variables: Any, x: Array) -> Array:
        params = variables["params"]
        return variables["setting"]["scale"] * (phi(x @ params["w"].T / np.sqrt(x.shape[-1])) @ params["v"])

    return apply


def switched(variables: Any, x: Array) -> Array:
    """One hidden layer whose width, activation and output are data: one compilation serves all networks of a family."""
    params, setting = variables["params"], variables["setting"]
    u = x @ params["w"].T / np.sqrt(x.shape[-1])
    hidden = jnp.where(setting["rectified"], jax.nn.relu(u), jnp.tanh(u)) * setting["mask"][None, :]
    g = setting["scale"] * (hidden @ params["v"])
    return jnp.where(setting["bent"], jnp.tanh(g), g)


def variables_of(w: np.ndarray, v: np.ndarray) -> dict[str, Any]:
    """Variables of `shallow` with first-layer weights [h, d] and second-layer weights [h, k]."""
    return jax.tree.map(jnp.asarray, {"params": {"v": v, "w": w}, "setting": {"scale": len(w) ** -0.5}})


@functools.partial(jax.jit, static_argnums=0)
def outputs(apply_fn, variables, x):
    """Outputs [n] of a network with one output."""
    return apply_fn(variables, x)[:, 0]


@functools.partial(jax.jit, static_argnums=(0, 4))
def kernel(apply_fn, variables, x1, x2, method="factorized"):
    """The library's tangent kernel [n, m] of a network with one output."""
    return ntk.empirical_ntk(apply_fn, variables, x1, x2, method=method)[..., 0, 0]


def outputs_by_hand(activation: str, variables: Any, x: np.ndarray) -> np.ndarray:
    """Outputs [n] of a shallow network with one output, in NumPy."""
    w, v, scale = _arrays(variables)
    return scale * _BY_HAND[activation][0](x @ w.T / np.sqrt(x.shape[1])) @ v[:, 0]


def features_by_hand(activation: str, variables: Any, x: np.ndarray) -> np.ndarray:
    """Tangent features [n, p] of a shallow network with one output: back-propagation on paper, v before w."""
    w, v, scale = _arrays(variables)
    phi, slope = _BY_HAND[activation]
    u = x @ w.T / np.sqrt(x.shape[1])
    to_w = (slope(u) * v[:, 0])[:, :, None] * x[:, None, :] / np.sqrt(x.shape[1])
    return scale * np.concatenate([phi(u), to_w.reshape(len(x), -1)], axis=1)


def kernel_by_hand(activation: str, variables: Any, x1: np.ndarray, x2: np.ndarray, hidden: bool = True) -> np.ndarray:
    """The same features contracted on paper: scale^2 sum_j (phi phi' + v_j^2 dphi dphi' <x, x'> / d)."""
    w, v, scale = _arrays(variables)
    phi, slope = _BY_HAND[activation]
    u1, u2 = (x @ w.T / np.sqrt(x.shape[1]) for x in (x1, x2))
    last = phi(u1) @ phi(u2).T
    first = (slope(u1) * v[:, 0] ** 2) @ slope(u2).T * (x1 @ x2.T) / x1.shape[1]
    return scale**2 * (last + hidden * first)


def _arrays(variables):
    params, setting = variables["params"], variables["setting"]
    return tuple(map(np.asarray, (params["w"], params["v"], setting["scale"])))


def sphere(rng: np.random.Generator, n: int, d: int = INPUTS) -> np.ndarray:
    """Inputs [n, d] on the sphere of radius sqrt(d)."""
    x = rng.normal(size=(n, d))
    return x * np.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True)


def spread(rng: np.random.Generator, n: int) -> np.ndarray:
    """Of many random sets of inputs [n, d] on the sphere one whose closest pair is farthest apart."""
    sets = sphere(rng, 200 * n).reshape(200, n, INPUTS)
    closeness = np.max(sets @ np.swapaxes(sets, 1, 2) - 2 * INPUTS * np.eye(n), axis=(1, 2))
    return sets[np.argmin(closeness)]


class Problem(NamedTuple):
    """A network, examples to learn, other inputs to predict, and numbers for whatever else a claim draws."""

    rng: np.random.Generator
    variables: Any
    x: np.ndarray
    x_test: np.ndarray
    y: np.ndarray


def problem(key, budget: int, *, width: int = 32, n: int = 6, d: int = INPUTS) -> Problem:
    """A random network with one output and `width` hidden units, six examples on a sphere, and five other inputs."""
    del budget
    rng = generator(key)
    variables = variables_of(rng.normal(size=(width, d)), rng.normal(size=(width, 1)))
    return Problem(rng, variables, sphere(rng, n, d), sphere(rng, 5, d), rng.normal(size=n))


class Family(NamedTuple):
    """Networks of several widths, every leaf of `variables` with leading axes [width, seed]."""

    widths: np.ndarray
    variables: Any


def widths_up_to(largest: int, smallest: int = 64) -> np.ndarray:
    """The powers of two from `smallest` to `largest`."""
    return 2 ** np.arange(smallest.bit_length() - 1, largest.bit_length())


def family(
    rng: np.random.Generator,
    widths: np.ndarray,
    seeds: int,
    *,
    activation: str = "tanh",
    bent: bool = False,
    power: float = -0.5,
) -> Family:
    """`seeds` networks `switched` of each width, all parameters N(0, 1).

    Args:
        rng: draws the parameters.
        widths: increasing; all networks are held as wide as the last.
        seeds: number of networks of each width.
        activation: "tanh" or "ReLU".
        bent: whether outputs pass through tanh.
        power: outputs are scaled by width^power.
    """
    shape = (len(widths), seeds)
    setting = {
        "mask": (np.arange(widths[-1]) < widths[:, None])[:, None].astype(float),
        "scale": (widths.astype(float) ** power)[:, None],
        "rectified": np.full((1, 1), activation == "ReLU"),
        "bent": np.full((1, 1), bent),
    }
    setting = {name: np.broadcast_to(each, (*shape, *each.shape[2:])) for name, each in setting.items()}
    params = {"v": rng.normal(size=(*shape, widths[-1], 1)), "w": rng.normal(size=(*shape, widths[-1], INPUTS))}
    return Family(widths, {"params": params, "setting": setting})
