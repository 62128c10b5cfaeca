"""The report: complete, self-contained, safe, and nothing but what the records say."""

import dataclasses
import html.parser
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from experiments import report
from experiments.claim import Axes, all_claims
from experiments.environment import describe
from experiments.errors import UsageError
from experiments.report import render, write_report
from experiments.sources import find_claim, find_function
from experiments.store import Run, Store, StoreError
from experiments.typeset import number
from tests.experiments.contrast import contrast, mixed
from tests.experiments.exhibits import CLAIMS, HOSTILE, SHEET, records

VOID = {"meta", "link", "img", "input", "br", "wbr", "hr"}
BLOCKS = {"p", "div", "dt", "dd", "section", "article", "header", "h2", "h3", "h4", "li", "td", "th", "button", "pre"}
SETTINGS = {
    "package": "tests.experiments.exhibits",
    "tier": "quick",
    "seed": 7,
    "patterns": ["fake.*"],
    "jobs": 2,
    "scheduler": None,
    "started": "2026-01-31T12:00:00.000000+00:00",
    "resumed": "2026-01-31T12:00:00.000000+00:00",
}


class Node:
    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.children = tag, attributes, []

    def __iter__(self):
        """All elements below this one, in the order of the document."""
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child

    def find(self, tag=None, **attributes):
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [
            node
            for node in self
            if (tag is None or node.tag == tag)
            and all(
                value in (node.attributes.get(key) or "").split()
                if key == "class"
                else node.attributes.get(key) == value
                for key, value in wanted.items()
            )
        ]

    @property
    def text(self):
        return re.sub(r"\s+", " ", self._text).strip()

    @property
    def _text(self):
        inside = "".join(child if isinstance(child, str) else child._text for child in self.children)
        return f" {inside} " if self.tag in BLOCKS else inside


class Parser(html.parser.HTMLParser):
    """A tree of the page; fails on anything that is not closed in order."""

    def __init__(self):
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert tag == self.open.pop().tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(path):
    parser = Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == [parser.root], f"<{parser.open[-1].tag}> is not closed"
    return parser.root


