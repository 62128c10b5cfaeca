"""The sheet itself: every claim gets the verdict it should, its control fails, and a wrong theory turns it red.

`python -m experiments run` checks all claims, `run --seed 1` does with other random numbers; plain `pytest` takes a
sample of every chapter, and the slow tests another sample with another seed.
"""

import dataclasses

import jax
import pytest

from experiments.claim import all_claims
from experiments.curves import as_curves
from experiments.evaluate import evaluate

CLAIMS = all_claims()
QUICK = [name for name, claim in CLAIMS.items() if claim.tier == "quick"]


@pytest.mark.parametrize("name", QUICK[::12])
def test_verdict_is_the_expected_one_and_the_control_is_rejected(name):
    record = evaluate(CLAIMS[name])
    assert record.as_expected, f"{record.verdict}: {record.reason}\n{record.traceback or ''}"
    assert record.control is not None
    assert record.control["verdict"] == "refuted"


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK[3::4])
def test_verdict_does_not_depend_on_the_seed(name):
    record = evaluate(CLAIMS[name], seed=1)
    assert record.as_expected, f"{record.verdict}: {record.reason}\n{record.traceback or ''}"


def _constant_instead(claim):
    """The claim with a theory that predicts one absurd constant, in the form of its own prediction."""

    def predict(problem):
        with jax.enable_x64():
            curves = as_curves(claim.predict(problem))
        return {name: curve._replace(y=-12345.0 + 0 * curve.y) for name, curve in curves.items()}

    return dataclasses.replace(claim, predict=predict)


@pytest.mark.parametrize("name", [name for name in QUICK if not CLAIMS[name].printed][::17])
def test_a_wrong_constant_turns_a_claim_red(name):
    assert not evaluate(_constant_instead(CLAIMS[name])).as_expected
