"""What the parametrisations are for: variances at initialisation, the size of the tangent kernel, moving features."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import networks

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5)), jnp.float32)
IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(2, 4, 4, 2)), jnp.float32)
WIDTHS = (64, 256, 1024)
SIGMA_B = 0.3


def second_moment(network: nn.Module, x, seeds: int = 500):
    """E f(x)^2 over initialisations, for each example, with its standard error."""

    @jax.jit
    def one(seed):
        output = cast(Any, network.init_with_output(jax.random.key(seed), x)[0])
        return jnp.mean(output**2, axis=1)  # outputs are alike

    squares = [one(seed) for seed in range(seeds)]  # XLA's convolutions are slow inside a loop of its own
    return np.mean(squares, axis=0), np.std(squares, axis=0) / np.sqrt(seeds)


def affine(q):
    """The variance after an affine layer with sigma_w^2 = 2, of a feature with second moment q."""
    return 2 * q + SIGMA_B**2


@pytest.mark.parametrize("parametrization", ["ntk", "standard", "mup"])
def test_variance_of_a_relu_network_follows_the_recursion_at_any_width(parametrization):
    # E relu(z)^2 = Var(z) / 2 for every symmetric z, so the recursion is exact in expectation, without a limit.
    network = networks.MLP((8, 6, 16), parametrization=parametrization, sigma_w=2**0.5, sigma_b=SIGMA_B)
    expected = affine(affine(affine(np.mean(X**2, axis=1)) / 2) / 2) / (6 if parametrization == "mup" else 1)
    mean, error = second_moment(network, X)
    assert np.all(np.abs(mean - expected) < 5 * error)


@pytest.mark.parametrize("branch_scale", [1.0, 0.5])
def test_variance_of_a_residual_network_adds_up(branch_scale):
    network = networks.ResidualMLP(8, 3, 16, sigma_w=2**0.5, sigma_b=SIGMA_B, branch_scale=branch_scale)
    q = affine(np.mean(X**2, axis=1))
    for _ in range(3):
        q = q + branch_scale**2 * affine(q / 2)
    mean, error = second_moment(network, X)
    assert np.all(np.abs(mean - affine(q / 2)) < 5 * error)


def test_variance_of_a_convolutional_network_follows_the_recursion():
    # On a torus every position sees a full window: the second moments average over it.
    network = networks.CNN((8, 6), 16, padding="CIRCULAR", pooling="flatten", sigma_w=2**0.5, sigma_b=SIGMA_B)
    mean, error = second_moment(network, IMAGES, 200)
    expected = affine(affine(affine(np.mean(IMAGES**2, axis=(1, 2, 3))) / 2) / 2)
    assert np.all(np.abs(mean - expected) < 5 * error)


def test_variance_of_a_residual_convolutional_network_adds_up():
    network = networks.ResidualCNN(
        (6, 8), 16, padding="CIRCULAR", pooling="flatten", sigma_w=2**0.5, sigma_b=SIGMA_B, branch_scale=0.7
    )
    constant = jnp.broadcast_to(IMAGES[:, :1, :1], IMAGES.shape)  # so that strides keep the second moments
    q = affine(np.mean(constant**2, axis=(1, 2, 3)))
    q = q + 0.7**2 * affine(affine(q / 2) / 2)
    q = affine(q) + 0.7**2 * affine(affine(q / 2) / 2)  # the shortcut of the second stage is a convolution
    mean, error = second_moment(network, constant, 200)
    assert np.all(np.abs(mean - affine(q / 2)) < 5 * error)


def draw(network: networks.MLP, seed: int):
    """Variables distributed as those of `init`, without its compilation for every width."""
    rng = np.random.default_rng(seed)

    def normal(leaf):
        standard = network.parametrization == "standard"
        std_w, std_b = (network.sigma_w / leaf.shape[0] ** 0.5, network.sigma_b) if standard else (1, 1)
        return np.float32((std_w if leaf.ndim == 2 else std_b) * rng.normal(size=leaf.shape))

    return jax.tree.map(normal, jax.eval_shape(network.init, jax.random.key(0), X))


def slope(values) -> float:
    """Exponent of the width, by least squares in logarithms."""
    return float(np.polyfit(np.log(WIDTHS), np.log(values), 1)[0])


@pytest.mark.statement("ntk.init_parametrization")
@pytest.mark.parametrize(("parametrization", "expected"), [("ntk", 0), ("standard", 1), ("mup", -1)])
def test_size_of_the_tangent_kernel(parametrization, expected):
    def kernel(width):
        network = networks.MLP((width, width, 1), parametrization=parametrization, sigma_w=2**0.5, sigma_b=SIGMA_B)
        apply: Any = network.apply

        @jax.jit
        def squared_gradient(variables):
            gradient = jax.grad(lambda variables: apply(variables, X[:1])[0, 0])(variables)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))

        return np.mean([squared_gradient(draw(network, seed)) for seed in range(8)])

    assert slope([kernel(width) for width in WIDTHS]) == pytest.approx(expected, abs=0.1)


def scaled_by_layer(width, hidden, output_bias):
    """Adam's rates by the kind of parameter: kernels between wide layers, the bias of the output layer, all else."""

    def rate(path, update):
        layer, kind = path[-2].key, path[-1].key
        if kind == "kernel" and layer in ("Dense_1", "Dense_2"):
            return hidden(width) * update
        return output_bias(width) * update if (layer, kind) == ("Dense_3", "bias") else update

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(rate, updates))


