"""Claims about tangent features, the kernel and the model linear in the parameters."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from dltheory import ntk
from experiments.claim import Axes, Claim, Variant, generator
from experiments.claims.ntk._networks import (
    features_by_hand,
    kernel,
    kernel_by_hand,
    outputs,
    outputs_by_hand,
    problem,
    shallow,
    sphere,
    variables_of,
)
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_TANH, _RELU = shallow("tanh"), shallow("ReLU")


# Tangent features are partial derivatives.


@functools.partial(jax.jit, static_argnums=0)
def _features(apply_fn, params, x):
    return jax.vmap(lambda each: ntk.tangent_features(apply_fn, params, each)[0])(x)


def _tangent_features(at):
    features = _features(_TANH, at.variables, at.x)
    return {f"input {i + 1}": features[i] for i in range(3)}


def _difference_quotients(at, shift=0.0):
    """Central differences of the outputs in every parameter, around parameters shifted by `shift`."""
    flat, unravel = ravel_pytree(at.variables["params"])
    center, step = np.asarray(flat) + shift, 1e-5

    def at_parameters(theta):
        return outputs_by_hand("tanh", {**at.variables, "params": unravel(jnp.asarray(theta))}, at.x)

    directions = step * np.eye(len(center))
    columns = [(at_parameters(center + e) - at_parameters(center - e)) / (2 * step) for e in directions]
    return {f"input {i + 1}": np.transpose(columns)[i] for i in range(3)}


# The generalised linear model theta^T Phi(x).


def _basis(x):
    """Phi(x), five functions of the inputs that are not linear."""
    xp = np if isinstance(x, np.ndarray) else jnp
    return xp.stack([xp.ones_like(x[:, 0]), x[:, 0], x[:, 1] ** 2, xp.sin(x[:, 2]), x[:, 0] * x[:, 1]], 1)


def _linear_model(theta, x):
    return _basis(x) @ theta[:, None]


def _quadratic_model(theta, x):
    return 0.5 * (_basis(x) @ theta[:, None]) ** 2


@functools.partial(jax.jit, static_argnums=0)
def _model_features(apply_fn, theta, other, x):
    """Tangent features, their kernel, and the linearisation at `theta` evaluated at `other` parameters."""
    features = jax.vmap(lambda each: ntk.tangent_features(apply_fn, theta, each)[0])(x)
    gram = ntk.empirical_ntk(apply_fn, theta, x)[..., 0, 0]
    return features.ravel(), gram.ravel(), ntk.linearize(apply_fn, theta)(other, x).ravel()


def _of_model(apply_fn):
    def measure(at):
        return _named(*_model_features(apply_fn, _THETA, _OTHER, jnp.asarray(at.x)))

    return measure


_THETA, _OTHER = np.linspace(0.5, 1.5, 5), np.linspace(-1.0, 2.0, 5)


def _of_basis(at):
    basis = _basis(at.x)
    return _named(basis.ravel(), (basis @ basis.T).ravel(), basis @ _OTHER)


def _named(features, gram, linear):
    return {"tangent features": features, "kernel": gram, "linearisation": linear}


# The kernel, by each of the library's methods, between pairs of inputs.

_METHODS = ("factorized", "jacobian", "vector_product")


def _angles(at):
    return np.degrees(np.arccos(np.clip(at.x @ at.x_test.T / at.x.shape[1], -1.0, 1.0))).ravel()


def _sorted_by_angle(at, values):
    order = np.argsort(_angles(at))
    return Curve(np.asarray(values).ravel()[order], _angles(at)[order])


def _kernels(at):
    return {
        method.replace("_", " "): _sorted_by_angle(at, kernel(_RELU, at.variables, at.x, at.x_test, method))
        for method in _METHODS
    }


def _kernels_on_paper(at, hidden=True):
    on_paper = kernel_by_hand("ReLU", at.variables, at.x, at.x_test, hidden)
    return {method.replace("_", " "): _sorted_by_angle(at, on_paper).y for method in _METHODS}


def _permuted(at, leaves=("v", "w")):
    """The network with its hidden units in another order, in both layers or only in one."""
    params = at.variables["params"]
    order = at.rng.permutation(len(params["w"]))
    return {**at.variables, "params": params | {leaf: params[leaf][order] for leaf in leaves}}


def _symmetries(at, leaves=("v", "w")):
    return {
        "arguments exchanged": _sorted_by_angle(at, kernel(_RELU, at.variables, at.x_test, at.x).T),
        "hidden units permuted": _sorted_by_angle(at, kernel(_RELU, _permuted(at, leaves), at.x, at.x_test)),
    }


def _unchanged(at):
    return _sorted_by_angle(at, kernel(_RELU, at.variables, at.x, at.x_test)).y


# The Gram matrix, of networks with two outputs, or with fewer parameters than examples.


def _two_outputs(key, budget):
    at = problem(key, budget, width=8)
    w = np.asarray(at.variables["params"]["w"])
    return at._replace(variables=variables_of(w, at.rng.normal(size=(len(w), 2))))


@functools.partial(jax.jit, static_argnums=0)
def _gram(apply_fn, variables, x):
    return ntk.gram(apply_fn, variables, x)


def _gram_entries(at):
    return _gram(_TANH, at.variables, at.x).ravel()


@jax.jit
def _reverse_mode_features(variables, x):
    """Jacobian [n k, p] by reverse mode, one output after the other."""
    jac = jax.jacrev(lambda params: _TANH({**variables, "params": params}, x).ravel())(variables["params"])
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(jac)], 1)


def _feature_products(at, with_itself=True):
    features = np.asarray(_reverse_mode_features(at.variables, at.x))
    if not with_itself:  # one output's features alone, at every place
        features = np.repeat(features[::2], 2, axis=0)
    return (features @ features.T).ravel()


_NARROW = 2  # hidden units, of four parameters each
_EXAMPLES = np.arange(2, 17)


def _narrow(key, budget):
    del budget
    rng = generator(key)
    at = problem(key, 1)
    w, v = 2 * rng.normal(size=(_NARROW, 3)), rng.normal(size=(_NARROW, 1))
    return at._replace(variables=variables_of(w, v), x=sphere(rng, int(_EXAMPLES[-1])))


def _ranks(at):
    curves = {}
    for name, apply_fn in (("tanh", _TANH), ("ReLU", _RELU)):
        gram = np.asarray(_gram(apply_fn, at.variables, at.x))
        ranks = [np.linalg.matrix_rank(gram[:n, :n], tol=1e-12 * np.trace(gram), hermitian=True) for n in _EXAMPLES]
        curves[name] = Curve(ranks, _EXAMPLES)
    return curves


def _rank_bounds(_, per_unit=4):
    """No more than examples and parameters; scaling a ReLU unit's two layers oppositely changes nothing."""
    parameters = {"tanh": per_unit * _NARROW, "ReLU": (per_unit - 1) * _NARROW}
    return {name: np.minimum(_EXAMPLES, p) for name, p in parameters.items()}


