"""Tangent features, Taylor polynomials and the flows of parameters and outputs."""

# NumPy arrays stand in for JAX arrays throughout.
# pyright: reportArgumentType=false

import collections

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dltheory import ntk
from dltheory.typing import ApplyFn

RNG = np.random.default_rng(0)
X, X_TEST = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 3))
Y = RNG.normal(size=(4, 2))
PARAMS = {"b": RNG.normal(size=5), "v": RNG.normal(size=(5, 2)), "w": RNG.normal(size=(3, 5))}
P = sum(leaf.size for leaf in PARAMS.values())


def network(params, x):
    """One hidden layer, two outputs."""
    return jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"]


def features_by_hand(params, x):
    """Tangent features of `network` from its formula, parameters in alphabetical order, in NumPy."""
    hidden = np.tanh(x @ params["w"] + params["b"])  # [n, h]
    slope = (1 - hidden**2)[:, None, :] * params["v"].T[None]  # [n, k, h]
    by_v = hidden[:, None, :, None] * np.eye(2)[None, :, None, :]  # [n, k, h, k]
    by_w = x[:, None, :, None] * slope[:, :, None, :]  # [n, k, d, h]
    return np.concatenate([part.reshape(len(x), 2, -1) for part in (slope, by_v, by_w)], axis=2)


def shifted(scale, seed=1):
    rng = np.random.default_rng(seed)
    return {name: leaf + scale * rng.normal(size=leaf.shape) for name, leaf in PARAMS.items()}


@pytest.mark.statement("ntk.tangent_features")
def test_tangent_features_equal_the_formula(x64):
    expected = features_by_hand(PARAMS, X)
    np.testing.assert_allclose(jax.jit(lambda p: ntk.jacobian(network, p, X))(PARAMS), expected, atol=1e-13)
    features = jax.jit(lambda p: ntk.tangent_features(network, p, X[1]))(PARAMS)
    np.testing.assert_allclose(features, expected[1], atol=1e-13)


@pytest.mark.statement("ntk.tangent_features", "ntk.linearization")
def test_a_model_linear_in_its_parameters_is_its_own_linearisation(x64):
    features = RNG.normal(size=(4, 6))
    theta, other = RNG.normal(size=(2, 6))

    def model(params, x):
        return (x @ params)[:, None]

    np.testing.assert_allclose(ntk.jacobian(model, theta, features)[:, 0], features, atol=1e-14)
    linear = ntk.linearize(model, theta)
    np.testing.assert_allclose(linear(other, features), model(other, features), atol=1e-13)


@pytest.mark.statement("ntk.tangent_features")
def test_at_the_kink_the_features_are_those_of_automatic_differentiation():
    features = ntk.tangent_features(lambda w, x: jax.nn.relu(x @ w), jnp.zeros((2, 1)), jnp.ones(2))
    assert np.all(features == 0)


