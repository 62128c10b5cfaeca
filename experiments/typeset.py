r"""Numbers as they are printed, and prose with LaTeX between dollar signs as HTML with MathML.

latex2mathml translates; what it gets wrong, or browsers would set wrongly (they implement MathML Core, which
has fewer attributes than MathML 3), is repaired here.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from latex2mathml.converter import convert
from markupsafe import Markup, escape

__all__ = ["mathml", "number", "prose", "signs", "superscript"]

_ARITY = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "mroot": 2, "msubsup": 3, "munderover": 3}
_ROWS = {"math", "mrow", "mstyle", "mtd", "msqrt", "mpadded"}
_LEAVES = {"mi", "mn", "mo", "mtext", "mspace"}
_ELEMENTS = {*_ARITY, *_ROWS, *_LEAVES, "mtable", "mtr"}
_ACCENTS = {"^", "~", "¯", "‾", "―", "˙", "¨", "→"}
_LETTERS = set("∞∅…⋯ℓ∂∇∀∃⊤⊥")  # symbols without an operator's space around them
_LIMITS = {"max", "min", "sup", "inf", "lim", "lim sup", "lim inf", "arg max", "arg min"}
_THIN = "0.167em"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_REWRITES = (
    (re.compile(r"\\arg\s*\\(min|max)(?![a-z])|\\operatorname\*?\{arg\s*(?:\\[,;!])?\s*(min|max)\}"), r"\\arg@\1\2"),
    (re.compile(r"\\arg(min|max)(?![a-z])"), r"\\arg@\1"),
    (re.compile(r"\\arg@(min|max)"), r"\\operatorname{arg\1}"),
    (re.compile(r"\\operatorname\*"), r"\\operatorname"),
    (re.compile(r"\\math(?:rm|up)\{([A-Za-z ]+)\}"), r"\\text{\1}"),
    (re.compile(r"\\(?:begin|end)\{(?:aligned|align\*?|split)\}"), lambda m: m[0].split("{")[0] + "{align*}"),
    (re.compile(r"\\not\s*="), r"\\neq "),
    (re.compile(r"\\colon(?![a-z])"), ":"),
    (re.compile(r":="), "≔"),
)


@functools.cache
def mathml(latex: str, *, display: bool = False) -> tuple[str, ...]:
    """A formula as `<math>` elements, between which a line may break.

    Args:
        latex: the formula, without dollar signs.
        display: whether fractions and large operators get their full size.

    Raises:
        ValueError: if something in the formula cannot be translated.
    """
    source = latex
    for pattern, replacement in _REWRITES:
        source = pattern.sub(replacement, source)
    try:
        math = ET.fromstring(convert(source, display="block"))
    except Exception as error:  # latex2mathml has many exceptions without a common base
        raise ValueError(f"cannot set {latex!r}: {type(error).__name__}: {error}") from None
    for element in math.iter():
        element.tag = element.tag.rpartition("}")[2]
        if element.tag not in _ELEMENTS or len(element) != _ARITY.get(element.tag, len(element)):
            raise ValueError(f"cannot set {latex!r}: <{element.tag}> with {len(element)} parts")
        _repair_leaf(element)
        if {"\\", "&"} & set(element.text or ""):
            raise ValueError(f"cannot set {latex!r}: {element.text} is unknown")
    for element in math.iter():
        _repair_scripts(element)
    for element in list(math.iter()):
        if element.tag in _ROWS:
            _repair_row(element)
    row = math[0] if len(math) == 1 and math[0].tag == "mrow" else math
    return tuple(_element(piece, display=display) for piece in _pieces(row))


def prose(text: str, *, display: bool = False) -> Markup:
    """Text with formulae between dollar signs and code between back quotes as safe HTML.

    A formula that cannot be translated is shown as LaTeX.

    Args:
        text: the text; anything in it that looks like HTML is shown as typed.
        display: whether fractions and large operators get their full size.
    """
    html = []
    for i, part in enumerate(re.split(r"(?<!\\)\$((?:[^$\\]|\\.)+)\$", text)):
        if i % 2 == 0:
            html.append(_plain(part))
            continue
        try:
            pieces = mathml(part, display=display)
        except ValueError:
            pieces = (f'<code class="latex">{escape(part)}</code>',)
        html += [f'<span class="m">{piece}</span>' for piece in pieces]
    return Markup(_glue("".join(html)))


def number(value: float, digits: int = 5) -> str:
    """A number with so many significant digits; NaN is empty."""
    if value != value:
        return ""
    return signs(f"{value:.{digits}g}".replace("inf", "∞"))


def signs(text: str) -> str:
    """Plain text with the signs that a typesetter would use for ``-1``, ``1e-5``, ``<=``, ``+-``."""
    text = text.replace("<=", "≤").replace(">=", "≥").replace("+-", "±").replace(" inf ", " ∞ ")
    text = re.sub(r"(?<=\d)e([+-]?\d+)", lambda match: f"\u2009·\u200910{superscript(int(match[1]))}", text)
    return re.sub(r"(?<![\w.)])-(?=\d|∞)| - ", lambda match: match[0].replace("-", "−"), text)


def superscript(exponent: int) -> str:
    """An integer in raised digits."""
    return str(exponent).translate(_RAISED)


def _plain(text: str) -> str:
    parts = re.split(r"`([^`]+)`", text.replace(r"\$", "$"))
    return "".join(f"<code>{escape(part)}</code>" if i % 2 else str(escape(part)) for i, part in enumerate(parts))


def _glue(html: str) -> str:
    """Keeps a bracket or a comma on the line of the formula it belongs to."""
    formula = r'<span class="m">(?:(?!</span>).)*</span>'
    return re.sub(
        rf"([(\[“]?)({formula})([)\].,;:”’]+|-\w+)|([(\[“])({formula})", r'<span class="nowrap">\g<0></span>', html
    )


def _repair_leaf(element: ET.Element) -> None:
    text = (element.text or "").replace("\u2006", " ")
    variant = element.attrib.pop("mathvariant", None)
    if variant == "normal":
        element.set("mathvariant", "normal")
    elif variant is not None:
        text = "".join(_letter(character, variant) for character in text)
    if element.tag == "mspace" and element.get("width", "").startswith("negative"):
        element.set("width", f"-{_THIN}")
    if element.tag == "mi" and len(text) == 1:
        category = unicodedata.category(text)
        if text == "~":
            element.tag, text = "mo", "∼"
        elif category in ("Ps", "Pe"):
            element.tag = "mo"
            element.set("stretchy", "false")
        elif (category in ("Sm", "Po") and text not in "%#") or text == "±":
            element.tag = "mo"
    if element.tag == "mi" and len(text) == 1 and unicodedata.name(text, "").startswith("GREEK CAPITAL"):
        element.set("mathvariant", "normal")
    if element.tag == "mo":
        if text == r"\|":
            text = "‖"
        if text in _LETTERS and not element.get("stretchy"):
            element.tag = "mi"
            element.set("mathvariant", "normal")
        elif text in ("", "|", "‖", "/"):
            element.attrib |= {"lspace": "0", "rspace": "0", "stretchy": element.get("stretchy", "false")}
        text = text.replace("argm", "arg m")
    if element.tag in ("mi", "mo") and (text.replace(" ", "").isalpha() and len(text) > 1):
        element.tag = "mo"
        element.attrib = {"lspace": "0", "rspace": "0", "form": "prefix"}
        if text in _LIMITS:
            element.set("movablelimits", "true")
    if element.tag in _LEAVES:
        element.text = text


def _letter(character: str, variant: str) -> str:
    """The character of Unicode's mathematical alphabets that looks like `variant`, or the plain one."""
    words = unicodedata.name(character, "").split()
    match words:
        case ["LATIN" | "GREEK", case, "LETTER", *rest]:
            name = f"{case} {' '.join(rest)}"
        case ["DIGIT", digit]:
            name, variant = f"DIGIT {digit}", variant.removesuffix("-italic")
        case _:
            return character
    style = variant.replace("bold-", "bold ").upper()
    for full in (f"MATHEMATICAL {style} {name}", f"{style} {name}"):
        try:
            return unicodedata.lookup(full)
        except KeyError:
            continue
    return character