def _spectrum(at):
    return _relative_eigenvalues(np.asarray(_gram(_TANH, at.variables, at.x)))


def _relative_eigenvalues(gram):
    return Curve(np.linalg.eigvalsh(gram)[::-1] / np.trace(gram), np.arange(1, len(gram) + 1))


def _spectrum_between(at):
    """Products of features at two different parameters, symmetrised."""
    params = jax.tree.map(lambda leaf: at.rng.normal(size=leaf.shape), at.variables["params"])
    here = features_by_hand("tanh", at.variables, at.x)
    there = features_by_hand("tanh", {**at.variables, "params": params}, at.x)
    return _relative_eigenvalues(here @ there.T + there @ here.T)


# The linearised network.


def _elsewhere(at, distance=3.0):
    """Variables at a given distance from the problem's."""
    flat, unravel = ravel_pytree(at.variables["params"])
    direction = at.rng.normal(size=flat.shape)
    moved = flat + distance * direction / np.linalg.norm(direction)
    return {**at.variables, "params": unravel(moved)}


@functools.partial(jax.jit, static_argnums=(0, 4))
def _expanded(apply_fn, variables0, variables, x, order=1):
    """Outputs and kernel at `variables` of the network expanded at `variables0`."""
    if order == 1:
        model = ntk.linearize(apply_fn, variables0)
    else:
        model = ntk.taylor_expand(apply_fn, variables0, order)
    return model(variables, x)[:, 0], ntk.empirical_ntk(model, variables, x)[..., 0, 0]


_DISTANCES = (0.0, 1.0, 3.0, 10.0)


def _kernels_of_expansion(at, order=1):
    curves = {}
    for distance in _DISTANCES:
        _, gram = _expanded(_TANH, at.variables, _elsewhere(at, distance), at.x, order)
        curves[f"‖ϑ‖ = {distance:g}"] = Curve(gram.ravel(), kernel_by_hand("tanh", at.variables, at.x, at.x).ravel())
    return curves


def _kernel_at_start(at):
    return {f"‖ϑ‖ = {r:g}": kernel_by_hand("tanh", at.variables, at.x, at.x).ravel() for r in _DISTANCES}