def run_of(chosen, **changes):
    environment = {"python": "3.11.7", "jax": "0.10.1", "device kind": "cpu", "commit": "0123abc"}
    run = Run(Path("results/the-run"), SETTINGS, environment, "d1935" * 8, tuple(CLAIMS), chosen)
    return dataclasses.replace(run, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "report"
    render(run_of(records(), problems=("torn.json: is not JSON",)), SHEET, CLAIMS, folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return parse(folder / "index.html")


def claim_of(page, name):
    """The section of a claim, found by its name in the terms."""
    return next(c for c in page.find("section", class_="claim") if name in [d.text for d in c.find("dd")])


def test_every_statement_appears_once_in_the_order_of_the_sheet(page):
    ids = [node.attributes["id"] for node in page.find("article", class_="statement")]
    assert ids == [statement.id for chapter in SHEET for statement in chapter.statements]
    cells = [node.attributes["href"] for node in page.find("a", class_="cell")]
    assert cells == [f"#{i}" for i in ids]


def test_every_claim_appears_once_with_its_badge(page):
    sections = page.find("section", class_="claim")
    assert len(sections) == len(CLAIMS)
    badges = [section.find("span", class_="badge")[0].text for section in sections]
    assert badges.count("refuted, as expected") == 1
    assert badges.count("refuted, expected confirmed") == 2
    assert badges.count("inconclusive") == 2
    assert badges.count("error") == 2
    assert badges.count("not run") == 1
    assert badges.count("confirmed") == len(CLAIMS) - 8
    for section in sections:
        badge = section.find("span", class_="badge")[0]
        assert badge.find("use"), "a badge without an icon"


def test_tiles_count_the_claims(page):
    counts = {
        tile.attributes["data-filter"]: tile.find("span", class_="count")[0].text
        for tile in page.find("button", class_="tile")
    }
    assert counts == {
        "confirmed": str(len(CLAIMS) - 8),
        "refuted": "1",
        "unexpected": "2",
        "inconclusive": "2",
        "error": "2",
        "not-run": "1",
    }


def test_what_is_not_as_expected_stands_first(page):
    (trouble,) = page.find("section", class_="trouble")
    names = [item.find("a")[0].text for item in trouble.find("li")]
    assert len(names) == 6
    assert names[2:4] == ["fake.unexpected:violated", "fake.unexpected:wrong order"]
    assert "22 of 30 break the bound; worst: 3 ≤ 0.8" in trouble.text
    order = list(page)
    assert order.index(trouble) < order.index(page.find("nav", class_="map")[0])


def test_a_misprint_shows_both_readings_with_their_verdicts(page):
    (article,) = page.find("article", id="fake.misprint")
    printed, corrected = article.find("div", class_="reading")
    assert "As printed" in printed.text
    assert printed.find("span", class_="badge")[0].text == "refuted, as expected"
    assert "".join(math.text for math in printed.find("math")) == "p(x)=λeλx"
    assert corrected.find("span", class_="badge")[0].text == "confirmed"
    assert article.find("span", class_="status")[0].text == "wrong in print"
    (garbled,) = page.find("article", id="fake.garbled")
    assert "cannot be computed as it stands" in garbled.text
    rows = page.find("section", class_="errata")[0].find("tr")[1:]
    assert [row.find("a")[0].attributes["href"] for row in rows] == ["#fake.misprint", "#fake.garbled"]
    assert "refuted, as expected" in rows[0].text
    assert "confirmed" in rows[0].text


def test_a_claim_shows_what_decided_and_what_had_to_fail(page):
    section = claim_of(page, "fake.misprint@printed")
    assert "correction with the sign restored – confirmed" in section.text
    assert "control half of it – rejected" in section.text
    record = records()["fake.misprint@printed"]
    facts = {
        fact.find("dt")[0].text: fact.find("dd")[0].text for fact in section.find("dl", class_="facts")[0].find("div")
    }
    expected = {name: number(getattr(record, name)) for name in ("measured", "predicted", "margin")}
    assert facts == {name: text.replace("\u2009", " ") for name, text in expected.items()}
    terms = {
        term.find("dt")[0].text: term.find("dd")[0].text for term in section.find("dl", class_="terms")[0].find("div")
    }
    assert terms["judge"] == "Equal (rtol = 1e-06, atol = 0.0)"
    assert terms["expected"] == "refuted"
    assert terms["seed"] == "0"
    assert terms["tier"] == "quick, budget 1"
    assert "to compile" in terms["time"]
    bound = claim_of(page, "fake.judges:bounded number")
    assert "tightness 0.8" in bound.text
    mean = claim_of(page, "fake.judges:mean")
    assert "standard error" in mean.text


def test_nothing_is_computed(tmp_path):
    record = dataclasses.replace(records()["fake.misprint"], measured=123.25, margin=-4.5, tightness=0.0625)
    render(run_of({record.claim: record}), SHEET, CLAIMS, tmp_path / "report")
    text = claim_of(parse(tmp_path / "report" / "index.html"), "fake.misprint").text
    assert "measured 123.25" in text
    assert "margin −4.5" in text
    assert "tightness 0.0625" in text
    assert text.startswith("confirmed"), "the verdict is the record's, whatever its numbers"


def test_errors_show_traceback_and_output(page):
    section = claim_of(page, "fake.hostile:trouble")
    assert "Traceback" in section.text
    assert HOSTILE.replace("\x07", "") in section.text.replace("\x07", "")
    assert "on the way to trouble" in section.text
    assert "killed by signal 9" in claim_of(page, "fake.error:killed").text
    assert "assumption f is convex – fails" in claim_of(page, "fake.inconclusive:assumption").text.replace("𝑓", "f")


def test_nothing_in_a_record_or_a_statement_becomes_markup(folder):
    for path in folder.rglob("*.html"):
        root = parse(path)
        scripts = root.find("script")
        assert [set(script.attributes) for script in scripts] == [{"src", "defer"}]
        assert not any(key.startswith("on") for node in root for key in node.attributes)
    assert "alert('x')" in parse(folder / "index.html").find("article", id="fake.hostile")[0].find("h3")[0].text


def test_nothing_is_loaded_from_elsewhere(folder):
    for path in folder.rglob("*.html"):
        for node in parse(path):
            for key in ("src", "href", "srcset", "action", "data", "poster"):
                value = node.attributes.get(key) or ""
                assert not re.match(r"[a-z]+:|//", value) or value == "data:,", f"{path.name}: {value}"
            assert node.tag not in {"iframe", "object", "embed", "base"}
    assert not re.search(r"url\(|@import|https?:", (folder / "report.css").read_text())
    assert not re.search(r"fetch\(|XMLHttp|import\(|https?:", (folder / "report.js").read_text())
    for path in folder.rglob("*.svg"):
        svg = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|url\((?!#)|@import|<script", svg)


def test_all_links_lead_somewhere(folder):
    anchors, links = {}, []
    for path in folder.rglob("*.html"):
        root = parse(path)
        ids = [node.attributes["id"] for node in root if "id" in node.attributes]
        assert len(ids) == len(set(ids)), f"{path.name}: an id is used twice"
        anchors[path.resolve()] = set(ids)
        links += [(path, node.attributes[key]) for node in root for key in ("href", "src") if key in node.attributes]
    for path, link in links:
        if link == "data:,":
            continue
        file, _, fragment = link.partition("#")
        target = (path.parent / urllib.parse.unquote(file)).resolve() if file else path.resolve()
        assert target.is_file(), f"{path.name}: {link}"
        if fragment:
            assert urllib.parse.unquote(fragment) in anchors[target], f"{path.name}: {link}"


def test_functions_and_claims_are_linked_to_their_source(folder, page):
    (article,) = page.find("article", id="fake.judges")
    links = {
        node.text: node.attributes["href"]
        for node in article.find("a")
        if node.attributes["href"].startswith("source/")
    }
    page_name, _, line = links["dltheory.background.hoeffding_bound"].partition("#")
    assert page_name == "source/dltheory.background.inequalities.html"
    assert "def hoeffding_bound" in parse(folder / page_name).find("span", id=line)[0].text
    assert "dltheory.nowhere.to_be_found" in article.text
    assert "dltheory.nowhere.to_be_found" not in links


def test_every_claim_of_the_sheet_has_a_place():
    for claim in all_claims().values():
        place = find_claim(claim)
        assert place is not None, claim.name
        assert place.file.parts[:2] == ("experiments", "claims"), claim.name
    assert find_function("dltheory.background.hoeffding_bound") is not None
    assert find_function("json.dumps") is None
    assert find_function("nonsense") is None


def test_pictures_have_their_size_and_a_description(folder, page):
    images = page.find("img")
    assert len(images) == sum(bool(record.curves) for record in records().values())
    for image in images:
        assert (folder / image.attributes["src"]).is_file()
        assert int(image.attributes["width"]) == 480
        assert int(image.attributes["height"]) > 40
        assert len(image.attributes["alt"]) > 20


def test_a_picture_that_cannot_be_drawn_is_named(tmp_path):
    record = dataclasses.replace(records()["fake.judges:curve"], axes=Axes()._asdict() | {"log": None})
    render(run_of({record.claim: record}), SHEET, CLAIMS, tmp_path / "report")
    page = parse(tmp_path / "report" / "index.html")
    assert "could not be drawn" in claim_of(page, record.claim).text
    assert not page.find("img")


def test_environment_and_problems_come_last(page):
    (section,) = page.find("section", class_="environment")
    for text in (
        "jax 0.10.1",
        "commit 0123abc",
        "seed 7",
        "patterns fake.*",
        "31 January 2026, 12:00 UTC",
        "torn.json",
    ):
        assert text in section.text
    assert list(page).index(section) > list(page).index(page.find("section", class_="errata")[0])


@pytest.mark.parametrize("chosen", [[], ["fake.misprint"], ["fake.judges:curve", "fake.misprint@printed"]])
def test_partial_runs_are_reported(tmp_path, chosen):
    run = run_of({name: records()[name] for name in chosen}, selected=("fake.judges:curve", "fake.misprint"))
    render(run, SHEET, CLAIMS, tmp_path / "report")
    page = parse(tmp_path / "report" / "index.html")
    assert len(page.find("article", class_="statement")) == 9
    not_run = [section for section in page.find("section", class_="claim") if not section.find("img")]
    assert len(not_run) == len(CLAIMS) - len(chosen)
    assert not page.find("section", class_="trouble")
    assert "It was not selected for this run." in claim_of(page, "fake.judges:bound").text
    assert "It runs in the full tier only." in claim_of(page, "fake.late:later").text
    if "fake.misprint" not in chosen:
        assert "The run ended before it was reached." in claim_of(page, "fake.misprint").text
    if not chosen:
        assert "Nothing has been run." in page.text


def test_an_empty_sheet_and_no_claims_are_reported(tmp_path):
    render(run_of({}, environment={}, selected=()), (), {}, tmp_path / "report")
    assert "0 statements, 0 claims" in parse(tmp_path / "report" / "index.html").text


def test_claims_without_a_statement_are_not_lost(tmp_path):
    record = dataclasses.replace(records()["fake.misprint"], claim="gone.away:part", statement="gone.away")
    render(run_of({record.claim: record}), SHEET, CLAIMS, tmp_path / "report")
    page = parse(tmp_path / "report" / "index.html")
    (strays,) = page.find("section", class_="strays")
    assert "gone.away:part" in strays.text


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A stored run whose sheet and claims are the exhibits."""
    monkeypatch.setattr(report, "load_sheet", lambda: SHEET)
    monkeypatch.setattr(report, "claims_of", lambda _: CLAIMS)
    settings = {key: SETTINGS[key] for key in ("package", "tier", "patterns", "jobs", "scheduler")} | {"seed": 0}
    chosen = ["fake.misprint", "fake.misprint@printed", "fake.judges:infinities", "fake.error:killed"]
    with Store.create(tmp_path / "run", settings=settings, environment=describe(), digest="", claims=chosen) as store:
        for name in chosen:
            store.write(records()[name])
    return tmp_path / "run"


def test_the_report_of_a_stored_run_replaces_the_one_before(run_dir):
    index = write_report(run_dir)
    assert index == run_dir / "report" / "index.html"
    assert len(list((run_dir / "report" / "pictures").iterdir())) == 3
    first = index.read_text(encoding="utf-8")
    (run_dir / "report" / "stale.html").write_text("of an earlier report")
    write_report(run_dir)
    assert not (run_dir / "report" / "stale.html").exists()
    assert index.read_text(encoding="utf-8") == first
    assert not list(run_dir.glob("report-*"))


def test_a_report_that_fails_leaves_the_one_before(run_dir, monkeypatch):
    before = write_report(run_dir).read_text(encoding="utf-8")
    monkeypatch.setattr(shutil, "copyfile", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_report(run_dir)
    assert (run_dir / "report" / "index.html").read_text(encoding="utf-8") == before
    assert not list(run_dir.glob("report-*"))


def test_a_run_of_a_package_that_is_gone_is_reported_from_its_records(run_dir, monkeypatch):
    def gone(package):
        raise UsageError(f"there is no package {package}")

    monkeypatch.setattr(report, "claims_of", gone)
    page = parse(write_report(run_dir))
    assert len(page.find("section", class_="claim")) == 4


def test_no_run_no_report(tmp_path):
    with pytest.raises(StoreError, match="no run"):
        write_report(tmp_path)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(mode):
    css = (Path(report.__file__).parent / "templates" / "report.css").read_text()
    colours = {name: pair[mode] for name, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)}
    paper, raised = colours.pop("paper"), colours.pop("raised")
    del colours["line"]
    assert len(colours) == 9
    for name, colour in colours.items():
        for ground in (paper, raised, mixed(colour, paper, 0.12)):
            assert contrast(colour, ground) >= 4.5, f"{name} on {ground}"


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the report in")


def open_in_browser(address, folder):
    """The page after its scripts have run, and the network requests that the page (not the browser) made."""
    log = folder / "net.json"
    flags = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "dump-dom"]
    flags += ["disable-component-update", "disable-sync", f"user-data-dir={folder / 'profile'}", f"log-net-log={log}"]
    command = [str(CHROMIUM), *(f"--{flag}" for flag in flags), address]
    dump = folder / "dump.html"
    dump.write_bytes(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    started = re.findall(r'"initiator":"([^"]*)".*?"url":"([^"]*)"', log.read_text())
    return dump, {url for initiator, url in started if initiator != "not an origin"}


@pytest.mark.slow
@in_a_browser
def test_the_browser_would_notice_a_request(tmp_path):
    (tmp_path / "page.html").write_text('<!doctype html><img src="http://127.0.0.1:9/picture.png">')
    _, requests = open_in_browser((tmp_path / "page.html").as_uri(), tmp_path)
    assert requests == {"http://127.0.0.1:9/picture.png"}


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize(
    ("fragment", "visible", "shown"),
    [
        ("", 9, "9 statements"),
        ("#?verdict=error", 2, "2 of 9 statements"),
        ("#?verdict=error+refuted", 3, "3 of 9 statements"),
        ("#?q=hoeffding+1963", 1, "1 of 9 statements"),
        ("#?chapter=verdicts&status=misprint", 2, "2 of 9 statements"),
        ("#?q=nothing-like-it", 0, "0 of 9 statements"),
        ("#?chapter=unknown&verdict=nonsense", 9, "9 statements"),
        ("#fake.misprint", 9, "9 statements"),
    ],
)
def test_the_address_filters_in_a_browser_that_loads_nothing(folder, tmp_path, fragment, visible, shown):
    dump, requests = open_in_browser(f"{(folder / 'index.html').as_uri()}{fragment}", tmp_path)
    assert not requests
    page = parse(dump)
    statements = page.find("article", class_="statement")
    assert sum("hidden" not in node.attributes for node in statements) == visible
    assert page.find("output")[0].text == shown
