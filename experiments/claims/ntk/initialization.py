"""Claims about the kernel at initialisation: how parameters must be scaled, and what it converges to."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from dltheory import infinite_width, networks, ntk
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims._architectures import (
    INPUTS,
    ON_PAPER,
    PAIRS,
    STRIPPED,
    Network,
    on_paper,
    quadrature_step,
    read_off,
)
from experiments.claims.ntk._networks import spread, widths_up_to
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean, Slope

__all__ = ["CLAIMS"]

_SIGMA_W, _SIGMA_B = 2.0**0.5, 0.1
_WIDTHS = Budget(quick=1024, full=8192)  # the largest; the smallest is 64
_DEPTHS = {"one hidden layer": 1, "two hidden layers": 2}


@functools.partial(jax.jit, static_argnums=(2, 3))
def _limit(x1, x2, depth, activation, sigma_w=_SIGMA_W, sigma_b=_SIGMA_B):
    """The library's kernels of the infinite network."""
    return ntk.analytic_ntk(x1, x2, depth=depth, sigma_w=sigma_w, sigma_b=sigma_b, activation=activation)


class _Layers(NamedTuple):
    """What the tangent kernels of random ReLU networks are made of, layer by layer.

    Attributes:
        widths: shape [r].
        x: inputs [n, d].
        fan_in: of each layer, shape [r, l].
        forward: inner products of what each layer is given, shape [r, seeds, l, n, n].
        backward: inner products of the output's derivatives by what each layer returns, shape [r, seeds, l, n, n].
    """

    widths: np.ndarray
    x: np.ndarray
    fan_in: np.ndarray
    forward: np.ndarray
    backward: np.ndarray


def _grams(rng, x, width, depth):
    """Forward and backward inner products of one network, each layer sigma_w / sqrt(fan-in) W a + sigma_b b."""
    a, forward, slopes, weights = x.astype(np.float32), [], [], []
    for fan_out in [width] * depth + [1]:
        forward.append(a @ a.T)
        w = rng.standard_normal((fan_out, a.shape[1]), np.float32) * np.float32(_SIGMA_W * a.shape[1] ** -0.5)
        z = a @ w.T + np.float32(_SIGMA_B) * rng.standard_normal(fan_out, np.float32)
        weights.append(w)
        slopes.append(z > 0)
        a = np.maximum(z, 0)
    g = np.ones((len(x), 1), np.float32)
    backward = [g @ g.T]
    for w, slope in zip(weights[:0:-1], slopes[-2::-1], strict=True):
        g = (g @ w) * slope
        backward.insert(0, g @ g.T)
    return forward, backward


def _networks(*seeds):
    """A set-up: so many networks of each width with one hidden layer, and with two."""

    def setup(key, budget):
        rng = generator(key)
        x, widths = spread(rng, 6), widths_up_to(budget)
        problem = {}
        for (name, depth), num in zip(_DEPTHS.items(), seeds, strict=True):
            grams = np.array([[_grams(rng, x, width, depth) for _ in range(num)] for width in widths], float)
            fan_in = np.array([[x.shape[1]] + [width] * depth for width in widths])
            problem[name] = _Layers(widths, x, fan_in, grams[:, :, 0], grams[:, :, 1])
        return problem

    return setup


def _kernels(layers, standard=False):
    """Tangent kernels [r, seeds, n, n], with the scales in the forward pass or (standard) in the parameters."""
    weight = 1.0 if standard else _SIGMA_W**2 / layers.fan_in[:, None, :, None, None]
    bias = 1.0 if standard else _SIGMA_B**2
    return np.sum((weight * layers.forward + bias) * layers.backward, axis=2)


def _over_widths(quantity):
    """A quantity [r, seeds] of the networks, averaged over seeds, over the width."""
    return lambda problem: {name: estimate(quantity(layers).T, layers.widths) for name, layers in problem.items()}


def _trace(layers, standard=False, power=0.0):
    """Of the kernel, per input, times a power of the width."""
    traces = np.trace(_kernels(layers, standard), axis1=-2, axis2=-1) / len(layers.x)
    return traces * layers.widths[:, None] ** power


def _standard_trace(layers):
    return _trace(layers, standard=True)