_RADII = 2.0 ** -np.arange(1, 10)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _remainders(apply_fn, variables0, direction, radii, x, order):
    model = ntk.taylor_expand(apply_fn, variables0, order) if order > 1 else ntk.linearize(apply_fn, variables0)

    def remainder(radius):
        moved = jax.tree.map(lambda a, b: a + radius * b, variables0["params"], direction)
        variables = {**variables0, "params": moved}
        return jnp.linalg.norm(apply_fn(variables, x) - model(variables, x))

    return jax.vmap(remainder)(radii)


def _remainder_sizes(at):
    flat, unravel = ravel_pytree(at.variables["params"])
    direction = at.rng.normal(size=flat.shape)
    direction = unravel(jnp.asarray(direction / np.linalg.norm(direction)))
    return {
        name: Curve(_remainders(_TANH, at.variables, direction, _RADII, at.x, order), _RADII)
        for name, order in (("linear", 1), ("quadratic", 2))
    }


# The linearised loss.


@jax.jit
def _losses(shifts, jac, residual):
    return jax.vmap(lambda shift: ntk.linearized_loss(shift, jac[:, None], residual[:, None]))(shifts)


def _shifts(at, budget=12):
    """Parameter shifts of lengths from 0.1 to 10."""
    lengths = np.geomspace(0.1, 10.0, budget)
    count = features_by_hand("tanh", at.variables, at.x).shape[1]
    directions = np.random.default_rng(0).normal(size=(budget, count))
    return lengths, lengths[:, None] * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _residual(at):
    return at.y - outputs_by_hand("tanh", at.variables, at.x)


def _linearized_losses(at):
    lengths, shifts = _shifts(at)
    return Curve(_losses(shifts, features_by_hand("tanh", at.variables, at.x), _residual(at)), lengths)


def _losses_of_model(at, linear=True):
    """Half the squared distance of the (linearised) network's outputs to the targets."""
    flat, unravel = ravel_pytree(at.variables["params"])
    losses = []
    for shift in _shifts(at)[1]:
        variables = {**at.variables, "params": unravel(flat + shift)}
        model = _expanded(_TANH, at.variables, variables, at.x)[0] if linear else outputs(_TANH, variables, at.x)
        losses.append(0.5 * np.sum((np.asarray(model) - at.y) ** 2))
    return np.array(losses)


@jax.jit
def _loss_curvatures(shifts, jac, residual):
    return jax.vmap(jax.hessian(ntk.linearized_loss), in_axes=(0, None, None))(shifts, jac[:, None], residual[:, None])


def _curvatures(at):
    """Eigenvalues of the loss's Hessian at three shifts, the largest twenty."""
    lengths, shifts = _shifts(at)
    hessians = _loss_curvatures(shifts[::5], features_by_hand("tanh", at.variables, at.x), _residual(at))
    return {
        f"‖ϑ‖ = {length:.2g}": Curve(np.linalg.eigvalsh(hessian)[::-1][:20], np.arange(1, 21))
        for length, hessian in zip(lengths[::5], hessians, strict=True)
    }


def _squared_singular_values(at):
    singular = np.linalg.svd(features_by_hand("tanh", at.variables, at.x), compute_uv=False)
    return np.concatenate([singular**2, np.zeros(20 - len(singular))])


@jax.jit
def _network_curvatures(variables, shifts, x, y):
    flat, unravel = ravel_pytree(variables["params"])

    def loss(shift):
        return 0.5 * jnp.sum((_TANH({**variables, "params": unravel(flat + shift)}, x)[:, 0] - y) ** 2)

    return jax.vmap(jax.hessian(loss))(shifts)


def _curvatures_of_network(at):
    lengths, shifts = _shifts(at)
    hessians = _network_curvatures(at.variables, shifts[::5], at.x, at.y)
    return {
        f"‖ϑ‖ = {length:.2g}": Curve(np.linalg.eigvalsh(hessian)[::-1][:20], np.arange(1, 21))
        for length, hessian in zip(lengths[::5], hessians, strict=True)
    }


_ANGLE = Axes("angle between the inputs (degrees)", r"$K_\theta(x, x')$")

