"""A sheet of its own, with a claim for every judge, verdict and oddity, for the tests of pictures and report."""

from __future__ import annotations

import functools

import numpy as np

from experiments.claim import Assumption, Axes, Budget, Claim, Variant
from experiments.curves import Curve, estimate, frequency
from experiments.evaluate import Record, error_record, evaluate
from experiments.judges import AtLeast, AtMost, Equal, Mean, MeanAtMost, Ordering, ProbabilityAtMost, Slope
from experiments.statements import Chapter, Statement

__all__ = ["CLAIMS", "HOSTILE", "SHEET", "records"]

HOSTILE = "<script>alert('x')</script> & \"quotes\" $\\unknown{$ 100 % \x07 § 漢字"
_X = np.linspace(0.1, 3.0, 30)
_WIDTHS = 2.0 ** np.arange(3, 12)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def _raise(_):
    print("on the way to trouble")
    raise RuntimeError(HOSTILE)


def _half(curves):
    return {name: 0.5 * np.asarray(values) for name, values in curves.items()}


_NO_LABELS = Axes()


def _claim(part, judge, measure, predict, control, *, axes=_NO_LABELS, kind="fake.judges", **more):
    return Claim(
        kind,
        part=part,
        says=f"What is measured agrees with what is predicted: {part}.",
        measure=lambda _: measure,
        predict=lambda _: predict,
        judge=judge,
        control=control if isinstance(control, Variant) else Variant("half of it", predict=lambda _: control),
        axes=axes,
        **more,
    )


_TIME = Axes("time $t$", "distance $|x_t - x^*|$")
_BOUNDS = {f"n={n}": np.exp(-2 * n * _X**2 / 9) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)}

