"""One name, one study: another file under a name that is taken is refused, the same one edited or moved is not."""

import os
import shutil
from pathlib import Path

import pytest
import yaml
from support.local_study import study as study

import ablate
from ablate.cli.app import app
from ablate.core.errors import NameTakenError
from ablate.execution.study_run import RunOptions, run_cells
from ablate.planning.project import open_study, project_of, reopen_study
from ablate.store.store import Store


def ran(path: Path, root: Path, *overrides: str, is_take_over: bool = False, is_rehearsal: bool = False) -> None:
    """As `run` begins, and before it has made anything."""
    project = open_study(path, root, overrides, is_rehearsal=is_rehearsal)
    if not is_take_over:
        project.require_own_name()
    project.record(project.locked_pins(), project.plan(is_online=False), is_take_over=is_take_over)


def copied(study: Path, folder: str, **edits: object) -> Path:
    """-> the study, with what lies beside it, in another folder."""
    target = study.parent.with_name(f"{study.parent.name}-{folder}")
    shutil.copytree(study.parent, target, ignore=shutil.ignore_patterns("runs", "reports"))
    edited(target / study.name, **edits)
    return target / study.name


def edited(path: Path, **edits: object) -> None:
    if edits:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | edits, sort_keys=False))


def test_a_copy_that_was_edited_with_its_name_left_is_refused_and_nothing_is_changed(study):
    root, second = study.parent, study.with_name("v2.yaml")
    ran(study, root)
    shutil.copy(study, second)
    edited(second, seeds=[0, 1])
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    words = f"{second} has the name of another study: 'named' was run here from {study}, last at 20"
    for run in (
        lambda: ablate.run(second, root=root),
        lambda: run_cells(open_study(second, root), RunOptions()),
        lambda: ablate.results(second, root=root),
        lambda: app(["run", str(second), "--root", str(root)], standalone_mode=False),
        lambda: app(["stop", str(second), "--root", str(root)], standalone_mode=False),
        lambda: app(["report", str(second), "--root", str(root)], standalone_mode=False),
    ):
        with pytest.raises(NameTakenError) as error:
            run()
        assert str(error.value).startswith(words)
        assert "another `name:`" in str(error.value)
        assert "--take-over" in str(error.value)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_another_name_is_no_matter_wherever_it_is_given(study):
    second = study.with_name("v2.yaml")
    shutil.copy(study, second)
    edited(second, seeds=[0, 1])
    ran(study, study.parent)
    ran(second, study.parent, "name=other")
    assert Store(study.parent).study_names() == ["named", "other"]


def test_validate_and_plan_tell_before_it_is_run(study, capsys):
    second = study.with_name("v2.yaml")
    shutil.copy(study, second)
    edited(second, seeds=[0, 1])
    ran(study, study.parent)
    app(["validate", str(second), "--root", str(study.parent)], standalone_mode=False)
    assert "has the name of another study" in capsys.readouterr().err
    app(["validate", str(study), "--root", str(study.parent)], standalone_mode=False)
    assert "another study" not in capsys.readouterr().err


def test_the_same_file_edited_is_the_same_study(study):
    ran(study, study.parent)
    edited(study, seeds=[0, 1])
    ran(study, study.parent)
    assert reopen_study(study.parent).study.seeds == (0, 1)


def test_a_file_that_moved_is_the_same_study_edited_or_not(study):
    ran(study, study.parent)
    moved = study.rename(study.with_name("moved.yaml"))
    edited(moved, seeds=[0, 1])
    ran(moved, study.parent)
    assert reopen_study(study.parent).source == moved


def test_a_file_whose_name_was_changed_since_gives_its_old_one_free(study):
    second = study.with_name("v2.yaml")
    shutil.copy(study, second)
    ran(study, study.parent)
    edited(study, name="first")
    edited(second, seeds=[0, 1])
    ran(second, study.parent)
    assert reopen_study(study.parent).source == second


