"""Benchmarks in which everything goes wrong that can."""

import os
import signal

import jax.numpy as jnp
import numpy as np

from experiments.bench.case import Absent, Case, Contender


def data():
    return (jnp.arange(12.0).reshape(3, 4),)


def right():
    return lambda x: x @ x.T


def slower():
    return lambda x: sum(x @ x.T for _ in range(3)) / 3


def by_itself():
    return lambda x: np.asarray(x) @ np.asarray(x).T


def wrong():
    return lambda x: 1.01 * x @ x.T


def absent():
    raise Absent("no such library")


def fails():
    raise RuntimeError("out\nof order")


def dies():
    return lambda x: os.kill(os.getpid(), signal.SIGKILL)


def large():
    return lambda x: jnp.zeros((10**6, 10**6)) + x[0, 0]


def view(result, x):
    return result


def reference(x):
    assert x.dtype == np.float64
    return np.einsum("ik,jk->ij", x, x)


def case(name, contenders, reference=reference, **settings):
    return Case(f"fake.{name}", name, data, contenders, view=view, reference=reference, seconds=5.0, **settings)


CASES = (
    case(
        "all",
        [
            Contender("ours", right, ours=True),
            Contender("slower", slower),
            Contender("by itself", by_itself, jit=False),
            Contender("wrong", wrong),
            Contender("absent", absent),
            Contender("fails", fails),
            Contender("dies", dies, jit=False),
            Contender("large", large),
        ],
        gflop=7.2e-8,
        target=0.0,
    ),
    case(
        "amounts",
        [Contender("ours", right, ours=True), Contender("slower", slower)],
        amounts={"apples": lambda result, x: result[0, 0] + len(x), "pears": lambda result, x: 3.0},
        target=0.0,
    ),
    case("without reference", [Contender("ours", right, ours=True)], reference=lambda x: 1 / 0),
    case("ours wrong", [Contender("ours", wrong, ours=True), Contender("peer", right)]),
)
