"""Pictures: one for every judge, whatever the numbers."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from experiments import judges
from experiments.claim import Axes, Claim, Variant
from experiments.curves import Curve, estimate, frequency
from experiments.evaluate import error_record, evaluate
from experiments.plots import picture, pictures
from experiments.plots.canvas import limits, thin
from experiments.plots.layers import layers_of
from experiments.plots.svg import COLOURS
from experiments.plots.text import label, shorten, text_width
from tests.experiments.contrast import contrast
from tests.experiments.exhibits import CLAIMS, HOSTILE, records

X = np.linspace(0.1, 3.0, 30)
WIDTHS = 2.0 ** np.arange(3, 12)


def record_of(judge, measure, predict, *, axes=Axes(), **variants):  # noqa: B008
    return evaluate(
        Claim(
            "fake.claim",
            says="A claim.",
            measure=lambda _: measure,
            predict=lambda _: predict,
            judge=judge,
            control=Variant("nonsense", predict=lambda _: np.full(np.shape(predict), 1e6)),
            axes=axes,
            **variants,
        )
    )


def parse(svg):
    """The SVG's elements, after checks that hold for every picture."""
    root = ET.fromstring(svg)
    body = svg.replace(svg[svg.index("<style>") : svg.index("</style>")], "")
    assert not re.search(r"#[0-9a-fA-F]{6}\b", body), "a colour that does not follow the page"
    links = {value for element in root.iter() for key, value in element.items() if key.endswith("href")}
    assert all(link.startswith("#") for link in links)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert {link[1:] for link in links} <= set(ids)
    assert not re.search(r"nan|inf\b", re.sub(r"<title>.*?</title>", "", svg))
    assert len(svg.encode()) < 60_000
    return root


@pytest.mark.parametrize("name", records())
def test_every_claim_that_measured_has_a_picture(name):
    record = records()[name]
    svg = picture(record)
    if not record.curves:
        assert svg is None
        return
    root = parse(svg)
    assert root.findtext("{*}title") == label(record.claim)


def test_pictures_do_not_depend_on_order_or_process():
    chosen = [records()[name] for name in ("fake.judges:curve", "fake.judges:rate", "fake.judges:order")]
    alone = pictures(chosen)
    assert alone == {record.claim: picture(record) for record in reversed(chosen)}
    assert alone == pictures(chosen, jobs=2)


def test_a_picture_that_cannot_be_drawn_costs_no_other(monkeypatch):
    good, odd = records()["fake.judges:curve"], records()["fake.misprint"]
    monkeypatch.setattr(odd, "axes", None)
    drawn = pictures([odd, good])
    assert isinstance(drawn[odd.claim], Exception)
    assert drawn[good.claim] == picture(good)


def test_nothing_measured_no_picture():
    killed = CLAIMS["fake.error:killed"]
    assert picture(error_record(killed, "killed", seed=0, tier="quick")) is None
    assert picture(record_of(judges.Equal(), Curve(np.full(20, np.inf), np.arange(20)), np.full(20, np.inf))) is None


ODD = {
    "one point": (Curve([1.0], [1.0]), 1.0, "xy"),
    "constant": (Curve(np.ones(20), np.arange(20)), 1.0, ""),
    "zeros on logarithmic axes": (Curve(np.where(X > 1, X, 0), X), np.where(X > 1, X, 0), "xy"),
    "negative on logarithmic axes": (Curve(-X, X), -X, "xy"),
    "all zero on logarithmic axes": (Curve(np.zeros(30), np.zeros(30)), np.zeros(30), "xy"),
    "huge": (Curve(1e300 * X, 1e300 * X), 1e300 * X, ""),
    "tiny": (Curve(1e-300 * X, 1e-300 * X), 1e-300 * X, "y"),
    "wide": (Curve(10.0 ** np.arange(-300, 300, 20), np.arange(30)), 10.0 ** np.arange(-300, 300, 20), "y"),
    "close together": (Curve(1 + 1e-14 * X, X), 1 + 1e-14 * X, "y"),
    "some infinite": (Curve([1.0, np.inf, -np.inf, 2.0], [1.0, 2.0, 3.0, 4.0]), [1.0, np.inf, -np.inf, 2.0], ""),
    "three axes": (np.arange(60.0).reshape(3, 4, 5), np.arange(60.0).reshape(3, 4, 5), ""),
    "rows over one abscissa": (Curve(np.outer([1, 2], X), X), np.outer([1, 2], X), ""),
    "out of order": (Curve(X[::-1], X[::-1]), X[::-1], ""),
    "infinite number": (np.inf, np.inf, ""),
    "two numbers": ({"": 1.0, "b": -np.inf}, {"": 1.0, "b": -np.inf}, ""),
    "long name": ({"a" * 300: 1.0, "$x$" * 40: 2.0}, {"a" * 300: 1.0, "$x$" * 40: 2.0}, ""),
    "curves of different lengths": ({"a": Curve(X, X), "b": 1.0}, {"a": X, "b": 1.0}, ""),
    "nothing in one curve": ({"a": Curve(X, X), "b": Curve([], [])}, {"a": X, "b": []}, ""),
}


@pytest.mark.parametrize("judge", [judges.Equal(1e-9), judges.AtMost(), judges.AtLeast()], ids=repr)
@pytest.mark.parametrize("case", ODD)
def test_odd_numbers_are_drawn(case, judge):
    measure, predict, log = ODD[case]
    record = record_of(judge, measure, predict, axes=Axes("x", "y", log))
    svg = picture(record)
    if any(np.isfinite(curve.y).any() for curve in record.curves["measured"].values()):
        parse(svg)
    else:
        assert svg is None