OPTIMIZERS = {
    ("ntk", "sgd"): lambda n: optax.sgd(0.3),
    ("standard", "sgd"): lambda n: optax.sgd(0.3 / n),
    ("mup", "sgd"): lambda n: optax.sgd(0.3 * n),
    ("mup", "adam"): lambda n: optax.chain(optax.adam(0.1), scaled_by_layer(n, lambda n: n**-0.5, lambda n: n**0.5)),
}


@pytest.mark.parametrize(
    ("parametrization", "optimizer", "expected"),
    [
        ("ntk", "sgd", [-0.5, -0.5, -0.5]),
        ("standard", "sgd", [-1.5, -0.5, -0.5]),  # the rate that fits wide sums all but freezes the first layer
        ("mup", "sgd", [0, 0, 0]),
        pytest.param("mup", "adam", [0, 0, 0], marks=pytest.mark.slow),
    ],
)
def test_how_far_features_and_outputs_move(parametrization, optimizer, expected):
    x, residual = X, jnp.array([[1.0], [-1.0]])

    def moves(width):
        network = networks.MLP((width,) * 3 + (1,), nn.tanh, parametrization=parametrization, sigma_w=1.5, sigma_b=0.1)
        apply: Any = network.apply
        transformation = OPTIMIZERS[parametrization, optimizer](width)

        def forward(variables):
            output, captured = apply(variables, x, capture_intermediates=True)
            layers = captured["intermediates"]
            return output, [layers[f"Dense_{i}"]["__call__"][0] for i in range(3)]

        @jax.jit
        def squared_moves(variables):
            y = apply(variables, x) + residual  # every run starts equally far from its targets

            def loss(variables):
                return jnp.mean((apply(variables, x) - y) ** 2)

            def step(carry, _):
                variables, state = carry
                updates, state = transformation.update(jax.grad(loss)(variables), state, variables)
                return (optax.apply_updates(variables, updates), state), None

            (moved, _), _ = jax.lax.scan(step, (variables, transformation.init(variables)), length=5)
            (output, before), (trained, after) = forward(variables), forward(moved)
            features = jnp.stack([jnp.mean((b - a) ** 2) for a, b in zip(before, after, strict=True)])
            return features, jnp.mean((trained - output) ** 2)

        runs = [squared_moves(draw(network, seed)) for seed in range(6)]
        features, output = zip(*runs, strict=True)
        return np.sqrt(np.mean(features, axis=0)), np.sqrt(np.mean(output))

    features, output = zip(*map(moves, WIDTHS), strict=True)
    assert [slope(layer) for layer in np.transpose(features)] == pytest.approx(expected, abs=0.1)
    assert slope(output) == pytest.approx(0, abs=0.1)
