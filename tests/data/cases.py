"""Rows of the package `data`."""

import jax
import numpy as np

from dltheory import data
from tests.cases import Case

_RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = _RNG.normal(size=(5, 4, 3, 2))
Y = np.array([0, 2, 1, 1, 0])
SCALE = np.array(0.5)

CASES = (
    Case("dltheory.data.digits", call=lambda scale: data.digits(scale.dtype).x[:3] * scale, args=(SCALE,)),
    Case("dltheory.data.load_idx", args=(), jit=False),
    Case("dltheory.data.load_cifar10", args=(), jit=False),
    Case(
        "dltheory.data.sphere",
        call=lambda key, radius: data.sphere(key, 4, 3, radius),
        args=(KEY, SCALE),
        wrong={"radius": (KEY, Y)},
        grad=(1,),
    ),
    Case(
        "dltheory.data.gaussian_mixture",
        call=lambda key, means, scale: data.gaussian_mixture(key, 6, means, scale),
        args=(KEY, X[0, :, :, 0], SCALE),
        wrong={"means": (KEY, SCALE, SCALE), "scale": (KEY, X[0, :, :, 0], Y)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.data.noisy_linear",
        call=lambda key, weights, noise: data.noisy_linear(key, 6, weights, noise),
        args=(KEY, X[0, 0, :, 0], SCALE),
        wrong={"weights": (KEY, SCALE, SCALE), "noise": (KEY, X[0, 0, :, 0], Y)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.data.spirals",
        call=lambda key, turns, noise: data.spirals(key, 6, 3, turns, noise),
        args=(KEY, SCALE, SCALE),
        wrong={"turns": (KEY, Y, SCALE), "noise": (KEY, SCALE, Y)},
        grad=(1, 2),
    ),
    Case(
        "dltheory.data.split",
        call=lambda key, x, y: data.split(key, data.Dataset(x, y), 2),
        args=(KEY, X, Y),
        wrong={"data": (KEY, X, Y[:2])},
        grad=(1,),
    ),
    Case(
        "dltheory.data.randomize_labels",
        call=lambda key, y, fraction: data.randomize_labels(key, y, 10, fraction),
        args=(KEY, Y, SCALE),
        wrong={"y": (KEY, X[0], SCALE), "fraction": (KEY, Y, Y)},
        grad=(),
    ),
    *(
        Case(
            "dltheory.data.permute_pixels",
            call=lambda key, x, per_example=per_example: data.permute_pixels(key, x, per_example),
            args=(KEY, X),
            wrong={"x": (KEY, X[0, 0, 0])},
            grad=(1,),
            label="per example" if per_example else "fixed",
        )
        for per_example in (False, True)
    ),
)
