"""Schedules against formulas in double precision, also where single precision has few digits left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dltheory import diffusion

MAKERS = {
    "linear": diffusion.linear_schedule,
    "cosine": diffusion.cosine_schedule,
    "sigmoid": diffusion.sigmoid_schedule,
}
BETAS = np.random.default_rng(0).uniform(0.01, 0.4, 12)


def naive(betas):
    """Betas and alpha-bars in extended precision."""
    betas = np.concatenate([[0], np.asarray(betas, np.longdouble)])
    return betas, np.cumprod(1 - betas)


def cosine_bars(num_steps):
    t = np.arange(num_steps + 1, dtype=np.longdouble) / num_steps
    f = np.cos((t + np.longdouble(0.008)) / np.longdouble(1.008) * np.arccos(np.longdouble(0))) ** 2
    return f / f[0]


def sigmoid_bars(num_steps):
    v = -3 + 6 * np.arange(num_steps + 1) / num_steps
    return (special.expit(3) - special.expit(v)) / (special.expit(3) - special.expit(-3))


@pytest.mark.statement("diffusion.forward_marginal", "diffusion.ddpm_posterior_variance")
def test_products_equal_naive_products(x64):
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    betas, bars = (np.asarray(a, float) for a in naive(BETAS))
    np.testing.assert_allclose(schedule.alpha_bars, bars, rtol=1e-14)
    np.testing.assert_allclose(schedule.one_minus_alpha_bars, 1 - bars, rtol=1e-13)
    np.testing.assert_allclose(
        schedule.posterior_variances[1:], betas[1:] * (1 - bars[:-1]) / (1 - bars[1:]), rtol=1e-13
    )
    assert schedule.posterior_variances[0] == schedule.posterior_variances[1] == 0


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.statement("diffusion.scheduler")
def test_single_precision_keeps_the_digits_of_small_noise(name):
    """Of 1 - alpha-bar as of alpha-bar, over six orders of magnitude; subtraction would lose four digits."""
    low = MAKERS[name](1000)
    with jax.enable_x64():
        high = MAKERS[name](1000)
    assert low.alpha_bars.dtype == jnp.float32
    assert high.alpha_bars.dtype == jnp.float64
    for field in ("betas", "alpha_bars", "one_minus_alpha_bars", "posterior_variances"):
        np.testing.assert_allclose(getattr(low, field), getattr(high, field), rtol=2e-5, err_msg=field)
    subtracted = 1 - low.alpha_bars[1]
    exact = high.one_minus_alpha_bars[1]
    assert abs(float(subtracted) / float(exact) - 1) > 20 * abs(float(low.one_minus_alpha_bars[1]) / float(exact) - 1)


@pytest.mark.statement("diffusion.scheduler")
def test_linear_schedule_is_that_of_the_paper(x64):
    schedule = diffusion.linear_schedule(1000)
    np.testing.assert_allclose(schedule.betas[1:], np.linspace(1e-4, 0.02, 1000), rtol=1e-12)
    ends = [float(diffusion.linear_schedule(n).alpha_bars[-1]) for n in (100, 1000, 4000)]
    assert max(ends) < 1e-4
    assert ends == pytest.approx([np.exp(-10.05)] * 3, rel=2)


@pytest.mark.parametrize(("name", "bars"), [("cosine", cosine_bars), ("sigmoid", sigmoid_bars)])
@pytest.mark.parametrize("num_steps", [1, 10, 1000])
@pytest.mark.statement("diffusion.scheduler")
def test_schedules_by_their_alpha_bars(x64, name, bars, num_steps):
    schedule, exact = MAKERS[name](num_steps), bars(num_steps).astype(float)
    np.testing.assert_allclose(schedule.alpha_bars[:-1], exact[:-1], rtol=1e-9)
    assert float(schedule.betas[-1]) == 0.999  # which would have been 1


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("num_steps", [25, 1000])
@pytest.mark.parametrize("precision", [False, True])
@pytest.mark.statement("diffusion.scheduler")
def test_schedules_pass_their_check(name, num_steps, precision):
    with jax.enable_x64(precision):
        assert diffusion.check_schedule(MAKERS[name](num_steps))


@pytest.mark.statement("diffusion.scheduler")
def test_check_finds_what_is_wrong(x64):
    good = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    assert diffusion.check_schedule(good)
    constant = jnp.ones(5)
    broken = {
        "betas of another": good._replace(betas=1.01 * good.betas),
        "alphas of another": good._replace(alphas=1.01 * good.alphas),
        "noise of another": good._replace(one_minus_alpha_bars=1.01 * good.one_minus_alpha_bars),
        "variances of another": good._replace(posterior_variances=1.01 * good.posterior_variances),
        "without a start": diffusion.Schedule(*(leaf[1:] for leaf in good)),
        "rising": diffusion.schedule_from_log_snr(jnp.array([1.0, -1.0, 0.0])),
        "standing": diffusion.schedule_from_log_snr(jnp.array([1.0, -1.0, -1.0])),
        "not a number": diffusion.schedule_from_betas(jnp.array([0.1, -0.1, 0.1])),
        "without noise": diffusion.Schedule(0 * constant, constant, constant, 0 * constant, 0 * constant),
    }
    check = jax.jit(diffusion.check_schedule)
    found = {name: not check(schedule) for name, schedule in broken.items()}
    assert all(found.values()), found


@pytest.mark.statement("diffusion.scheduler")
def test_log_snr_is_the_inverse_of_signal_to_noise(x64):
    schedule = diffusion.schedule_from_betas(jnp.asarray(BETAS))
    again = diffusion.schedule_from_log_snr(jnp.log(diffusion.signal_to_noise(schedule)[1:]))
    for a, b in zip(schedule, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11)


def test_log_snr_is_precise_at_both_ends():
    log_snr = np.linspace(30, -30, 7)
    schedule = diffusion.schedule_from_log_snr(jnp.asarray(log_snr, jnp.float32))
    np.testing.assert_allclose(schedule.alpha_bars[1:], special.expit(log_snr), rtol=1e-5)
    np.testing.assert_allclose(schedule.one_minus_alpha_bars[1:], special.expit(-log_snr), rtol=1e-5)


def test_respaced_schedule_has_the_same_laws_at_its_times(x64):
    schedule, times = diffusion.cosine_schedule(50), jnp.array([1, 7, 20, 49, 50])
    chosen = jax.jit(diffusion.respaced)(schedule, times)
    np.testing.assert_allclose(chosen.alpha_bars[1:], schedule.alpha_bars[times], rtol=1e-12)
    assert diffusion.check_schedule(chosen)
    for a, b in zip(jax.jit(diffusion.respaced)(schedule, jnp.arange(1, 51)), schedule, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-16)


def test_all_data_may_go_in_the_last_step():
    schedule = diffusion.schedule_from_betas(jnp.array([0.5, 1.0]))
    assert diffusion.check_schedule(schedule)
    np.testing.assert_allclose(schedule.alpha_bars, [1, 0.5, 0])
    np.testing.assert_allclose(schedule.posterior_variances, [0, 0, 0.5])


@pytest.mark.parametrize("bad", [0, -3, 2.5])
def test_number_of_steps_must_be_positive(bad):
    for make in MAKERS.values():
        with pytest.raises(ValueError, match="`num_steps`"):
            make(bad)


def test_too_few_steps_for_the_noise_are_refused():
    with pytest.raises(ValueError, match="`beta_max`"):
        diffusion.linear_schedule(10)
    assert diffusion.check_schedule(diffusion.linear_schedule(10, beta_max=9.0))


@pytest.mark.statement("diffusion.scheduler")
def test_sigmoids_may_be_steep():
    for temperature in (0.002, 0.1):
        schedule = diffusion.sigmoid_schedule(8, temperature=temperature)
        assert np.all(np.isfinite(schedule.betas))
        np.testing.assert_allclose(schedule.alpha_bars[jnp.array([0, 2, 4, 6])], [1, 1, 0.5, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        (diffusion.sigmoid_schedule, "temperature", 0.0),
        (diffusion.sigmoid_schedule, "start", 4.0),
        (diffusion.sigmoid_schedule, "max_beta", 1.5),
        (diffusion.cosine_schedule, "offset", -0.5),
        (diffusion.cosine_schedule, "max_beta", 0.0),
    ],
)
def test_settings_out_of_range_are_refused(make, name, bad):
    with pytest.raises(ValueError, match=f"`{name}`"):
        make(8, **{name: bad})


def test_number_of_steps_may_be_that_of_numpy():
    assert len(diffusion.cosine_schedule(np.int64(3)).betas) == 4  # pyright: ignore[reportArgumentType]


def test_what_is_no_schedule_is_not_hidden(x64):
    """By the branches that keep the formulas finite where no noise has been added."""
    schedule = diffusion.schedule_from_betas(jnp.array([0.1, -0.2, 0.3]))
    x = jnp.ones(2)
    assert np.all(np.isnan(diffusion.posterior(x, x, 3, schedule).mean))
    assert np.all(np.isnan(diffusion.forward_sample(jax.random.key(0), x, 2, schedule)[0]))
    assert np.all(np.isnan(diffusion.signal_to_noise(schedule)[2:]))
    assert np.isnan(diffusion.vlb_weights(schedule)[3])
    assert np.isnan(diffusion.prior_kl(x, 3, schedule))
