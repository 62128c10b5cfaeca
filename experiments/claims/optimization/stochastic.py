"""Claims about mini-batches and variance reduction, on linear regression, where every quantity has a closed form."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import optimization
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.curves import Curve, estimate
from experiments.judges import AtMost, Equal, Mean, MeanAtMost

__all__ = ["CLAIMS"]

_FEW = 5
_SIZES = (1, 2, 3)
_RNG = np.random.default_rng(0)
_INPUTS, _TARGETS = _RNG.normal(size=(_FEW, 2)), _RNG.normal(size=_FEW)
_THETA = np.array([0.5, -1.0])


def _loss(theta, example):
    x, y = example
    return 0.5 * (theta @ x - y) ** 2


def _example_gradients(inputs=_INPUTS, targets=_TARGETS, theta=_THETA):
    return (inputs @ theta - targets)[:, None] * inputs


@jax.jit
def _batch_gradients(batches):
    """Mini-batch gradients at `_THETA`, one row for every row of indices."""

    def at(batch):
        examples = jnp.asarray(_INPUTS)[batch], jnp.asarray(_TARGETS)[batch]
        return optimization.minibatch_gradient(_loss, jnp.asarray(_THETA), examples)

    return jax.vmap(at)(batches)


def _all_batches(size, *, replace):
    """Every batch that can be drawn, each as likely as the others."""
    drawn = itertools.product(range(_FEW), repeat=size) if replace else itertools.permutations(range(_FEW), size)
    return np.array(list(drawn))


def _mean_over_batches(weights=(1, 1, 1, 1, 1)):
    """Mean of the mini-batch gradient if examples are drawn with these weights."""

    def measure(_):
        probabilities = np.array(weights) / np.sum(weights)
        means = []
        for size in _SIZES:
            batches = _all_batches(size, replace=True)
            means.append(np.prod(probabilities[batches], axis=1) @ np.asarray(_batch_gradients(batches)))
        return _by_coordinate(means)

    return measure


def _by_coordinate(rows):
    return {f"derivative {j + 1}": Curve(np.array(rows)[:, j], _SIZES) for j in range(2)}


def _covariances(_):
    def entries(replace):
        rows = []
        for size in _SIZES:
            gradients = np.asarray(_batch_gradients(_all_batches(size, replace=replace)))
            covariance = np.cov(gradients.T, bias=True)
            rows.append([covariance[0, 0], covariance[1, 1], covariance[0, 1]])
        return np.array(rows)

    return _by_entry(entries(replace=True), entries(replace=False))


def _by_entry(with_replacement, without):
    return {
        f"{entry}, {how} replacement": Curve(rows[:, j], _SIZES)
        for how, rows in (("with", with_replacement), ("without", without))
        for j, entry in enumerate(("variance 1", "variance 2", "covariance"))
    }


def _covariance_theory(finite_population):
    def predict(_):
        covariance = np.cov(_example_gradients().T, bias=True)
        sizes = np.array(_SIZES)[:, None]
        rows = np.array([covariance[0, 0], covariance[1, 1], covariance[0, 1]]) / sizes
        return _by_entry(rows, rows * (_FEW - sizes) / (_FEW - 1) if finite_population else rows)

    return predict


def _inclusions(draw):
    """How often each pair of examples meets in a batch of `sample_batch`, per batch."""

    def counts(key, *, replace):
        batch = optimization.sample_batch(key, _FEW, 3, replace=replace)
        return jnp.sum(jax.nn.one_hot(batch, _FEW, dtype=jnp.float64), axis=0)

    curves = {}
    for replace, name in ((True, "with replacement"), (False, "without replacement")):
        drawn = np.asarray(
            jax.jit(jax.vmap(lambda key, replace=replace: counts(key, replace=replace)))(
                jax.random.split(draw.key, draw.budget)
            )
        )
        pairs = np.einsum("ni,nj->nij", drawn, drawn)[:, *np.triu_indices(_FEW)]
        curves[name] = estimate(pairs, np.arange(pairs.shape[1]))
    return curves


def _inclusion_theory(size):
    def predict(_):
        identity = np.eye(_FEW)
        with_replacement = size / _FEW * identity + size * (size - 1) / _FEW**2
        without = np.where(identity == 1, size / _FEW, size * (size - 1) / (_FEW * (_FEW - 1)))
        upper = np.triu_indices(_FEW)
        return {"with replacement": with_replacement[upper], "without replacement": without[upper]}

    return predict


_SLOPE_DATA = _INPUTS[:, 0], _TARGETS


def _printed_estimator(_):
    """The print, for one parameter: the average of the losses themselves."""
    x, y = _SLOPE_DATA
    losses = 0.5 * (_THETA[0] * x - y) ** 2
    return Curve([np.mean(losses[_all_batches(size, replace=True)]) for size in _SIZES], _SIZES)


def _corrected_estimator(_):
    x, y = map(jnp.asarray, _SLOPE_DATA)
    theta = jnp.array(_THETA[0])

    def loss(theta, example):
        return 0.5 * (theta * example[0] - example[1]) ** 2

    @jax.jit
    def mean(batches):
        return jnp.mean(jax.vmap(lambda i: optimization.minibatch_gradient(loss, theta, (x[i], y[i])))(batches))

    return Curve([mean(_all_batches(size, replace=True)) for size in _SIZES], _SIZES)


def _slope(_):
    x, y = _SLOPE_DATA
    return np.full(len(_SIZES), np.mean((_THETA[0] * x - y) * x))


_N, _D = 50, 4


def _regression(key, budget):
    """Linear regression: inputs, targets, minimiser, minimum, and the constants of its components' average."""
    rng = generator(key)
    inputs = rng.normal(size=(_N, _D)) / np.sqrt(_D)
    targets = inputs @ rng.normal(size=_D) + 0.3 * rng.normal(size=_N)
    minimiser = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return {
        "key": key,
        "budget": budget,
        "inputs": inputs,
        "targets": targets,
        "minimiser": minimiser,
        "minimum": np.mean((inputs @ minimiser - targets) ** 2) / 2,
        "smoothness": np.max(np.sum(inputs**2, axis=1)),
        "strong convexity": np.linalg.eigvalsh(inputs.T @ inputs / _N)[0],
    }


