"""Contract of every overview in the registry: a whole study's results in, a piece of the page out, at any time."""

from collections import Counter

import pytest
from support.exhibited import STUDIES, problems_of

from ablate.report.exhibits.base import OVERVIEWS, Piece

NAMES = [*OVERVIEWS]
OF_WHAT_RUNS = {"running"}
"""Shows nothing of a study that is done."""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name.replace(" ", "_"))) for name, make in STUDIES.items()}


@pytest.fixture(scope="module")
def pieces(results):
    """Study -> overview -> its piece."""
    return {study: {name: OVERVIEWS[name](one) for name in NAMES} for study, one in results.items()}


def test_no_two_overviews_have_one_order():
    orders = [OVERVIEWS.order(name) for name in NAMES]
    assert orders == sorted(set(orders))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", STUDIES)
def test_an_overview_makes_a_sound_piece_or_none_at_any_point_of_a_study(pieces, study, name):
    piece = pieces[study][name]
    assert piece is None or (isinstance(piece, Piece) and problems_of(piece) == [])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "running"])
def test_an_overview_has_something_to_show_of_a_study_that_is_done(pieces, name):
    assert bool(pieces["finished"][name]) == (name not in OF_WHAT_RUNS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", ["finished", "half done"])
def test_an_overview_is_the_same_bytes_when_made_again(results, pieces, study, name):
    assert OVERVIEWS[name](results[study]) == pieces[study][name]


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_overviews_write_one_file(pieces, study):
    paths = Counter(path for piece in pieces[study].values() if piece for path in piece.files)
    assert [path for path, num in paths.items() if num > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_among_several_studies_an_overview_writes_files_of_other_names(results, pieces, name):
    alone, beside = pieces["half done"][name], OVERVIEWS[name](results["half done"].among_others())
    assert (alone is None) == (beside is None)
    if alone and beside:
        assert problems_of(beside) == []
        assert {path.replace("/", "/small+", 1) for path in alone.files} == beside.files.keys()
