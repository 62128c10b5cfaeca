"""Which dual belongs to which activation."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dltheory._checks import require
from dltheory.nngp._selection import known_dual
from dltheory.nngp.dual import Dual
from dltheory.nngp.rectifiers import rectified_monomial_dual, rectifier_dual, sign_dual
from dltheory.nngp.series import series_dual
from dltheory.nngp.smooth import erf_dual, exponential_dual, gelu_dual, rbf_dual, sigmoid_like_dual, sine_dual
from dltheory.typing import Array

__all__ = ["Activation", "dual_activation"]

Activation = str | Callable[[Array], Array] | Dual

_BY_NAME: dict[str, Callable[[], Dual]] = {
    "abs": lambda: rectifier_dual(-1.0),
    "cos": lambda: sine_dual(phase=jnp.pi / 2),
    "erf": erf_dual,
    "exp": exponential_dual,
    "gelu": gelu_dual,
    "identity": lambda: rectifier_dual(1.0),
    "leaky_relu": lambda: rectifier_dual(0.01),
    "rbf": rbf_dual,
    "relu": rectifier_dual,
    "sigmoid_like": sigmoid_like_dual,
    "sign": sign_dual,
    "sin": sine_dual,
    "step": lambda: rectified_monomial_dual(0),
}
_BY_SERIES: dict[str, Callable[[Array], Array]] = {
    "celu": jax.nn.celu,
    "elu": jax.nn.elu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_swish": jax.nn.hard_swish,
    "hard_tanh": jax.nn.hard_tanh,
    "mish": jax.nn.mish,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
_KINKS: dict[Callable, tuple[float, ...]] = {
    jax.nn.celu: (0.0,),
    jax.nn.elu: (0.0,),
    jax.nn.hard_sigmoid: (-3.0, 3.0),
    jax.nn.hard_swish: (-3.0, 3.0),
    jax.nn.hard_tanh: (-1.0, 1.0),
    jax.nn.relu6: (0.0, 6.0),
    jax.nn.selu: (0.0,),
}
_BY_FUNCTION: dict[Callable, str] = {
    jnp.abs: "abs",
    jnp.cos: "cos",
    jax.scipy.special.erf: "erf",
    jax.lax.erf: "erf",
    jnp.exp: "exp",
    jax.nn.identity: "identity",
    jax.nn.leaky_relu: "leaky_relu",
    jax.nn.relu: "relu",
    jnp.sign: "sign",
    jnp.sin: "sin",
}


def dual_activation(activation: Activation) -> Dual:
    r"""The dual of an activation.

    In closed form where one is known, by name ("relu", "leaky_relu", "abs", "erf", "sigmoid_like", "gelu", "sin",
    "cos", "rbf", "exp", "sign", "step", "identity") or by JAX's function (`jax.nn.relu`, `jnp.sin`, ...). The names
    "tanh", "sigmoid", "silu", "softplus", "mish", "elu", "selu", "celu", "relu6", "hard_tanh", "hard_sigmoid" and
    "hard_swish", and JAX's functions of these names, by Hermite series, and by quadrature if some variance is so large
    that the error of the series would show (see `series_dual` and `quadrature_dual`). Any other function by its series
    alone. "gelu" is the exact one, while `jax.nn.gelu` is by default its approximation with a hyperbolic tangent.

    Args:
        activation: name, function of an array acting entry by entry, or a `Dual`, which is returned as it is. The kinks
            of a function that JAX does not have must be named: pass ``series_dual(fn, kinks=...)``.

    Returns:
        The dual.

    Raises:
        ValueError: if there is no activation of that name.

    A helper.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from dltheory import nngp
    >>> pairs = nngp.pair_covariance(*jnp.array([1.0, 1.0, 0.5]))
    >>> nngp.dual_activation(jax.nn.relu).kernel(pairs) == nngp.dual_activation("relu").kernel(pairs)
    True
    """
    if isinstance(activation, Dual):
        return activation
    if isinstance(activation, str):
        names = ", ".join(sorted(_BY_NAME | _BY_SERIES))
        known = activation in _BY_NAME or activation in _BY_SERIES
        require(known, f"`activation` must be a function, a dual or one of {names}: {activation!r}")
        return _BY_NAME[activation]() if activation in _BY_NAME else dual_activation(_BY_SERIES[activation])
    if activation in _BY_FUNCTION:
        return _BY_NAME[_BY_FUNCTION[activation]]()
    if activation in _BY_SERIES.values():
        return known_dual(activation, _KINKS.get(activation, ()))
    return series_dual(activation)
