"""What is damaged under runs/ is found, marked, and made again; what is not stays."""

import contextlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.damages import REPLACING, contents, within
from support.report_study import ONE_TABLE, bench
from support.toys import chain, checkpointed, drive, one_table, ordered, toy, wait_for

from ablate.cli.app import app
from ablate.core import disk, file_digests
from ablate.core.errors import AblateError, StageError
from ablate.execution.executors.launch import start_fresh
from ablate.maintenance import verify
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.stages import inputs
from ablate.stages.fetch import Fetch, FetchSettings
from ablate.store.stage import Stage
from ablate.store.store import Store

SMALL = ("train.max_steps=3", "train.warmup_steps=1", "evaluate.limit=4", "data.limit=64", "data.holdout=8")
CELLS = ("finetuned_student/student/finetuned", "finetuned_student/teacher=baseline,student=baseline")
PASSING = ("driver.1.left.json", "heartbeat")
"""In a study's folder: who runs it now."""
SEED = 20261127


def _run(root: Path) -> subprocess.CompletedProcess[str]:
    parts = [part for one in SMALL for part in ("--set", one)] + [part for one in CELLS for part in ("--only", one)]
    command = [sys.executable, "-m", "ablate", "--root", str(root), "run", str(one_table(root)), *parts]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real study, brought to its end."""
    root = tmp_path_factory.mktemp("finished")
    run = _run(root)
    assert run.returncode == 0, run.stdout + run.stderr
    return root


def _folder(root: Path, begins: str, number: int = 0) -> Path:
    return sorted(root.glob(f"runs/stages/{begins}-*"))[number]


def _damages(root: Path) -> list[verify.Damage]:
    return verify.verify(verify.parts(Store(root)))


def _flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# everything is found


def _files(root: Path) -> Iterator[tuple[Path, verify.Part]]:
    """Every file under runs/, and what it is looked at with."""
    parts = verify.parts(Store(root))
    for path in sorted((root / "runs").rglob("*")):
        if path.is_file() and not (path.parent.parent.name == "studies" and path.name in PASSING):
            yield path, next(part for part in parts if part.path in (path, *path.parents))


def _is_found(path: Path, part: verify.Part, data: bytes) -> bool:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return bool(list(part.look()))
    finally:
        path.write_bytes(before)


def test_a_finished_study_is_whole(finished):
    assert _damages(finished) == []


def test_every_file_cut_at_each_sixteenth_or_with_a_byte_flipped_is_found(finished):
    dice = random.Random(SEED)
    missed = []
    for path, part in _files(finished):
        data = path.read_bytes()
        hurt = [data[: len(data) * n // 16] for n in range(16) if data] + _flipped(data, [dice.random()])
        missed += [f"{path}: {len(one)} bytes" for one in hurt if not _is_found(path, part, one)]
    assert missed == []
    assert _damages(finished) == []


@pytest.mark.soak
def test_every_byte_of_every_small_file_is_found_whichever_bit_of_it_is_flipped(finished):
    dice = random.Random(SEED)
    for path, part in _files(finished):
        data = path.read_bytes()
        for at in range(len(data) if len(data) < 4096 else 0):
            hurt = bytes([*data[:at], data[at] ^ (1 << dice.randrange(8)), *data[at + 1 :]])
            assert _is_found(path, part, hurt), (path, at)


def _flipped(data: bytes, shares: list[float]) -> list[bytes]:
    places = [int(share * len(data)) for share in shares if data]
    return [bytes([*data[:at], data[at] ^ 1, *data[at + 1 :]]) for at in places]


@pytest.mark.parametrize(
    ("hurt", "why"),
    [
        (lambda folder: (folder / "out/more.json").write_text("{}"), "out/more.json was added after the commit"),
        (lambda folder: (folder / "out/result.json").unlink(), "out/result.json lacks"),
        (lambda folder: (folder / "done.json").unlink(), "done.json lacks"),
        (lambda folder: folder.rename(folder.with_name("toy-0123456789ab")), "it holds toy-"),
        (shutil.rmtree, "it was committed by attempt 1 and is gone"),
    ],
)
def test_what_was_added_removed_or_moved_is_found(tmp_path, hurt, why):
    drive(tmp_path, [toy()])
    hurt(_folder(tmp_path, "toy"))
    reasons = [damage.why for damage in _damages(tmp_path)]
    assert any(one.startswith(why) for one in reasons), reasons


def test_a_result_that_contradicts_itself_is_found_though_every_digest_fits(tmp_path):
    store, stage = Store(tmp_path), toy()
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
    store.commit(attempt, stage.folder, None)
    assert [damage.why for damage in _damages(tmp_path)] == ["the toy left no result"]


def test_a_damaged_checkpoint_of_a_killed_try_is_found_and_one_half_written_is_none(tmp_path):
    attempt = ordered(tmp_path, toy(steps=400, step_s=0.05))
    worker = start_fresh(attempt)
    wait_for(lambda: checkpointed(tmp_path))
    assert _damages(tmp_path) == []  # it is being worked on
    worker.kill()
    worker.wait()
    wait_for(lambda: not list(attempt.checkpoints.glob("**/.*")))
    (attempt.checkpoints / "step-1000").mkdir()
    assert _damages(tmp_path) == []
    last = max(attempt.checkpoints.glob("step-*/state.json"))
    _flip(last)
    (damage,) = _damages(tmp_path)
    assert damage.place == f"attempts/{attempt.key12}/1/checkpoints/{last.parent.name}"


def test_a_fetched_file_that_changed_is_found_and_one_that_is_gone_is_fetched_again(tmp_path):
    cached = tmp_path / "cache" / "model.safetensors"
    cached.parent.mkdir()
    cached.write_bytes(b"weights")
    settings = FetchSettings(source="hub", repo_type="model", repo="a/b", revision="0" * 40)
    store, stage = Store(tmp_path), Stage("fetch", 1, settings)
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    files = {cached.name: {"size": 7, "sha256": file_digests.reread_sha256(cached)}}
    disk.write_json(attempt.out / "manifest.json", {"path": str(cached.parent), "repo": "a/b", "files": files})
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
    store.commit(attempt, stage.folder, None)
    assert _damages(tmp_path) == []
    cached.write_bytes(b"weighty")
    (damage,) = _damages(tmp_path)
    assert damage.why == f"{cached} has other content than was written"
    assert damage.advice == "`ablate run` fetches it again"
    assert not Fetch().is_present(store.folder(stage))
    with pytest.raises(StageError, match="has other content than was written: the same command fetches it again"):
        inputs.fetched(store.folder(stage))
    cached.unlink()
    assert _damages(tmp_path) == []


# what a person is told


def test_verify_names_the_file_the_cells_and_the_command(finished, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    adapter = _folder(root, "finetune") / "out/adapter_model.safetensors"
    _flip(adapter)
    with pytest.raises(SystemExit) as ended:
        app(["verify", "--root", str(root)])
    output = capsys.readouterr().out
    assert ended.value.code == 1
    assert f"damaged: stages/{adapter.parents[1].name}: out/adapter_model.safetensors has other content" in output
    assert "needed by tiny:finetuned_student/student/finetuned@0" in output
    assert f"ablate run {root / 'study.yaml'} --set train.max_steps=3" in output  # the copy of the root has its own


def test_verify_for_a_machine_speaks_of_one_study_where_one_is_named(finished, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    folder = _folder(root, "evaluate")
    _cut(folder / "out/results.json")
    _flip(next(root.glob("runs/checks/*.json")))
    for named, num in ((["tiny"], 1), ([], 2)):
        with pytest.raises(SystemExit) as ended:
            app(["verify", *named, "--json", "--root", str(root)])
        assert ended.value.code == 1
        assert len(damaged := json.loads(capsys.readouterr().out)["damaged"]) == num
        assert (damaged[0]["stage"], len(damaged[0]["run"])) == (folder.name, 1)


# it is made again


def test_run_makes_what_is_damaged_again_and_keeps_what_is_not(finished, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    results = (root / "reports/tiny/results.csv").read_bytes()
    kept = {path: path.stat().st_ino for path in root.glob("runs/stages/*")}
    hurt: dict[Path, Callable[[Path], None]] = {
        _folder(root, "fetch") / "out/manifest.json": _flip,
        _folder(root, "rows") / "done.json": _cut,
        _folder(root, "finetune") / "out/adapter_model.safetensors": _flip,
        _folder(root, "distill") / "stage.json": _flip,
        _folder(root, "evaluate") / "out/results.json": _flip,
    }
    for path, damage in hurt.items():
        damage(path)
    app(["report", "--root", str(root)], standalone_mode=False)
    lines = (root / "reports/tiny/results.csv").read_text().splitlines()
    assert sum(",damaged" in line for line in lines) > 0
    assert [line for line in lines if ",damaged" not in line] == [
        line for line in results.decode().splitlines() if line.split(",")[:3] not in _cells(lines, "damaged")
    ]
    run = _run(root)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (root / "reports/tiny/results.csv").read_bytes() == results
    assert _damages(root) == []
    made_again = {path for path, inode in kept.items() if path.stat().st_ino != inode}
    assert made_again == {path.parents[len(path.relative_to(root).parts) - 4] for path in hurt}
    assert len(list(root.glob("runs/aside/*"))) == len(hurt)


PLACES = (
    "runs/last", "runs/stages", "runs/attempts", "runs/studies", "runs/studies/tiny", "runs/studies/tiny/study.json",
    "runs/studies/tiny/driver.1.left.json", "runs/tokens", "runs/checks", "runs/aside", "reports/tiny",
    "reports/tiny/report.html", "{evaluate}", "{evaluate}/done.json", "{evaluate}/out", "{evaluate}/out/results.json",
    "{distill}/stage.json", "{distill}/metrics.jsonl", "{distill}/out", "{attempt}", "{attempt}/exit.json",
    "{attempt}/attempt.json", "{attempt}/worker.json", "{attempt}/log.txt",
)  # fmt: skip
VERBS = (
    ["verify"], ["status", "tiny"], ["gc", "--dry-run"], ["stop", "tiny"], ["logs", "tiny", "{key}"],
    ["explain", "tiny"], ["diff", "{key}", "{other}"], ["export", "tiny:{cell}", "{dest}"], ["report", "tiny"],
)  # fmt: skip


def _place(root: Path, name: str) -> Path:
    evaluate, distill = _folder(root, "evaluate"), _folder(root, "distill")
    attempt = root / "runs/attempts" / distill.name.rpartition("-")[2] / "1"
    return root / name.format(evaluate=evaluate, distill=distill, attempt=attempt)


def _tried(root: Path, verb: list[str], words: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a verb finds, it comes to its end, and says what a reader can do about it or nothing."""
    with within(60), contextlib.suppress(SystemExit, AblateError):
        app([word.format(**words) for word in verb] + ["--root", str(root)])
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("num", [8, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_verb_hangs_or_breaks_whatever_lies_wherever(finished, tmp_path, capsys, num):
    dice = random.Random(SEED)
    pairs = [(name, place) for name in REPLACING for place in PLACES]
    words = {
        "key": _folder(finished, "distill").name, "other": _folder(finished, "finetune").name, "cell": CELLS[1],
        "dest": str(tmp_path / "model"),
    }  # fmt: skip
    for name, place in dice.sample(pairs, min(num, len(pairs))):
        root = tmp_path / "root"
        shutil.copytree(finished, root)
        REPLACING[name](_place(root, place))
        outside = contents(tmp_path / "root.decoy")
        for verb in VERBS if num > 8 else [*dice.sample(VERBS[:-2], 4), VERBS[-2]]:
            try:
                _tried(root, verb, words, capsys)
            except BaseException as error:
                raise AssertionError(f"{verb[0]}, {name} at {place}") from error
        assert contents(tmp_path / "root.decoy") == outside
        for path in tmp_path.iterdir():
            disk.remove_tree(path)


def test_run_of_a_root_full_of_links_and_pipes_ends_in_the_same_results(finished, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    results = (root / "reports/tiny/results.csv").read_bytes()
    places = {
        "runs/last": "loop", "{evaluate}": "link out", "{distill}/out": "link out", "{attempt}": "pipe",
        "runs/tokens": "dangling", "runs/studies/tiny/driver.1.left.json": "pipe",
        "reports/tiny/results.csv": "link out",
    }  # fmt: skip
    for place, path in {place: _place(root, place) for place in places}.items():
        REPLACING[places[place]](path)
    outside = contents(tmp_path / "root.decoy")
    run = _run(root)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (root / "reports/tiny/results.csv").read_bytes() == results
    assert not (root / "reports/tiny/results.csv").is_symlink()
    assert contents(tmp_path / "root.decoy") == outside
    assert _damages(root) == []


def _cells(lines: list[str], state: str) -> list[list[str]]:
    return [line.split(",")[:3] for line in lines if line.endswith(f",{state}")]


# the report


@pytest.mark.parametrize("name", ["out/results.json", "out/samples/hellaswag.jsonl", "stage.json", "done.json"])
@pytest.mark.parametrize("hurt", [_flip, _cut])
def test_a_cell_whose_evaluation_is_damaged_has_no_number_and_says_so(tmp_path, name, hurt):
    study = bench(tmp_path)
    cell = next(cell for cell in study.plan().cells if cell.row.model == "distill")
    study.commit(*study.plan().cells)
    hurt(study.store.folder(cell.evaluate) / name)
    result = next(one for one in collect(study.plan()).cells if one.cell.name == cell.name)
    assert (result.state, dict(result.scores)) == ("damaged", {})
    assert result.why.startswith(f"{name} ")


@pytest.mark.parametrize("name", ["metrics.jsonl", "stage.json", "done.json"])
def test_a_score_outlives_its_training_whose_curve_is_drawn_only_as_it_was(tmp_path, name):
    study = bench(tmp_path)
    cell = next(cell for cell in study.plan().cells if cell.row.model == "distill")
    study.commit(*study.plan().cells)
    _flip(study.store.folder(cell.trained) / name, 3)
    results = collect(study.plan())
    result = next(one for one in results.cells if one.cell.name == cell.name)
    assert result.is_done
    assert result.scores
    assert results.state_of[cell.trained.key].word == "damaged"
    assert (result.curve is None) == (name != "stage.json")


# reading


def test_a_run_takes_nothing_for_done_that_has_other_bytes(tmp_path):
    stages = chain(2)
    drive(tmp_path, stages)
    before = (Store(tmp_path).folder(stages[0]) / "out/result.json").read_bytes()
    _flip(Store(tmp_path).folder(stages[0]) / "out/result.json")
    assert drive(tmp_path, stages).num_started == 1
    assert (Store(tmp_path).folder(stages[0]) / "out/result.json").read_bytes() == before


def test_results_of_a_version_without_seals_count(tmp_path):
    stages = chain(2)
    drive(tmp_path, stages)
    for path in [*tmp_path.glob("runs/stages/*/done.json"), *tmp_path.glob("runs/attempts/*/*/exit.json")]:
        record = json.loads(path.read_text())
        disk.write_json(path, {name: value for name, value in record.items() if name not in (disk.SEAL, "records")})
    assert drive(tmp_path, stages).num_started == 0
    assert _damages(tmp_path) == []


def test_a_damaged_record_of_a_study_is_no_other_study(tmp_path):
    store = Store(tmp_path)
    store.record_study("one", {"study": {"lr": 0.001}})
    path = store.study_folder("one") / "study.json"
    path.write_text(path.read_text().replace("0.001", "0.003"))
    with pytest.raises(AblateError, match="the record of study 'one' is damaged"):
        store.recorded_study()


def test_a_report_that_was_changed_is_written_again(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    path = write_report(study.plan()) / "report.md"
    before = path.read_bytes()
    _flip(path)
    write_report(study.plan())
    assert path.read_bytes() == before


def test_what_a_disk_changed_behind_size_and_time_is_found_by_verify_and_then_by_run(tmp_path):
    store, stage = Store(tmp_path), toy()
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    disk.write_json(attempt.out / "result.json", {"value": 1})
    (attempt.out / "large").write_bytes(b"x" * (2 << 20))
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
    store.commit(attempt, stage.folder, None)
    large = store.folder(stage) / "out/large"
    was = file_digests.sha256(large)
    _flip(large)
    file_digests.remember_sha256(large, was)  # as if inode, size and times were the same
    assert store.done(stage)
    assert [damage.why for damage in _damages(tmp_path)] == ["out/large has other content than was written"]
    assert store.done(stage) is None