CLAIMS = (
    Claim(
        "ntk.tangent_features",
        says="The tangent features of a network are the difference quotients of its output in every parameter.",
        setup=problem,
        measure=_tangent_features,
        predict=_difference_quotients,
        judge=Equal(rtol=1e-6, atol=1e-8),
        control=Variant("at parameters larger by 0.1", predict=lambda at: _difference_quotients(at, 0.1)),
        axes=Axes(y=r"$\nabla_\theta f_\theta(x)$"),
    ),
    Claim(
        "ntk.tangent_features",
        part="linear model",
        says="For θᵀΦ(x) they are Φ(x) whatever θ is, the kernel is ⟨Φ, Φ⟩, and the linearisation is the model.",
        setup=problem,
        measure=_of_model(_linear_model),
        predict=_of_basis,
        judge=Equal(rtol=1e-12, atol=1e-12),
        control=Variant("(θᵀΦ(x))² / 2", measure=_of_model(_quadratic_model)),
        axes=Axes(y="value"),
    ),
    Claim(
        "ntk.kernel",
        says="Each of the three methods gives the kernel of a hidden layer of ReLUs that pen and paper give.",
        setup=problem,
        measure=_kernels,
        predict=_kernels_on_paper,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("the last layer's part alone", predict=lambda at: _kernels_on_paper(at, hidden=False)),
        axes=_ANGLE,
    ),
    Claim(
        "ntk.kernel",
        part="symmetries",
        says="It is symmetric in its arguments, and the order of hidden units does not matter.",
        setup=problem,
        measure=_symmetries,
        predict=_unchanged,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("one layer's units permuted", measure=lambda at: _symmetries(at, leaves=("v",))),
        axes=_ANGLE,
    ),
    Claim(
        "ntk.gram",
        says="The Gram matrix of a network with two outputs holds the inner products of its gradients by reverse mode.",
        setup=_two_outputs,
        measure=_gram_entries,
        predict=_feature_products,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("the first output's alone", predict=lambda at: _feature_products(at, with_itself=False)),
        axes=Axes(y=r"$K_{ij}$"),
    ),
    Claim(
        "ntk.gram",
        part="rank",
        says="Its rank is at most the number of examples and of parameters, less one for every ReLU.",
        setup=_narrow,
        measure=_ranks,
        predict=_rank_bounds,
        judge=AtMost(),
        control=Variant("a parameter fewer in each unit", predict=lambda at: _rank_bounds(at, per_unit=3)),
        axes=Axes("examples", "rank"),
    ),
    Claim(
        "ntk.gram",
        part="positive",
        says="No eigenvalue is negative, with more examples than parameters.",
        setup=_narrow,
        measure=_spectrum,
        predict=lambda _: 0.0,
        judge=AtLeast(atol=1e-12),
        control=Variant("products of gradients at two different parameters", measure=_spectrum_between),
        axes=Axes("eigenvalue", "eigenvalue / trace"),
    ),
    Claim(
        "ntk.linearization",
        says="The kernel of the linearised network is the network's own at the start, however far the parameters go.",
        setup=problem,
        measure=_kernels_of_expansion,
        predict=_kernel_at_start,
        judge=Equal(rtol=1e-12, atol=1e-12),
        control=Variant("the quadratic expansion", measure=lambda at: _kernels_of_expansion(at, order=2)),
        axes=Axes(r"$K_{\theta_0}$", "kernel of the linearised network"),
    ),
    Claim(
        "ntk.linearization",
        part="remainder",
        says="The remainder is quadratic in the distance from the start, of the quadratic expansion cubic.",
        setup=problem,
        measure=_remainder_sizes,
        predict=lambda _: {"linear": 2.0, "quadratic": 3.0},
        judge=Slope(tolerance=0.1),
        control=Variant("one order less", predict=lambda _: {"linear": 1.0, "quadratic": 2.0}),
        axes=Axes(r"$\|\vartheta\|$", r"$\|f - h\|$", log="xy"),
    ),
    Claim(
        "ntk.linearized_loss",
        says="It is half the squared distance of the linearised network's outputs to the targets.",
        setup=problem,
        measure=_linearized_losses,
        predict=_losses_of_model,
        judge=Equal(rtol=1e-12, atol=1e-12),
        control=Variant("the network itself", predict=lambda at: _losses_of_model(at, linear=False)),
        axes=Axes(r"$\|\vartheta\|$", "loss", log="xy"),
    ),
    Claim(
        "ntk.linearized_loss",
        part="convex",
        says="Its Hessian has the squared singular values of the features as eigenvalues everywhere: it is convex.",
        setup=problem,
        measure=_curvatures,
        predict=_squared_singular_values,
        judge=Equal(rtol=1e-10, atol=1e-11),
        control=Variant("the loss of the network itself", measure=_curvatures_of_network),
        axes=Axes("eigenvalue", "curvature"),
    ),
)
