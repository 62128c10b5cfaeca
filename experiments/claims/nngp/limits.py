"""Claims about the law of a layer's outputs: linear, of finite width, and in the limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import nngp
from experiments.claim import Axes, Budget, Claim, Variant, generator
from experiments.claims.nngp._problems import INPUTS, gram, relu_kernel
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Slope

__all__ = ["CLAIMS"]

# A random linear layer: three inputs of five coordinates, two units.

_GAMMA = 1.3
_POINTS = np.array([[0.5, -1.0, 0.3, 0.8, 1.2], [1.0, 0.4, -0.6, 0.2, -0.9], [0.1, 0.7, 1.1, -1.3, 0.5]])
_UNITS = 2
_PAIRS = np.triu_indices(_UNITS * len(_POINTS))
_SAME_UNIT = _PAIRS[0] // len(_POINTS) == _PAIRS[1] // len(_POINTS)
_DIRECTIONS = np.array([[1.0, 0, 0, 0, 0, 0], [1, -1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0.5, -2, 1, 1, 0.3, -1]])


def _outputs(draw):
    weights = generator(draw.key).normal(size=(draw.budget, _UNITS, _POINTS.shape[1])) * _GAMMA / np.sqrt(5)
    return (weights @ _POINTS.T).reshape(draw.budget, -1)  # [trials, units x inputs]


def _linear_moments(draw):
    outputs = _outputs(draw)
    products = outputs[:, _PAIRS[0]] * outputs[:, _PAIRS[1]]
    fourth = (outputs @ _DIRECTIONS.T) ** 4
    return {
        "same unit": estimate(products[:, _SAME_UNIT], np.arange(_SAME_UNIT.sum())),
        "different units": estimate(products[:, ~_SAME_UNIT], np.arange((~_SAME_UNIT).sum())),
        "fourth moments of projections": estimate(fourth, np.arange(len(_DIRECTIONS))),
    }


def _linear_predicted(covariance):
    entries = covariance[_PAIRS]
    return {
        "same unit": entries[_SAME_UNIT],
        "different units": entries[~_SAME_UNIT],
        "fourth moments of projections": 3 * np.einsum("ai,ij,aj->a", _DIRECTIONS, covariance, _DIRECTIONS) ** 2,
    }


def _kronecker(gamma):
    def predict(_):
        kernel = nngp.linear_kernel(jnp.asarray(_POINTS), gamma=gamma)
        return _linear_predicted(np.kron(np.eye(_UNITS), np.asarray(kernel)))

    return predict


def _printed_linear(_):
    blocks = [_GAMMA**2 * np.outer(_POINTS[:, i], _POINTS[:, i]) / 5 for i in range(_UNITS)]
    covariance = np.zeros((6, 6))
    covariance[:3, :3], covariance[3:, 3:] = blocks
    return _linear_predicted(covariance)


# Layers of finite width: f = sum_j w_j phi(h_j) / sqrt(m).

_WIDTHS = np.array([2, 4, 8, 16, 32])
_ACTIVATIONS = {"identity": lambda h: h, "ReLU": lambda h: np.maximum(h, 0)}
_kurtosis = jax.jit(nngp.excess_kurtosis)


def _finite_width(draw):
    """Excess kurtosis of the output at each width, and its standard error by the delta method."""
    rng = generator(draw.key)
    curves = {name: [] for name in _ACTIVATIONS}
    for m in _WIDTHS:
        hidden, weights = rng.normal(size=(2, draw.budget, m))
        for name, activation in _ACTIVATIONS.items():
            f = np.einsum("nj,nj->n", weights, activation(hidden)) / np.sqrt(m)
            second, fourth = np.mean(f**2), np.mean(f**4)
            influence = f**4 / second**2 - 2 * fourth / second**3 * f**2
            curves[name].append((float(_kurtosis(jnp.asarray(f))), np.std(influence) / np.sqrt(draw.budget)))
    rows = {name: np.array(values) for name, values in curves.items()}
    return {name: Curve(values[:, 0], _WIDTHS, values[:, 1]) for name, values in rows.items()}


def _kurtosis_law(identity, relu):
    """3 (E phi^4 / (E phi^2)^2 - 1) / m for a standard normal pre-activation."""
    return lambda _: {"identity": identity / _WIDTHS, "ReLU": relu / _WIDTHS}


# The limit: characteristic function of (f(x1), f(x2)) over random networks with one wide hidden layer.

_WIDTH = 512
_FREQUENCIES = np.array([[0.5, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [1.0, -1.0], [2.0, -1.0], [0.5, 1.5]])


def _network_outputs(readout):
    """Outputs [networks, 2] of ReLU networks with standard normal hidden weights and a given law of output weights."""

    def setup(key, budget):
        rng = generator(key)
        hidden = rng.normal(size=(budget, _WIDTH, 2)) @ np.linalg.cholesky(gram(INPUTS[:2])).T
        return np.einsum("nj,njx->nx", readout(rng, (budget, _WIDTH)), np.maximum(hidden, 0))

    return setup


def _uniform(rng, shape):
    return rng.uniform(-1, 1, shape) * np.sqrt(3 / _WIDTH)


def _cauchy(rng, shape):
    return rng.standard_cauchy(shape) / _WIDTH


def _characteristic(outputs):
    return estimate(np.cos(outputs @ _FREQUENCIES.T), np.arange(len(_FREQUENCIES)))


def _gaussian_characteristic(scale):
    def predict(_):
        kernel = np.asarray(relu_kernel(INPUTS, 1.0))[:2, :2]
        return np.exp(-scale * np.einsum("ai,ij,aj->a", _FREQUENCIES, kernel, _FREQUENCIES) / 2)

    return predict


CLAIMS = (
    Claim(
        id="nngp.linear_layer",
        says="Second and fourth moments of the outputs of two random linear units at three inputs are those of a "
        "Gaussian with covariance I (x) K.",
        measure=_linear_moments,
        predict=_kronecker(_GAMMA),
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("weights of variance 1 instead of gamma^2 / n", predict=_kronecker(5**0.5)),
        budget=Budget(200_000, 5_000_000),
        axes=Axes("entry", "moment"),
    ),
    Claim(
        id="nngp.linear_layer@printed",
        says="The covariance of the i-th units' outputs is the product of the i-th coordinates of the inputs.",
        measure=_linear_moments,
        predict=_printed_linear,
        judge=Mean(resolution=0.1, floor=0.05),
        control=Variant("weights of variance 1 instead of gamma^2 / n", predict=_kronecker(5**0.5)),
        corrected=Variant("inner products of whole inputs", predict=_kronecker(_GAMMA)),
        budget=Budget(200_000, 5_000_000),
        axes=Axes("entry", "moment"),
    ),
    Claim(
        id="nngp.finite_width_nongaussian",
        says="The output of a layer of width m has excess kurtosis 6/m (identity) and 15/m (ReLU).",
        measure=_finite_width,
        predict=_kurtosis_law(6.0, 15.0),
        judge=Mean(resolution=0.6),
        control=Variant("a Gaussian at every width", predict=_kurtosis_law(0.0, 0.0)),
        budget=Budget(200_000, 4_000_000),
        axes=Axes("width", "excess kurtosis", "xy"),
    ),
    Claim(
        id="nngp.finite_width_nongaussian",
        part="rate",
        says="The excess kurtosis of a layer's output decays like 1/width.",
        measure=_finite_width,
        predict=lambda _: -1.0,
        judge=Slope(tolerance=0.12),
        control=Variant("like 1/sqrt(width)", predict=lambda _: -0.5),
        budget=Budget(200_000, 4_000_000),
        axes=Axes("width", "excess kurtosis", "xy"),
    ),
    Claim(
        id="nngp.clt_limit",
        says="Over wide networks with bounded output weights, the characteristic function of the outputs at two inputs "
        "is that of a Gaussian with the kernel as covariance.",
        setup=_network_outputs(_uniform),
        measure=_characteristic,
        predict=_gaussian_characteristic(1.0),
        judge=Mean(resolution=0.2, floor=0.06),
        control=Variant("output weights of infinite variance (Cauchy)", setup=_network_outputs(_cauchy)),
        budget=Budget(10_000, 200_000),
        axes=Axes("frequency", "E cos(t f)"),
    ),
    Claim(
        id="nngp.clt_limit@printed",
        says="Without a condition on the weights, the limit is Gaussian for Cauchy output weights too.",
        setup=_network_outputs(_cauchy),
        measure=_characteristic,
        predict=_gaussian_characteristic(1.0),
        judge=Mean(resolution=0.2, floor=0.06),
        control=Variant("a Gaussian of ten times the variance", predict=_gaussian_characteristic(10.0)),
        corrected=Variant("bounded weights", setup=_network_outputs(_uniform)),
        budget=Budget(10_000, 200_000),
        axes=Axes("frequency", "E cos(t f)"),
    ),
)