@pytest.mark.statement("ntk.gram")
def test_gram_is_the_product_of_features_and_deficient_where_it_must_be(x64):
    twice = np.concatenate([X, X[:1]])
    flat = features_by_hand(PARAMS, twice).reshape(10, P)
    gram = np.asarray(jax.jit(lambda p: ntk.gram(network, p, twice))(PARAMS))
    np.testing.assert_allclose(gram, flat @ flat.T, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(gram)
    assert np.sum(eigenvalues > 1e-10 * eigenvalues[-1]) == 8  # the repeated input adds two null vectors
    assert eigenvalues[0] > -1e-10 * eigenvalues.sum()
    narrow = jax.jit(lambda w: ntk.gram(lambda w, x: jnp.sin(x @ w), w, np.vstack([X, X_TEST])))(np.ones((3, 1)))
    assert np.linalg.matrix_rank(narrow) == 3  # as many as parameters


@pytest.mark.statement("ntk.linearization")
def test_linearisation_has_value_and_slope_of_the_network_everywhere(x64):
    linear: ApplyFn = ntk.linearize(network, PARAMS)
    np.testing.assert_allclose(linear(PARAMS, X), network(PARAMS, X), atol=1e-14)
    np.testing.assert_allclose(ntk.jacobian(linear, shifted(1.0), X), ntk.jacobian(network, PARAMS, X), atol=1e-12)
    shift = np.concatenate([(shifted(1.0)[name] - PARAMS[name]).ravel() for name in sorted(PARAMS)])
    expected = network(PARAMS, X) + features_by_hand(PARAMS, X) @ shift
    np.testing.assert_allclose(linear(shifted(1.0), X), expected, atol=1e-12)


@pytest.mark.statement("ntk.linearization")
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_remainder_of_taylor_polynomials_has_the_next_order(x64, order):
    polynomial = jax.jit(ntk.taylor_expand(network, PARAMS, order))
    scales = 0.02 * 2.0 ** -np.arange(3)
    errors = [np.max(np.abs(polynomial(shifted(s), X) - network(shifted(s), X))) for s in scales]
    slopes = np.diff(np.log(errors)) / np.diff(np.log(scales))
    np.testing.assert_allclose(slopes, order + 1, atol=0.1)


@pytest.mark.statement("ntk.linearization")
def test_taylor_polynomial_of_a_polynomial_is_exact(x64):
    def cubic(params, x):
        return (x @ params["w"]) ** 2 * params["a"]

    start, end = ({"a": RNG.normal(size=(1, 1)), "w": RNG.normal(size=(3, 1))} for _ in range(2))
    np.testing.assert_allclose(ntk.taylor_expand(cubic, start, 3)(end, X), cubic(end, X), rtol=1e-11)
    assert np.max(np.abs(ntk.taylor_expand(cubic, start, 2)(end, X) - cubic(end, X))) > 1e-2


@pytest.mark.statement("ntk.linearization")
@pytest.mark.parametrize("order", [-1, 1.5])
def test_order_must_be_a_natural_number(order):
    with pytest.raises(ValueError, match="`order`"):
        ntk.taylor_expand(network, PARAMS, order)


@pytest.mark.statement("ntk.parameter_gradient_flow")
def test_parameter_velocity_is_minus_the_gradient_and_sums_features(x64):
    velocity, (loss, gradient) = jax.jit(
        lambda p: (ntk.parameter_velocity(network, p, X, Y), jax.value_and_grad(ntk.squared_loss, 1)(network, p, X, Y))
    )(PARAMS)
    summed = np.einsum("nkp,nk->p", features_by_hand(PARAMS, X), Y - network(PARAMS, X))
    flat = np.concatenate([np.ravel(velocity[name]) for name in sorted(PARAMS)])
    np.testing.assert_allclose(flat, summed, atol=1e-12)
    for name in PARAMS:
        np.testing.assert_allclose(velocity[name], -gradient[name], atol=1e-12)
    assert float(loss) == pytest.approx(0.5 * np.sum((np.asarray(network(PARAMS, X)) - Y) ** 2), rel=1e-13)


@pytest.mark.statement("ntk.function_space_flow")
def test_outputs_move_by_kernel_times_residual(x64):
    velocity = jax.jit(lambda p: ntk.parameter_velocity(network, p, X, Y))(PARAMS)
    everywhere = np.concatenate([X, X_TEST])
    _, moved = jax.jvp(lambda p: network(p, everywhere), (jax.tree.map(jnp.asarray, PARAMS),), (velocity,))
    train, test = features_by_hand(PARAMS, X), features_by_hand(PARAMS, everywhere)
    kernel = np.einsum("mkp,nlp->mnkl", test, train)
    np.testing.assert_allclose(ntk.function_velocity(kernel, network(PARAMS, X), Y), moved, atol=1e-11)


@pytest.mark.statement("ntk.function_space_flow")
def test_forms_of_the_kernel_agree_where_outputs_do_not_mix(x64):
    kernels = RNG.normal(size=(2, 3, 4))  # [k, m, n]
    outputs = RNG.normal(size=(4, 2))
    by_output = np.moveaxis(kernels, 0, 2)
    full = by_output[:, :, :, None] * np.eye(2)
    expected = np.stack([kernels[c] @ (Y - outputs)[:, c] for c in range(2)], axis=1)
    np.testing.assert_allclose(ntk.function_velocity(by_output, outputs, Y), expected, atol=1e-13)
    np.testing.assert_allclose(ntk.function_velocity(full, outputs, Y), expected, atol=1e-13)
    one = ntk.function_velocity(kernels[0], outputs, Y)
    np.testing.assert_allclose(one, kernels[0] @ (Y - outputs), atol=1e-13)
    np.testing.assert_allclose(ntk.function_velocity(kernels[0], outputs[:, 1], Y[:, 1]), one[:, 1], atol=1e-13)


@pytest.mark.statement("ntk.function_space_flow")
def test_a_kernel_of_one_or_five_axes_is_refused():
    for shape in [(4,), (4, 4, 2, 2, 1)]:
        with pytest.raises(ValueError, match="`kernel` must have one of the shapes"):
            ntk.function_velocity(jnp.ones(shape), jnp.ones((4, 2)), jnp.ones((4, 2)))


@pytest.mark.statement("ntk.linearized_loss", "ntk.representer")
def test_linearised_loss_is_that_of_the_linearised_network_and_convex(x64):
    features = jax.jit(lambda p: ntk.jacobian(network, p, X))(PARAMS)
    residual = Y - network(PARAMS, X)
    shift = np.concatenate([(shifted(0.5)[name] - PARAMS[name]).ravel() for name in sorted(PARAMS)])
    loss = ntk.linearized_loss(shift, features, residual)
    model = ntk.squared_loss(ntk.linearize(network, PARAMS), shifted(0.5), X, Y)
    assert float(loss) == pytest.approx(float(model), rel=1e-12)
    hessian = jax.jit(jax.hessian(ntk.linearized_loss))(jnp.asarray(shift), features, residual)
    flat = np.asarray(features).reshape(8, P)
    np.testing.assert_allclose(hessian, flat.T @ flat, atol=1e-11)


@pytest.mark.statement("ntk.representer")
def test_descent_from_zero_stays_in_the_span_and_finds_the_shortest_minimiser(x64):
    features = np.asarray(jax.jit(lambda p: ntk.jacobian(network, p, X))(PARAMS))
    residual = Y - network(PARAMS, X)
    flat = features.reshape(8, P)
    basis = np.linalg.svd(flat, full_matrices=False)[2]
    gradient = jax.jit(jax.grad(ntk.linearized_loss))
    shift = np.zeros(P)
    rate = 1 / np.linalg.norm(flat, 2) ** 2
    for _ in range(50):
        shift = shift - rate * np.asarray(gradient(shift, features, residual))
        assert np.linalg.norm(shift - basis.T @ (basis @ shift)) < 1e-12 * np.linalg.norm(shift)

    @jax.jit
    def dual_form(features, residual):
        kernel = jnp.einsum("nkp,mlp->nmkl", features, features)
        return ntk.dual_to_primal(features, ntk.kernel_regression(kernel, residual).coefficients)

    shortest = np.asarray(dual_form(features, residual))
    np.testing.assert_allclose(shortest, np.linalg.pinv(flat) @ np.ravel(residual), atol=1e-9)
    null = RNG.normal(size=P)
    null -= basis.T @ (basis @ null)
    assert float(ntk.linearized_loss(shortest + null, features, residual)) < 1e-15
    assert np.linalg.norm(shortest + null) > np.linalg.norm(shortest)


class Normalised(nn.Module):
    """A network with statistics that are not trained."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x)))


@pytest.fixture(scope="module")
def flax_network():
    module = Normalised()
    return module.apply, jax.jit(module.init)(jax.random.key(0), jnp.ones((1, 3)))


@pytest.mark.statement("ntk.gram", "ntk.parameter_gradient_flow")
def test_collections_keep_their_names_in_mappings_that_are_not_sorted(x64):
    """JAX flattens an ordered dictionary in the order of insertion, a plain one by its keys."""
    plain = {"batch_stats": {"mean": np.array([5.0, 4.0, 3.0])}, "params": {"w": np.ones((3, 2))}}
    ordered = collections.OrderedDict([("params", plain["params"]), ("batch_stats", plain["batch_stats"])])

    def apply_fn(variables, x):
        return (x - variables["batch_stats"]["mean"][None]) @ variables["params"]["w"]

    np.testing.assert_array_equal(ntk.gram(apply_fn, ordered, X), ntk.gram(apply_fn, plain, X))
    velocity = ntk.parameter_velocity(apply_fn, ordered, X, Y)
    assert isinstance(velocity, collections.OrderedDict)
    expected = ntk.parameter_velocity(apply_fn, plain, X, Y)
    jax.tree.map(np.testing.assert_array_equal, dict(velocity), expected)


@pytest.mark.statement("ntk.tangent_features", "ntk.linearization", "ntk.parameter_gradient_flow")
def test_of_flax_variables_only_the_parameters_are_trained(flax_network):
    apply_fn, variables = flax_network
    x, y = jnp.asarray(X, "float32"), jnp.asarray(Y, "float32")
    p = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    features = jax.jit(lambda v: ntk.jacobian(apply_fn, v, x))(variables)
    assert features.shape == (4, 2, p)
    velocity = jax.jit(lambda v: ntk.parameter_velocity(apply_fn, v, x, y))(variables)
    assert jax.tree.structure(velocity) == jax.tree.structure(variables)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(velocity["batch_stats"]))
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(velocity["params"]["Dense_1"]))
    moved = {"params": jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])}
    linear = jax.jit(ntk.linearize(apply_fn, variables))(moved, x)  # with the statistics of the expansion
    expected = apply_fn(variables, x) + features @ jnp.full(p, 0.1)
    np.testing.assert_allclose(linear, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.statement("ntk.tangent_features")
def test_inputs_may_be_a_pytree(x64):
    def model(params, x):
        return x["a"] @ params + x["b"]

    inputs = {"a": X, "b": Y}
    params = RNG.normal(size=(3, 2))
    features = ntk.jacobian(model, params, inputs)
    expected = X[:, None, :, None] * np.eye(2)[None, :, None, :]
    np.testing.assert_allclose(features.reshape(4, 2, 3, 2), expected, atol=1e-13)


BAD_NETWORKS = {
    "integer leaf": (network, {**PARAMS, "b": np.arange(5)}, "`params` must hold real floating-point"),
    "complex leaf": (network, {**PARAMS, "b": np.ones(5) * 1j}, "`params` must hold real floating-point"),
    "no parameters": (lambda p, x: x, {}, "`params` must hold at least one array"),
    "no axis of outputs": (lambda p, x: network(p, x)[:, 0], PARAMS, "`apply_fn` must return shape"),
    "outputs of the whole batch": (lambda p, x: network(p, x).sum(0, keepdims=True), PARAMS, "`apply_fn` must return"),
    "no array": (lambda p, x: (network(p, x), x), PARAMS, "`apply_fn` must return"),
}


@pytest.mark.statement("ntk.tangent_features", "ntk.gram", "ntk.parameter_gradient_flow")
@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_bad_networks_are_refused(name):
    apply_fn, params, message = BAD_NETWORKS[name]
    for function in (ntk.jacobian, ntk.gram, lambda f, p, x: ntk.parameter_velocity(f, p, x, Y)):
        with pytest.raises(ValueError, match=message):
            function(apply_fn, params, X)


@pytest.mark.statement("ntk.tangent_features")
def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="`x`"):
        ntk.jacobian(network, PARAMS, np.zeros((0, 3)))


@pytest.mark.statement("ntk.linearization")
def test_parameters_unlike_those_of_the_expansion_are_refused():
    linear = ntk.linearize(network, PARAMS)
    with pytest.raises(ValueError, match="`params` must have the structure of `params0`"):
        linear({"w": PARAMS["w"]}, X)
    with pytest.raises(ValueError, match="`params` must have the shapes of `params0`"):
        linear({**PARAMS, "b": np.ones(4)}, X)
