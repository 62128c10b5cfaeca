"""Claims about the level sets of a neuron and about Jacobians."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import background
from experiments.claim import Axes, Claim, Variant, generator
from experiments.curves import Curve
from experiments.judges import Equal

__all__ = ["CLAIMS"]

_DIMENSION = 5
_STEPS = np.linspace(-2, 2, 41)
_ACTIVATIONS = {"tanh": jnp.tanh, "ReLU": jax.nn.relu, "square": jnp.square, "cosine": jnp.cos}
_DERIVATIVES = {"tanh": lambda u: 1 / np.cosh(u) ** 2, "square": lambda u: 2 * u, "cosine": lambda u: -np.sin(u)}


def _neuron(key, _):
    """Weights, a bias, a point with pre-activation 1, and two displacements, the first orthogonal to the weights."""
    rng = generator(key)
    w, x, v = rng.normal(size=(3, _DIMENSION))
    return {"w": w, "b": 1.0 - w @ x, "x": x, "orthogonal": v - w * (w @ v) / (w @ w), "oblique": v}


@jax.jit
def _responses(w, b, points):
    def response(phi):
        return jax.vmap(lambda x: background.ridge_function(phi, w, b, x))(points)

    return {name: response(phi) for name, phi in _ACTIVATIONS.items()}


def _displaced(neuron, direction):
    points = neuron["x"] + np.outer(_STEPS, neuron[direction])
    found = _responses(neuron["w"], neuron["b"], points)
    return {name: Curve(values, _STEPS) for name, values in found.items()}


def _constants(_):
    return {name: float(phi(1.0)) for name, phi in _ACTIVATIONS.items()}


@jax.jit
def _gradients(w, b, x):
    def gradient(phi):
        return jax.grad(lambda x: background.ridge_function(phi, w, b, x))(x)

    return {name: gradient(_ACTIVATIONS[name]) for name in _DERIVATIVES}


def _measured_gradients(neuron):
    found = _gradients(neuron["w"], neuron["b"], neuron["x"])
    return {name: Curve(gradient, np.arange(1, _DIMENSION + 1)) for name, gradient in found.items()}


def _parallel_to(neuron, vector):
    return {name: derivative(1.0) * neuron[vector] for name, derivative in _DERIVATIVES.items()}


# A non-decreasing activation, a level z, and the pre-activation at which it is taken if that is unique.
_INJECTIVE = {
    "tanh": (np.tanh, 0.4, np.arctanh(0.4)),
    "cube": (lambda u: u**3, -2.0, -(2.0 ** (1 / 3))),
    "leaky ReLU": (lambda u: np.where(u > 0, u, 0.1 * u), -0.05, -0.5),
}
_RELU = {"ReLU": (lambda u: np.maximum(u, 0.0), 0.0, 0.0)}
_STEP = {"step": (lambda u: np.where(u > 0, 1.0, 0.0), 1.0, 0.0)}
_LINES, _REACH = np.arange(1, 13), 8.0


def _level_on_lines(neuron, activations):
    """For each activation where lines parallel to w enter and leave the level set, searched up to `_REACH` away."""
    norm = np.linalg.norm(neuron["w"])
    starts = np.linspace(-1, 1, _LINES.size)[:, None] * neuron["oblique"] + neuron["x"]
    at = starts @ neuron["w"] + neuron["b"]

    def last_that(holds):
        """The largest displacement along w at which a condition on the pre-activation, once broken for ever, holds."""
        low, high = np.full(at.shape, -_REACH), np.full(at.shape, _REACH)
        for _ in range(60):
            middle = (low + high) / 2
            good = holds(at + norm * middle)
            low, high = np.where(good, middle, low), np.where(good, high, middle)
        return low

    def interval(phi, z):
        return last_that(lambda u: phi(u) < z), last_that(lambda u: phi(u) <= z)

    return at, norm, {name: interval(phi, z) for name, (phi, z, _) in activations.items()}


def _pre_activations(neuron, activations):
    at, norm, intervals = _level_on_lines(neuron, activations)
    return {
        f"{name}, {end}": Curve(at + norm * displacement, _LINES)
        for name, interval in intervals.items()
        for end, displacement in zip(("first", "last"), interval, strict=True)
    }


def _preimages(activations):
    return {f"{name}, {end}": u for name, (_, _, u) in activations.items() for end in ("first", "last")}


def _thickness(neuron, activations):
    _, _, intervals = _level_on_lines(neuron, activations)
    extents = np.ravel([last - first for first, last in intervals.values()])
    return Curve(extents, np.arange(1, extents.size + 1))


# Jacobians: F and G are networks of one hidden layer.


def _networks(key, _):
    rng = generator(key)
    return {
        "matrix": rng.normal(size=(4, 3)),
        "outer": (rng.normal(size=(6, 3)), rng.normal(size=(4, 6))),
        "inner": (rng.normal(size=(6, 2)), rng.normal(size=(3, 6))),
        "at": rng.normal(size=2),
    }


def _network(weights, x):
    hidden, output = weights
    return output @ jnp.tanh(hidden @ x)


@jax.jit
def _jacobians(networks):
    """Jacobians of x -> Ax, of F and G by forward mode, and of F after G by both modes."""

    def inner(x):
        return _network(networks["inner"], x)

    def outer(y):
        return _network(networks["outer"], y)

    def both(x):
        return outer(inner(x))

    x = networks["at"]
    return {
        "linear": jax.jacfwd(lambda y: networks["matrix"] @ y)(inner(x)),
        "inner": jax.jacfwd(inner)(x),
        "outer": jax.jacfwd(outer)(inner(x)),
        "forward": jax.jacfwd(both)(x),
        "reverse": jax.jacrev(both)(x),
    }


def _entries(**matrices):
    """Matrices as curves over their entries, row by row."""
    named = {name.replace("_", " "): np.ravel(matrix) for name, matrix in matrices.items()}
    return {name: Curve(entries, np.arange(1, entries.size + 1)) for name, entries in named.items()}


def _differentiated(networks):
    found = _jacobians(networks)
    return _entries(linear_map=found["linear"], chain_rule=found["forward"], reverse_mode=found["reverse"])


def _jacobian_rules(networks):
    found = _jacobians(networks)
    product = np.asarray(found["outer"]) @ np.asarray(found["inner"])
    return _entries(linear_map=networks["matrix"], chain_rule=product, reverse_mode=product)


def _transposed(networks):
    found = _jacobians(networks)
    product = np.asarray(found["outer"]) @ np.asarray(found["inner"])
    return _entries(linear_map=networks["matrix"].T, chain_rule=product.T, reverse_mode=product.T)


def _central_differences(networks):
    """Derivatives of F by central differences in NumPy; column j is the response to input j."""
    hidden, output = networks["outer"]
    step, y = 1e-5, np.asarray(_inner_value(networks))
    columns = [
        (output @ np.tanh(hidden @ (y + step * e)) - output @ np.tanh(hidden @ (y - step * e))) / (2 * step)
        for e in np.eye(3)
    ]
    return _entries(F=np.stack(columns, axis=1))


def _inner_value(networks):
    hidden, output = networks["inner"]
    return output @ np.tanh(hidden @ networks["at"])


CLAIMS = (
    Claim(
        "background.level_sets",
        says="A neuron's response does not change along a direction orthogonal to its weights.",
        setup=_neuron,
        measure=lambda neuron: _displaced(neuron, "orthogonal"),
        predict=_constants,
        judge=Equal(atol=1e-12),
        control=Variant("a direction that is not orthogonal", measure=lambda neuron: _displaced(neuron, "oblique")),
        axes=Axes("displacement", "response"),
    ),
    Claim(
        "background.level_sets",
        part="gradient",
        says="The gradient is the weight vector times the slope of the activation.",
        setup=_neuron,
        measure=_measured_gradients,
        predict=lambda neuron: _parallel_to(neuron, "w"),
        judge=Equal(),
        control=Variant("parallel to the input", predict=lambda neuron: _parallel_to(neuron, "x")),
        axes=Axes("input", "derivative of the response"),
    ),
    Claim(
        "background.level_sets",
        part="hyperplane",
        says="Lines along the weights meet the level of an injective activation at its preimage, and nowhere else.",
        setup=_neuron,
        measure=lambda neuron: _pre_activations(neuron, _INJECTIVE),
        predict=lambda _: _preimages(_INJECTIVE),
        judge=Equal(atol=1e-10),
        control=Variant(
            "ReLU at level 0, which is not injective there",
            measure=lambda neuron: _pre_activations(neuron, _RELU),
            predict=lambda _: _preimages(_RELU),
        ),
        axes=Axes("line", "pre-activation on the level"),
    ),
    Claim(
        "background.level_sets@printed",
        says="Level sets have no extent along the weights, whatever the activation (here ReLU at level 0).",
        setup=_neuron,
        measure=lambda neuron: _thickness(neuron, _RELU),
        predict=lambda _: 0.0,
        judge=Equal(atol=1e-10),
        control=Variant("a step function at level 1", measure=lambda neuron: _thickness(neuron, _STEP)),
        corrected=Variant("injective activations", measure=lambda neuron: _thickness(neuron, _INJECTIVE)),
        axes=Axes("line", "extent of the level set along w"),
    ),
    Claim(
        "background.jacobian",
        says="The Jacobian of x -> Ax is A, that of a composition is the product, and both modes compute it.",
        setup=_networks,
        measure=_differentiated,
        predict=_jacobian_rules,
        judge=Equal(atol=1e-13),
        control=Variant("rows are inputs, columns are outputs", predict=_transposed),
        axes=Axes("entry, row by row", "derivative"),
    ),
    Claim(
        "background.jacobian",
        part="differences",
        says="Automatic derivatives of a network equal central differences.",
        setup=_networks,
        measure=lambda networks: _entries(F=_jacobians(networks)["outer"]),
        predict=_central_differences,
        judge=Equal(rtol=1e-6, atol=1e-8),
        control=Variant(
            "rows are inputs, columns are outputs",
            measure=lambda networks: _entries(F=np.asarray(_jacobians(networks)["outer"]).T),
        ),
        axes=Axes("entry, row by row", "derivative"),
    ),
)
