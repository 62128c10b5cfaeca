"""Claims about wide networks in training: they follow their linearisation, and their kernel stays where it was."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dltheory import ntk
from experiments.claim import Assumption, Axes, Budget, Claim, Variant, generator
from experiments.claims.ntk._networks import INPUTS, family, spread, switched, widths_up_to
from experiments.claims.ntk._training import SEEDS, flattened, trained, typical
from experiments.judges import Slope

__all__ = ["CLAIMS"]

_WIDTHS = Budget(quick=1024, full=8192)  # the largest; the smallest is 64
_MEAN_FIELD = -1.0  # the power of the width that scales outputs: not -1/2


def _runs(*activations, **settings):
    """A set-up: training runs with each of the activations."""

    def setup(key, budget):
        return {name: trained(key, budget, activation=name, **settings) for name in activations}

    return setup


def _over_widths(quantity):
    """A quantity [r, seeds] of training runs, for the typical network of each width."""
    return lambda problem: {name: typical(quantity(runs), runs.widths) for name, runs in problem.items()}


def _largest_gap(runs):
    """Of the outputs at other inputs from those of the linearised network, root mean square over the inputs."""
    apart = runs.dynamics.outputs_test - runs.dynamics.linear_test
    return np.sqrt(np.mean(apart**2, axis=(-2, -1))).max(-1)


def _largest_drift(runs):
    """Of the kernel, in Frobenius norm relative to the first."""
    return runs.dynamics.kernel_drift.max(-1)


def _eigenvalues(problem):
    """The largest and the smallest, of every network."""
    return np.stack([runs.dynamics.eigenvalues[..., [0, -1]] for runs in problem.values()])


def _rate_is_stable(problem):
    """Learning rate below 2 / (smallest + largest eigenvalue)."""
    stability = next(iter(problem.values())).stability
    values = _eigenvalues(problem)
    return stability / values[..., 0] < 2 / values.sum(-1)


# A network with a bent output.


def _unexplained(runs, bent=True):
    """The factor by which training rescaled the kernel's diagonal, but for the squared slope of tanh: its logarithm."""
    outputs = runs.dynamics.outputs_train[..., 0]
    factors = runs.diagonals[:, :, 1] / runs.diagonals[:, :, 0]
    slopes = (1 - outputs[:, :, -1] ** 2) / (1 - outputs[:, :, 0] ** 2)
    return np.sqrt(np.mean((np.log(factors) - bent * 2 * np.log(slopes)) ** 2, axis=-1))


# How fast the kernel moves at the start.


@jax.jit
def _kernel_speeds(variables, x, errors):
    """Relative speed of the kernel, in units of time in which the fastest mode of the error has rate one."""

    def speed(variables):
        frozen = {name: value for name, value in variables.items() if name != "params"}

        def kernel(params):
            return ntk.empirical_ntk(switched, {**frozen, "params": params}, x)[..., 0, 0]

        velocity = ntk.parameter_velocity(switched, variables, x, switched(variables, x) + errors)["params"]
        gram, moved = jax.jvp(kernel, (variables["params"],), (velocity,))
        return jnp.linalg.norm(moved) / jnp.linalg.norm(gram) / jnp.linalg.eigvalsh(gram)[-1]

    return jax.lax.map(speed, variables)


def _speeds(**settings):
    def measure(draw):
        rng = generator(draw.key)
        x = spread(rng, 8)
        errors = np.sin(x @ rng.normal(size=INPUTS))[:, None]
        members = family(rng, widths_up_to(draw.budget, smallest=64), SEEDS, **settings)
        speeds = np.asarray(_kernel_speeds(flattened(members.variables), x, errors))
        return typical(speeds.reshape(-1, SEEDS), members.widths)

    return measure


# The kernel machine of the infinite network.


@jax.jit
def _limits(x, x_test):
    both = jnp.concatenate([x, x_test])
    return ntk.analytic_ntk(both, x, depth=1, sigma_w=1.0, sigma_b=0.0, activation="relu")


def _off_kernel_machine(runs, last_layer_only=False):
    """Root mean square distance of trained networks from kernel machines that start where they do."""
    n, dynamics = len(runs.x), runs.dynamics
    nngp, tangent = map(np.asarray, _limits(runs.x, runs.x_test))
    limit = nngp if last_layer_only else tangent
    residual = runs.targets - dynamics.outputs_train[:, :, 0, :, 0]
    machine = dynamics.outputs_test[:, :, 0, :, 0] + residual @ np.linalg.solve(limit[:n], limit[n:].T)
    return np.sqrt(np.mean((dynamics.outputs_test[:, :, -1, :, 0] - machine) ** 2, -1))


