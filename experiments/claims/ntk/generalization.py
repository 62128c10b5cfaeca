"""Claims about interpolation: networks fit random labels, and more parameters than examples do not hurt."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dltheory import data, networks, ntk
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import Mean, Ordering

__all__ = ["CLAIMS"]


# Handwritten digits, their labels or their pixels shuffled.

_TRAIN, _TEST = 250, 750


class _Accuracies(NamedTuple):
    """On the training set and on other digits, for each of many draws."""

    train: np.ndarray
    test: np.ndarray


def _mlp():
    return networks.MLP((512, 10), parametrization="standard", sigma_w=2.0**0.5)


def _cnn():
    return networks.CNN((16, 32), 10, pooling="flatten", parametrization="standard", sigma_w=2.0**0.5)


@functools.partial(jax.jit, static_argnums=0)
def _fit(module, key, x, labels, x_test, labels_test):
    """Full-batch Adam in single precision, for every draw in the leading axis."""
    network, num_steps = module(), 120
    optimizer = optax.adam(3e-3)
    if module is _mlp:
        x, x_test = (images.reshape(*images.shape[:2], -1) for images in (x, x_test))

    def run(each):
        key, x, labels, x_test, labels_test = each
        variables = network.init(key, x)

        def loss(variables):
            return optax.softmax_cross_entropy_with_integer_labels(network.apply(variables, x), labels).mean()

        def step(state, _):
            variables, memory = state
            updates, memory = optimizer.update(jax.grad(loss)(variables), memory)
            return (optax.apply_updates(variables, updates), memory), None

        (variables, _), _ = jax.lax.scan(step, (variables, optimizer.init(variables)), length=num_steps)
        pairs = ((x, labels), (x_test, labels_test))
        return [jnp.mean(network.apply(variables, x).argmax(-1) == labels) for x, labels in pairs]

    return jax.lax.map(run, (jax.random.split(key, len(x)), x, labels, x_test, labels_test))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _prepare(key, x, y, random_labels, pixels):
    """Training and test images with their labels, each draw in the leading axis shuffled in its own way."""
    key_labels, key_pixels = (jax.random.split(each, len(x)) for each in jax.random.split(key))
    labels, others = y[:, :_TRAIN], y[:, _TRAIN:]
    if random_labels:
        labels = jax.vmap(lambda key, y: data.randomize_labels(key, y, 10))(key_labels, labels)
    if pixels != "as they are":
        x = jax.vmap(lambda key, x: data.permute_pixels(key, x, pixels == "permuted afresh"))(key_pixels, x)
    return x[:, :_TRAIN], labels, x[:, _TRAIN:], others


def _accuracies(*, random_labels=False, pixels="as they are", module=_mlp):
    """A set-up: networks trained on digits, each on a draw of its own of examples, labels and permutations."""

    def setup(key, budget):
        images, labels = map(np.asarray, data.digits(np.float32))
        shuffled = np.argsort(generator(key).random((budget, len(labels))), axis=1)[:, : _TRAIN + _TEST]
        draws = _prepare(key, images[shuffled] - np.float32(0.3), labels[shuffled], random_labels, pixels)
        return _Accuracies(*map(np.asarray, _fit(module, key, *draws)))

    return setup


def _mean_accuracies(at):
    return {"training": estimate(at.train), "test": estimate(at.test)}


def _chance(_):
    return {"training": 1.0, "test": 0.1}


def _plain_and(pixels):
    """A set-up: the same networks on the same digits with and without permutation of the pixels."""

    def setup(key, budget):
        return {name: _accuracies(pixels=name)(key, budget) for name in ("as they are", pixels)}

    return setup


def _difference(problem):
    plain, permuted = problem.values()
    return {"test accuracy": estimate(permuted.test - plain.test)}


_MEMORIZATION = {
    "measure": _mean_accuracies,
    "predict": _chance,
    "judge": Mean(resolution=0.1, floor=0.05),
    "budget": Budget(quick=16, full=100),
    "axes": Axes(y="accuracy"),
}


# Least squares on more and more random features.

_EXAMPLES, _INPUTS, _NOISE = 60, 20, 0.3
_FEATURES = np.array([10, 30, 50, 60, 70, 100, 200, 600, 2000])


class _Errors(NamedTuple):
    """Mean squared errors [draws, numbers of features]."""

    train: np.ndarray
    test: np.ndarray


@jax.jit
def _regress(kernels, y, ridge):
    def coefficients(kernel, y):
        return ntk.kernel_regression(kernel, y, ridge=ridge, rcond=1e-13).coefficients

    return jax.vmap(jax.vmap(coefficients, in_axes=(0, None)))(kernels, y)


def _interpolations(ridge=0.0):
    """A set-up: noisy linear targets, fitted by the shortest weights of random ReLU features."""

    def setup(key, budget):
        rng = generator(key)
        gram, cross, targets, truths = [], [], [], []
        for _ in range(budget):
            x = rng.normal(size=(_EXAMPLES + 400, _INPUTS))
            truth = x @ rng.normal(size=_INPUTS) / np.sqrt(_INPUTS)
            features = np.maximum(x @ rng.normal(size=(_INPUTS, _FEATURES[-1])) / np.sqrt(_INPUTS), 0.0)
            parts = [features[:, :count] / np.sqrt(count) for count in _FEATURES]
            gram.append([part[:_EXAMPLES] @ part[:_EXAMPLES].T for part in parts])
            cross.append([part[_EXAMPLES:] @ part[:_EXAMPLES].T for part in parts])
            targets.append(truth[:_EXAMPLES] + _NOISE * rng.normal(size=_EXAMPLES))
            truths.append(truth[_EXAMPLES:])
        gram, cross, y, truths = map(np.array, (gram, cross, targets, truths))
        alpha = np.asarray(_regress(gram, y, ridge))
        errors = [
            np.einsum("bcij,bcj->bci", kernels, alpha) - each[:, None] for kernels, each in ((gram, y), (cross, truths))
        ]
        return _Errors(*(np.mean(error**2, axis=-1) for error in errors))

    return setup


_BEYOND, _BELOW = _FEATURES >= _EXAMPLES, _FEATURES <= _EXAMPLES
_BEYOND_NAME, _BELOW_NAME = "features ≥ examples", "features ≤ examples"


def _test_errors(at):
    """Of the median draw, from the threshold on and up to it."""
    median = np.median(at.test, axis=0)
    return {
        _BEYOND_NAME: Curve(median[_BEYOND], _FEATURES[_BEYOND]),
        _BELOW_NAME: Curve(median[_BELOW], _FEATURES[_BELOW]),
    }


def _descent(_, sign=-1):
    """Errors fall from the threshold on, where they are largest."""
    threshold = (_FEATURES == _EXAMPLES).astype(float)
    return {_BEYOND_NAME: sign * np.arange(len(threshold))[_BEYOND], _BELOW_NAME: -sign * threshold[_BELOW]}


_INTERPOLATES = Assumption(
    "training errors vanish beyond the threshold", lambda at: at.train[:, _FEATURES > _EXAMPLES] < 1e-10
)
_DOUBLE_DESCENT = {
    "setup": _interpolations(),
    "measure": _test_errors,
    "judge": Ordering(),
    "budget": Budget(quick=20, full=500),
    "axes": Axes("features", "test error", log="xy"),
}

CLAIMS = (
    Claim(
        "ntk.random_label_memorization",
        says="Trained on random labels a network learns them all, and guesses at digits that it has not seen.",
        setup=_accuracies(random_labels=True),
        control=Variant("the true labels", setup=_accuracies()),
        **_MEMORIZATION,
    ),
    Claim(
        "ntk.random_label_memorization",
        part="convolutional",
        says="So does a convolutional network.",
        setup=_accuracies(random_labels=True, module=_cnn),
        control=Variant("the true labels", setup=_accuracies(module=_cnn)),
        tier="full",
        **_MEMORIZATION,
    ),
    Claim(
        "ntk.random_label_memorization",
        part="permuted pixels",
        says="One permutation of the pixels of all images makes no difference to a fully connected network.",
        setup=_plain_and("permuted"),
        measure=_difference,
        predict=lambda _: {"test accuracy": 0.0},
        judge=Mean(floor=0.05),
        control=Variant("another permutation for each image", setup=_plain_and("permuted afresh")),
        assumptions=(
            Assumption("the network generalises", lambda problem: [at.test.mean() > 0.85 for at in problem.values()]),
        ),
        budget=Budget(quick=8, full=100),
        axes=Axes(y="test accuracy, difference"),
    ),
    Claim(
        "ntk.random_label_memorization@printed",
        says="It learns the labels of digits with permuted pixels too, and guesses at others.",
        setup=_accuracies(pixels="permuted"),
        control=Variant("no permutation", setup=_accuracies()),
        corrected=Variant("random labels", setup=_accuracies(pixels="permuted", random_labels=True)),
        **_MEMORIZATION,
    ),
    Claim(
        "ntk.interpolation_test_accuracy",
        says="Test errors are largest where features are as many as examples, and fall from there on.",
        predict=_descent,
        control=Variant("with a ridge, which takes the peak away", setup=_interpolations(ridge=0.1)),
        assumptions=(_INTERPOLATES,),
        **_DOUBLE_DESCENT,
    ),
    Claim(
        "ntk.interpolation_test_accuracy@printed",
        says="Once the training error is zero, test errors rise with more features.",
        predict=lambda at: _descent(at, sign=1),
        control=Variant("with a ridge", setup=_interpolations(ridge=0.1)),
        corrected=Variant("they fall", predict=_descent),
        assumptions=(_INTERPOLATES,),
        **_DOUBLE_DESCENT,
    ),
)
