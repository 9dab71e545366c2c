"""What a root's studies refer to, and when that cannot be told."""

import shutil
from types import SimpleNamespace

import pytest
from support.planned import commit
from support.toys import toy

from ablate.maintenance.references import StudyReferences
from ablate.store.kind import KINDS
from ablate.store.store import Store


@pytest.mark.parametrize("is_named_by_content", [True, False])
def test_what_others_name_by_content_and_is_gone_leaves_a_doubt_whatever_its_kind(
    tmp_path, monkeypatch, is_named_by_content
):
    monkeypatch.setattr(KINDS["toy"], "is_named_by_content", is_named_by_content)
    store, stage = Store(tmp_path), toy()
    references = StudyReferences("toys", "ablate run toys.yaml", (SimpleNamespace(store=store, stages=(stage,)),))
    assert references.doubt is None
    commit(store, stage, "a digest")
    del references.__dict__["doubt"]
    assert (references.doubt is not None) == is_named_by_content
    shutil.rmtree(store.folder(stage))
    store.attempts(stage.key12)[0].write_exit(failure="ok", message="", at=None, seconds=None)
    del references.__dict__["doubt"]
    assert (references.doubt is not None) == is_named_by_content
