"""Contract of every exhibit in the registry: one ablation's results in, a piece of the page out, at any time."""

from collections import Counter

import pytest
from support.exhibited import EVIL, STUDIES, problems_of

from ablate.report.exhibits.base import EXHIBITS, Piece

NAMES = [*EXHIBITS]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name.replace(" ", "_"))) for name, make in STUDIES.items()}


@pytest.fixture(scope="module")
def pieces(results):
    """Study -> exhibit -> its pieces, one an ablation."""
    return {study: {name: shown(name, one) for name in NAMES} for study, one in results.items()}


def shown(name, results):
    return [EXHIBITS[name](results, ablation) for ablation in results.ablations]


def test_no_two_exhibits_have_one_order():
    orders = [EXHIBITS.order(name) for name in NAMES]
    assert orders == sorted(set(orders))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", STUDIES)
def test_an_exhibit_makes_a_sound_piece_or_none_at_any_point_of_a_study(pieces, study, name):
    for piece in pieces[study][name]:
        assert piece is None or (isinstance(piece, Piece) and problems_of(piece) == [])


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_has_something_to_show_of_a_study_that_is_done(pieces, name):
    assert any(pieces["finished"][name])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_shown_of_what_was_never_measured_but_that_it_is_not_there_yet(pieces, name):
    for piece in pieces["never begun"][name]:
        assert piece is None or not any(path.endswith(".png") for path in piece.files)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("study", ["finished", "half done"])
def test_an_exhibit_is_the_same_bytes_when_made_again(results, pieces, study, name):
    assert shown(name, results[study]) == pieces[study][name]


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_pieces_write_one_file(pieces, study):
    paths = Counter(path for of_name in pieces[study].values() for piece in of_name if piece for path in piece.files)
    assert [path for path, num in paths.items() if num > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_among_several_studies_an_exhibit_writes_files_of_other_names_and_the_same_tables(results, pieces, name):
    among = results["half done"].among_others()
    for alone, beside in zip(pieces["half done"][name], shown(name, among), strict=True):
        assert (alone is None) == (beside is None)
        if alone and beside:
            assert problems_of(beside) == []
            renamed = {path.replace("/", "/small+", 1): data for path, data in alone.files.items()}
            assert renamed.keys() == beside.files.keys()
            assert all(beside.files[path] == data for path, data in renamed.items() if path.endswith(".csv"))


def test_a_label_that_was_let_in_would_be_seen(pieces):
    assert problems_of(Piece(f"<p>{EVIL}</p>", "")) != []
    assert problems_of(Piece("", "", {"../mine.csv": b""})) == ["../mine.csv is outside"]
    shown = [piece.html for of_name in pieces["hostile"].values() for piece in of_name if piece]
    assert any("&lt;script&gt;" in html for html in shown)