def _repair_scripts(element: ET.Element) -> None:
    """Limits go below operators, where there is room; accents sit tight on their letters; scripts are set close."""
    if element.tag in _ARITY and element.tag not in ("mfrac", "mroot"):
        for script in element[1:]:
            for operator in script.iter("mo"):
                if _kind(operator) == "operator" and not operator.get("lspace"):
                    operator.attrib |= {"lspace": "0.05em", "rspace": "0.05em"}
    if element.tag in ("msub", "msup", "msubsup") and element[0].get("movablelimits"):
        element.tag = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}[element.tag]
    if element.tag in ("mover", "munder") and element[1].tag == "mo" and element[1].text in _ACCENTS:
        mark = element[1]
        element.set("accent" if element.tag == "mover" else "accentunder", "true")
        mark.attrib.pop("accent", None)
        if mark.text == "¯" or len("".join(element[0].itertext())) == 1:
            mark.set("stretchy", "false")
        if mark.text == "―":
            element.set("class", "line")
            element.remove(mark)
            element.append(ET.Element("mspace"))


def _repair_row(row: ET.Element) -> None:
    """Joins upright letters to words and sets thin spaces around the names of functions, as TeX does."""
    children: list[ET.Element] = []
    for child in row:
        if children:
            last = children[-1]
            if _is_upright(last) and _is_upright(child):
                last.text = f"{last.text}{child.text}"
                continue
            before, here = _kind(last), _kind(child)
            if (here == "name" and before in ("letter", "close", "name")) or (before, here) == ("name", "letter"):
                children.append(ET.Element("mspace", width=_THIN))
            if child.tag == "mo" and child.text in ("+", "−", "±") and before in ("open", "operator"):
                child.attrib |= {"form": "prefix", "lspace": "0", "rspace": "0"}
        children.append(child)
    row[:] = children


