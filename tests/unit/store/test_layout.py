"""Two runs that begin in the same instant: neither sets aside what the other has just made."""

import pytest

from ablate.core import plain_files
from ablate.store import layout
from ablate.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "root")


def made_at_look(monkeypatch, number, make):
    """Another run makes something right before the look of that number at what lies under a name."""
    looks, look = [], plain_files.what_is

    def what_is(path, **kwargs):
        looks.append(path)
        if len(looks) == number:
            make()
        return look(path, **kwargs)

    monkeypatch.setattr(plain_files, "what_is", what_is)
    return looks


@pytest.mark.parametrize("number", range(1, 8))
def test_a_root_that_another_run_makes_at_any_look_stays(store, monkeypatch, number):
    made_at_look(monkeypatch, number, lambda: (store.runs / "studies/tiny").mkdir(parents=True))
    assert layout.mend(store) == []
    monkeypatch.undo()
    (store.runs / "studies/tiny").mkdir(parents=True, exist_ok=True)
    assert [path.name for path in store.root.iterdir()] == ["runs"]


@pytest.mark.parametrize("number", range(1, 8))
def test_so_does_a_link_whose_target_it_makes(store, monkeypatch, number, tmp_path):
    store.root.mkdir()
    store.runs.symlink_to(tmp_path / "disk/runs")
    (tmp_path / "disk").mkdir()
    made_at_look(monkeypatch, number, lambda: (tmp_path / "disk/runs/studies").mkdir(parents=True, exist_ok=True))
    assert layout.mend(store) == []
    assert store.runs.is_symlink()
    assert (tmp_path / "disk/runs").is_dir()


def test_what_another_run_has_set_aside_and_made_again_stays(store, monkeypatch):
    (store.runs / "studies").mkdir(parents=True)
    (store.runs / "studies/tiny").write_text("no folder")
    strange = layout.strange

    def mended_meanwhile(runs):
        found = strange(runs)
        if found:
            (runs / "studies/tiny").unlink()
            (runs / "studies/tiny").mkdir()
        return found

    monkeypatch.setattr(layout, "strange", mended_meanwhile)
    assert layout.mend(store) == []
    assert (store.runs / "studies/tiny").is_dir()
    assert not store.aside.exists()