def _gap(problem, theta):
    """f(theta) - min f along the leading axes of `theta`."""
    residual = theta @ problem["inputs"].T - problem["targets"]
    return np.mean(residual**2, axis=-1) / 2 - problem["minimum"]


def _component(inputs, targets):
    return lambda theta, i: 0.5 * (inputs[i] @ theta - targets[i]) ** 2


@jax.jit
def _reduced_gradients(inputs, targets, theta, snapshot, where):
    """The variance-reduced gradient for every index, one row an index; the full gradient is taken at `where`."""
    full = inputs.T @ (inputs @ where - targets) / _N
    component_fn = _component(inputs, targets)
    return jax.vmap(lambda i: optimization.svrg_gradient(component_fn, theta, snapshot, full, i))(jnp.arange(_N))


_PAIRS = 40
_SHOWN = 30  # the pair whose steps are looked at one by one


def _pairs(problem):
    """Pairs (theta, snapshot) at distances from the minimiser between 1e-3 and 10."""
    rng = generator(jax.random.fold_in(problem["key"], 1))
    radii = np.geomspace(1e-3, 10.0, _PAIRS)[:, None]
    return tuple(problem["minimiser"] + radii * rng.normal(size=(_PAIRS, _D)) / np.sqrt(_D) for _ in range(2))


def _reduced(problem, *, stale=False):
    theta, snapshot = _pairs(problem)
    where = theta if stale else snapshot
    at = jax.vmap(_reduced_gradients, in_axes=(None, None, 0, 0, 0))
    return np.asarray(at(problem["inputs"], problem["targets"], theta, snapshot, where))


def _full_gradients(problem):
    theta, _ = _pairs(problem)
    return (theta @ problem["inputs"].T - problem["targets"]) @ problem["inputs"] / _N


def _by_derivative(gradients):
    return {f"derivative {j + 1}": Curve(gradients[:, j], np.arange(_PAIRS)) for j in range(_D)}


