"""Rows of the chapter Background."""

import numpy as np

from tests.cases import Case

CASES = (
    Case(
        "dltheory.background.hoeffding_bound",
        args=(np.array([1.0, 0.5, 2.0]), np.array(0.3)),
        wrong={"widths": (np.ones((2, 2)), np.array(0.3)), "t": (np.ones(2), np.ones(2))},
        grad=(0, 1),
    ),
)
