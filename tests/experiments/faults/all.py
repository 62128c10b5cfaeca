"""One claim for each way to go wrong."""

import ctypes
import os
import signal
import sys
import time

import jax
import numpy as np

from experiments.claim import Claim, Variant
from experiments.judges import Equal

__all__ = ["CLAIMS"]


def _raises(_):
    raise RuntimeError("on purpose")


def _hangs(_):
    time.sleep(600)


def _exits(_):
    os._exit(3)


def _calls_exit(_):
    sys.exit(4)


def _is_killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def _crashes(_):
    ctypes.string_at(0)


def _prints(_):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    os.write(1, b"past Python\n")
    os.write(2, b"past Python\n")
    return 1.0


def _prints_much(_):
    print("x" * 1_000_000)
    return 1.0


def _exhausts_memory(_):
    return np.ones(2**45)


def _prints_random_numbers(draw):
    _prints(draw)
    return jax.random.normal(draw.key, (5,))


def _claim(part, measure, **settings):
    return Claim(
        "fault.claim",
        part=part,
        says="One is one.",
        measure=measure,
        predict=lambda _: 1.0,
        judge=Equal(),
        control=Variant("two", predict=lambda _: 2.0),
        **settings,
    )


CLAIMS = (
    _claim("sound before", lambda _: 1.0),
    _claim("hangs", _hangs, time_limit=1.0),
    _claim("raises", _raises),
    _claim("exits", _exits),
    _claim("calls exit", _calls_exit),
    _claim("is killed", _is_killed),
    _claim("crashes", _crashes),
    _claim("exhausts memory", _exhausts_memory),
    _claim("prints", _prints),
    _claim("prints random numbers", _prints_random_numbers),
    _claim("prints much", _prints_much),
    _claim("returns NaN", lambda _: float("nan")),
    _claim("sound after", lambda _: 1.0),
)
