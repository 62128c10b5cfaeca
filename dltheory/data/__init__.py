"""Data: random sets with known truth as functions of a key, real images as functions of a path."""

from dltheory.data.images import Cifar10, digits, load_cifar10, load_idx
from dltheory.data.synthetic import Dataset, gaussian_mixture, noisy_linear, sphere, spirals
from dltheory.data.transforms import permute_pixels, randomize_labels, split

__all__ = [
    "Cifar10",
    "Dataset",
    "digits",
    "gaussian_mixture",
    "load_cifar10",
    "load_idx",
    "noisy_linear",
    "permute_pixels",
    "randomize_labels",
    "sphere",
    "spirals",
    "split",
]
