"""A root in which anything may lie anywhere: nothing hangs, nothing outside is touched, and it is made again."""

import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.damages import ADDING, DAMAGES, DECOY, REPLACING, contents, within
from support.executors import AtOnce
from support.faulty import without_waiting
from support.one_stage import work
from support.toys import drive, quiet, toy, value_of

from ablate.core import disk, plain_files
from ablate.core.disk_operations import through
from ablate.core.errors import AblateError
from ablate.core.values import digest
from ablate.evaluation import known_tokens
from ablate.execution.driver import driving
from ablate.execution.executors.base import LOCAL
from ablate.machine.slots import Slot
from ablate.maintenance import garbage, verify
from ablate.maintenance.garbage import References
from ablate.store.stage import Stage
from ablate.store.store import Store

SEED = 20261130
LONGEST_S = 20.0
KEPT = (".json", ".jsonl", ".safetensors", ".txt")
"""Of files whose content means something."""


class Here(AtOnce):
    """Stages are done in this process, in a moment."""

    name = LOCAL

    def __init__(self) -> None:
        super().__init__([Slot("cpu", frozenset({"heavy", "light"}))], lambda attempt: work(attempt, lambda: False))


def run(root: Path, stages: Sequence[Stage]) -> list[str]:
    """-> what a reader is told."""
    lines: list[str] = []
    store = Store(root)
    with driving(store, "toys", Here(), quiet(lines.append)) as driver:
        store.record_study("toys", {"study": {"name": "toys"}, "source": "", "overrides": [], "pins": []})
        assert driver.run(stages, lambda _: 1.0).exit_code == 0, lines
    return lines


