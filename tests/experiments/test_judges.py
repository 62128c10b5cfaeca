"""Every judge gives each of its three answers, and gives it at the right place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.curves import Curve, as_curves, estimate, frequency
from experiments.judges import (
    ERROR_PER_CLAIM,
    AtLeast,
    AtMost,
    Equal,
    Mean,
    MeanAtMost,
    Ordering,
    ProbabilityAtMost,
    Slope,
    Verdict,
    criterion,
    fit_slope,
)

CONFIRMED, REFUTED, INCONCLUSIVE = Verdict.CONFIRMED, Verdict.REFUTED, Verdict.INCONCLUSIVE
X = 2.0 ** np.arange(1, 8)


def judge(rule, measured, predicted):
    return rule(as_curves(measured), as_curves(predicted))


def noisy_line(slope, noise, seed=0):
    return Curve(X**slope * np.exp(noise * np.random.default_rng(seed).normal(size=X.size)), X)


def mean(value, error):
    return Curve(value, standard_error=error)


def rate(events, trials):
    return Curve(events / trials, trials=trials)


Z = stats.norm.isf(ERROR_PER_CLAIM / 2)

TABLE = [
    (Equal(), 1.0 + 1e-11, 1.0, CONFIRMED),
    (Equal(), 1.0 + 1e-8, 1.0, INCONCLUSIVE),
    (Equal(), 1.1, 1.0, REFUTED),
    (Equal(), 0.0, 0.0, CONFIRMED),
    (Equal(), 1e-300, 0.0, REFUTED),
    (Equal(atol=1e-12), 1e-13, 0.0, CONFIRMED),
    (Equal(), np.inf, np.inf, CONFIRMED),
    (Equal(), np.inf, -np.inf, REFUTED),
    (Equal(), np.inf, 1.0, REFUTED),
    (Equal(), 1.0, np.inf, REFUTED),
    (Equal(), {"a": [1.0, 2.0], "b": [3.0]}, {"a": [1.0, 2.0], "b": [4.0]}, REFUTED),
    (AtMost(), [0.5, 1.0], [1.0, 1.0], CONFIRMED),
    (AtMost(), 1 + 1e-10, 1.0, CONFIRMED),
    (AtMost(), 1 + 1e-8, 1.0, INCONCLUSIVE),
    (AtMost(), 1.1, 1.0, REFUTED),
    (AtMost(), 1e-30, 0.0, REFUTED),
    (AtMost(), 5.0, np.inf, CONFIRMED),
    (AtMost(), np.inf, np.inf, CONFIRMED),
    (AtMost(), np.inf, 5.0, REFUTED),
    (AtMost(), -5.0, -6.0, REFUTED),
    (AtMost(), -6.0, -5.0, CONFIRMED),
    (AtLeast(), 2.0, 1.0, CONFIRMED),
    (AtLeast(), 1 - 1e-8, 1.0, INCONCLUSIVE),
    (AtLeast(), 0.5, 1.0, REFUTED),
    (Slope(), noisy_line(2, 0), 2.0, CONFIRMED),
    (Slope(), noisy_line(2, 0), 2.2, REFUTED),
    (Slope(), noisy_line(2, 0), 2.0999, CONFIRMED),
    (Slope(), noisy_line(2, 1.0), 2.0, INCONCLUSIVE),
    (Slope(), Curve(X**2, X, standard_error=X**2), 2.0, INCONCLUSIVE),
    (Slope(side="at most"), noisy_line(1, 0), 2.0, CONFIRMED),
    (Slope(side="at most"), noisy_line(3, 0), 2.0, REFUTED),
    (Slope(side="at most"), noisy_line(2.1, 2.0), 2.0, INCONCLUSIVE),
    (Slope(side="at least"), noisy_line(3, 0), 2.0, CONFIRMED),
    (Slope(side="at least"), noisy_line(1, 0), 2.0, REFUTED),
    (Slope(log="y"), Curve(np.exp(-0.5 * X), X), -0.5, CONFIRMED),
    (Slope(log=""), Curve(3 * X + 1, X), 3.0, CONFIRMED),
    (Mean(), mean(1.0, 0.01), 1.0 + 0.99 * Z * 0.01, CONFIRMED),
    (Mean(), mean(1.0, 0.01), 1.0 + 1.01 * Z * 0.01, REFUTED),
    (Mean(), mean(1.0, 0.1), 1.0, INCONCLUSIVE),
    (Mean(), mean(1.0, 0.1), 3.0, REFUTED),
    (Mean(), mean(0.0, 0.01), 0.0, INCONCLUSIVE),
    (Mean(floor=0.1), mean(0.0, 0.01), 0.0, CONFIRMED),
    (Mean(), mean(1.0, 0.0), 1.0, CONFIRMED),
    (Mean(), mean(1.0, 0.0), 1.1, REFUTED),
    (MeanAtMost(), mean(1.0, 0.01), 1.1, CONFIRMED),
    (MeanAtMost(), mean(1.0, 0.1), 1.1, INCONCLUSIVE),
    (MeanAtMost(), mean(1.0, 0.01), 0.9, REFUTED),
    (MeanAtMost(), mean([1.0, 0.1], [0.01, 0.01]), [1.1, 0.01], REFUTED),
    (ProbabilityAtMost(), rate(10, 10_000), 0.01, CONFIRMED),
    (ProbabilityAtMost(), rate(95, 10_000), 0.01, INCONCLUSIVE),
    (ProbabilityAtMost(), rate(300, 10_000), 0.01, REFUTED),
    (ProbabilityAtMost(), rate(0, 10), 0.01, INCONCLUSIVE),
    (ProbabilityAtMost(), rate(10, 10), 1.0, CONFIRMED),
    (ProbabilityAtMost(), rate(10, 10), 0.1, REFUTED),
    (Ordering(), [1.0, 2.0, 3.0], [10, 20, 30], CONFIRMED),
    (Ordering(), [1.0, 3.0, 2.0], [10, 20, 30], REFUTED),
    (Ordering(), [1.0, 2.0, 2.0], [10, 20, 30], INCONCLUSIVE),
    (Ordering(), [1.0, 3.0, 2.0], [10, 20, 20], CONFIRMED),
    (Ordering(margin=0.4), [1.0, 2.0, 4.0], [1, 2, 3], INCONCLUSIVE),
]


@pytest.mark.parametrize(("rule", "measured", "predicted", "verdict"), TABLE)
def test_verdict(rule, measured, predicted, verdict):
    judgement = judge(rule, measured, predicted)
    assert judgement.verdict is verdict, judgement.reason
    if np.isfinite(judgement.margin) and verdict is not INCONCLUSIVE:
        assert (judgement.margin >= -1e-8) == (verdict is CONFIRMED), judgement


@pytest.mark.parametrize("rule", dict.fromkeys(type(row[0]) for row in TABLE), ids=lambda rule: rule.__name__)
def test_every_judge_has_all_three_answers(rule):
    assert {row[3] for row in TABLE if type(row[0]) is rule} == {CONFIRMED, REFUTED, INCONCLUSIVE}


def test_bound_reports_tightness_and_the_worst_place():
    judgement = judge(AtMost(), {"a": [0.1, 0.9], "b": [0.4]}, {"a": [1.0, 1.0], "b": [1.0]})
    assert judgement.tightness == pytest.approx(0.9)
    assert (judgement.measured, judgement.predicted) == (0.9, 1.0)
    assert judge(AtLeast(), 4.0, 1.0).tightness == pytest.approx(0.25)
    assert judge(AtMost(), 1.0, np.inf).tightness is None


def test_bound_counts_its_violations():
    assert "2 of 3 break the bound" in judge(AtMost(), [2.0, 3.0, 0.5], 1.0).reason


def test_worst_curve_decides_a_slope():
    measured = {"good": noisy_line(2, 0), "bad": noisy_line(1, 0)}
    judgement = judge(Slope(), measured, 2.0)
    assert judgement.verdict is REFUTED
    assert judgement.measured == pytest.approx(1.0)


def test_slope_and_its_standard_error_are_those_of_polyfit():
    curve = noisy_line(1.3, 0.2, seed=3)
    (slope, intercept), covariance = np.polyfit(np.log(X), np.log(curve.y), 1, cov=True)
    np.testing.assert_allclose(fit_slope(curve), (slope, intercept, np.sqrt(covariance[0, 0])))


def test_intervals_hold_jointly():
    """With more cells each may deviate further, so that together they err no more often than one."""
    cells = 100
    joint = stats.norm.isf(ERROR_PER_CLAIM / (2 * cells))
    values = np.zeros(cells)
    values[3] = 0.99 * joint
    assert judge(Mean(floor=np.inf), mean(values, np.ones(cells)), 0.0).verdict is CONFIRMED
    values[3] = 1.01 * joint
    assert judge(Mean(floor=np.inf), mean(values, np.ones(cells)), 0.0).verdict is REFUTED


def test_clopper_pearson_limits_are_those_of_scipy():
    low, high = stats.binomtest(7, 50).proportion_ci(1 - ERROR_PER_CLAIM, method="exact")
    assert judge(ProbabilityAtMost(), rate(7, 50), high + 1e-9).verdict is CONFIRMED
    assert judge(ProbabilityAtMost(), rate(7, 50), high - 1e-9).verdict is INCONCLUSIVE
    assert judge(ProbabilityAtMost(), rate(7, 50), low - 1e-9).verdict is REFUTED


def test_error_rate_of_the_mean_judge():
    """A true mean leaves an interval at error rate alpha with frequency alpha: checked at a coarse alpha by scaling."""
    rng = np.random.default_rng(0)
    z = stats.norm.isf(ERROR_PER_CLAIM / 2) / stats.norm.isf(0.05 / 2)  # shrink the errors so that alpha is 5 %
    verdicts = []
    for _ in range(2000):
        curve = estimate(rng.normal(size=400))
        verdicts.append(judge(Mean(floor=np.inf), curve._replace(standard_error=curve.standard_error / z), 0.0).verdict)
    share = np.mean([verdict is REFUTED for verdict in verdicts])
    assert abs(share - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize(
    ("rule", "measured", "predicted", "message"),
    [
        (Equal(), {"a": 1.0}, {"b": 1.0}, "measure names the curves"),
        (Equal(), np.ones(3), np.ones(4), "measure has shape"),
        (Equal(), [], [], "no numbers"),
        (Slope(), Curve(X), 1.0, "abscissa"),
        (Slope(), Curve(X[:4], X[:4]), 1.0, "five points"),
        (Slope(), Curve(X - 2, X), 1.0, "positive"),
        (Slope(), Curve(X, X), [1.0, 2.0], "one slope"),
        (Mean(), 1.0, 1.0, "no standard_error"),
        (ProbabilityAtMost(), 1.0, 1.0, "no trials"),
        (Ordering(), [1.0, 2.0], [3.0, 3.0], "order at least two"),
    ],
)
def test_malformed_numbers_are_refused(rule, measured, predicted, message):
    with pytest.raises(ValueError, match=message):
        judge(rule, measured, predicted)


def test_criterion_is_plain_data():
    assert criterion(Slope(tolerance=0.05)) == {"judge": "Slope", "tolerance": 0.05, "log": "xy", "side": "equal"}


def test_curves_come_in_one_form():
    curves = as_curves({"a": 1, "b": Curve([1, 2], x=[3, 4])})
    assert curves["a"].y.dtype == np.float64
    assert curves["a"].y.shape == ()
    np.testing.assert_array_equal(curves["b"].x, [3.0, 4.0])
    with pytest.raises(ValueError, match="`x` must fit `y`"):
        as_curves(Curve([1, 2], x=[1, 2, 3]))


def test_estimate_and_frequency():
    samples = np.random.default_rng(1).normal(size=(50, 3))
    curve = estimate(samples)
    np.testing.assert_allclose(curve.y, samples.mean(0))
    np.testing.assert_allclose(curve.standard_error, stats.sem(samples))
    counted = frequency(samples > 0)
    np.testing.assert_array_equal(counted.trials, [50, 50, 50])
    np.testing.assert_allclose(counted.y, (samples > 0).mean(0))
    with pytest.raises(ValueError, match="at least two trials"):
        estimate(np.ones((1, 2)))


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_number_is_at_most_or_at_least_another(m, p):
    """One of the two bounds always holds, and both only up to rounding."""
    low, high = judge(AtMost(), m, p).verdict, judge(AtLeast(), m, p).verdict
    assert CONFIRMED in (low, high)
    if low is high is CONFIRMED:
        assert abs(m - p) <= 1e-9 * max(abs(m), abs(p))
