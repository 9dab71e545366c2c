"""A root in which anything may lie anywhere: nothing hangs, nothing outside is touched, and it is made again."""

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.damages import ADDING, DAMAGES, DECOY, contents, within
from support.executors import AtOnce
from support.faulty import without_waiting
from support.one_stage import work
from support.toys import quiet, toy, value_of

from ablate.core import disk
from ablate.core.disk_operations import through
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


@pytest.mark.parametrize("num", [120, pytest.param(10_000, marks=pytest.mark.soak)])
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
