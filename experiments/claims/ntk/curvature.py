"""Claims about the Hessian of a wide network, whose smallness against the gradient keeps the kernel where it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from dltheory.typing import ArrayLike
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.ntk._networks import INPUTS, family, sphere, switched, widths_up_to
from experiments.claims.ntk._training import flattened, in_blocks, typical
from experiments.curves import Curve
from experiments.judges import Equal, Slope

__all__ = ["CLAIMS"]

_WIDTHS = Budget(quick=1024, full=8192)  # the largest; the smallest is 64
_SEEDS = 16
_BLOCK = 16  # networks that are measured by one call
_MANY = 128  # behind a bent output the ratio varies more than tenfold between networks


# Norms by the library, which knows the networks only as functions.


@jax.jit
def _lazy_ratios(variables, x, y, keys):
    """Of networks in the leading axis, each at an input of its own."""

    def measure(each):
        variables, x, y, key = each
        ratio = ntk.lazy_ratio(key, switched, variables, x, y[None], tolerance=1e-2)
        return jax.tree.map(lambda leaf: leaf[0], ratio)

    return jax.lax.map(measure, (variables, x, y, keys))


class _Measured(NamedTuple):
    """Networks of several widths, leaves [r, seeds, ...], and what the library says of them, leaves [r, seeds].

    Attributes:
        widths: shape [r].
        variables: of the networks.
        x: an input for each network, shape [r, seeds, d].
        outputs: there, shape [r, seeds].
        ratios: hessian_norm, gradient_norm, and their ratios.
    """

    widths: np.ndarray
    variables: Any
    x: np.ndarray
    outputs: np.ndarray
    ratios: ntk.LazyRatio


def _measure(key, members, x, units: ArrayLike = 1.0):
    """Ratios of a family's networks, outputs and targets in different `units` [r, seeds]."""
    shape = x.shape[:2]
    units = np.broadcast_to(units, shape)
    setting = members.variables["setting"]
    variables = members.variables | {"setting": setting | {"scale": setting["scale"] * units}}
    flat, inputs = flattened(variables), x.reshape(-1, INPUTS)
    outputs = _outputs(flat, inputs)
    ratios = in_blocks(_lazy_ratios, (flat, inputs, units.ravel(), jax.random.split(key, len(inputs))), _BLOCK)
    return _Measured(members.widths, variables, x, *jax.tree.map(lambda r: np.reshape(r, shape), (outputs, ratios)))


@jax.jit
def _outputs(variables, x):
    return jax.vmap(lambda variables, x: switched(variables, x[None])[0, 0])(variables, x)


def _networks(*activations, bent=False, seeds=_SEEDS):
    """A set-up: `seeds` networks of each width with each of the activations."""

    def setup(key, budget):
        rng, widths, problem = generator(key), widths_up_to(budget), {}
        for name in activations:
            members = family(rng, widths, seeds, activation=name, bent=bent)
            x = sphere(rng, len(widths) * seeds).reshape(len(widths), seeds, INPUTS)
            problem[name] = _measure(key, members, x)
        return problem

    return setup


def _ratios(problem):
    """Hessian over squared gradient."""
    return {name: typical(at.ratios.curvature, at.widths) for name, at in problem.items()}


def _without_extremes(ratios):
    """With tanh the largest of m blocks of the Hessian grows as the largest of m output weights does, as √(log m)."""
    ratio = ratios.pop("tanh")
    extremes = np.sqrt(np.log(ratio.x))
    divided = Curve(ratio.y / extremes, ratio.x, ratio.standard_error / extremes)
    return ratios | {"tanh, over √(log m)": divided}


def _from_sinh(problem, corrected=True):
    """How far, in logarithms, the ratio of a network bent by tanh(g) is from |sinh 2g| (or from one)."""
    curves = {}
    for name, at in problem.items():
        limit = np.abs(np.sinh(2 * np.arctanh(at.outputs))) if corrected else 1.0
        curves[name] = typical(np.abs(np.log(at.ratios.curvature / limit)), at.widths)
    return curves


