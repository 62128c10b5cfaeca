"""A trained network against the best one, which is known for mixtures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dltheory import diffusion, networks, training


@pytest.mark.slow
@pytest.mark.statement("diffusion.digits_generated")
def test_training_leads_to_the_best_prediction():
    """The noise that it predicts is that of the best one for the label it is told, and not of the other's."""
    halves = [
        diffusion.GaussianMixture(jnp.zeros(1), jnp.array([[center, 0.5]]), jnp.full((1, 2), 0.04))
        for center in (-1.0, 1.0)
    ]
    schedule, network = diffusion.cosine_schedule(10), networks.TimeMLP((32, 32), time_features=16, num_classes=2)
    keys = jax.random.split(jax.random.key(0), 6)
    labels = jnp.arange(2000) % 2
    drawn = [diffusion.mixture_sample(key, half, (2000,)) for key, half in zip(keys, halves, strict=False)]
    x = jnp.where(labels[:, None] == 0, *drawn)
    apply_fn: Any = network.apply

    def predict_fn(variables, label):
        return lambda xt, t: diffusion.prediction_from_velocity(apply_fn(variables, xt, t, label), xt, t, schedule)

    def loss_fn(variables, batch, key):
        def loss(key, x0, label):
            return diffusion.simple_loss(key, predict_fn(variables, label), x0, schedule)

        return jnp.mean(jax.vmap(loss)(jax.random.split(key, len(batch[0])), *batch))

    @jax.jit
    def errors(key_init, key_batches, key_loss):
        optimizer = training.with_ema(optax.adam(optax.cosine_decay_schedule(1e-2, 600)))
        variables = network.init(key_init, x, 1)
        settings = {"key": key_batches, "batch_size": 100, "loss_key": key_loss}
        fit = training.fit(loss_fn, variables, optimizer, (x, labels), 600, **settings)
        variables = training.ema_params(fit.state, fit.params)

        def error(x0, label, t, best):
            xt, _ = diffusion.forward_sample(key_loss, x0, t, schedule)
            exact = diffusion.mixture_prediction(best, xt, t, schedule).noise
            return jnp.mean((predict_fn(variables, label)(xt, t).noise - exact) ** 2)

        def mean(label, best):
            each = jax.vmap(lambda x0, t: error(x0, label, t, best))
            return jnp.mean(each(drawn[label][:500], 1 + jnp.arange(500) % 10))

        return jnp.stack([mean(0, halves[0]), mean(1, halves[1]), mean(0, halves[1])])

    right, other, wrong = np.asarray(errors(*keys[2:5]))
    assert max(right, other) < 0.03
    assert wrong > 0.2
