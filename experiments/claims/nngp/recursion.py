"""Claims about the recursion of kernels and its closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from dltheory import nngp
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims._architectures import STRIPPED, on_paper, quadrature_step, read_off
from experiments.claims.nngp._problems import INPUTS, conditional_layers, gram
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Equal, Mean, Slope

__all__ = ["CLAIMS"]

# Random networks against the recursion.

_DEPTHS = np.arange(1, 5)
_PAIRS = {"tanh": (np.tanh, 1.5), "relu": (lambda h: np.maximum(h, 0), np.sqrt(2))}
_ENTRIES = ((0, 0), (0, 1), (1, 2))


def _random_networks(sigma_b):
    def measure(draw):
        rng = generator(draw.key)
        curves = {}
        for name, (activation, sigma_w) in _PAIRS.items():
            sizes = {"width": 1024, "networks": draw.budget, "depth": _DEPTHS[-1]}
            layers = conditional_layers(rng, INPUTS, activation, sigma_w=sigma_w, sigma_b=sigma_b, **sizes)
            for i, j in _ENTRIES:
                curves[f"{name}, K_{i + 1}{j + 1}"] = estimate(layers[:, 1:, i, j], _DEPTHS)
        return curves

    return measure


@jax.jit
def _recursion(x, sigma_b):
    """Kernels after each hidden layer, by `nngp.kernel_step`."""
    result = {}
    for name, (_, sigma_w) in _PAIRS.items():

        def step(pairs, _, name=name, sigma_w=sigma_w):
            pairs = nngp.kernel_step(pairs, name, sigma_w, sigma_b)
            return pairs, pairs.covariance

        start = nngp.affine_covariance(nngp.input_covariance(x), sigma_w, sigma_b)
        result[name] = jax.lax.scan(step, start, length=_DEPTHS.size)[1]
    return result


def _kernels(sigma_b):
    def predict(_):
        layers = _recursion(jnp.asarray(INPUTS), sigma_b)
        return {f"{name}, K_{i + 1}{j + 1}": np.asarray(layers[name])[:, i, j] for name in _PAIRS for i, j in _ENTRIES}

    return predict


def _separate_means(_):
    """The print read as it stands: gamma^2 E phi(u) E phi(v), layer by layer; 0 for tanh, which is odd."""
    curves = {}
    for name, (_, sigma_w) in _PAIRS.items():
        kernel, layers = sigma_w**2 * gram(INPUTS), []
        for _ in _DEPTHS:
            mean = np.sqrt(np.diag(kernel) / (2 * np.pi)) if name == "relu" else np.zeros(len(INPUTS))
            kernel = sigma_w**2 * np.outer(mean, mean)
            layers.append(kernel)
        curves |= {f"{name}, K_{i + 1}{j + 1}": np.stack(layers)[:, i, j] for i, j in _ENTRIES}
    return curves


# One step against quadrature.

_RHO = np.linspace(-0.95, 0.95, 9)
_VARIANCES = (0.8, 1.7)
_SMOOTH = {
    "erf": special.erf,
    "gelu": lambda x: x * special.ndtr(x),
    "sin": np.sin,
    "tanh": np.tanh,
    "silu": lambda x: x * special.expit(x),
}
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


def _quadrature(_):
    """E phi(u) phi(v) by a product rule over u and the part of v that is independent of u."""
    a, b = np.sqrt(_VARIANCES)
    u, z = a * _NODES[:, None], _NODES[None, :]
    weights = np.outer(_WEIGHTS, _WEIGHTS) / (2 * np.pi)
    curves = {}
    for name, phi in _SMOOTH.items():
        values = [np.sum(weights * phi(u) * phi(b * (r * u / a + np.sqrt(1 - r**2) * z))) for r in _RHO]
        curves[name] = Curve(values, _RHO)
    return curves


@jax.jit
def _steps(covariance):
    first, second = (jnp.full(covariance.shape, q) for q in _VARIANCES)
    pairs = nngp.pair_covariance(first, second, covariance)
    return {name: nngp.kernel_step(pairs, name, 1.0).covariance for name in _SMOOTH}


def _one_step(scale):
    return lambda _: _steps(scale * jnp.asarray(_RHO) * np.sqrt(np.prod(_VARIANCES)))


# Closed forms against simulation.

_K11, _K22 = 0.7, 1.6


def _gaussian_pairs(draw):
    u, z = generator(draw.key).normal(size=(2, draw.budget))
    curves = {"ReLU": [], "step": [], "squared ReLU": [], "erf": []}
    for r in _RHO:
        v = np.sqrt(_K22) * (r * u + np.sqrt(1 - r**2) * z)
        s, t = np.maximum(np.sqrt(_K11) * u, 0), np.maximum(v, 0)
        curves["ReLU"].append(s * t)
        curves["step"].append((s > 0) & (t > 0))
        curves["squared ReLU"].append((s * t) ** 2)
        curves["erf"].append(special.erf(np.sqrt(_K11) * u) * special.erf(v))
    return {name: estimate(np.stack(values, axis=1), _RHO) for name, values in curves.items()}


@jax.jit
def _closed(k11, k12, k22):
    return {
        "ReLU": nngp.arccos_kernel(k11, k12, k22, degree=1),
        "step": nngp.arccos_kernel(k11, k12, k22, degree=0),
        "squared ReLU": nngp.arccos_kernel(k11, k12, k22, degree=2),
        "erf": nngp.erf_kernel(k11, k12, k22),
    }


def _closed_forms(sign):
    def predict(_):
        k12 = sign * _RHO * np.sqrt(_K11 * _K22)
        return _closed(jnp.full(_RHO.shape, _K11), jnp.asarray(k12), jnp.full(_RHO.shape, _K22))

    return predict


# Depth: variances are kept, correlations creep to one.

_LAYERS = 2 ** np.arange(6, 13)


@jax.jit
def _deep(rho, weight_variance):
    """1 - correlation and variance after every layer of a deep ReLU network."""

    def step(pairs, _):
        pairs = nngp.kernel_step(pairs, "relu", jnp.sqrt(weight_variance))
        gap = pairs.residual / (1 + nngp.correlation(pairs))
        return pairs, (gap, pairs.variance1)

    one = jnp.ones_like(rho)
    return jax.lax.scan(step, nngp.pair_covariance(one, one, rho), length=int(_LAYERS[-1]))[1]


_STARTS = np.array([-0.5, 0.5])


def _gaps(_):
    gaps, _ = _deep(jnp.asarray(_STARTS), 2.0)
    return {f"from {s:g}": Curve(np.asarray(gaps)[_LAYERS - 1, i], _LAYERS) for i, s in enumerate(_STARTS)}


def _variances(weight_variance):
    def measure(_):
        _, variances = _deep(jnp.asarray(_STARTS), weight_variance)
        return Curve(np.asarray(variances)[_LAYERS - 1, 0], _LAYERS)

    return measure


def _scaled_gaps(power):
    def measure(_):
        return {name: Curve(curve.y[-1:] * _LAYERS[-1:] ** power, _LAYERS[-1:]) for name, curve in _gaps(None).items()}

    return measure


# Single precision near the diagonal.

_ANGLES = np.geomspace(1e-6, 1.0, 13)
_DEEP = (1, 3, 20)


def _near_pairs(dtype):
    """Inputs at small angles to one input."""
    base = np.zeros((1, 3))
    base[0, 0] = 1.0
    near = np.stack([np.cos(_ANGLES), np.sin(_ANGLES), np.zeros_like(_ANGLES)], axis=1)
    return jnp.asarray(base, dtype), jnp.asarray(near, dtype)


@jax.jit
def _tangent_layers(x1, x2):
    """Tangent kernels after every layer of a ReLU network."""
    pairs = nngp.affine_covariance(nngp.input_covariance(x1, x2), 2**0.5, 0.1)

    def step(kernels, _):
        kernels = nngp.network_kernel_step(kernels, "relu", 2**0.5, 0.1)
        return kernels, kernels.ntk[0]

    return jax.lax.scan(step, nngp.NetworkKernels(pairs, pairs.covariance), length=_DEEP[-1])[1]


def _tangent_kernels(dtype):
    layers = _tangent_layers(*_near_pairs(dtype))
    return {depth: layers[depth - 1] for depth in _DEEP}


def _textbook(dtype):
    """The recursion with the angle taken from the correlation alone."""
    x1, x2 = (np.asarray(x) for x in _near_pairs(dtype))
    one = dtype(1)
    result = {}
    for depth in _DEEP:
        two, bias = dtype(2), dtype(0.01)
        q1, q2 = two * np.sum(x1**2, 1) / dtype(3) + bias, two * np.sum(x2**2, 1) / dtype(3) + bias
        kernel = two * (x1 @ x2.T)[0] / dtype(3) + bias
        tangent = kernel
        for _ in range(depth):
            size = np.sqrt(q1 * q2)
            rho = np.clip(kernel / size, -one, one)
            angle = np.arccos(rho)
            slope = (dtype(np.pi) - angle) / dtype(np.pi)
            kernel = size / dtype(np.pi) * (np.sqrt(one - rho**2) + (dtype(np.pi) - angle) * rho) + bias
            tangent = kernel + tangent * slope
            q1, q2 = q1 + bias, q2 + bias
        result[depth] = tangent
    return result


def _single_errors(kernels):
    def measure(_):
        exact, single = _tangent_kernels(np.float64), kernels(np.float32)
        errors = {depth: np.abs(np.asarray(single[depth], float) / np.asarray(exact[depth]) - 1) for depth in _DEEP}
        return {f"depth {depth}": Curve(errors[depth], _ANGLES) for depth in _DEEP}

    return measure


CLAIMS = (
    Claim(
        id="nngp.kernel_recursion",
        says="Mean products of the pre-activations of random networks of width 1024 are the kernels of the recursion.",
        measure=_random_networks(0.3),
        predict=_kernels(0.3),
        judge=Mean(resolution=0.1, floor=0.04),
        control=Variant("without the biases' variance", predict=_kernels(0.0)),
        budget=Budget(200, 4000),
        axes=Axes("layer", "covariance"),
    ),
    Claim(
        id="nngp.kernel_recursion@printed",
        says="With the first factor outside the sum, the covariance is the product of two means.",
        measure=_random_networks(0.0),
        predict=_separate_means,
        judge=Mean(resolution=0.1, floor=0.04),
        control=Variant("with the biases' variance", predict=_kernels(0.3)),
        corrected=Variant("both factors summed over units", predict=_kernels(0.0)),
        budget=Budget(200, 4000),
        axes=Axes("layer", "covariance"),
    ),
    Claim(
        id="nngp.kernel_recursion",
        part="quadrature",
        says="One step equals two-dimensional quadrature, by closed form (erf, GELU, sine) and by Hermite series.",
        measure=_quadrature,
        predict=_one_step(1.0),
        judge=Equal(rtol=1e-8, atol=1e-8),
        control=Variant("correlations of half the size", predict=_one_step(0.5)),
        axes=Axes("correlation", "mean product"),
    ),
    Claim(
        id="nngp.kernel_recursion",
        part="modules",
        says="Kernels read off residual, convolutional and layer-normalised modules with error functions are their "
        "recursions by quadrature.",
        measure=read_off("nngp", jax.lax.erf),
        predict=on_paper("nngp", quadrature_step),
        judge=Equal(rtol=1e-8),
        control=Variant(STRIPPED, predict=on_paper("nngp", quadrature_step, whole=False)),
        axes=Axes("pair of inputs", "covariance"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        says="Mean products of rectified powers and of error functions of Gaussian pairs are the closed forms.",
        measure=_gaussian_pairs,
        predict=_closed_forms(1.0),
        judge=Mean(resolution=0.3, floor=0.02),
        control=Variant("correlations of the opposite sign", predict=_closed_forms(-1.0)),
        budget=Budget(200_000, 4_000_000),
        axes=Axes("correlation", "mean product"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        part="variance",
        says="Weights of variance 2 / fan-in keep the variance of ReLU pre-activations at every depth.",
        measure=_variances(2.0),
        predict=lambda _: 1.0,
        judge=Equal(rtol=1e-10),
        control=Variant("weights of variance 1.99 / fan-in", measure=_variances(1.99)),
        axes=Axes("layer", "variance", "x"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        part="decay",
        says="In a deep ReLU network, 1 - correlation decays like the inverse square of depth.",
        measure=_gaps,
        predict=lambda _: -2.0,
        judge=Slope(tolerance=0.1),
        control=Variant("like the inverse of depth", predict=lambda _: -1.0),
        axes=Axes("layer", "1 - correlation", "xy"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        part="constant",
        says="At 4096 layers, the squared depth times 1 - correlation is 9 pi^2 / 2 within 2 percent.",
        measure=_scaled_gaps(2),
        predict=lambda _: 9 * np.pi**2 / 2,
        judge=Equal(rtol=0.02),
        control=Variant("the cube of depth", measure=_scaled_gaps(3)),
        axes=Axes("layer", "squared depth times 1 - correlation"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        part="float32",
        says="In single precision the tangent kernel is within 1e-5 of its value in double, down to angles of 1e-6.",
        measure=_single_errors(_tangent_kernels),
        predict=lambda _: 1e-5,
        judge=AtMost(),
        control=Variant("the angle from the correlation alone", measure=_single_errors(_textbook)),
        axes=Axes("angle between inputs", "relative error", "xy"),
    ),
    Claim(
        id="nngp.arccos_recursion",
        part="modules",
        says="Kernels read off residual, convolutional and layer-normalised ReLU modules are their closed forms.",
        measure=read_off("nngp"),
        predict=on_paper("nngp"),
        judge=Equal(rtol=1e-9),
        control=Variant(STRIPPED, predict=on_paper("nngp", whole=False)),
        axes=Axes("pair of inputs", "covariance"),
    ),
)