@pytest.mark.parametrize(
    ("judge", "measure", "predict"),
    [
        (judges.Slope(), Curve(np.r_[0.0, WIDTHS[1:]], WIDTHS), 1.0),
        (judges.Slope(log=""), Curve(-WIDTHS, WIDTHS), -1.0),
        (judges.Slope(), Curve([1.0, 2.0], [1.0, 2.0]), 1.0),
        (judges.Slope(), WIDTHS, 1.0),
        (judges.Slope(), {"a": Curve(WIDTHS, WIDTHS), "b": Curve(1 / WIDTHS, WIDTHS)}, {"a": 1.0, "b": -1.0}),
        (judges.Slope(side="at least"), Curve(np.ones(9), WIDTHS), 0.0),
        (judges.Ordering(), np.ones(4), np.arange(4.0)),
        (judges.Ordering(), {"a": X, "b": -X}, {"a": X, "b": -X}),
        (judges.Ordering(), Curve(X, X), np.sin(3 * X)),
        (judges.Mean(), estimate(np.zeros((10, 3))), np.zeros(3)),
        (judges.Mean(), estimate(np.arange(10.0)), 1e9),
        (judges.ProbabilityAtMost(), frequency(np.zeros((10, 20), bool)), np.full(20, 0.5)),
        (judges.ProbabilityAtMost(), frequency(np.ones(10, bool)), 0.5),
        (judges.MeanAtMost(), {"a": estimate(np.arange(10.0)), "b": estimate(np.arange(5.0))}, 20.0),
        (judges.Equal(0.0, 0.0), Curve(X, X), X),
        (judges.Equal(), Curve(X, X), X[:7]),
        (judges.Equal(), {"a": X}, {"b": X}),
    ],
)
def test_every_judge_is_drawn_even_where_it_could_not_judge(judge, measure, predict):
    parse(picture(record_of(judge, measure, predict)))


def test_a_judge_of_tomorrow_is_drawn_plainly():
    record = record_of(judges.Equal(), Curve(X, X), X)
    record.criterion = {"judge": "Wasserstein", "tolerance": 0.1}
    parse(picture(record))


def test_labels_that_are_not_mathematics_are_set_as_typed():
    assert label("$x^2$") == "$x^2$"
    assert label("$\\unknown{$") == "\\$\\unknown{\\$"
    assert label("5 $ a\x00b\n") == "5 \\$ a b "
    assert label("n=-1 <= x") == "n=−1 ≤ x"
    assert text_width(HOSTILE) > 100
    assert text_width(shorten("word " * 100, 90, 9), 9) <= 90
    assert shorten("word", 90, 9) == "word"


def test_intervals_are_those_of_the_judge():
    samples = np.random.default_rng(0).normal(size=(100, 4))
    (series,) = layers_of(record_of(judges.Mean(), estimate(samples), np.zeros(4)))[0].series
    half = judges.joint_quantile(4) * samples.std(0, ddof=1) / 10
    np.testing.assert_allclose(series.high - series.y, half)
    events = samples > 1
    (series,) = layers_of(record_of(judges.ProbabilityAtMost(), frequency(events), np.ones(4)))[0].series
    low, high = judges.clopper_pearson(events.mean(0), np.full(4, 100), 4)
    np.testing.assert_array_equal([series.low, series.high], [low, high])


def test_control_and_correction_are_layers_with_what_is_theirs():
    layers = layers_of(records()["fake.misprint@printed"])
    assert [(layer.role, layer.shows_measured, layer.shows_theory) for layer in layers] == [
        ("", True, True),
        ("corrected", False, True),
        ("control", False, True),
    ]
    np.testing.assert_allclose(layers[1].series[0].target, np.exp(-X))
    np.testing.assert_array_equal(layers[1].series[0].y, layers[0].series[0].y)


def test_curves_are_in_natural_order_and_few_are_drawn_of_many():
    names = [series.name for series in layers_of(records()["fake.judges:many curves"])[0].series]
    assert (len(names), names[0], names[-1]) == (12, "seed 0", "seed 39")
    assert names == sorted(names, key=lambda name: int(name.split()[1]))


def test_thinning_keeps_the_ends_and_the_extremes():
    y = np.random.default_rng(0).normal(size=100_000)
    kept = thin(y.size, 300, y)
    assert len(kept) < 320
    assert {0, y.size - 1, int(y.argmin()), int(y.argmax())} <= set(kept)
    np.testing.assert_array_equal(thin(20, 300, y[:20]), np.arange(20))


def test_limits_hold_all_finite_numbers():
    low, high = limits([np.array([1.0, np.inf, np.nan]), np.array([-3.0])], log=False)
    assert low < -3 < 1 < high < 2
    low, high = limits([np.array([0.0, -1.0, 1e-5, 1.0])], log=True)
    assert 0 < low < 1e-5 < 1 < high < 10
    for log in (False, True):
        low, high = limits([np.array([2.0, 2.0])], log=log)
        assert low < 2 < high
        low, high = limits([np.array([np.nan])], log=log)
        assert low < high


@pytest.mark.parametrize("name", sorted(COLOURS.keys() - {"line"}))
def test_colours_have_contrast_on_light_and_dark_pages(name):
    for colour, paper in zip(COLOURS[name], ("#fdfcf9", "#17191c"), strict=True):
        assert contrast(colour, paper) >= 4.5