def _bias_share(layers, printed=False):
    """What the biases of the second hidden layer add to the kernel's trace, per input."""
    variance = _SIGMA_B**2 / layers.fan_in[:, 1:2] if printed else _SIGMA_B**2
    return variance * np.trace(layers.backward[:, :, 1], axis1=-2, axis2=-1) / len(layers.x)


def _bias_shares(printed=False):
    return lambda problem: _over_widths(lambda layers: _bias_share(layers, printed))(
        {name: layers for name, layers in problem.items() if layers.fan_in.shape[1] == 3}
    )


def _deviation(layers, standard=False, last_layer_only=False):
    """Of the kernels from the limit, in Frobenius norm relative to it."""
    depth = layers.fan_in.shape[1] - 1
    nngp, limit = map(np.asarray, _limit(layers.x, layers.x, depth, "relu"))
    limit = nngp if last_layer_only else limit
    return np.linalg.norm(_kernels(layers, standard) - limit, axis=(-2, -1)) / np.linalg.norm(limit)


# One hidden layer: the limit is the mean at any width.

_PAIRS = np.triu_indices(5)


def _arc(*_):
    """Five inputs on a half circle, the first two of them close."""
    angles = np.pi * np.array([0.0, 0.1, 0.35, 0.65, 1.0])
    return np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _by_angle(x, kernels):
    """Kernels [..., n, n] of all pairs, over the angle between the inputs."""
    cosines = np.sum(x[_PAIRS[0]] * x[_PAIRS[1]], axis=1) / np.prod(np.linalg.norm(x, axis=1)[np.stack(_PAIRS)], axis=0)
    order = np.argsort(-cosines, kind="stable")
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))[order], np.asarray(kernels)[..., *_PAIRS][..., order]


@functools.partial(jax.jit, static_argnums=0)
def _module_kernels(num, key, x):
    """Tangent kernels of freshly initialised Flax networks, sixteen units wide."""
    module = networks.MLP((16, 1), parametrization="ntk", sigma_w=_SIGMA_W, sigma_b=_SIGMA_B)

    apply_fn: Any = module.apply  # Flax may return more than outputs

    def sample(key):
        return ntk.empirical_ntk(apply_fn, module.init(key, x), x)[..., 0, 0]

    return jax.lax.map(sample, jax.random.split(key, num), batch_size=256)


def _mean_kernel(draw):
    x = _arc()
    angles, kernels = _by_angle(x, _module_kernels(draw.budget, draw.key, x))
    return estimate(kernels, angles)


def _kernel_of_limit(_, last_layer_only=False):
    nngp, tangent = _limit(_arc(), _arc(), 1, "relu")
    return _by_angle(_arc(), nngp if last_layer_only else tangent)[1]


# The recursion, against quadrature and sampling.

_DEEP = {"sigma_w": 1.5, "sigma_b": 0.3}


def _recursion(_):
    nngp, tangent = _limit(_arc(), _arc(), 3, "erf", *_DEEP.values())
    angles, nngp = _by_angle(_arc(), nngp)
    return {"NNGP": Curve(nngp, angles), "NTK": Curve(_by_angle(_arc(), tangent)[1], angles)}


def _recursion_by_quadrature(_, carried=True):
    x, (sigma_w, sigma_b) = _arc(), _DEEP.values()
    nngp = sigma_w**2 * x @ x.T / 2 + sigma_b**2
    tangent = nngp
    for _ in range(3):
        value, slope = quadrature_step(nngp)
        nngp = sigma_w**2 * value + sigma_b**2
        tangent = nngp * carried + sigma_w**2 * tangent * slope
    return {"NNGP": _by_angle(x, nngp)[1], "NTK": _by_angle(x, tangent)[1]}


_CORRELATIONS = np.array([-0.95, -0.6, -0.2, 0.2, 0.6, 0.95])


def _sampled_moments(draw):
    """Means of products of ReLUs, and of their derivatives, over normal pairs."""
    u, w = generator(draw.key).normal(size=(2, draw.budget, 1))
    v = _CORRELATIONS * u + np.sqrt(1 - _CORRELATIONS**2) * w
    return {
        "E φ(u) φ(v)": estimate(np.maximum(u, 0) * np.maximum(v, 0), _CORRELATIONS),
        "E φ'(u) φ'(v)": estimate((u > 0) & (v > 0), _CORRELATIONS),
    }