STAGES = [base := toy(steps=3, seed=1), toy(base, steps=3, seed=2)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished root that has something at every place."""
    root = tmp_path_factory.mktemp("roots") / "finished"
    unfinished = toy(steps=3, seed=9)
    store = Store(root)
    run(root, STAGES)
    for folder in ("checks", "tokens", "aside/old.1", "trash/1.2.3"):
        (store.runs / folder).mkdir(parents=True)
    disk.write_sealed(store.checks / f"{digest({'card': 'one'})[:12]}.json", {"card": "one", "difference": 0.0})
    known_tokens._write(store.tokens / "some.safetensors", [[1, 2], [3]])
    attempt = store.claim(unfinished.key12)
    attempt.checkpoints.mkdir()
    (attempt.checkpoints / "step-1").mkdir()
    disk.write_json(attempt.checkpoints / "step-1/manifest.json", {})
    attempt.log.write_text("a line\n")
    attempt.write_exit(failure="killed", message="")
    assert verify.verify(verify.parts(store)) == []
    return root


def places(root: Path) -> Iterator[Path]:
    """Every file and folder under runs/, those of the trash and what was set aside but for the folders themselves."""
    for path in sorted((root / "runs").rglob("*")):
        if not {"aside", "trash"} & {folder.name for folder in path.parents}:
            yield path.relative_to(root)


def is_damage(path: Path, name: str) -> bool:
    """Whether it is more than a file that somebody laid beside others, or into what is thrown away."""
    is_of_no_use = not {"aside", "trash"}.isdisjoint(path.parts) or (name == "huge" and path.suffix not in KEPT)
    return name not in ADDING or not is_of_no_use


def samples(finished: Path, num: int) -> list[tuple[str, Path]]:
    """Every kind of damage at some places; every place is hurt once at least where `num` allows it."""
    dice, everywhere = random.Random(SEED), list(places(finished))
    pairs = [(name, place) for name in DAMAGES for place in everywhere if is_damage(finished / place, name)]
    return dice.sample(pairs, num) if num < len(pairs) else pairs


def require_sound_after(root: Path, name: str, place: Path) -> None:
    expected = [value_of(root, stage) for stage in STAGES]
    DAMAGES[name](root / place)
    outside = contents(root.with_name(f"{root.name}.{DECOY}"))
    store = Store(root)
    with within(LONGEST_S):
        named = [damage.place for damage in verify.verify(verify.parts(store))]
        assert any(one.split("/")[0] == place.parts[1] for one in named) or (named and len(place.parts) == 2)
    with within(LONGEST_S), through(without_waiting):
        run(root, STAGES)
        assert [value_of(root, stage) for stage in STAGES] == expected
    with within(LONGEST_S), through(without_waiting):
        needed = References(frozenset(stage.folder for stage in STAGES))
        garbage.remove(store, garbage.find(store, needed, 0.0), needed, lambda: needed)
        assert all(map(store.done, STAGES))
    assert contents(root.with_name(f"{root.name}.{DECOY}")) == outside
    with within(LONGEST_S):
        kinds = [damage for damage in verify.verify(verify.parts(store)) if "should be" in damage.why]
        assert kinds == []


@pytest.mark.parametrize("num", [60, pytest.param(10_000, marks=pytest.mark.soak)])
def test_whatever_lies_wherever_under_runs_is_named_set_aside_and_made_again(finished, tmp_path, num):
    print("seed", SEED)
    root = tmp_path / "root"
    for name, place in samples(finished, num):
        shutil.copytree(finished, root)
        try:
            require_sound_after(root, name, place)
        except BaseException as error:
            raise AssertionError(f"{name} at {place}") from error
        for path in tmp_path.iterdir():
            disk.remove_tree(path)


# runs/ itself


def test_runs_may_be_a_link_to_a_folder_of_any_name(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "disk" / "of another name"
    root.mkdir()
    elsewhere.parent.mkdir()
    (root / "runs").symlink_to(elsewhere)  # which is made
    assert drive(root, STAGES).exit_code == 0
    assert (root / "runs").is_symlink()
    assert {path.name for path in elsewhere.glob("stages/*")} == {stage.folder for stage in STAGES}
    assert verify.verify(verify.parts(Store(root))) == []
    assert drive(root, STAGES).num_started == 0


def test_a_link_to_a_disk_that_is_not_there_is_told_and_nothing_is_begun_anew(tmp_path):
    (tmp_path / "runs").symlink_to(tmp_path / "unmounted" / "runs")
    with pytest.raises(AblateError, match="is not there: mount its disk, or remove the link"):
        run(tmp_path, STAGES)
    (damage,) = verify.verify(verify.parts(Store(tmp_path)))
    assert damage.why.startswith("it is a link to ")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.parametrize("name", ["loop", "endless", "pipe", "socket", "device", "swapped"])
def test_what_lies_in_the_place_of_runs_itself_is_set_aside(finished, tmp_path, name):
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    with within(LONGEST_S):
        REPLACING[name](root / "runs")
        (damage,) = verify.verify(verify.parts(Store(root)))
        assert "it is " in damage.why
        run(root, STAGES)
    assert [value_of(root, stage) for stage in STAGES] == [value_of(finished, stage) for stage in STAGES]
    assert plain_files.what_is(root / "runs.1") is not None


def test_no_folder_is_too_deep_to_be_removed(tmp_path):
    before, top = Path.cwd(), tmp_path / "top"
    top.mkdir()
    try:
        os.chdir(top)
        for _ in range(1500):
            os.mkdir("deep")  # noqa: PTH102
            os.chdir("deep")
    finally:
        os.chdir(before)
    disk.remove_tree(top)
    assert list(tmp_path.iterdir()) == []


# what its mode closes

OTHER = 12_345


def as_another(root: Path, values: list[int]) -> None:
    os.environ["XDG_CACHE_HOME"] = str(root.with_name("cache"))
    os.setgid(OTHER)
    os.setuid(OTHER)
    assert verify.verify(verify.parts(Store(root)))
    run(root, STAGES)
    assert [value_of(root, stage) for stage in STAGES] == values
    assert verify.verify(verify.parts(Store(root))) == []


@pytest.mark.skipif(os.getuid() != 0, reason="wants to be somebody whom modes keep out")
@pytest.mark.parametrize("place", ["runs", "runs/stages", "runs/attempts/*", "runs/stages/*/out/result.json"])
def test_what_its_mode_closes_is_opened_again_or_made_again(finished, place):
    with tempfile.TemporaryDirectory(prefix="ablate-tests-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "root"
        shutil.copytree(finished, root)
        for path in (root, *root.rglob("*")):
            os.chown(path, OTHER, OTHER)
        next(root.glob(place)).chmod(0)
        pid = os.fork()
        if pid == 0:
            try:
                as_another(root, [value_of(finished, stage) for stage in STAGES])
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
