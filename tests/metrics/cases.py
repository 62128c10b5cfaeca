"""Rows of the chapter Evaluation metrics."""

import numpy as np

from tests.cases import Case

_RNG = np.random.default_rng(0)
MEANS, ROOTS = _RNG.normal(size=(2, 3)), _RNG.normal(size=(2, 3, 3))
FIRST, SECOND = (root @ root.T + np.eye(3) for root in ROOTS)
FEATURES = _RNG.normal(size=(2, 6, 3))

CASES = (
    Case(
        "dltheory.metrics.frechet_distance",
        args=(MEANS[0], FIRST, MEANS[1], SECOND),
        wrong={
            "cov_1": (MEANS[0], FIRST[:2], MEANS[1], SECOND),
            "mean_2": (MEANS[0], FIRST, MEANS[1][:2], SECOND),
        },
        grad=(0, 1, 2, 3),
    ),
    Case(
        "dltheory.metrics.fid",
        args=(FEATURES[0], FEATURES[1][:5]),
        wrong={"features_2": (FEATURES[0], FEATURES[1, :, :2]), "features_1": (FEATURES[0, :1], FEATURES[1])},
        grad=(0, 1),
    ),
)
