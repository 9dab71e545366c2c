"""`ablate gc` takes what nobody needs, and never anything else."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.local_study import study as study
from support.toys import TOYS, chain, checkpointed, drive, ordered, toy, value_of, wait_for

from ablate.cli.app import app
from ablate.core.errors import AblateError
from ablate.execution import status
from ablate.execution.executors.launch import start_fresh
from ablate.execution.stop import stop_study
from ablate.maintenance import garbage, references, verify
from ablate.maintenance.garbage import References
from ablate.planning.project import open_study, reopen_variant
from ablate.store import study_records
from ablate.store.stage import Stage
from ablate.store.store import Store

WRITING = frozenset({"fsync", "rename", "mkdir", "rmdir", "unlink", "write", "open"})


def needing(*stages: Stage) -> References:
    return References(frozenset(stage.folder for stage in stages))


def collect(root: Path, needed: References, *, min_age_s: float = 0.0) -> list[garbage.Piece]:
    store = Store(root)
    pieces = garbage.find(store, needed, min_age_s)
    garbage.remove(store, pieces, needed, lambda: needed)
    return pieces


def folders(root: Path) -> set[str]:
    return {path.name for path in root.glob("runs/stages/*")}


def tries(root: Path, stage: Stage) -> list[int]:
    return [attempt.number for attempt in Store(root).attempts(stage.key12)]


# what goes, what stays


def test_a_stage_goes_that_no_study_needs_with_all_its_tries(tmp_path):
    kept, gone = toy(seed=1), toy(seed=2)
    drive(tmp_path, [kept, gone])
    pieces = collect(tmp_path, needing(kept))
    assert folders(tmp_path) == {kept.folder}
    assert (tries(tmp_path, kept), tries(tmp_path, gone)) == ([1], [])
    assert {piece.what for piece in pieces} == {"stage", "attempt"}
    assert not list(tmp_path.glob("runs/trash/*"))


def test_what_is_younger_than_a_few_minutes_stays(tmp_path):
    drive(tmp_path, [toy()])
    assert garbage.find(Store(tmp_path), References(frozenset())) == []


@pytest.mark.parametrize("name", ["attempt.json", "worker.json", "exit.json"])
def test_a_damaged_record_of_a_try_stops_nobody(tmp_path, name):
    stage = toy(fault="crash")
    drive(tmp_path, [stage])
    path = Store(tmp_path).attempts(stage.key12)[0].path / name
    path.write_text(path.read_text().replace("e", "x", 1))
    assert status.states([stage], Store(tmp_path))[stage.key].word in ("failed", "waiting")
    assert stop_study(Store(tmp_path), "toys") == 0
    assert collect(tmp_path, needing(stage)) == []
    assert drive(tmp_path, [toy()]).exit_code == 0


def test_what_is_dated_later_than_now_stays(tmp_path):
    drive(tmp_path, [toy()])
    for path in tmp_path.glob("runs/**/*"):
        os.utime(path, (time.time() + 3 * 86_400,) * 2)
    assert garbage.find(Store(tmp_path), References(frozenset()), 0.0) == []


def test_the_failed_tries_at_a_stage_that_is_done_go_and_the_one_that_made_it_stays(tmp_path):
    failing, stage = toy(fault="crash"), toy()
    drive(tmp_path, [failing])
    drive(tmp_path, [stage])
    assert tries(tmp_path, stage) == [1, 2]
    collect(tmp_path, needing(stage))
    assert tries(tmp_path, stage) == [2]


def test_the_checkpoint_stays_from_which_an_unfinished_stage_goes_on(tmp_path):
    stage = toy(steps=30, step_s=0.04)
    attempt = ordered(tmp_path, stage)
    supervisor = start_fresh(attempt)
    wait_for(lambda: checkpointed(tmp_path))
    supervisor.kill()
    supervisor.wait()
    for _ in range(2):
        Store(tmp_path).claim(stage.key12).write_exit(failure="killed", message="before its first step")
    collect(tmp_path, needing(stage))
    assert tries(tmp_path, stage) == [1, 3]
    drive(tmp_path, [stage])
    assert "goes on from step" in Store(tmp_path).attempts(stage.key12)[-1].log.read_text()


def test_what_was_set_aside_and_what_a_dead_process_was_writing_goes(tmp_path):
    stage = toy()
    drive(tmp_path, [stage])
    store = Store(tmp_path)
    store.set_aside(stage)
    drive(tmp_path, [stage])
    dead = subprocess.Popen(["true"])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (store.runs / f".last.{pid}").write_text("half")
    (store.runs / ".keep").write_text("a person's")
    collect(tmp_path, needing(stage))
    assert not list(store.runs.glob("aside/*"))
    assert sorted(path.name for path in store.runs.glob(".*")) == sorted([".keep", f".last.{os.getpid()}"])


def test_tokens_that_were_not_used_for_a_month_go(tmp_path):
    store = Store(tmp_path)
    store.tokens.mkdir(parents=True)
    for name, age_s in (("old", 40 * 86_400), ("used", 86_400)):
        path = store.tokens / f"{name}.safetensors"
        path.write_text("tokens")
        os.utime(path, (time.time() - age_s,) * 2)
    collect(tmp_path, References(frozenset()))
    assert [path.stem for path in store.tokens.iterdir()] == ["used"]


def test_files_that_keep_another_name_free_nothing(tmp_path):
    (tmp_path / "one").write_bytes(b"x" * 1000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    pieces = [garbage.Piece(tmp_path / name, "attempt", "", 1000) for name in ("one", "two")]
    assert garbage.num_freed(pieces[:1]) == 0
    assert garbage.num_freed(pieces) == 1000


# in doubt, for studies


def run_of(study: Path, *overrides: str, root: Path | None = None, is_rehearsal: bool = False) -> None:
    """As `run` begins."""
    session = open_study(study, root or study.parent, overrides, is_rehearsal=is_rehearsal)
    session.store.runs.mkdir(exist_ok=True)
    study.with_suffix(".lock.yaml").write_text(
        yaml.safe_dump([{
            "type": "dataset", "repo": "Rowan/hellaswag", "revision": "main", "sha": "1" * 40,
            "endpoint": "https://huggingface.co",
        }])
    )  # fmt: skip
    session.record(session.pins(is_online=True), session.plan())


def names(plan) -> set[str]:
    return {stage.folder for stage in plan.stages if not stage.is_provisional}


def test_a_study_needs_what_it_was_run_with_and_what_its_file_and_lock_say_now(study):
    run_of(study)
    session = open_study(study, study.parent)
    as_run = names(session.plan(is_online=False))
    lock = study.with_suffix(".lock.yaml")
    lock.write_text(lock.read_text().replace("1" * 40, "2" * 40))
    (study.parent / "rows.jsonl").write_text('{"instruction": "c", "input": "", "output": "d"}\n')
    now = names(session.plan())
    assert as_run != now
    needed = references.needed_by_studies(session.store)
    assert needed.folders >= as_run | now
    assert needed.doubts == ()


def test_a_study_that_was_never_run_counts_when_its_file_is_named(study):
    store = Store(study.parent)
    assert references.needed_by_studies(store).folders == frozenset()
    run_of(study)
    shutil.rmtree(store.runs / "studies")
    assert references.needed_by_studies(store, [study]).folders >= names(open_study(study, study.parent).plan())


def test_every_set_of_overrides_that_was_run_keeps_what_it_needs(study):
    needs = {}
    for sets in (("evaluate.limit=1",), ("evaluate.limit=2", "seeds=[0, 1]"), (), ("evaluate.limit=3",)):
        run_of(study, *sets)
        needs[sets] = names(open_study(study, study.parent, sets).plan())
    run_of(study, is_rehearsal=True)
    needs["rehearsal"] = names(open_study(study, study.parent, is_rehearsal=True).plan())
    study.write_text(study.read_text().replace("0.25", "0.75"))
    run_of(study)  # edited, and run again in one of its ways
    needed = references.needed_by_studies(Store(study.parent))
    assert len(set(map(frozenset, needs.values()))) == len(needs)
    assert {sets for sets, folders in needs.items() if not folders <= needed.folders} <= {()}
    for sets in needs:
        if sets != "rehearsal":
            assert names(open_study(study, study.parent, sets).plan()) <= needed.folders
    assert needed.doubts == ()


def test_one_set_of_overrides_is_given_up_by_its_record_and_gc_says_so(study, capsys):
    for number in (1, 2, 3):
        run_of(study, f"evaluate.limit={number}")
    root, store = ["--root", str(study.parent)], Store(study.parent)
    app(["gc", "--dry-run", *root], standalone_mode=False)
    told = capsys.readouterr().out
    assert "kept for studies that were run otherwise than last; to give one up, delete its record:" in told
    (line,) = (line for line in told.splitlines() if "evaluate.limit=1" in line)
    assert "evaluate.limit=3" not in told  # the last run's goes with the study's folder
    given_up = names(open_study(study, study.parent, ("evaluate.limit=1",)).plan())
    others = names(open_study(study, study.parent, ("evaluate.limit=2",)).plan())
    (study.parent / line.rpartition(": ")[2]).unlink()
    needed = references.needed_by_studies(store)
    assert needed.folders >= others
    assert not given_up - others <= needed.folders


def test_what_a_file_needs_whose_name_was_taken_over_stays(study):
    run_of(study)
    second = study.with_name("v2.yaml")
    second.write_text(study.read_text().replace("0.25", "0.75"))
    session = open_study(second, study.parent)
    session.record(session.locked_pins(), session.plan(is_online=False), is_take_over=True)
    needed = references.needed_by_studies(Store(study.parent))
    assert needed.folders >= names(open_study(study, study.parent).plan())


def test_a_study_that_moved_is_kept_once_and_not_twice(study):
    run_of(study)
    moved = study.rename(study.with_name("moved.yaml"))
    run_of(moved, root=study.parent)
    assert len(references.studies_at_hand(Store(study.parent))) == 1


def test_of_more_overrides_than_are_kept_the_oldest_are_given_up(study, monkeypatch):
    monkeypatch.setattr(study_records, "MAX_VARIANTS", 2)
    for number in range(1, 6):
        run_of(study, f"evaluate.limit={number}")
    assert "more than 2 ways: gc keeps no more" in open_study(study, study.parent).changes()[-1]
    kept = [read.overrides for read in map(_project, Store(study.parent).study_variants("named"))]
    assert kept == [("evaluate.limit=3",), ("evaluate.limit=4",)]


def test_verify_reads_the_record_of_every_set_of_overrides(study):
    run_of(study, "evaluate.limit=1")
    run_of(study, "evaluate.limit=2")
    store = Store(study.parent)
    assert verify.verify(verify.parts(store)) == []
    (path,) = store.study_variants("named")
    path.write_text(path.read_text().replace("hellaswag", "hellaswig"))
    (damage,) = verify.verify(verify.parts(store))
    assert (damage.place, damage.study) == (f"studies/named/variants/{path.name}", "named")
    run_of(study, "evaluate.limit=1")  # as is advised
    assert verify.verify(verify.parts(store)) == []


def _project(path: Path):
    return reopen_variant(path.parents[4], path)


@pytest.mark.parametrize("hurt", ["record", "variant", "rows"])
def test_no_stage_goes_while_it_cannot_be_told_what_a_study_needs(study, hurt):
    run_of(study, "seeds=[1]")
    run_of(study)
    store = Store(study.parent)
    drive(study.parent, [toy()])
    if hurt != "rows":
        path = store.study_folder("named") / "study.json" if hurt == "record" else store.study_variants("named")[0]
        path.write_text(path.read_text().replace("hellaswag", "hellaswig"))
    else:
        rows = next(s for s in open_study(study, study.parent).plan().stages if s.kind == "rows")
        store.claim(rows.key12).write_exit(failure="ok", message="")
    needed = references.needed_by_studies(store)
    assert len(needed.doubts) == (2 if hurt == "rows" else 1)
    assert needed.doubts[0].startswith("study named: ")
    assert "stage" not in {piece.what for piece in collect(study.parent, needed)}
    assert folders(study.parent) == {toy().folder}


# beside what runs


def test_nothing_that_a_run_needs_or_makes_goes_while_it_runs(tmp_path):
    stages = chain(3, steps=20, step_s=0.03)
    command = [sys.executable, str(TOYS), str(tmp_path), "3", "0.03", "fresh", "20"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    num_looks = 0
    while run.poll() is None:
        collect(tmp_path, needing(*stages))
        num_looks += 1
        time.sleep(0.05)
    assert run.returncode == 0
    assert num_looks > 5
    drive(tmp_path / "alone", stages)
    assert value_of(tmp_path, stages[-1]) == value_of(tmp_path / "alone", stages[-1])
    assert all(tries(tmp_path, stage) == [1] for stage in stages)


def test_what_is_being_made_stays_and_what_it_is_made_from_though_no_study_needs_it(tmp_path):
    below = toy(seed=1)
    above = toy(below, seed=2, fault="hang")
    drive(tmp_path, [below])
    run = subprocess.Popen(
        [sys.executable, "-c", "import sys; from support.toys import *; "
         f"drive(Path({str(tmp_path)!r}), [toy(toy(seed=1), seed=2, fault='hang')])"],
        cwd=TOYS.parent,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: any(attempt.metrics.is_file() for attempt in Store(tmp_path).attempts(above.key12)))
    assert garbage.find(Store(tmp_path), References(frozenset()), 0) == []
    stop_study(Store(tmp_path), "toys", is_now=True)
    run.wait(60)


def test_what_a_study_came_to_need_meanwhile_is_put_back(tmp_path):
    stage = toy()
    drive(tmp_path, [stage])
    store, before = Store(tmp_path), References(frozenset())
    pieces = garbage.find(store, before, 0)
    assert garbage.remove(store, pieces, before, lambda: needing(stage)) == 0
    assert store.done(stage)
    assert tries(tmp_path, stage) == [1]


def test_what_a_run_began_to_use_while_a_person_was_asked_is_not_touched(tmp_path, monkeypatch):
    stage, moved = toy(), []
    drive(tmp_path, [stage])
    known = iter([References(frozenset()), needing(stage)])
    monkeypatch.setattr(garbage.find, "__defaults__", (0.0,))
    monkeypatch.setattr(references, "needed_by_studies", lambda *_: next(known))
    monkeypatch.setattr(garbage, "remove", lambda store, pieces, *_: moved.extend(pieces) or 0)
    app(["gc", "--yes", "--root", str(tmp_path)], standalone_mode=False)
    assert [piece.path.name for piece in moved if piece.what == "stage"] == []


# killed


def test_a_collection_killed_at_any_moment_leaves_whole_things_and_the_next_one_ends_it(tmp_path):
    kept, gone = toy(seed=1), toy(seed=2)
    drive(tmp_path / "made", [kept, gone])
    num_kills = 0
    for after in range(500):
        root = tmp_path / f"after {after}"
        shutil.copytree(tmp_path / "made", root)
        is_killed = _killed_collection(root, needing(kept), after)
        num_kills += is_killed
        assert Store(root).done(kept)
        assert not (root / "runs/stages" / gone.folder).exists() or Store(root).done(gone)
        for attempt in Store(root).attempts(gone.key12):
            assert attempt.exit
        collect(root, needing(kept))
        assert folders(root) == {kept.folder}
        assert not list(root.glob("runs/trash/*"))
        if not is_killed:
            break
    assert num_kills > 20


def _killed_collection(root: Path, needed: References, after: int) -> bool:
    """-> whether it was killed before it came to its end: at the call of C number `after` that writes."""
    pid = os.fork()
    if pid == 0:
        left = after

        def count(_: object, event: str, what: object) -> None:
            nonlocal left
            if event == "c_call" and getattr(what, "__name__", "") in WRITING:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException):
            sys.setprofile(count)
            collect(root, needed)
        os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


# asked for


def test_without_a_terminal_nothing_is_removed_unless_it_was_agreed_to(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(garbage, "MIN_AGE_S", 0.0)
    monkeypatch.setattr(garbage.find, "__defaults__", (0.0,))
    drive(tmp_path, [toy()])
    root = ["--root", str(tmp_path)]
    with pytest.raises(AblateError, match="say --yes to remove it, --dry-run to look"):
        app(["gc", *root], standalone_mode=False)
    app(["gc", "--dry-run", *root], standalone_mode=False)
    assert folders(tmp_path) == {toy().folder}
    assert "no study at hand needs it" in capsys.readouterr().out
    app(["gc", "--yes", "--json", *root], standalone_mode=False)
    assert '"removed": true' in capsys.readouterr().out
    assert folders(tmp_path) == set()
