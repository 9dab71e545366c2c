"""docs/packages.svg is the picture of the packages as they are."""

import importlib.util
import re
import shutil

import grimp
import pytest
from support.paths import ROOT

SCRIPT = ROOT / "tools" / "draw_packages.py"
spec = importlib.util.spec_from_file_location("draw_packages", SCRIPT)
draw_packages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw_packages)

DRAWN = draw_packages.PICTURE.read_text()
PACKAGES = [name for floor in draw_packages.floors_of(ROOT) for name in floor]


def test_the_picture_is_that_of_the_tree_today():
    assert draw_packages.picture(before=DRAWN) == DRAWN, "`make picture` draws it again"


def test_every_package_is_in_it_with_a_phrase_and_a_group():
    folders = {path.parent.name for path in (ROOT / "ablate").glob("*/__init__.py")}
    assert folders <= set(PACKAGES)
    assert sorted(PACKAGES) == sorted(draw_packages.PHRASES)
    assert sorted(PACKAGES) == sorted(name for group in draw_packages.GROUPS.values() for name in group)


def test_its_arrows_are_the_imports_that_import_linter_sees():
    graph = grimp.build_graph("ablate", cache_dir=None)
    pairs = {
        (name.split(".")[1], other.split(".")[1])
        for name in graph.modules - {"ablate"}
        for other in graph.find_modules_directly_imported_by(name) - {"ablate"}
    }
    for package in PACKAGES:
        others = {other for one, other in pairs if one == package} - {package}
        assert draw_packages.imported_by(ROOT, package) & set(PACKAGES) == others


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "ablate", tmp_path / "ablate", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_another_import_is_another_picture(copy):
    path = copy / "ablate/losses/tvd.py"
    path.write_text(path.read_text() + "import ablate.example\n")
    assert draw_packages.picture(copy, before=DRAWN) != DRAWN


@pytest.mark.parametrize(("num_lines", "is_redrawn"), [(40, False), (400, True)])
def test_a_package_is_drawn_anew_once_its_length_is_wrong_by_much(copy, num_lines, is_redrawn):
    path, drawn = copy / "ablate/losses/tvd.py", draw_packages.picture(copy, before="")
    path.write_text(path.read_text() + "\n" * num_lines)
    assert (draw_packages.picture(copy, before=drawn) != drawn) == is_redrawn


def test_every_bar_and_its_number_lie_in_their_box():
    boxes = re.findall(
        r'<rect id="(\w+)".*? x="(\d+)" y="\d+" width="(\d+)".*?<text class="count" x="(\d+)"', DRAWN, re.DOTALL
    )
    assert [name for name, *_ in boxes]
    px_of_number = 30
    assert [name for name, left, width, count in boxes if int(count) + px_of_number > int(left) + int(width)] == []


def test_every_package_has_a_sentence_below_the_picture_in_its_order():
    text = (ROOT / "docs" / "architecture.md").read_text()
    bullets = re.findall(r"^- (\*\*.*?\*\*):", text, re.MULTILINE)
    assert [name for bullet in bullets for name in re.findall(r"`(\w+)`", bullet)] == PACKAGES