CLAIMS = {
    claim.name: claim
    for claim in (
        _claim("one number", Equal(1e-10), 0.6931471805599453, np.log(2), 0.5 * np.log(2)),
        _claim(
            "three numbers",
            Equal(1e-6),
            {"determinant of a rather long name": 2.0, "trace": -3.0, "rank": 4.0 + 1e-7},
            {"determinant of a rather long name": 2.0, "trace": -3.0, "rank": 4.0},
            {"determinant of a rather long name": 1.0, "trace": -1.5, "rank": 2.0},
        ),
        _claim(
            "curve",
            Equal(1e-10),
            Curve(np.sin(_X) * (1 + 1e-12 * _noise(30)), _X),
            np.sin(_X),
            0.8 * np.sin(_X),
            axes=_TIME,
        ),
        _claim(
            "dense curve",
            Equal(1e-8),
            Curve(np.cos(np.linspace(0, 60, 100_000)), np.linspace(0, 60, 100_000)),
            np.cos(np.linspace(0, 60, 100_000)),
            Variant("out of phase", predict=lambda _: np.cos(np.linspace(1, 61, 100_000))),
            axes=_TIME,
        ),
        _claim(
            "scattered",
            Equal(1e-9),
            np.exp(_noise(400)) * (1 + 1e-11 * _noise(400)),
            np.exp(_noise(400)),
            np.exp(_noise(400)) ** 2,
        ),
        _claim("gaps", Equal(0.0, 1e-9), 1e-12 * _noise(50, 4), 0.0, 1.0),
        _claim("infinities", Equal(1e-9), Curve(np.where(_X > 2, np.inf, _X), _X), np.where(_X > 2, np.inf, _X), _X),
        _claim("matrix", Equal(1e-9), np.eye(5), np.eye(5), 2 * np.eye(5)),
        _claim(
            "tails",
            AtMost(),
            {name: Curve(b**1.2 * (b > 1e-9), _X) for name, b in _BOUNDS.items()},
            _BOUNDS,
            {name: b**2 for name, b in _BOUNDS.items()},
            axes=Axes("deviation t", "tail probability", log="y"),
        ),
        _claim("bound", AtMost(), Curve(1 / (1 + _X), _X), 1 / _X, 0.5 / _X, axes=Axes("step", "error", log="xy")),
        _claim("bounded number", AtMost(), 0.8, 1.0, 0.4),
        _claim(
            "bounded numbers",
            AtMost(),
            {"identity": 1.0, "tanh": 0.76, "ReLU": 0.999},
            1.0,
            0.5,
            axes=Axes("", "Lipschitz constant"),
        ),
        _claim(
            "inequality",
            AtMost(),
            np.abs(_noise(5000)),
            np.abs(_noise(5000)) * 1.001 + _noise(2, 5000)[1] ** 2,
            0.3 * np.abs(_noise(5000)),
        ),
        _claim(
            "gap",
            AtLeast(),
            np.abs(_noise(3000)) + 1e-4,
            0.0,
            1.0,
            axes=Axes("", "$\\mathbb{E} f(X) - f(\\mathbb{E} X)$"),
        ),
        _claim("floor", AtLeast(), Curve(_X**2 + 0.01, _X), _X**2, 2 * _X**2 + 1, axes=Axes("x", "energy")),
        _claim(
            "rate",
            Slope(0.1),
            Curve(3 / _WIDTHS * (1 + 0.03 * _noise(9)), _WIDTHS, 0.1 / _WIDTHS),
            -1.0,
            -0.5,
            axes=Axes("width n", "$\\|\\Theta_t - \\Theta_0\\|$", log="xy"),
        ),
        _claim(
            "rates",
            Slope(0.2, side="at most"),
            {f"momentum {m}": Curve(_WIDTHS**-r, _WIDTHS) for m, r in ((0.0, 1.1), (0.5, 1.4), (0.9, 1.9))},
            -1.0,
            -4.0,
            axes=Axes("iterations", "suboptimality", log="xy"),
        ),
        _claim("growth", Slope(0.05, log="y"), Curve(np.exp(0.7 * _X), _X), 0.7, 0.2, axes=Axes("t", "norm", log="y")),
        _claim("mean", Mean(0.2), estimate(_noise(4000) + 1.0), 1.0, 0.5),
        _claim(
            "means",
            Mean(0.5, 0.5),
            estimate(_noise(4000, 30) + _X, x=_X),
            _X,
            0.5 * _X,
            axes=Axes("$\\theta$", "estimate"),
        ),
        _claim("mean matrix", Mean(0.5, 0.5), estimate(_noise(4000, 6, 6) + np.eye(6)), np.eye(6), 0.5 * np.eye(6)),
        _claim(
            "mean bound",
            MeanAtMost(),
            estimate(_noise(4000, 30) ** 2 / _X, x=_X),
            1.3 / _X,
            0.2 / _X,
            axes=Axes("steps", "risk"),
        ),
        _claim(
            "probability",
            ProbabilityAtMost(),
            frequency(np.abs(_noise(20000))[:, None] > 1.5 + _X, x=_X),
            2 * np.exp(-(_X**2) / 2),
            0.001 * np.exp(-(_X**2) / 2),
            axes=Axes("deviation t", "tail probability", log="y"),
        ),
        _claim("order", Ordering(), Curve(_X**2, _X), _X, -_X, axes=Axes("depth", "loss")),
        _claim("ranks", Ordering(), np.array([0.2, 0.9, 0.5, 1.4]), np.array([1, 3, 2, 4]), np.array([4, 1, 2, 3])),
        _claim(
            "many curves",
            Equal(1e-6),
            {f"seed {i}": Curve(np.sin(_X + i / 10), _X) for i in range(40)},
            {f"seed {i}": np.sin(_X + i / 10) for i in range(40)},
            {f"seed {i}": np.cos(_X + i / 10) for i in range(40)},
            axes=_TIME,
        ),
        _claim(
            "violated",
            AtMost(),
            Curve(_X, _X),
            0.8 + 0 * _X,
            0.4 + 0 * _X,
            kind="fake.unexpected",
            axes=Axes("x", "f(x)"),
        ),
        _claim("wrong order", Ordering(), Curve(np.sin(3 * _X), _X), _X, -_X, kind="fake.unexpected"),
        _claim("powerless", Equal(1e-6), 1.0, 1.0, 1.0, kind="fake.inconclusive"),
        _claim(
            "assumption",
            Equal(1e-6),
            1.0,
            1.0,
            2.0,
            kind="fake.inconclusive",
            assumptions=(Assumption("$f$ is convex", lambda _: False), Assumption("finite variance", lambda _: True)),
        ),
        _claim("trouble", Equal(1e-6), 1.0, 1.0, Variant(HOSTILE, measure=_raise), kind="fake.hostile"),
        _claim("killed", Equal(1e-6), 1.0, 1.0, 2.0, kind="fake.error"),
        _claim("later", Equal(1e-6), 1.0, 1.0, 2.0, kind="fake.late", tier="full", budget=Budget(1, 1000)),
        _claim(
            HOSTILE,
            Equal(1e-6),
            {HOSTILE: Curve(_X, _X)},
            {HOSTILE: _X},
            {HOSTILE: 0 * _X},
            kind="fake.hostile",
            axes=Axes(HOSTILE, HOSTILE),
        ),
        _claim("", Equal(1e-6), 2.0, 2.0, 3.0, kind="fake.misprint"),
        _claim(
            "",
            Equal(1e-6),
            Curve(np.exp(-_X), _X),
            np.exp(_X),
            0 * _X,
            kind="fake.misprint@printed",
            axes=Axes("x", "density"),
            corrected=Variant("with the sign restored", predict=lambda _: np.exp(-_X)),
        ),
        _claim("", AtMost(), 1.0, 2.0, 0.5, kind="fake.garbled"),
    )
}