def _is_upright(element: ET.Element) -> bool:
    return element.get("mathvariant") == "normal" and (element.text or "").isalpha()


def _kind(element: ET.Element) -> str:
    """What an element is to its neighbours: name (of a function), open, close, operator, space or letter."""
    while element.tag in ("msub", "msup", "msubsup", "munder", "mover", "munderover"):
        element = element[0]
    text = element.text or ""
    if element.tag == "mspace":
        return "space"
    if element.tag != "mo":
        return "letter"
    if text.replace(" ", "").isalpha() and len(text) > 1:
        return "name"
    if text in ("|", "‖"):
        return "operator"
    return {"Ps": "open", "Pe": "close"}.get(unicodedata.category(text) if len(text) == 1 else "", "operator")


def _pieces(row: ET.Element) -> list[list[ET.Element]]:
    """The parts between which a line may break: after relations, commas and wide spaces outside brackets."""
    pieces: list[list[ET.Element]] = [[]]
    depth = 0
    for child in row:
        kind = _kind(child)
        depth += {"open": 1, "close": -1}.get(kind, 0)
        pieces[-1].append(child)
        if depth or len(pieces[-1]) < 2:
            continue
        if child.tag == "mo" and kind == "operator" and _is_relation(child.text or ""):
            child.set("form", "infix")  # else the last operator in a row loses its spaces
            pieces.append([])
        elif child.text == "," or child.get("width") in ("1em", "2em"):
            pieces.append([])
    return [piece for piece in pieces if piece]


def _is_relation(text: str) -> bool:
    return text in "=<>≔∼≈∝∈" or any(word in unicodedata.name(text, "") for word in ("ARROW", "EQUAL", "-THAN"))


def _element(children: Iterable[ET.Element], *, display: bool) -> str:
    math = ET.Element("math", {"displaystyle": "true"} if display else {})
    math.extend(children)
    return ET.tostring(math, encoding="unicode", short_empty_elements=False)
