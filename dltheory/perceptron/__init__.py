"""The perceptron: its rule, its mistakes, and the margin that bounds them.

The separating hyperplane passes through the origin; append a constant feature for a bias.
"""

from dltheory.perceptron.algorithm import (
    PerceptronFit,
    PerceptronPath,
    perceptron_fit,
    perceptron_loss,
    perceptron_path,
    perceptron_predict,
    perceptron_update,
)
from dltheory.perceptron.margins import (
    MaxMargin,
    NovikovCertificate,
    SeparableData,
    make_separable,
    margin,
    max_margin,
    novikov_bound,
    novikov_certificate,
)

__all__ = [
    "MaxMargin",
    "NovikovCertificate",
    "PerceptronFit",
    "PerceptronPath",
    "SeparableData",
    "make_separable",
    "margin",
    "max_margin",
    "novikov_bound",
    "novikov_certificate",
    "perceptron_fit",
    "perceptron_loss",
    "perceptron_path",
    "perceptron_predict",
    "perceptron_update",
]
