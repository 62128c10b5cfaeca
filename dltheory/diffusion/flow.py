"""The probability flow solved to a tolerance: samples, codes and likelihoods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dltheory._checks import require, shapes
from dltheory.diffusion._fields import FieldFn, ScoreFn, field, floating, probed_trace, probes, trace
from dltheory.diffusion.reverse import probability_flow
from dltheory.diffusion.sde import LinearSde, Sde
from dltheory.typing import Array, PRNGKey, Scalar

__all__ = ["FlowLogLikelihood", "Transport", "flow_log_likelihood", "flow_log_likelihood_hutchinson", "transport"]


class Transport(NamedTuple):
    """Where an ordinary equation leads.

    Attributes:
        x: the solution at the end, shape [...].
        converged: whether the solver got there within its step budget, shape []; if not, x is where it had got to.
    """

    x: Array
    converged: Array


class FlowLogLikelihood(NamedTuple):
    """A likelihood by the probability flow.

    Attributes:
        log_likelihood: log density of the model at the sample, in nats, shape []; NaN if not `converged`.
        latent: the code of the sample at the horizon, shape [...].
        converged: whether the solver got there within its step budget, shape []; if not, the code is where it had got.
    """

    log_likelihood: Array
    latent: Array
    converged: Array


def transport(
    ode: Sde,
    x: Array,
    start: Scalar,
    stop: Scalar,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> Transport:
    r"""Solves an ordinary equation from one time to another, in either direction.

    .. math:: x(t_1) = x(t_0) + \int_{t_0}^{t_1} f(x(t), t)\, dt

    For the `probability_flow` it is a bijection between noise and data. Solved by diffrax with an adaptive
    explicit Runge-Kutta method of order five (Tsitouras), in single precision at least.

    Args:
        ode: the equation, without noise.
        x: where it starts, shape [...]; of a batch, all share their steps.
        start, stop: t_0 and t_1, different and in the order of the equation's time, shape [].
        rtol, atol: relative and absolute tolerance of one step, positive.
        max_steps: of the solver, positive.

    Returns:
        The end, NaN if start and stop are not as they must be, and whether the solver got there.

    Raises:
        ValueError: if `ode` has noise, `x` is not floating-point or its shape is not kept, or a static setting is not
            positive.

    Statement: sde.reverse.  Source: Song et al. 2021; Tsitouras 2011 (the solver).

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> end = diffusion.transport(diffusion.Sde(lambda x, t: -x, None, 0), jnp.array(1.0), 1.0, 0.0)
    >>> bool(jnp.isclose(end.x, jnp.exp(1.0), rtol=1e-4))
    True
    """
    require(ode.diffusion is None, "`ode` must have no noise: its `diffusion` must be None")
    x = floating(x)
    dtype, x = x.dtype, _at_least_single(x)

    def velocity(t, x):
        return field(ode.drift, x, t, name="drift")

    shapes(start=(start, ""), stop=(stop, ""))
    ordered = jnp.asarray(ode.time_direction * (stop - start) >= 0)
    require(ordered, "`stop` must be after `start` in the equation's time")
    end, converged = _solve(velocity, x, start, stop, rtol, atol, max_steps)
    return Transport(jnp.where(ordered, end, jnp.nan).astype(dtype), ordered & converged)


def flow_log_likelihood(
    sde: LinearSde,
    score_fn: ScoreFn,
    x: Array,
    min_time: Scalar = 0.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> FlowLogLikelihood:
    r"""Log density of a diffusion model at one sample, by the probability flow and the trace of its Jacobian.

    .. math:: \log p_0(x) = \log p_T(x(T)) + \int_0^T \nabla \cdot v(x(t), t)\, dt, \qquad \dot x = v(x, t), \; x(0) = x

    with the velocity v of `probability_flow` and the prior of the equation for p_T. If the score is exact, so is the
    result, but for the prior: put the law of x(T) in its place, `sde._replace(prior_logp=...)`, to see the solver's
    error alone. Every step takes a Jacobian-vector product for each entry of x.

    Args:
        sde: the forward equation.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].
        x: the sample, shape [...].
        min_time: where the flow starts, non-negative and below the horizon: above zero for a network, which knows no
            score without noise. The result is the density at that time.
        rtol, atol: relative and absolute tolerance of one step, positive.
        max_steps: of the solver, positive.

    Returns:
        The log density, NaN if the solver did not reach the horizon, the code of the sample, and whether it did.

    Raises:
        ValueError: if `x` is not floating-point, the score does not keep its shape, or a static setting is out of its
            range.

    Statement: sde.reverse.  Source: Song et al. 2021; Chen et al. 2018.

    >>> import jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> result = diffusion.flow_log_likelihood(diffusion.vp_sde(), lambda x, t: -x, jnp.zeros(1))  # data N(0, 1)
    >>> round(float(result.log_likelihood), 4)
    -0.9189
    """
    x = floating(x)
    return _log_likelihood(sde, score_fn, x, trace, min_time, rtol, atol, max_steps)


def flow_log_likelihood_hutchinson(
    key: PRNGKey,
    sde: LinearSde,
    score_fn: ScoreFn,
    x: Array,
    num_probes: int = 1,
    distribution: str = "rademacher",
    min_time: Scalar = 0.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> FlowLogLikelihood:
    r"""As `flow_log_likelihood`, with Hutchinson's estimate of the trace: an unbiased estimate of the log density.

    .. math:: \nabla \cdot v \approx \frac1m \sum_{i=1}^m u_i^T \frac{\partial v}{\partial x} u_i, \qquad E[u_i u_i^T]=I

    The probes stay the same along the path, so that the equation stays an ordinary one.

    Args:
        key: random key.
        sde: the forward equation.
        score_fn: (x [...], t []) -> gradient of log p_t at x, [...].
        x: the sample, shape [...].
        num_probes: m, positive.
        distribution: of the probes: "rademacher", "gaussian" or "sphere" (of radius sqrt(d)).
        min_time: where the flow starts, non-negative and below the horizon.
        rtol, atol: relative and absolute tolerance of one step, positive.
        max_steps: of the solver, positive.

    Returns:
        The estimate, NaN if the solver did not reach the horizon, the code of the sample, and whether it did.

    Raises:
        ValueError: as `flow_log_likelihood`, and if a setting of the probes is out of its range.

    Statement: sde.reverse, score.sliced.  Source: Grathwohl et al. 2019; Song et al. 2021.

    >>> import jax, jax.numpy as jnp
    >>> from dltheory import diffusion
    >>> sde, key = diffusion.vp_sde(), jax.random.key(0)
    >>> result = diffusion.flow_log_likelihood_hutchinson(key, sde, lambda x, t: -x, jnp.zeros(2))
    >>> round(float(result.log_likelihood), 4)  # -log(2 pi)
    -1.8379
    """
    x = floating(x)
    vectors = _at_least_single(probes(key, x, num_probes, distribution))

    def estimated(function, x):
        value, estimates = probed_trace(function, x, vectors)
        return value, jnp.mean(estimates)

    return _log_likelihood(sde, score_fn, x, estimated, min_time, rtol, atol, max_steps)


def _log_likelihood(
    sde: LinearSde,
    score_fn: ScoreFn,
    x: Array,
    trace_fn: Callable[[FieldFn, Array], tuple[Array, Array]],
    min_time: Scalar,
    rtol: float,
    atol: float,
    max_steps: int,
) -> FlowLogLikelihood:
    shapes(min_time=(min_time, ""))
    inside = (min_time >= 0) & (min_time < sde.horizon)
    require(inside, "`min_time` must lie between 0 and the horizon")
    flow = probability_flow(sde, score_fn)
    dtype, x = x.dtype, _at_least_single(x)

    def velocity(t, state):
        return trace_fn(lambda x: flow.drift(x, t), state[0])

    start = (x, jnp.zeros((), x.dtype))
    (latent, expansion), converged = _solve(velocity, start, min_time, sde.horizon, rtol, atol, max_steps)
    converged = inside & converged
    log_likelihood = jnp.where(converged, sde.prior_logp(latent) + expansion, jnp.nan)
    return FlowLogLikelihood(log_likelihood.astype(dtype), latent.astype(dtype), converged)


def _at_least_single(x: Array) -> Array:
    """Half precision takes no step that an adaptive solver would accept."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _solve(
    velocity: Callable[[Any, Any], Any],
    state: Any,
    start: Scalar,
    stop: Scalar,
    rtol: float,
    atol: float,
    max_steps: int,
) -> tuple[Any, Array]:
    """The state at `stop`, NaN if that is not another time, and whether the solver got there."""
    import diffrax  # takes a second to import, and nothing else here needs it

    require(rtol > 0, "`rtol` must be positive")
    require(atol > 0, "`atol` must be positive")
    require(max_steps >= 1, "`max_steps` must be positive")
    dtype = jnp.result_type(*jax.tree.leaves(state))
    start, stop = jnp.asarray(start, dtype), jnp.asarray(stop, dtype)
    proper = (start != stop) & jnp.isfinite(start) & jnp.isfinite(stop)
    require(proper, "`start` and `stop` must be different and finite")
    start, stop = jnp.where(proper, start, 0.0), jnp.where(proper, stop, 1.0)  # diffrax would stop the program
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: velocity(t, y)),  # noqa: ARG005
        diffrax.Tsit5(),
        t0=start,
        t1=stop,
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        max_steps=max_steps,
        throw=False,
    )
    end = jax.tree.map(lambda leaf: jnp.where(proper, leaf[0], jnp.nan), solution.ys)
    return end, proper & (solution.result == diffrax.RESULTS.successful)
