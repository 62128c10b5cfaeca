"""Networks as Flax modules with their parametrisation in view, and adapters for networks that come from elsewhere."""

from dltheory.networks.adapters import Network, from_callable, from_init_apply, from_nnx
from dltheory.networks.denoisers import TimeMLP, UNet, sinusoidal_embedding
from dltheory.networks.feedforward import CNN, MLP, ResidualCNN, ResidualMLP
from dltheory.networks.layers import Conv, Dense, Parametrization, Parametrized

__all__ = [
    "CNN",
    "MLP",
    "Conv",
    "Dense",
    "Network",
    "Parametrization",
    "Parametrized",
    "ResidualCNN",
    "ResidualMLP",
    "TimeMLP",
    "UNet",
    "from_callable",
    "from_init_apply",
    "from_nnx",
    "sinusoidal_embedding",
]
