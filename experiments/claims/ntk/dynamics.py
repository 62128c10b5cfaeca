"""Claims about gradient flow, in the space of parameters and in the space of functions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from dltheory import ntk
from experiments.claim import Axes, Claim, Variant
from experiments.claims.ntk._networks import (
    features_by_hand,
    kernel_by_hand,
    outputs_by_hand,
    problem,
    shallow,
)
from experiments.curves import Curve
from experiments.judges import AtLeast, AtMost, Equal, Slope

__all__ = ["CLAIMS"]

_TANH = shallow("tanh")


@jax.jit
def _velocity(variables, x, y):
    """The library's velocity of the parameters, as one vector."""
    return ravel_pytree(ntk.parameter_velocity(_TANH, variables, x, y[:, None])["params"])[0]


def _velocity_of(at):
    return _velocity(at.variables, at.x, at.y)


def _residual(at):
    return at.y - outputs_by_hand("tanh", at.variables, at.x)


def _pull(at, share=1.0):
    """Every example pulls along its tangent features in proportion to its error."""
    return share * _residual(at) @ features_by_hand("tanh", at.variables, at.x)


# The flow, by the method of Runge and Kutta.

_STEP = 0.01
_NUM_STEPS = 800


@functools.partial(jax.jit, static_argnums=3)
def _flow(variables, x, y, inertia=False):
    """Losses and squared gradient norms along the flow, or of a heavy body that the same force pulls."""
    flat, unravel = ravel_pytree(variables["params"])

    def loss(theta):
        return 0.5 * jnp.sum((_TANH({**variables, "params": unravel(theta)}, x)[:, 0] - y) ** 2)

    def velocity(theta):
        pulled = ntk.parameter_velocity(_TANH, {**variables, "params": unravel(theta)}, x, y[:, None])
        return ravel_pytree(pulled["params"])[0]

    def field(state):
        return jnp.stack([state[1], velocity(state[0])]) if inertia else velocity(state)

    def step(state, _):
        theta = state[0] if inertia else state
        k1 = field(state)
        k2 = field(state + 0.5 * _STEP * k1)
        k3 = field(state + 0.5 * _STEP * k2)
        k4 = field(state + _STEP * k3)
        seen = loss(theta), jnp.sum(jax.grad(loss)(theta) ** 2)
        return state + _STEP / 6 * (k1 + 2 * k2 + 2 * k3 + k4), seen

    start = jnp.stack([flat, jnp.zeros_like(flat)]) if inertia else flat
    return jax.lax.scan(step, start, length=_NUM_STEPS + 1)[1]


def _flows(inertia=False):
    def setup(key, budget):
        at = problem(key, budget)
        return tuple(map(np.asarray, _flow(at.variables, at.x, at.y, inertia)))

    return setup


_SOME = np.arange(40, _NUM_STEPS + 1, 40)


def _loss_spent(seen):
    losses, _ = seen
    return Curve(losses[0] - losses[_SOME], _STEP * _SOME)