def _second_moment(problem, gradients):
    theta, _ = _pairs(problem)
    distance = np.linalg.norm(theta - problem["minimiser"], axis=1)
    order = np.argsort(distance)
    return Curve(np.mean(np.sum(gradients**2, axis=2), axis=1)[order], distance[order])


def _second_moment_bound(problem):
    theta, snapshot = _pairs(problem)
    order = np.argsort(np.linalg.norm(theta - problem["minimiser"], axis=1))
    return (4 * problem["smoothness"] * (_gap(problem, theta) + _gap(problem, snapshot)))[order]


def _plain_gradients(problem):
    theta, _ = _pairs(problem)
    return (theta @ problem["inputs"].T - problem["targets"])[:, :, None] * problem["inputs"]


_EPOCHS = 5
_CONTRACTION = 0.5


def _svrg_settings(problem):
    """Learning rate 0.1 / L, and the epoch for which the theorem promises the contraction `_CONTRACTION`."""
    rate = 0.1 / problem["smoothness"]
    second = 2 * problem["smoothness"] * rate / (1 - 2 * problem["smoothness"] * rate)
    length = 1 / (problem["strong convexity"] * rate * (1 - 2 * problem["smoothness"] * rate) * (_CONTRACTION - second))
    return rate, int(np.ceil(length))


def _epoch_ratios(problem, snapshots):
    gaps = _gap(problem, np.asarray(snapshots))
    return estimate(gaps[:, 1:] / gaps[:, :-1], np.arange(1, _EPOCHS + 1))


def _svrg_ratios(problem):
    rate, length = _svrg_settings(problem)

    @jax.jit
    def run(inputs, targets, keys):
        def snapshots(key):
            start = jnp.full(_D, 3.0)
            return optimization.svrg(key, _component(inputs, targets), start, _N, rate, length, _EPOCHS).snapshots

        return jax.vmap(snapshots)(keys)

    keys = jax.random.split(problem["key"], problem["budget"])
    return _epoch_ratios(problem, run(problem["inputs"], problem["targets"], keys))


def _sgd_ratios(problem):
    """The same with the plain gradient of one example."""
    rate, length = _svrg_settings(problem)

    @jax.jit
    def run(inputs, targets, keys):
        def snapshots(key):
            indices = optimization.sample_batch(key, _N, length * _EPOCHS)
            optimizer = optimization.gradient_descent(rate)
            path = optimization.run_online(optimizer, _component(inputs, targets), jnp.full(_D, 3.0), indices).params
            averages = jnp.mean(path[:-1].reshape(_EPOCHS, length, _D), axis=1)
            return jnp.concatenate([path[:1], averages])

        return jax.vmap(snapshots)(keys)

    keys = jax.random.split(problem["key"], problem["budget"])
    return _epoch_ratios(problem, run(problem["inputs"], problem["targets"], keys))


def _johnson_zhang_steps(problem):
    """The corrected gradient, for every index, in closed form."""
    theta, snapshot = (points[_SHOWN] for points in _pairs(problem))
    inputs, targets = problem["inputs"], problem["targets"]
    plain, control = (_example_gradients(inputs, targets, point) for point in (theta, snapshot))
    return _by_index(plain - control + control.mean(axis=0))


def _printed_steps(problem):
    """The print: one theta for the running parameters and the snapshot."""
    theta = _pairs(problem)[0][_SHOWN]
    plain = _example_gradients(problem["inputs"], problem["targets"], theta)
    return _by_index(plain - plain + plain.mean(axis=0))


def _by_index(steps):
    return {f"derivative {j + 1}": Curve(steps[:, j], np.arange(_N)) for j in range(2)}


_WELL_POSED = Assumption("the average is strongly convex", lambda problem: problem["strong convexity"] > 0)