# The Hessian on paper: every hidden unit has a block of its own.

_DERIVATIVES = {
    "ReLU": (lambda u: np.maximum(u, 0.0), lambda u: (u > 0).astype(float), np.zeros_like),
    "tanh": (np.tanh, lambda u: 1 - np.tanh(u) ** 2, lambda u: -2 * np.tanh(u) * (1 - np.tanh(u) ** 2)),
}


def _blocks(activation, u, v, largest=True):
    """Largest absolute eigenvalues of m^(-1/2) [[0, phi'], [phi', v phi'']], for v_j and for w_j along the input."""
    _, slope, bend = (f(u) for f in _DERIVATIVES[activation])
    corner = v * bend
    norms = (np.abs(corner) + np.sqrt(corner**2 + 4 * slope**2)) / 2
    return norms.max(-1) if largest else norms.mean(-1)


def _library_norms(problem):
    return {name: Curve(at.ratios.hessian_norm.ravel(), np.repeat(at.widths, _SEEDS)) for name, at in problem.items()}


def _paper_norms(problem, largest=True):
    norms = {}
    for name, at in problem.items():
        params, setting = at.variables["params"], at.variables["setting"]
        u = np.einsum("rshd,rsd->rsh", params["w"], at.x) / np.sqrt(INPUTS)
        units = [_blocks(name, u[r, :, :m], params["v"][r, :, :m, 0], largest) for r, m in enumerate(at.widths)]
        norms[name] = (setting["scale"] * np.array(units)).ravel()
    return norms


def _paper_ratios(draw):
    """Hessian over squared gradient at larger widths, from pre-activations and output weights alone."""
    rng, curves = generator(draw.key), {}
    widths = widths_up_to(draw.budget)
    for name, (phi, slope, _) in _DERIVATIVES.items():
        samples = []
        for m in widths:
            u, v = rng.normal(size=(2, 64, m))
            samples.append(_blocks(name, u, v) / np.sqrt(m) / np.mean(phi(u) ** 2 + (v * slope(u)) ** 2, axis=-1))
        curves[name] = typical(np.array(samples), widths)
    return _without_extremes(curves)


# Two hidden layers.

_DEEP_WIDTHS = Budget(quick=256, full=1024)


def _deep(variables, x):
    params, setting = variables["params"], variables["setting"]
    mask, scale = setting["mask"][None, :], setting["scale"]
    first = jnp.tanh(x @ params["first"].T / np.sqrt(INPUTS)) * mask
    second = jnp.tanh(scale * first @ params["second"].T) * mask
    return scale * second @ params["third"].T


@jax.jit
def _deep_ratios(widths, mask, x, keys):
    def measure(each):
        width, mask, x, key = each
        key_params, key_start = jax.random.split(key)
        shapes = {"first": (len(mask), INPUTS), "second": (len(mask), len(mask)), "third": (1, len(mask))}
        keys = dict(zip(shapes, jax.random.split(key_params, 3), strict=True))
        params = {name: jax.random.normal(keys[name], shape, x.dtype) for name, shape in shapes.items()}
        variables = {"params": params, "setting": {"mask": mask, "scale": width**-0.5}}
        return ntk.lazy_ratio(key_start, _deep, variables, x, jnp.ones(1), tolerance=5e-2).curvature[0]

    return jax.lax.map(measure, (widths, mask, x, keys))


def _ratios_of_two_layers(draw):
    seeds, widths = 8, widths_up_to(draw.budget, smallest=16)
    each = np.repeat(widths, seeds)
    mask = (np.arange(widths[-1]) < each[:, None]).astype(float)
    x = sphere(generator(draw.key), len(each))
    ratios = _deep_ratios(each.astype(float), mask, x, jax.random.split(draw.key, len(each)))
    return typical(np.reshape(ratios, (len(widths), seeds)), widths)


# Units of the outputs.

_UNITS = np.geomspace(0.1, 10.0, 5)