SHEET = (
    Chapter(
        "judges",
        "Judges",
        "One claim for every judge, and for every shape its numbers can have.",
        (
            Statement(
                "fake.judges",
                "Every judge",
                "theorem",
                r"$P(\bar Z - \mathbb{E} Z \ge t) \le \exp\left(-\frac{2 n^2 t^2}{\sum_i (b_i - a_i)^2}\right)$",
                remark="A remark with $x < y$ and `code`.",
                source="Hoeffding 1963, Theorem 2",
                assumptions=("independent", r"$t \ge 0$"),
                functions=("dltheory.background.hoeffding_bound", "dltheory.nowhere.to_be_found"),
            ),
        ),
    ),
    Chapter(
        "verdicts",
        "Verdicts",
        "Everything that can become of a claim.",
        (
            Statement(
                "fake.misprint",
                "A misprint",
                "definition",
                r"$p(x) = \lambda e^{\lambda x}$",
                status="wrong",
                corrected=r"$p(x) = \lambda e^{-\lambda x}$ for $x \ge 0$",
                remark="The sign is lost.",
                depends_on=("fake.judges",),
            ),
            Statement(
                "fake.garbled",
                "A garbled line",
                "claim",
                r"$E \sum X$",
                status="garbled",
                corrected=r"$\mathbb{E} X$",
                literal=False,
            ),
            Statement("fake.unexpected", "Surprises", "claim", "Something that does not hold."),
            Statement("fake.inconclusive", "Doubts", "claim", "Something that cannot be told."),
            Statement("fake.error", "An accident", "algorithm", "Something that breaks."),
            Statement("fake.late", "Another day", "practice", "Something that takes long."),
            Statement("fake.nothing", "Nobody asked", "architecture", "Something without a claim."),
            Statement(
                "fake.hostile", HOSTILE, "claim", HOSTILE, remark=HOSTILE, source=HOSTILE, assumptions=(HOSTILE,)
            ),
        ),
    ),
)


@functools.cache
def records() -> dict[str, Record]:
    """A record for every claim but those of the full tier."""
    results = {name: evaluate(claim) for name, claim in CLAIMS.items() if claim.tier == "quick"}
    killed = "fake.error:killed"
    results[killed] = error_record(CLAIMS[killed], "killed by signal 9", seed=0, tier="quick", wall_seconds=3.25)
    results["fake.judges:one number"].output = HOSTILE
    return results
