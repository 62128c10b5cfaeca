"""Prose, formulae and numbers as HTML."""

import re
import xml.etree.ElementTree as ET

import pytest
from markupsafe import escape

from experiments.statements import load_sheet
from experiments.typeset import mathml, number, prose, signs


def text_of(pieces):
    """The characters of a formula, tags removed."""
    return "".join("".join(ET.fromstring(piece).itertext()) for piece in pieces)


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"Z_i \in [a_i, b_i]", "Zi∈[ai,bi]"),
        (r"X \sim p", "X∼p"),
        (r"\mathbb{E}|X| < \infty", "𝔼|X|<∞"),
        (r"\arg\min_x f", "arg minxf"),
        (r"\operatorname*{arg\,max}_x f", "arg maxxf"),
        (r"\mathrm{KL}(P\|Q)", "KL(P‖Q)"),
        (r"\boldsymbol\theta + \mathbf 1 + \mathbb 1", "𝜽+𝟏+𝟙"),
        (r"x := y \neq z", "x≔y≠z"),
        (r"\lVert x \rVert_2 \iff A", "‖x‖2⟺A"),
        (r"\overline{X+Y}", "X+Y"),
        (r"a < b \text{ if } c", "a<b if c"),
    ],
)
def test_formulae_have_the_right_characters(latex, text):
    assert re.sub(r"\s+", " ", text_of(mathml(latex))) == text


@pytest.mark.parametrize("latex", [r"\unknown x", r"\frac{a", r"\text{<script>x</script>}", "{", "a & b"])
def test_what_cannot_be_translated_is_an_error_and_is_shown_as_latex(latex):
    with pytest.raises(ValueError, match="cannot set"):
        mathml(latex)
    assert f' <span class="m"><code class="latex">{escape(latex)}</code></span> after' in prose(f"a ${latex}$ after")


def test_operators_that_browsers_would_set_wrongly_are_repaired():
    (sum_,) = mathml(r"\sum_{i=1}^n x_i", display=True)
    assert "munderover" in sum_
    assert 'displaystyle="true"' in sum_
    assert '<mo lspace="0" rspace="0" form="prefix" movablelimits="true">max</mo>' in mathml(r"\max_x f")[0]
    assert "<munder>" in mathml(r"\max_x f")[0]
    log = ET.fromstring(mathml(r"2 \log x")[0])
    assert [element.tag for element in log] == ["mn", "mspace", "mo", "mspace", "mi"]
    minus = ET.fromstring(mathml(r"(-x)")[0])[1]
    assert minus.get("form") == "prefix"


def test_long_formulae_break_after_relations_outside_brackets():
    pieces = mathml(r"f(a = b) \le c, d = e")
    assert [text_of([piece]) for piece in pieces] == ["f(a=b)≤", "c,", "d=", "e"]


def test_prose_is_escaped_and_punctuation_stays_with_its_formula():
    html = prose("a <b> & $x$, `f(<y>)` costs 5\\$")
    assert "a &lt;b&gt; &amp; " in html
    assert "<code>f(&lt;y&gt;)</code> costs 5$" in html
    assert re.search(r'<span class="nowrap"><span class="m">.*?</span>,</span>', html)
    assert prose("no formula: 5$") == "no formula: 5$"


def test_every_formula_of_the_sheet_can_be_set():
    for chapter in load_sheet():
        for statement in chapter.statements:
            texts = [statement.title, statement.printed, statement.corrected, statement.remark, *statement.assumptions]
            for text in [chapter.introduction, *texts]:
                assert text.replace(r"\$", "").count("$") % 2 == 0, f"{statement.id}: a formula does not end"
                assert 'class="latex"' not in prose(text), f"{statement.id}: {text}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-1.5, "−1.5"),
        (123456.0, "1.2346\u2009·\u200910⁵"),
        (-2.5e-12, "−2.5\u2009·\u200910⁻¹²"),
        (float("inf"), "∞"),
        (float("-inf"), "−∞"),
        (float("nan"), ""),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_signs_leave_names_alone():
    assert signs("-1 <= x-y +- 3e-05, e-mail, data-set 2-3") == "−1 ≤ x-y ± 3\u2009·\u200910⁻⁵, e-mail, data-set 2-3"
