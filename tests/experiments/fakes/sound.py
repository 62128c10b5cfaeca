"""Twelve sound claims, one of them a misprint, one in the full tier."""

import time

import jax

from experiments.claim import Budget, Claim, Variant
from experiments.curves import Curve, estimate
from experiments.judges import Equal, Mean

__all__ = ["CLAIMS"]


def _slow_square(x):
    time.sleep(0.2)
    return Curve(x**2, x)


def _claim(number, **settings):
    return Claim(
        f"fake.square_{number}",
        says="A square is a square.",
        **{
            "setup": lambda key, budget: float(number),
            "measure": lambda x: x * x,
            "predict": lambda x: x**2,
            "judge": Equal(),
            "control": Variant("a cube", predict=lambda x: x**3 + 1),
            **settings,
        },
    )


CLAIMS = (
    *(_claim(i, measure=lambda x: _slow_square(x)) for i in range(8)),
    Claim(
        "fake.mean",
        part="of normals, n/2 & more",
        says="The mean of standard normal variables is 0.",
        measure=lambda draw: estimate(jax.random.normal(draw.key, (draw.budget,))),
        predict=lambda _: 0.0,
        judge=Mean(floor=0.2),
        control=Variant("mean 1", predict=lambda _: 1.0),
        budget=Budget(quick=4000, full=40_000),
    ),
    Claim(
        "fake.square_1@printed",
        says="A square is a cube.",
        measure=lambda _: 4.0,
        predict=lambda _: 8.0,
        judge=Equal(),
        control=Variant("a fourth power", predict=lambda _: 16.0),
        corrected=Variant("a square", predict=lambda _: 4.0),
    ),
    _claim(100, part="infinite", setup=lambda key, budget: float("inf"), control=Variant("no", predict=lambda _: 1.0)),
    _claim(101, tier="full"),
)
