"""Claims about AdaGrad, Adam and AMSGrad."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dltheory import optimization
from experiments.claim import Axes, Claim, Variant, generator
from experiments.curves import Curve
from experiments.judges import AtMost, Equal

__all__ = ["CLAIMS"]

_RATE, _B1, _B2 = 1e-3, 0.9, 0.999
_STEPS = 200
_TIME = np.arange(1, _STEPS + 1)
_SIZES = (1e-3, 1.0, 1e3)


def _steps(optimizer, gradients):
    """The steps that an optimizer takes when it is shown these gradients, like them."""

    @jax.jit
    def run(gradients):
        def step(state, gradient):
            update, state = optimizer.update(gradient, state, jnp.zeros_like(gradient))
            return state, update

        return jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1]

    return np.asarray(run(gradients))


def _constant_gradients():
    return np.tile(np.array(_SIZES) * [-1, 1, -1], (_STEPS, 1))


def _by_size(columns):
    return {f"|g| = {size:g}": Curve(columns[:, j], _TIME) for j, size in enumerate(_SIZES)}


def _random_gradients(key, _budget):
    """Gradients of very different scales, some of them zero, but not the first."""
    rng = generator(key)
    gradients = rng.normal(size=(_STEPS, 3)) * np.exp(rng.normal(size=(_STEPS, 3))) * _SIZES
    return np.where((rng.random(size=gradients.shape) < 0.1) & (_TIME[:, None] > 1), 0.0, gradients)


def _paths(steps):
    return _by_size(np.cumsum(steps, axis=0))


_BOX_STEPS = 1500
_BOX_RATE = 1.0


def _losses(key, _budget):
    """Coefficients [t, d] of linear losses over the box: fair, biased and rare signs, and those of an adversary."""
    rng = generator(key)
    signs = rng.choice([-1.0, 1.0], size=(_BOX_STEPS, 4))
    return {
        "fair": signs,
        "biased": np.where(rng.random((_BOX_STEPS, 4)) < 0.55, 1.0, -1.0) * [1.0, 0.3, 3.0, 0.1],
        "rare": signs * (rng.random((_BOX_STEPS, 4)) < [1.0, 0.3, 0.1, 0.03]),
        "adversary": np.full((_BOX_STEPS, 4), np.nan),
    }


def _against(x, coefficients):
    """The loss c^T x; where c is unknown an adversary chooses +-1 so that the learner pays."""
    chosen = jnp.where(jnp.isnan(coefficients), jnp.where(x >= 0, 1.0, -1.0), coefficients)
    return jax.lax.stop_gradient(chosen) @ x


def _clip(x):
    return jnp.clip(x, -1.0, 1.0)


def _box_runs(optimizer, losses):
    """Regrets and gradients after every step of play in the box, by kind of losses."""

    @jax.jit
    def play(coefficients):
        run = optimization.run_online(optimizer, _against, jnp.zeros(4), coefficients, _clip)
        return run.params[:-1], run.value

    runs = {}
    for name, coefficients in losses.items():
        points, values = map(np.asarray, play(coefficients))
        gradients = np.where(np.isnan(coefficients), np.where(points >= 0, 1.0, -1.0), coefficients)
        regret = np.cumsum(values) + np.abs(np.cumsum(gradients, axis=0)).sum(axis=1)
        runs[name] = regret, gradients
    return runs


def _regrets(optimizer):
    def measure(losses):
        shown = _shown(_BOX_STEPS)
        runs = _box_runs(optimizer, losses)
        return {name: Curve(regret[shown - 1], shown) for name, (regret, _) in runs.items()}

    return measure


def _shown(steps):
    return np.unique(np.geomspace(1, steps, 60).astype(int))


def _adagrad_bound(losses):
    """(D^2 / (2 eta) + eta) sum_j ||g_{1:T,j}||_2; the box [-1, 1] has width D = 2."""
    shown = _shown(_BOX_STEPS)
    runs = _box_runs(optimization.adagrad(_BOX_RATE, eps=0.0), losses)
    norms = {name: np.sqrt(np.cumsum(gradients**2, axis=0)).sum(axis=1) for name, (_, gradients) in runs.items()}
    return {name: (2 / _BOX_RATE + _BOX_RATE) * norm[shown - 1] for name, norm in norms.items()}


def _adam_reference(gradients, eps, *, corrected=True):
    """Algorithm 1 of Kingma and Ba, line by line: the parameters after every step, from zero."""
    first = second = theta = np.zeros(gradients.shape[1])
    path = []
    for t, gradient in enumerate(gradients, start=1):
        first = _B1 * first + (1 - _B1) * gradient
        second = _B2 * second + (1 - _B2) * gradient**2
        mean = first / (1 - _B1**t) if corrected else first
        square = second / (1 - _B2**t) if corrected else second
        theta = theta - _RATE * mean / (np.sqrt(square) + eps)
        path.append(theta)
    return _by_size(np.array(path))


_LONG = 1000


def _largest_steps(_):
    """Steps in units of the learning rate: for the worst gradients, (beta / alpha)^i, and for others."""
    rng = np.random.default_rng(0)
    burst = np.full(_LONG, 1e-6)
    burst[::100] = 1.0
    gradients = np.stack([(_B2 / _B1) ** np.arange(_LONG), rng.normal(size=_LONG), burst], axis=1)
    sizes = np.abs(_steps(optimization.adam(1.0, _B1, _B2, eps=0.0), gradients))
    return {
        name: Curve(sizes[:, j], np.arange(1, _LONG + 1)) for j, name in enumerate(("worst", "random", "bursts"))
    }


def _largest_step_bound(_):
    return {"": jax.vmap(lambda t: optimization.adam_max_step(t, _B1, _B2))(jnp.arange(1.0, _LONG + 1))}


_EPS = 1e-8
_SLOPE = 3.0


def _printed_adam(_):
    """The print with all its misprints, for a constant gradient."""
    momentum = root = 0.0
    steps = []
    for _ in range(_STEPS):
        momentum = _B1 * momentum + (1 - _B1) * _SLOPE
        steps.append(_RATE / (root / (1 - _B2) + _EPS) * momentum / (1 - _B1))
        root = np.sqrt(_B2 * root**2 + (1 - _B2) * _SLOPE**2)
    return Curve(steps, _TIME)


def _corrected_adam(_):
    return Curve(_steps(optimization.adam(_RATE, _B1, _B2, _EPS), np.full(_STEPS, _SLOPE)), _TIME)


_REDDI_STEPS = 6000
_REDDI_RATE, _REDDI_B2 = 0.5, 0.1
_REDDI_LOSSES = np.where(np.arange(_REDDI_STEPS) % 3 == 0, 3.0, -1.0)


def _decaying(step):
    return _REDDI_RATE / jnp.sqrt(step + 1.0)


def _constant(step):
    return _REDDI_RATE + 0.0 * step


def _reddi_regret(make, schedule=_decaying):
    """Regret on the losses 3x, -x, -x over [-1, 1], whose minimiser is -1 (Reddi, Kale and Kumar 2018)."""

    def measure(_):
        values = jax.jit(
            lambda losses: optimization.run_online(
                make(schedule, b1=0.0, b2=_REDDI_B2, eps=0.0), lambda x, c: c * x, jnp.array(0.0), losses, _clip
            ).value
        )(_REDDI_LOSSES)
        best = -np.abs(np.cumsum(_REDDI_LOSSES))
        shown = _shown(_REDDI_STEPS)
        return Curve((np.cumsum(np.asarray(values)) - best)[shown - 1], shown)

    return measure


def _reddi_bound(_):
    """D^2 sqrt(T) / (2 eta) max gamma + sum_t eta_t g_t^2 / (2 gamma_t), the theorem without momentum.

    gamma_t >= sqrt(1 - beta) |g_t| and gamma <= 3 turn it into a bound that does not look at the run.
    """
    time = np.arange(1, _REDDI_STEPS + 1)
    variance = np.cumsum(_REDDI_RATE / np.sqrt(time) * np.abs(_REDDI_LOSSES)) / (2 * np.sqrt(1 - _REDDI_B2))
    return (2**2 * 3 * np.sqrt(time) / (2 * _REDDI_RATE) + variance)[_shown(_REDDI_STEPS) - 1]


def _largest_moments(gradients):
    """The maximum that AMSGrad keeps, read from its state."""
    optimizer = optimization.amsgrad(_RATE, _B1, 0.9)

    @jax.jit
    def run(gradients):
        def step(state, gradient):
            _, state = optimizer.update(gradient, state)
            return state, optax.tree.get(state, "nu_max")

        return jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1]

    return _by_size(np.asarray(run(gradients)))


def _second_moments(gradients, *, running_maximum):
    square, moments = np.zeros(3), []
    for gradient in gradients:
        square = 0.9 * square + 0.1 * gradient**2
        moments.append(square)
    return _by_size(np.maximum.accumulate(moments) if running_maximum else np.array(moments))


CLAIMS = (
    Claim(
        "optimizers.adagrad",
        says="For a constant gradient of any size, step t is eta / sqrt(t), downhill.",
        measure=lambda _: _by_size(_steps(optimization.adagrad(_RATE, eps=0.0), _constant_gradients())),
        predict=lambda _: _by_size(-_RATE / np.sqrt(_TIME)[:, None] * np.sign(_constant_gradients())),
        judge=Equal(rtol=1e-10),
        control=Variant(
            "an average of the squares instead of their sum",
            predict=lambda _: _by_size(-_RATE * np.sign(_constant_gradients())),
        ),
        axes=Axes("step", "change of the parameter"),
    ),
    Claim(
        "optimizers.adagrad",
        part="regret",
        says="On linear losses over a box, against adversaries too, the regret obeys the bound at all times.",
        setup=_losses,
        measure=_regrets(optimization.adagrad(_BOX_RATE, eps=0.0)),
        predict=_adagrad_bound,
        judge=AtMost(atol=1e-9),
        control=Variant("gradient descent with a constant step", measure=_regrets(optimization.gradient_descent(0.5))),
        axes=Axes("steps", "regret", log="x"),
    ),
    Claim(
        "optimizers.adam",
        says="On random gradients the parameters are those of algorithm 1 of the paper.",
        setup=_random_gradients,
        measure=lambda gradients: _paths(_steps(optimization.adam(_RATE, _B1, _B2, 1e-3), gradients)),
        predict=lambda gradients: _adam_reference(gradients, 1e-3),
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant(
            "without the bias corrections", predict=lambda gradients: _adam_reference(gradients, 1e-3, corrected=False)
        ),
        axes=Axes("step", "parameter"),
    ),
    Claim(
        "optimizers.adam",
        part="scale invariance",
        says="With delta = 0, a thousandfold gradient takes the same path.",
        setup=_random_gradients,
        measure=lambda gradients: _paths(_steps(optimization.adam(_RATE, _B1, _B2, 0.0), 1000 * gradients)),
        predict=lambda gradients: _adam_reference(gradients, 0.0),
        judge=Equal(rtol=1e-9, atol=1e-13),
        control=Variant(
            "gradient descent",
            measure=lambda gradients: _paths(_steps(optimization.gradient_descent(_RATE), 1000 * gradients)),
        ),
        axes=Axes("step", "parameter"),
    ),
    Claim(
        "optimizers.adam",
        part="constant gradient",
        says="For a constant gradient of any size every step is eta, downhill.",
        measure=lambda _: _by_size(_steps(optimization.adam(_RATE, _B1, _B2, 0.0), _constant_gradients())),
        predict=lambda _: _by_size(-_RATE * np.sign(_constant_gradients())),
        judge=Equal(rtol=1e-10),
        control=Variant(
            "without the bias corrections",
            predict=lambda _: _by_size(
                -_RATE
                * ((1 - _B1**_TIME) / np.sqrt(1 - _B2**_TIME))[:, None]
                * np.sign(_constant_gradients())
            ),
        ),
        axes=Axes("step", "change of the parameter"),
    ),
    Claim(
        "optimizers.adam",
        part="largest step",
        says="No step exceeds the bound by Cauchy and Schwarz.",
        measure=_largest_steps,
        predict=_largest_step_bound,
        judge=AtMost(rtol=1e-9),
        control=Variant(
            "the bound max(1, (1 - alpha) / sqrt(1 - beta)) that the paper suggests",
            predict=lambda _: np.full(_LONG, max(1.0, (1 - _B1) / np.sqrt(1 - _B2))),
        ),
        axes=Axes("step", "step size / learning rate", log="x"),
    ),
    Claim(
        "optimizers.adam",
        part="largest step attained",
        says="For gradients that grow like (beta / alpha)^i every step is as large as the bound allows.",
        measure=lambda _: _largest_steps(_)["worst"],
        predict=lambda _: _largest_step_bound(_)[""],
        judge=Equal(rtol=1e-9),
        control=Variant("random gradients", measure=lambda _: _largest_steps(_)["random"]),
        axes=Axes("step", "step size / learning rate", log="x"),
    ),
    Claim(
        "optimizers.adam@printed",
        says="For a constant gradient the printed step is eta, downhill.",
        measure=_printed_adam,
        predict=lambda _: np.full(_STEPS, -_RATE * np.sign(_SLOPE)),
        judge=Equal(rtol=1e-6),
        control=Variant("gradient descent", predict=lambda _: np.full(_STEPS, -_RATE * _SLOPE)),
        corrected=Variant("algorithm 1 of the paper", measure=_corrected_adam),
        axes=Axes("step", "change of the parameter"),
    ),
    Claim(
        "optimizers.amsgrad",
        says="On the losses 3x, -x, -x, on which Adam climbs to the maximum, the regret of AMSGrad obeys a bound of "
        "order sqrt(T).",
        measure=_reddi_regret(optimization.amsgrad),
        predict=_reddi_bound,
        judge=AtMost(atol=1e-9),
        control=Variant("Adam", measure=_reddi_regret(optimization.adam)),
        axes=Axes("steps", "regret", log="xy"),
    ),
    Claim(
        "optimizers.amsgrad",
        part="maximum",
        says="The second moment that divides the step is the running maximum of Adam's.",
        setup=_random_gradients,
        measure=_largest_moments,
        predict=lambda gradients: _second_moments(gradients, running_maximum=True),
        judge=Equal(rtol=1e-10),
        control=Variant(
            "Adam's own moment", predict=lambda gradients: _second_moments(gradients, running_maximum=False)
        ),
        axes=Axes("step", "second moment", log="y"),
    ),
    Claim(
        "optimizers.amsgrad@printed",
        says="The maximum ensures convergence whatever the steps: with a constant one the regret obeys the same bound.",
        measure=_reddi_regret(optimization.amsgrad, _constant),
        predict=_reddi_bound,
        judge=AtMost(atol=1e-9),
        control=Variant("Adam with a constant step", measure=_reddi_regret(optimization.adam, _constant)),
        corrected=Variant("steps that decay like 1 / sqrt(t)", measure=_reddi_regret(optimization.amsgrad)),
        axes=Axes("steps", "regret", log="xy"),
    ),
)