def test_one_file_in_two_checkouts_is_one_study_until_they_differ(study):
    root, other = study.parent, copied(study, "checkout")
    ran(study, root)
    ran(other, root)
    edited(other, seeds=[0, 1])
    with pytest.raises(NameTakenError, match=f"run here from {study}"):
        ran(other, root)
    edited(study, seeds=[0, 1])  # pulled there too
    ran(other, root)


def test_what_a_file_says_counts_and_not_how_it_is_written(study):
    other = copied(study, "checkout")
    ran(study, study.parent)
    other.write_text("# mine\n" + yaml.safe_dump(yaml.safe_load(other.read_text())))
    ran(other, study.parent)


def test_what_a_study_extends_is_part_of_what_it_says(study):
    study.rename(study.with_name("base.yaml"))
    study.write_text("extends: base.yaml\nseeds: [1]\n")
    other = copied(study, "checkout")
    ran(study, study.parent)
    ran(other, study.parent)
    edited(other.with_name("base.yaml"), title="another")
    with pytest.raises(NameTakenError):
        ran(other, study.parent)


def test_take_over_lets_another_file_have_the_name_and_keeps_it_from_the_first(study):
    root, second = study.parent, study.with_name("v2.yaml")
    shutil.copy(study, second)
    edited(second, seeds=[0, 1])
    ran(study, root)
    ran(second, root, is_take_over=True)
    edited(second, seeds=[0, 1, 2])
    ran(second, root)
    with pytest.raises(NameTakenError, match=f"run here from {second}"):
        project_of(study, root)


def test_a_rehearsal_and_a_study_that_is_named_like_it_are_two(study):
    second = study.with_name("v2.yaml")
    shutil.copy(study, second)
    edited(second, name="named-rehearsal")
    ran(study, study.parent, is_rehearsal=True)
    ran(study, study.parent, is_rehearsal=True)
    with pytest.raises(NameTakenError):
        ran(second, study.parent)


def test_a_root_that_was_copied_with_its_study_goes_on_with_the_copy(study):
    ran(study, study.parent)
    copy = copied(study, "copy").parent
    shutil.copytree(study.parent / "runs", copy / "runs")
    edited(copy / study.name, seeds=[0, 1])
    ran(copy / study.name, copy)
    assert reopen_study(copy).source == copy / study.name
    with pytest.raises(NameTakenError):
        ran(copy / study.name, study.parent)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_another_user_keeps_to_himself_is_there(study):
    root, other = study.parent, copied(study, "theirs", seeds=[0, 1])
    ran(other, root)
    other.parent.chmod(0)
    try:
        with pytest.raises(NameTakenError):
            ran(study, root)
    finally:
        other.parent.chmod(0o700)


def test_a_run_says_what_has_changed_since_the_last_one(study):
    root = study.parent
    ran(study, root)
    assert open_study(study, root).changes() == []
    edited(study, seeds=[0, 1], title="More")
    assert open_study(study, root).changes() == [
        "since the last run, the study has changed: title: none -> More; seeds: [0] -> [0, 1]"
    ]
    ran(study, root)
    assert open_study(study, root, ("report.delta=0.02",)).changes() == [
        "since the last run, without --set, the study has changed: report.delta: 0.01 -> 0.02"
    ]
    ran(study, root, "report.delta=0.02")
    edited(study, report={"delta": 0.02})
    assert open_study(study, root).changes() == [
        "the last run was with --set report.delta=0.02, which comes to the same"
    ]


def test_a_verb_says_that_the_last_run_was_under_other_overrides(study, capsys):
    ran(study, study.parent, "report.delta=0.02")
    app(["status", str(study), "--root", str(study.parent)], standalone_mode=False)
    words = "note: named was last run with --set report.delta=0.02; this is named without --set"
    assert words in capsys.readouterr().err
    for asked in (["named"], [str(study), "--set", "report.delta=0.02"]):
        app(["status", *asked, "--root", str(study.parent)], standalone_mode=False)
        assert capsys.readouterr().err == ""
