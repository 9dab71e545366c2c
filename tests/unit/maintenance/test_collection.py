"""A garbage collection asks before anything goes, and looks again once it was answered."""

import pytest
from support.toys import toy

from ablate.core import disk
from ablate.maintenance import garbage
from ablate.maintenance.collection import collect
from ablate.store.stage import Stage
from ablate.store.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """With a stage that no study needs."""
    monkeypatch.setattr(garbage.find, "__defaults__", (0.0,))
    store = Store(tmp_path)
    commit(store, toy())
    return store


def commit(store: Store, stage: Stage) -> None:
    attempt = store.claim(stage.key12)
    disk.make_folder(attempt.out)
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
    assert store.commit(attempt, stage.folder, None)
    attempt.write_exit(failure="ok", message="")


def test_what_nobody_needs_goes_once_it_was_agreed_to(store):
    agreed = collect(store, is_agreed=lambda pieces, needed: False)
    assert agreed.num_freed is None
    assert store.done(toy())
    collected = collect(store)
    assert {piece.what for piece in collected.pieces} == {piece.what for piece in agreed.pieces} == {"stage", "attempt"}
    assert collected.num_freed > 0
    assert store.done(toy()) is None


def test_a_study_that_is_recorded_while_somebody_thinks_keeps_what_it_may_need(store):
    def begin_a_study(*_: object) -> bool:
        store.record_study("new", {"study": {"what": "this version cannot read"}})
        return True

    collected = collect(store, is_agreed=begin_a_study)
    assert collected.needed.doubts
    assert collected.pieces == []
    assert store.done(toy())