CLAIMS = (
    Claim(
        "optimizers.minibatch_gradient",
        says="The mean over all batches that can be drawn is the full gradient, for every batch size.",
        measure=_mean_over_batches(),
        predict=lambda _: _by_coordinate(np.tile(_example_gradients().mean(axis=0), (len(_SIZES), 1))),
        judge=Equal(rtol=1e-10),
        control=Variant("one example twice as likely as the others", measure=_mean_over_batches((2, 1, 1, 1, 1))),
        axes=Axes("batch size", "mean of the estimate"),
    ),
    Claim(
        "optimizers.minibatch_gradient",
        part="covariance",
        says="The covariance over all batches is Sigma / r with replacement, and (n - r) / (n - 1) times that without.",
        measure=_covariances,
        predict=_covariance_theory(finite_population=True),
        judge=Equal(rtol=1e-10),
        control=Variant(
            "without the factor for a finite population", predict=_covariance_theory(finite_population=False)
        ),
        axes=Axes("batch size", "covariance of the estimate"),
    ),
    Claim(
        "optimizers.minibatch_gradient",
        part="sampling",
        says="Every two examples meet in a drawn batch of three as often as uniform draws make them.",
        measure=_inclusions,
        predict=_inclusion_theory(3),
        judge=Mean(),
        control=Variant("batches of two", predict=_inclusion_theory(2)),
        budget=Budget(quick=30_000, full=1_000_000),
        axes=Axes("pair of examples", "mean product of their counts"),
    ),
    Claim(
        "optimizers.minibatch_gradient@printed",
        says="The mean over all batches of the average loss, as printed, is the derivative of the mean loss.",
        measure=_printed_estimator,
        predict=_slope,
        judge=Equal(rtol=1e-6),
        control=Variant("minus the derivative", predict=lambda _: -_slope(_)),
        corrected=Variant("an average of derivatives", measure=_corrected_estimator),
        axes=Axes("batch size", "mean of the estimate"),
    ),
    Claim(
        "optimizers.svrg",
        says="The mean of the variance-reduced gradient over all examples is the full gradient for any snapshot.",
        setup=_regression,
        measure=lambda problem: _by_derivative(_reduced(problem).mean(axis=1)),
        predict=lambda problem: _by_derivative(_full_gradients(problem)),
        judge=Equal(rtol=1e-9, atol=1e-12),
        control=Variant(
            "a full gradient from elsewhere",
            measure=lambda problem: _by_derivative(_reduced(problem, stale=True).mean(axis=1)),
        ),
        axes=Axes("pair of points", "derivative"),
    ),
    Claim(
        "optimizers.svrg",
        part="variance",
        says="Its mean square is at most 4 L times the sum of the optimality gaps of parameters and snapshot.",
        setup=_regression,
        measure=lambda problem: _second_moment(problem, _reduced(problem)),
        predict=_second_moment_bound,
        judge=AtMost(),
        control=Variant(
            "the gradient of one example, uncorrected",
            measure=lambda problem: _second_moment(problem, _plain_gradients(problem)),
        ),
        axes=Axes("distance from the minimum", "mean square of the estimate", log="xy"),
    ),
    Claim(
        "optimizers.svrg",
        part="rate",
        says="In expectation every epoch shrinks the gap at least by the factor of the theorem, here one half.",
        setup=_regression,
        measure=_svrg_ratios,
        predict=lambda _: np.full(_EPOCHS, _CONTRACTION),
        judge=MeanAtMost(),
        control=Variant("plain stochastic gradients with the same steps", measure=_sgd_ratios),
        assumptions=(_WELL_POSED,),
        budget=Budget(quick=200, full=20_000),
        axes=Axes("epoch", "gap after / gap before", log="y"),
    ),
    Claim(
        "optimizers.svrg@printed",
        says="With one theta for parameters and snapshot, as printed, the step is that of Johnson and Zhang.",
        setup=_regression,
        measure=_printed_steps,
        predict=_johnson_zhang_steps,
        judge=Equal(rtol=1e-8, atol=1e-10),
        control=Variant(
            "the gradient of one example, uncorrected",
            measure=lambda problem: _by_index(_plain_gradients(problem)[_SHOWN]),
        ),
        corrected=Variant("a snapshot of its own", measure=lambda problem: _by_index(_reduced(problem)[_SHOWN])),
        axes=Axes("example drawn", "step direction"),
    ),
)
