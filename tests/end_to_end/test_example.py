"""The example that people see in docs/example is what `ablate report` makes today."""

import re

import example
import numpy as np
import pytest
from matplotlib.image import imread

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
    assert re.search(r"^\d+ cells, all done\.$", text, re.MULTILINE)


def test_the_example_tells_nothing_of_where_it_was_made(report):
    texts = [path.read_text() for path in files(report).values() if path.suffix != ".png"]
    assert [text for text in texts if str(example.ROOT) in text or example.PLACEHOLDER in text] == []