def _gradient_integral(seen, power=1.0):
    """The time integral of the squared gradient norm (or of a power of it) by Simpson's rule."""
    rate = seen[1] ** power
    panels = (rate[:-2:2] + 4 * rate[1:-1:2] + rate[2::2]) * _STEP / 3
    return np.cumsum(panels)[_SOME // 2 - 1]


# How fast the outputs move.


@jax.jit
def _directional(variables, x_train, y, x):
    """The derivative of the outputs at `x` while the parameters go down the gradient of the loss."""

    def at_parameters(params, inputs):
        return _TANH({**variables, "params": params}, inputs)[:, 0]

    def loss(params):
        return 0.5 * jnp.sum((at_parameters(params, x_train) - y) ** 2)

    downhill = jax.tree.map(jnp.negative, jax.grad(loss)(variables["params"]))
    return jax.jvp(lambda params: at_parameters(params, x), (variables["params"],), (downhill,))[1]


def _speeds(at):
    return {
        name: _directional(at.variables, at.x, at.y, x) for name, x in (("examples", at.x), ("other inputs", at.x_test))
    }


def _kernel_speeds(at, nearest=False):
    """The kernel with every example, or with the one that it is largest with, times the errors."""
    fitted, speeds = outputs_by_hand("tanh", at.variables, at.x), {}
    for name, x in (("examples", at.x), ("other inputs", at.x_test)):
        kernel = kernel_by_hand("tanh", at.variables, x, at.x)
        if nearest:
            kernel = np.where(kernel == kernel.max(1, keepdims=True), kernel, 0.0)
        speeds[name] = ntk.function_velocity(jnp.asarray(kernel), jnp.asarray(fitted), jnp.asarray(at.y))
    return speeds


_RATES = 2.0 ** -np.arange(3, 11)


def _moved(at, rate):
    """Variables after one step of gradient descent, by the formulas on paper."""
    flat, unravel = ravel_pytree(at.variables["params"])
    return {**at.variables, "params": unravel(flat + rate * _pull(at))}


def _mistaken_by(at, nearest=False):
    """Distance between the outputs after one step and what the kernel says, for each learning rate."""
    speeds = _kernel_speeds(at, nearest)
    curves = {}
    for name, x in (("examples", at.x), ("other inputs", at.x_test)):
        before = outputs_by_hand("tanh", at.variables, x)
        after = [outputs_by_hand("tanh", _moved(at, rate), x) for rate in _RATES]
        errors = [np.linalg.norm(f - before - rate * speeds[name]) for f, rate in zip(after, _RATES, strict=True)]
        curves[name] = Curve(errors, _RATES)
    return curves


# Iterates of gradient descent on the linearised loss.

_TIMES = np.unique(np.geomspace(1, 4000, 25).astype(int))


@jax.jit
def _descend(jac, residual, start, rate):
    """Every parameter shift on the way."""

    def step(shift, _):
        moved = shift - rate * jax.grad(ntk.linearized_loss)(shift, jac[:, None], residual[:, None])
        return moved, moved

    return jax.lax.scan(step, start, length=int(_TIMES[-1]))[1]


def _shifts(at, start=0.0):
    features = features_by_hand("tanh", at.variables, at.x)
    rate = 1 / np.linalg.norm(features, 2) ** 2
    begin = start * at.rng.normal(size=features.shape[1])
    return features, np.asarray(_descend(features, _residual(at), begin, rate))[_TIMES - 1]


def _out_of_span(at, start=0.0):
    """The part of the iterates that is orthogonal to all tangent features, relative to their length."""
    features, shifts = _shifts(at, start)
    basis = np.linalg.svd(features, full_matrices=False)[2]
    outside = shifts - shifts @ basis.T @ basis
    return Curve(np.linalg.norm(outside, axis=1) / np.linalg.norm(shifts, axis=1), _TIMES)


def _limit(at):
    return _shifts(at)[1][-1]


@jax.jit
def _dual_solution(kernel, jac, residual):
    coefficients = ntk.kernel_regression(kernel, residual).coefficients
    return ntk.dual_to_primal(jac[:, None], coefficients[:, None])


def _dual_form(at, residual=_residual):
    kernel = kernel_by_hand("tanh", at.variables, at.x, at.x)
    return _dual_solution(kernel, features_by_hand("tanh", at.variables, at.x), residual(at))


_FACTORS = np.linspace(-2.0, 2.0, 17)


def _around_minimum(at, null=True):
    """Shifts around the one of dual form, along a direction that no tangent feature sees, or along any."""
    features, solution = features_by_hand("tanh", at.variables, at.x), np.asarray(_dual_form(at))
    direction = at.rng.normal(size=solution.shape)
    basis = np.linalg.svd(features, full_matrices=False)[2]
    direction = direction - basis.T @ (basis @ direction) if null else -solution
    return features, solution + _FACTORS[:, None] * direction * np.linalg.norm(solution) / np.linalg.norm(direction)


def _norms_of_minimisers(at, null=True):
    _, shifts = _around_minimum(at, null)
    return Curve(np.linalg.norm(shifts, axis=1), _FACTORS)


def _losses_of_minimisers(at, null=True):
    features, shifts = _around_minimum(at, null)
    return Curve(0.5 * np.sum((shifts @ features.T - _residual(at)) ** 2, axis=1), _FACTORS)


CLAIMS = (
    Claim(
        "ntk.parameter_gradient_flow",
        says="Down the gradient of the loss every example pulls along its tangent features in proportion to its error.",
        setup=problem,
        measure=_velocity_of,
        predict=_pull,
        judge=Equal(rtol=1e-12, atol=1e-12),
        control=Variant("the mean loss, slower by the number of examples", predict=lambda at: _pull(at, 1 / 6)),
        axes=Axes(y=r"$\dot\theta$"),
    ),
    Claim(
        "ntk.parameter_gradient_flow",
        part="energy",
        says="The loss that the flow spends is the time integral of the squared gradient.",
        setup=_flows(),
        measure=_loss_spent,
        predict=_gradient_integral,
        judge=Equal(rtol=1e-6),
        control=Variant("the integral of the norm, not squared", predict=lambda seen: _gradient_integral(seen, 0.5)),
        axes=Axes("time t", r"$\ell(0) - \ell(t)$"),
    ),
    Claim(
        "ntk.parameter_gradient_flow",
        part="monotone",
        says="The loss never rises along the flow.",
        setup=_flows(),
        measure=lambda seen: Curve(seen[0][1:], _STEP * np.arange(1, _NUM_STEPS + 1)),
        predict=lambda seen: seen[0][:-1],
        judge=AtMost(rtol=1e-12, atol=1e-15),
        control=Variant("with inertia", setup=_flows(inertia=True)),
        axes=Axes("time t", r"$\ell(t)$", log="y"),
    ),
    Claim(
        "ntk.function_space_flow",
        says="While parameters go down the gradient, outputs move as the kernel with the examples times the errors.",
        setup=problem,
        measure=_speeds,
        predict=_kernel_speeds,
        judge=Equal(rtol=1e-10, atol=1e-12),
        control=Variant("only the nearest example counts", predict=lambda at: _kernel_speeds(at, nearest=True)),
        axes=Axes(y=r"$\dot f(x)$"),
    ),
    Claim(
        "ntk.function_space_flow",
        part="one step",
        says="One step of gradient descent moves the outputs by that much, up to the square of the learning rate.",
        setup=problem,
        measure=_mistaken_by,
        predict=lambda _: 2.0,
        judge=Slope(tolerance=0.1),
        control=Variant("only the nearest example counts", measure=lambda at: _mistaken_by(at, nearest=True)),
        axes=Axes("learning rate η", r"$\|f_1 - f_0 - \eta K (y - f_0)\|$", log="xy"),
    ),
    Claim(
        "ntk.representer",
        says="Gradient descent from zero never leaves the span of the examples' tangent features.",
        setup=problem,
        measure=_out_of_span,
        predict=lambda _: 0.0,
        judge=AtMost(atol=1e-10),
        control=Variant("from elsewhere", measure=lambda at: _out_of_span(at, start=0.1)),
        axes=Axes("step t", r"part of $\vartheta_t$ outside the span", log="x"),
    ),
    Claim(
        "ntk.representer",
        part="limit",
        says="It converges to the dual form with the coefficients of kernel regression.",
        setup=lambda key, budget: problem(key, budget, width=128, n=5, d=8),
        measure=_limit,
        predict=_dual_form,
        judge=Equal(rtol=1e-8, atol=1e-8),
        control=Variant("regression on the targets alone", predict=lambda at: _dual_form(at, lambda at: at.y)),
        axes=Axes(y=r"$\vartheta_\infty$"),
    ),
    Claim(
        "ntk.representer",
        part="shortest",
        says="A shift that no tangent feature sees makes parameters longer: the dual form is the shortest minimiser.",
        setup=problem,
        measure=_norms_of_minimisers,
        predict=lambda at: np.linalg.norm(_dual_form(at)),
        judge=AtLeast(),
        control=Variant("a shift back towards zero", measure=lambda at: _norms_of_minimisers(at, null=False)),
        axes=Axes("relative length of the shift", r"$\|\vartheta\|$"),
    ),
    Claim(
        "ntk.representer",
        part="other minimisers",
        says="It leaves the loss at zero: other minimisers have no dual form.",
        setup=problem,
        measure=_losses_of_minimisers,
        predict=lambda _: 0.0,
        judge=Equal(atol=1e-15),
        control=Variant("a shift back towards zero", measure=lambda at: _losses_of_minimisers(at, null=False)),
        axes=Axes("relative length of the shift", "loss"),
    ),
)
