"""The page: whole without a network, read by screen readers, true to the numbers."""

import re
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import pytest
from PIL import Image
from tests.bench.records import protocol
from tests.bench.results_tree import EPOCHS, IMAGES, failed, made, write_results

from ttctune.bench.record import write_record
from ttctune.bench.report.page import as_html, as_markdown
from ttctune.bench.report.runs import read_results
from ttctune.bench.report.tables import tables_of

TITLES = {"linear": "linear probe", "norm": "LayerNorm only", "ttc": "two-stage"}
#: A class, a task's picture and a reason may hold any text.
NASTY = '<script>alert("$x$")</script> & "me" | \\'


class Page(HTMLParser):
    """The elements of a page, with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(
        folder, tasks={"flowers": "natural", "rooms": "structured"}, methods=("linear", "norm", "ttc"), seeds=2
    )
    classes = (NASTY, *(f"class {n}" for n in range(4)))
    for seed in range(2):
        write_record(folder, made("rooms", "ttc", seed, classes=classes))
    write_record(folder, failed("rooms", "norm", 0, NASTY))
    write_record(folder, failed("rooms", "norm", 1, "memory ran out"))
    other = protocol(epochs=EPOCHS, precision="bf16", data_digest="digest of flowers")
    write_record(folder, made("flowers", "norm", 5, protocol=other))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    (root / "flowers").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (32, 32), "green").save(root / "flowers" / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def results(folder):
    return read_results(folder)


@pytest.fixture(scope="module")
def tables(results):
    return tables_of(results, TITLES, None)


@pytest.fixture(scope="module")
def text(results, tables, images):
    return as_html(results, tables, images)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture(scope="module")
def markdown(results, tables):
    return as_markdown(results, tables)


def test_the_page_needs_no_network_and_runs_nothing(text, page):
    assert not page.all("script", "link", "iframe", "object", "embed", "base")
    outside = [
        a
        for a in page.all("img", "image", "a", "use")
        for v in (a.get("src"), a.get("href"), a.get("xlink:href"))
        if v and not v.startswith(("#", "data:image/"))
    ]
    assert outside == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_names_and_reasons_cannot_become_markup(text, markdown):
    assert "<script>" not in text and "&lt;script&gt;alert(" in text
    assert '| <script>alert("$x$")</script> & "me" \\| \\\\ |' in markdown


def test_identifiers_are_unique_and_every_reference_has_its_target(text, page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    references = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    references += [v for _, a in page.elements for k in ("aria-labelledby",) if (v := a.get(k))]
    references += re.findall(r"url\(#([^)]+)\)", text)
    references += [v[1:] for a in page.all("use") if (v := a.get("xlink:href") or a.get("href"))]
    assert references and set(references) <= set(names)


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_table_says_what_it_shows_and_which_cells_are_heads(text, page):
    tables = re.findall(r"<table>.*?</table>", text, re.DOTALL)
    assert len(tables) >= 7
    assert all(table.startswith("<table><caption") and 'scope="col"' in table for table in tables)
    assert all(re.search(r'<tr><th scope="row">', table) for table in tables)
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    regions = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["role"] == "region" and a["aria-labelledby"] for a in regions)


def test_every_drawing_and_picture_is_told_in_words(page):
    drawings, pictures = page.all("svg"), page.all("img")
    assert len(drawings) >= 9 and len(pictures) >= 4
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in drawings)
    assert all(a["alt"] for a in pictures)


def test_without_images_the_page_is_the_same_but_for_the_pictures(results, tables, text):
    """Mistakes are still listed; and the same results give the same page in every byte."""
    without = as_html(results, tables)
    assert not Page(without).all("img") and "answered class" in without
    assert re.sub(r"<img[^>]*>", "", text) == without


def test_drawings_have_the_colours_of_the_page(text):
    """Stand-in colours would be black in the dark; only the map of channels brings its own."""
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert "var(--text)" in drawings[0] and "var(--series-2)" in drawings[0]
    colours = {c for d in drawings for c in re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", d)}
    assert colours <= {"#dbe7f3"}


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_in_both_schemes(scheme):
    css = resources.files("ttctune.bench.report").joinpath("templates/page.css").read_text()
    colours = dict(re.findall(r"(--[\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[scheme]))

    def contrast(name: str, ground: str) -> float:
        high, low = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert all(contrast(name, g) >= 4.5 for name in ("--text", "--muted", "--accent") for g in ("--bg", "--panel"))
    assert len(colours) == 14 and all(contrast(f"--series-{n}", "--bg") >= 3 for n in range(8))


def test_what_failed_is_listed_and_its_method_has_no_mean(text, markdown):
    assert "2 jobs without a result" in text and "memory ran out" in text and "1 task lacking" in text
    assert "| rooms | norm | 1 | memory ran out |" in markdown


def test_another_protocol_is_a_table_of_its_own_under_its_name(text, markdown):
    assert "Another protocol: precision bf16, not fp32" in text and "Not to be compared" in text
    assert "### Another protocol: precision bf16, not fp32" in markdown


def test_the_numbers_are_those_of_the_records(results, text, markdown):
    runs = [run for run in results.runs if run.method == "ttc"]
    mean = 100 * sum(run.accuracy for run in runs) / len(runs)
    row = next(line for line in markdown.splitlines() if line.startswith("| two-stage | 2,800 | 0 | 2 |"))
    assert f"**{mean:.1f}** ±" in row and f"<strong>{mean:.1f}</strong>" in text


def test_published_numbers_carry_their_sources_and_marks(text, markdown):
    assert "SCT" in text and "Published numbers on VTAB-1K" in text and "None of this was run here" in text
    assert "| SCT | 2023 | 0.11 | 73.59 | 76.00 | t i s n | V |" in markdown
    assert "| SPT-LoRA | 2023 | 0.2-0.8 | 74.1\\* | 76.4\\* | t i s | P |" in markdown


def test_tables_of_the_markdown_have_as_many_cells_as_heads(markdown):
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    assert len(blocks) >= 5
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


@pytest.mark.parametrize(("split", "trials", "said"), [("val", 4, True), ("test", 4, False), ("val", 0, False)])
def test_settings_that_were_chosen_on_scored_images_are_told(tmp_path, split, trials, said):
    write_results(tmp_path, tasks={"flowers": "natural"}, methods=("norm", "ttc"), seeds=1, split=split, trials=trials)
    found = read_results(tmp_path)
    tables = tables_of(found, TITLES, None)
    for text in (as_html(found, tables), as_markdown(found, tables)):
        assert said == ("these numbers are too high" in text)