def _moments_of_recursion(_, sine=True):
    """The same, out of one step of the recursion for unit inputs with these correlations."""
    first = np.array([[np.sqrt(2), 0.0]])
    others = np.sqrt(2) * np.stack([_CORRELATIONS, np.sqrt(1 - _CORRELATIONS**2)], axis=1)
    nngp, tangent = (np.asarray(kernel)[0] for kernel in _limit(first, others, 1, "relu", 1.0, 0.0))
    slopes = (tangent - nngp) / _CORRELATIONS
    if not sine:
        nngp = _CORRELATIONS * slopes
    return {"E φ(u) φ(v)": nngp, "E φ'(u) φ'(v)": slopes}


_NORMS = np.array([0.1, 0.5, 1.0, 2.0, 5.0])
_LEVELS = (1, 16)


def _variances(_, sigma_w=_SIGMA_W):
    """Of outputs at inputs of several norms, over what the first layer has."""
    x = _NORMS[:, None] * np.array([[0.6, 0.8]])
    first = sigma_w**2 * np.sum(x**2, axis=1) / 2
    return {
        f"depth {depth}": Curve(np.diag(_limit(x, x, depth, "relu", sigma_w, 0.0)[0]) / first, _NORMS)
        for depth in _LEVELS
    }


# Modules of other architectures.


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sampled_kernel(name, num, key):
    network, x = Network(name, width=256), INPUTS.astype(np.float32)
    apply_fn: Any = network.apply  # Flax may return more than outputs
    return infinite_width.monte_carlo_kernel(network.init, apply_fn, x, key=key, num_samples=num)


def _mean_of_modules(draw):
    kernels = {name: _sampled_kernel(name, draw.budget, draw.key) for name in ON_PAPER}
    return {name: Curve(k.ntk[PAIRS], np.arange(len(PAIRS[0])), k.ntk_error[PAIRS]) for name, k in kernels.items()}


_WIDTH = "width m"
_TRACE = Axes(_WIDTH, "trace / inputs", log="xy")
_ERROR = Axes(_WIDTH, r"$\|K_{\theta_0} - \Theta\|_F / \|\Theta\|_F$", log="xy")
_ANGLE = "angle between the inputs (degrees)"

