"""The example that people see in docs/example is what `ablate report` makes today."""

import re

import example
import numpy as np
import pytest
from matplotlib.image import imread
from support.browser import CHROME, told_at
from support.readable import Prose, faults

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.])")
AGAIN = "`python tests/example.py --report` writes docs/example again"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("example")
    example.unpack(root)
    return example.report(root, root / "shown")


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def parts(path):
    """-> the text of a file without its numbers, and those: their last digits are a processor's own."""
    text = path.read_text()
    return NUMBER.sub("#", text), [float(number) for number in NUMBER.findall(text)]


def test_the_example_is_what_a_report_of_its_results_looks_like_today(report):
    shown, now = files(example.SHOWN), files(report)
    assert shown.keys() == now.keys(), AGAIN
    for name in (name for name in now if not name.endswith(".png")):
        (text, numbers), (other, others) = parts(shown[name]), parts(now[name])
        assert text == other, f"{name}: {AGAIN}"
        assert numbers == pytest.approx(others, rel=1e-6, abs=1e-9), f"{name}: {AGAIN}"


def test_its_pictures_are_those_of_today(report):
    for name, path in files(report).items():
        if name.endswith(".png"):
            one, other = imread(example.SHOWN / name), imread(path)
            assert one.shape == other.shape, f"{name}: {AGAIN}"
            assert np.abs(one - other).mean() < 1e-3, f"{name}: {AGAIN}"


def test_every_cell_of_the_example_has_its_numbers(report):
    text = (report / "report.md").read_text()
    assert re.search(r"^All \d+ cells \(one per row and seed\) are done\.", text, re.MULTILINE)


def test_the_example_tells_nothing_of_where_it_was_made(report):
    texts = [path.read_text() for path in files(report).values() if path.suffix != ".png"]
    assert [text for text in texts if str(example.ROOT) in text or example.PLACEHOLDER in text] == []


def test_every_sentence_of_the_example_can_be_read_aloud(report):
    page = Prose((report / "report.html").read_text())
    assert {sentence: wrong for sentence in page.sentences if (wrong := faults(sentence))} == {}


LOOK = """
const words = element => (element.innerText.match(/\\S+/g) || []).length;
const isWithin = element => element.getBoundingClientRect().right <= window.innerWidth;
const isOut = element => !element.closest(".scroll, svg, .unseen") && !isWithin(element);
const front = document.querySelector("section.front").getBoundingClientRect();
const sticky = name => {
  const scroll = document.querySelector(".scroll:has(table.main)");
  const cell = scroll.querySelector("tbody tr:nth-child(2) " + name);
  scroll.scrollLeft = 1e4;
  const seen = cell.getBoundingClientRect(), frame = scroll.getBoundingClientRect();
  return [seen.left - frame.left, frame.right - seen.right];
};
return {
  words: words(document.body),
  front: front.bottom + window.scrollY,
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  out: [...document.body.querySelectorAll("*")].filter(isOut).map(element => element.outerHTML.slice(0, 120)),
  label: sticky("th"), score: sticky("td"),
};
"""


@pytest.fixture(scope="module")
def seen(report, tmp_path_factory):
    if CHROME is None:
        pytest.skip("wants a Chromium")
    folder = tmp_path_factory.mktemp("browser")
    return {width: told_at(report / "report.html", folder, width, LOOK) for width in (1280, 600, 400)}


def test_page_1_fits_a_screen_and_the_page_is_read_in_ten_minutes(seen):
    assert seen[1280]["front"] <= 1100
    assert seen[1280]["words"] <= 2500


def test_nothing_stands_out_of_a_narrow_screen_and_the_deciding_column_stays_in_sight(seen):
    assert {width: (one["over"], one["out"]) for width, one in seen.items()} == dict.fromkeys(seen, (0, []))
    for width in (600, 400):
        for left, right in (seen[width]["label"], seen[width]["score"]):
            assert left >= 0 <= right
