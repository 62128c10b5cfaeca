"""One claim at a time: controls, assumptions, printed misprints, and everything that can go wrong inside a claim."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.claim import Assumption, Budget, Claim, Draw, Variant
from experiments.curves import Curve, estimate
from experiments.evaluate import error_record, evaluate
from experiments.judges import Equal, Mean

DOUBLE = Variant("doubled", predict=lambda _: 4.0)
CLAIM = Claim("a.b", says="Two is two.", measure=lambda _: 2.0, predict=lambda _: 2.0, judge=Equal(), control=DOUBLE)


def variant_of(**changes):
    return dataclasses.replace(CLAIM, **changes)


def test_confirmed_with_its_numbers():
    record = evaluate(CLAIM)
    assert (record.verdict, record.expected, record.as_expected) == ("confirmed", "confirmed", True)
    assert (record.measured, record.predicted, record.margin) == (2.0, 2.0, 1.0)
    assert record.control is not None
    assert record.control["verdict"] == "refuted"
    assert record.criterion == {"judge": "Equal", "rtol": 1e-10, "atol": 0.0}
    assert record.wall_seconds > 0


def test_refuted():
    record = evaluate(variant_of(predict=lambda _: 3.0))
    assert (record.verdict, record.as_expected) == ("refuted", False)


def test_a_claim_that_its_control_passes_has_no_power():
    record = evaluate(variant_of(control=Variant("the same again", predict=lambda _: 2.0)))
    assert record.verdict == "inconclusive"
    assert "no power" in record.reason


def test_a_control_that_is_only_inconclusive_is_not_rejected():
    record = evaluate(variant_of(control=Variant("hardly different", predict=lambda _: 2.0 + 1e-8)))
    assert record.verdict == "inconclusive"


@pytest.mark.parametrize("field", ["setup", "measure"])
def test_control_may_replace_any_function(field):
    replacement = {"setup": lambda key, budget: 5.0, "measure": lambda _: 5.0}[field]
    claim = variant_of(
        setup=lambda key, budget: 2.0, measure=lambda problem: problem, control=Variant("five", **{field: replacement})
    )
    record = evaluate(claim)
    assert record.verdict == "confirmed"
    assert "control measured" in record.curves


def test_a_failed_assumption_is_inconclusive_whatever_was_measured():
    assumptions = Assumption("holds", lambda _: True), Assumption("two is three", lambda _: False)
    record = evaluate(variant_of(assumptions=assumptions))
    assert record.verdict == "inconclusive"
    assert record.reason == "assumption fails: two is three"
    assert record.assumptions == [{"what": "holds", "holds": True}, {"what": "two is three", "holds": False}]
    assert not record.curves


def printed(**changes):
    claim = Claim(
        "a.b@printed",
        says="Two is three.",
        measure=lambda _: 2.0,
        predict=lambda _: 3.0,
        judge=Equal(),
        control=DOUBLE,
        corrected=Variant("two", predict=lambda _: 2.0),
    )
    return dataclasses.replace(claim, **changes)


def test_printed_misprint_is_refuted_as_expected():
    record = evaluate(printed())
    assert (record.verdict, record.expected, record.as_expected) == ("refuted", "refuted", True)
    assert record.corrected is not None
    assert record.corrected["verdict"] == "confirmed"


def test_a_refutation_without_a_confirmed_correction_has_no_power():
    record = evaluate(printed(corrected=Variant("five", predict=lambda _: 5.0)))
    assert record.verdict == "inconclusive"
    assert "corrected (five) is refuted" in record.reason


def test_printed_text_that_turns_out_true_is_not_as_expected():
    assert not evaluate(printed(predict=lambda _: 2.0)).as_expected


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: np.nan, "NaN in `y`"),
        (lambda _: {"a": 1.0, "b": np.nan}, "NaN in `y` of curve 'b'"),
        (lambda _: Curve(1.0, standard_error=np.nan), "NaN in `standard_error`"),
        (lambda _: jnp.log(-jnp.ones(3)), "NaN"),
        (lambda _: "two", "ValueError"),
        (lambda _: None, ""),
        (lambda _: [1.0, 2.0, 3.0], "measure has shape"),
    ],
)
def test_whatever_goes_wrong_inside_is_an_error_verdict(measure, message):
    record = evaluate(variant_of(measure=measure, predict=lambda _: [1.0, 2.0]))
    assert record.verdict == "error"
    assert message in record.reason
    assert record.traceback
    assert not record.as_expected


def test_an_error_in_the_control_is_an_error():
    assert evaluate(variant_of(control=Variant("broken", predict=lambda _: 1 / 0))).verdict == "error"


def test_keyboard_interrupt_is_not_swallowed():
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(variant_of(measure=interrupt))


def test_output_is_kept_and_not_printed(capsys):
    def talk(_):
        print("measuring")
        return 2.0

    record = evaluate(variant_of(measure=talk))
    assert record.output == "measuring\n"
    assert capsys.readouterr().out == ""


def test_double_precision_and_compile_time():
    seen = {}

    def measure(draw):
        x = jax.jit(lambda x: jnp.sin(x) + 1.125)(jnp.zeros(3))
        seen["dtype"] = x.dtype
        return 2.0

    record = evaluate(variant_of(measure=measure))
    assert seen["dtype"] == np.float64
    assert 0 < record.compile_seconds <= record.wall_seconds
    assert jnp.zeros(1).dtype == np.float32


def test_budget_and_key():
    claim = variant_of(measure=lambda draw: draw.budget, predict=lambda _: 7, budget=Budget(7, 70), control=DOUBLE)
    assert evaluate(claim).verdict == "confirmed"
    assert evaluate(claim, tier="full").measured == 70

    def samples(draw):
        assert isinstance(draw, Draw)
        return estimate(jax.random.normal(draw.key, (draw.budget,)))

    noise = variant_of(measure=samples, predict=lambda _: 0.0, judge=Mean(floor=1.0), budget=Budget(1000, 1000))
    first, again, other = evaluate(noise, seed=1), evaluate(noise, seed=1), evaluate(noise, seed=2)
    assert first.measured == again.measured != other.measured


def test_keys_of_claims_differ():
    keys = {tuple(jax.random.key_data(variant_of(part=part).key(0)).tolist()) for part in ("", "x", "y")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "a.b@wrong"}, "only suffix"),
        ({"id": "a.b@printed"}, "needs a corrected"),
        ({"corrected": DOUBLE}, "nothing else"),
        ({"control": Variant("nothing")}, "replaces nothing"),
        ({"tier": "huge"}, "tier"),
    ],
)
def test_malformed_claims_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        variant_of(**changes)


def test_error_record():
    record = error_record(CLAIM, "ran out of time", seed=3, tier="full", wall_seconds=9.0)
    assert (record.verdict, record.reason, record.seed, record.tier) == ("error", "ran out of time", 3, "full")