CLAIMS = (
    Claim(
        "ntk.init_parametrization",
        says="With scales in the forward pass the kernel is of the same size at every width.",
        setup=_networks(16, 24),
        measure=_over_widths(_trace),
        predict=lambda _: 0.0,
        judge=Slope(tolerance=0.1),
        control=Variant("with the scales in the parameters", measure=_over_widths(_standard_trace)),
        budget=_WIDTHS,
        axes=_TRACE,
    ),
    Claim(
        "ntk.init_parametrization",
        part="standard",
        says="With variances in the parameters the kernel grows in proportion to the width.",
        setup=_networks(16, 24),
        measure=_over_widths(_standard_trace),
        predict=lambda _: 1.0,
        judge=Slope(tolerance=0.1),
        control=Variant("with scales in the forward pass", measure=_over_widths(_trace)),
        budget=_WIDTHS,
        axes=_TRACE,
    ),
    Claim(
        "ntk.init_parametrization",
        part="biases",
        says="Biases of a hidden layer count at any width if their variance is σ_b².",
        setup=_networks(16, 24),
        measure=_bias_shares(),
        predict=lambda _: 0.0,
        judge=Slope(tolerance=0.1),
        control=Variant("σ_b² / m, as printed", measure=_bias_shares(printed=True)),
        budget=_WIDTHS,
        axes=Axes(_WIDTH, "share of the biases in the trace", log="xy"),
    ),
    Claim(
        "ntk.init_parametrization@printed",
        says="With variances in the parameters, as printed, the kernel has a limit.",
        setup=_networks(16, 24),
        measure=_over_widths(_standard_trace),
        predict=lambda _: 0.0,
        judge=Slope(tolerance=0.1),
        control=Variant("scales 1/m in the forward pass", measure=_over_widths(lambda at: _trace(at, power=-1.0))),
        corrected=Variant("scales 1/√m in the forward pass", measure=_over_widths(_trace)),
        budget=_WIDTHS,
        axes=_TRACE,
    ),
    Claim(
        "ntk.init_convergence",
        says="The kernel at initialisation approaches the analytic one as width^(−1/2).",
        setup=_networks(64, 48),
        measure=_over_widths(_deviation),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1),
        control=Variant(
            "the last layer's part as limit",
            measure=_over_widths(lambda layers: _deviation(layers, last_layer_only=True)),
        ),
        budget=_WIDTHS,
        axes=_ERROR,
    ),
    Claim(
        "ntk.init_convergence",
        part="mean",
        says="With one hidden layer its mean is the limit at any width, here sixteen.",
        measure=_mean_kernel,
        predict=_kernel_of_limit,
        judge=Mean(resolution=0.1, floor=0.1),
        control=Variant("the last layer's part", predict=lambda draw: _kernel_of_limit(draw, last_layer_only=True)),
        budget=Budget(quick=4000, full=400_000),
        axes=Axes(_ANGLE, r"$\mathbb{E} K_{\theta_0}(x, x')$"),
    ),
    Claim(
        "ntk.init_convergence",
        part="modules",
        says="At width 256 modules of three architectures have the kernels read off them on average.",
        measure=_mean_of_modules,
        predict=read_off("ntk"),
        judge=Mean(resolution=0.3, floor=0.3),
        control=Variant(f"recursions {STRIPPED}", predict=on_paper("ntk", whole=False)),
        budget=Budget(quick=200, full=2000),
        axes=Axes("pair of inputs", r"$\mathbb{E} K_{\theta_0}(x, x')$"),
    ),
    Claim(
        "ntk.init_convergence@printed",
        says="So it does with the variances in the parameters.",
        setup=_networks(64, 48),
        measure=_over_widths(lambda layers: _deviation(layers, standard=True)),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.1),
        control=Variant(
            "scales in the forward pass, the last layer's part as limit",
            measure=_over_widths(lambda layers: _deviation(layers, last_layer_only=True)),
        ),
        corrected=Variant("scales in the forward pass", measure=_over_widths(_deviation)),
        budget=_WIDTHS,
        axes=_ERROR,
    ),
    Claim(
        "ntk.analytic_recursion",
        says="Three layers of the recursion for erf agree with Gauss–Hermite quadrature in two dimensions.",
        measure=_recursion,
        predict=_recursion_by_quadrature,
        judge=Equal(rtol=1e-6),
        control=Variant(
            "Θ without the new layer's Σ", predict=lambda draw: _recursion_by_quadrature(draw, carried=False)
        ),
        axes=Axes(_ANGLE, "kernel"),
    ),
    Claim(
        "ntk.analytic_recursion",
        part="ReLU",
        says="The two moments of its step for ReLU are those of sampled normal pairs.",
        measure=_sampled_moments,
        predict=_moments_of_recursion,
        judge=Mean(resolution=0.1, floor=0.02),
        control=Variant(
            "the arc-cosine kernel without its sine", predict=lambda draw: _moments_of_recursion(draw, sine=False)
        ),
        budget=Budget(quick=100_000, full=10_000_000),
        axes=Axes("correlation of u and v", "mean"),
    ),
    Claim(
        "ntk.analytic_recursion",
        part="variance",
        says="Without biases and with σ_w² = 2 ReLU layers keep the variance, to any depth and for inputs of any size.",
        measure=_variances,
        predict=lambda _: 1.0,
        judge=Equal(rtol=1e-12),
        control=Variant("σ_w² = 1.9", measure=lambda draw: _variances(draw, 1.9**0.5)),
        axes=Axes("norm of the input", "variance / first layer's", log="x"),
    ),
    Claim(
        "ntk.analytic_recursion",
        part="modules",
        says="Kernels read off ReLU modules of three architectures are their recursions on paper.",
        measure=read_off("ntk"),
        predict=on_paper("ntk"),
        judge=Equal(rtol=1e-9),
        control=Variant(STRIPPED, predict=on_paper("ntk", whole=False)),
        axes=Axes("pair of inputs", "tangent kernel"),
    ),
)