def _converged(problem):
    """No error is left that is a thousandth of the first."""
    return [
        np.abs(runs.dynamics.mode_residuals[:, :, -1]).max(-1)
        < 1e-3 * np.abs(runs.dynamics.mode_residuals[:, :, 0]).max(-1)
        for runs in problem.values()
    ]


_WIDTH = "width m"
_GAP = Axes(_WIDTH, r"$\max_t \|f_t - f_t^{\mathrm{lin}}\|$", log="xy")
_DRIFT = Axes(_WIDTH, r"$\max_t \|K_t - K_0\|_F / \|K_0\|_F$", log="xy")
_SPEED = Axes(_WIDTH, r"$\|\dot K\|_F / (\lambda_{\max} \|K\|_F)$", log="xy")
_PREMISES = (
    Assumption("the kernel has no zero eigenvalue", lambda problem: _eigenvalues(problem)[..., -1] > 0),
    Assumption("the learning rate is below 2 / (λ_min + λ_max)", _rate_is_stable),
)
_AT_MOST = Slope(tolerance=0.15, side="at most")

CLAIMS = (
    Claim(
        "ntk.lazy_training",
        says="The largest distance of a network in training from its linearisation falls at least as width^(−1/2).",
        setup=_runs("ReLU", "tanh"),
        measure=_over_widths(_largest_gap),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("outputs bent by tanh", setup=_runs("tanh", bent=True)),
        assumptions=_PREMISES,
        budget=_WIDTHS,
        axes=_GAP,
    ),
    Claim(
        "ntk.lazy_training@printed",
        says="Wide networks follow their linearisation whatever scales their output, here 1/m.",
        setup=_runs("tanh", power=_MEAN_FIELD),
        measure=_over_widths(_largest_gap),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("1/√m, but a learning rate of 2.5 / λ_max", setup=_runs("tanh", stability=2.5)),
        corrected=Variant("1/√m", setup=_runs("tanh")),
        budget=_WIDTHS,
        axes=_GAP,
    ),
    Claim(
        "ntk.drift_rate",
        says="The largest distance of the kernel from where it started falls at least as width^(−1/2).",
        setup=_runs("ReLU", "tanh"),
        measure=_over_widths(_largest_drift),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("outputs scaled by 1/m", setup=_runs("ReLU", power=_MEAN_FIELD)),
        budget=_WIDTHS,
        axes=_DRIFT,
    ),
    Claim(
        "ntk.drift_rate@printed",
        says="It falls as width^(−1/2), here with tanh.",
        setup=_runs("tanh"),
        measure=_over_widths(_largest_drift),
        predict=lambda _: -0.5,
        judge=Slope(tolerance=0.15),
        control=Variant("outputs scaled by 1/m", setup=_runs("tanh", power=_MEAN_FIELD)),
        corrected=Variant("for smooth networks as 1/m", predict=lambda _: -1.0),
        budget=_WIDTHS,
        axes=_DRIFT,
    ),
    Claim(
        "ntk.constancy",
        says="The speed at which the kernel of a network with linear output moves falls at least as width^(−1/2).",
        measure=_speeds(),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("outputs bent by tanh", measure=_speeds(bent=True)),
        budget=_WIDTHS,
        axes=_SPEED,
    ),
    Claim(
        "ntk.constancy@printed",
        says="So it does in any wide network, here one whose output is bent by tanh.",
        measure=_speeds(bent=True),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("ReLUs, output bent", measure=_speeds(activation="ReLU", bent=True)),
        corrected=Variant("linear output", measure=_speeds()),
        budget=_WIDTHS,
        axes=_SPEED,
    ),
    Claim(
        "ntk.constancy",
        part="bent output",
        says="Behind tanh the kernel is multiplied by ((1−f_T²)/(1−f_0²))² at any width, up to what vanishes with it.",
        setup=_runs("tanh", bent=True, distance=0.3, seeds=96),
        measure=_over_widths(_unexplained),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant("by nothing", measure=_over_widths(lambda runs: _unexplained(runs, bent=False))),
        budget=_WIDTHS,
        axes=Axes(_WIDTH, "unexplained factor, logarithm", log="xy"),
    ),
    Claim(
        "ntk.kernel_machine",
        says="Trained networks approach the kernel machine of the infinite network, as width^(−1/2) at least.",
        setup=_runs("ReLU", n=4, stability=1.8),
        measure=_over_widths(_off_kernel_machine),
        predict=lambda _: -0.5,
        judge=_AT_MOST,
        control=Variant(
            "the kernel of the last layer alone",
            measure=_over_widths(lambda runs: _off_kernel_machine(runs, last_layer_only=True)),
        ),
        assumptions=(Assumption("training has converged", _converged),),
        budget=_WIDTHS,
        axes=Axes(_WIDTH, r"$\|f_\infty - f^*\|$", log="xy"),
    ),
)