def _rescaled(key, budget):
    """The same networks, outputs and targets measured in five units."""
    del budget
    rng = generator(key)
    members = family(rng, np.array([1024]), _SEEDS, activation="tanh")
    five = members._replace(
        variables=jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf), len(_UNITS), axis=0), members.variables)
    )
    x = np.repeat(sphere(rng, _SEEDS)[None], len(_UNITS), axis=0)
    return _measure(key, five, x, _UNITS[:, None])


def _against_unit(quantity):
    """A quantity of three networks over what it is in the middle unit."""
    middle = len(_UNITS) // 2

    def measure(at):
        values = getattr(at.ratios, quantity)
        return {f"network {i + 1}": Curve(values[:, i] / values[middle, i], _UNITS) for i in range(3)}

    return measure


_WIDTH = "width m"
_RATIO = Axes(_WIDTH, r"$\|\nabla^2 f\|_2 / \|\nabla f\|_2^2$", log="xy")

CLAIMS = (
    Claim(
        "ntk.hessian_ratio",
        says="The ratio of the Hessian to the squared gradient falls as width^(−1/2), for tanh up to √(log m).",
        setup=_networks("ReLU", "tanh"),
        measure=lambda problem: _without_extremes(_ratios(problem)),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1),
        control=Variant("1/m, like the kernel's drift", predict=lambda _: -1.0),
        budget=_WIDTHS,
        axes=_RATIO,
    ),
    Claim(
        "ntk.hessian_ratio",
        part="wider",
        says="So it does up to much larger widths, from the formulas on paper.",
        measure=_paper_ratios,
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.05),
        control=Variant("1/m", predict=lambda _: -1.0),
        budget=Budget(quick=2**13, full=2**16),
        axes=_RATIO,
    ),
    Claim(
        "ntk.hessian_ratio",
        part="two hidden layers",
        says="So it does with two hidden layers.",
        measure=_ratios_of_two_layers,
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.15),
        control=Variant("1/m", predict=lambda _: -1.0),
        budget=_DEEP_WIDTHS,
        axes=_RATIO,
    ),
    Claim(
        "ntk.hessian_ratio",
        part="blocks",
        says="The norm of the Hessian of a hidden layer is the largest norm of its two-by-two blocks, a block a unit.",
        setup=_networks("ReLU", "tanh"),
        measure=_library_norms,
        predict=_paper_norms,
        judge=Equal(rtol=1e-8),
        control=Variant("the mean of the blocks", predict=lambda problem: _paper_norms(problem, largest=False)),
        budget=_WIDTHS,
        axes=Axes(_WIDTH, r"$\|\nabla^2 f\|_2$", log="xy"),
    ),
    Claim(
        "ntk.hessian_ratio",
        part="units",
        says="Times the residual it does not depend on the unit in which outputs and targets are measured.",
        setup=_rescaled,
        measure=_against_unit("value"),
        predict=lambda _: 1.0,
        judge=Equal(rtol=1e-8),
        control=Variant("the printed ratio alone", measure=_against_unit("curvature")),
        axes=Axes("outputs multiplied by", "ratio / ratio at 1", log="xy"),
    ),
    Claim(
        "ntk.hessian_ratio",
        part="bent output",
        says="Behind tanh of g it approaches |sinh 2g|, which does not fall.",
        setup=_networks("tanh", bent=True, seeds=_MANY),
        measure=_from_sinh,
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.25, side="at most"),
        control=Variant("one", measure=lambda problem: _from_sinh(problem, corrected=False)),
        budget=_WIDTHS,
        axes=Axes(_WIDTH, "|log(ratio / |sinh 2g|)|", log="xy"),
    ),
    Claim(
        "ntk.hessian_ratio@printed",
        says="It falls at least as width^(−1/2) in every wide network, here one whose output is bent by tanh.",
        setup=_networks("ReLU", bent=True, seeds=_MANY),
        measure=_ratios,
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1, side="at most"),
        control=Variant("hidden units bent too", setup=_networks("tanh", bent=True, seeds=_MANY)),
        corrected=Variant("linear output", setup=_networks("ReLU")),
        budget=_WIDTHS,
        axes=_RATIO,
    ),
)
