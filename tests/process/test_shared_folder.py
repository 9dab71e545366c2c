"""One runs/ that several machines see, each late and without locks between them: a run comes to the same end.

The judge reads the server's own folder.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.late_view import Machine, why_not
from support.paths import ROOT
from support.toys import chain, drive, metrics_of, value_of, wait_for

from ablate.execution.remote_example.cluster import start_cluster
from ablate.store.store import Store

LATE_S = 1.5
LENGTH, STEPS = 3, 6
DRIVER = """
import sys
from pathlib import Path
from ablate.execution import driver_records, watched
from support.toys import chain, drive
watched.LOST_S = driver_records.PATIENCE_S = 6.0
root, study, length, steps, step_s = sys.argv[1:]
stages = chain(int(length), steps=int(steps), step_s=float(step_s))
summary = drive(Path(root), stages, study=study, write=lambda line: print(line, flush=True))
sys.exit(summary.exit_code)
"""

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def machines(tmp_path) -> Iterator[tuple[Machine, Machine]]:
    server, place = tmp_path / "server", tmp_path / "shared"
    server.mkdir()
    place.mkdir()
    with Machine("alpha", server, place, LATE_S) as alpha, Machine("beta", server, place, LATE_S) as beta:
        yield alpha, beta


def run_on(machine: Machine, code: str, *words: str) -> "subprocess.Popen[str]":
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return machine.popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


def driven(machine: Machine, study: str, step_s: float = 0.1) -> "subprocess.Popen[str]":
    return run_on(machine, DRIVER, str(machine.place), study, str(LENGTH), str(STEPS), str(step_s))


def ended(run: "subprocess.Popen[str]") -> tuple[int, str]:
    lines, _ = run.communicate(timeout=180)
    return run.returncode, lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> int:
    """What the last of the toys counts to on a disk of one's own."""
    root, stages = tmp_path_factory.mktemp("undisturbed"), chain(LENGTH, steps=STEPS)
    drive(root, stages)
    return value_of(root, stages[-1])


def require_right(server: Path, undisturbed: int) -> None:
    stages = chain(LENGTH, steps=STEPS)
    assert value_of(server, stages[-1]) == undisturbed
    assert [metrics_of(server, stage) for stage in stages] == [list(range(1, STEPS + 1))] * LENGTH
    folders = [path.name for path in (server / "runs/stages").iterdir()]
    assert sorted(folders) == sorted(stage.folder for stage in stages)
    assert all(Store(server).done(stage) for stage in stages)
    assert list(server.rglob(".nfs*")) == []


def words_of(server: Path) -> Sequence[str]:
    """How attempts say that they ended."""
    return [json.loads(path.read_text())["failure"] for path in (server / "runs/attempts").glob("*/*/exit.json")]


def test_two_drivers_on_two_machines_that_see_late_share_their_stages(machines, undisturbed, tmp_path):
    runs = [driven(machine, machine.name) for machine in machines]
    for code, lines in map(ended, runs):
        assert code == 0, lines
    require_right(tmp_path / "server", undisturbed)
    assert set(words_of(tmp_path / "server")) <= {"ok", "cancelled"}


COMMIT = """
import mmap, sys
from pathlib import Path
from support.toys import chain, ordered
from ablate.core import disk
from ablate.execution.remote_example.cluster import start_cluster
from ablate.store.store import Store
root = Path(sys.argv[1])
(stage,) = chain(1)
attempt = ordered(root, stage)
attempt.out.mkdir(parents=True)
(attempt.checkpoints / "step-1").mkdir(parents=True)
for place in (attempt.checkpoints / "step-1" / "model.safetensors", attempt.out / "scratch.safetensors"):
    place.write_bytes(b"weights")
    with place.open("rb") as file:
        globals()[place.stem] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
(attempt.out / "scratch.safetensors").unlink()
(attempt.out / "result.json").write_text("{}")
disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
assert Store(root).commit(attempt, stage.folder, None)
left = [path.name for path in root.rglob(".nfs*")]
assert len(left) == 2, left
assert bytes(model) == bytes(scratch) == b"weights"
"""


def test_what_is_committed_while_files_of_it_are_read_is_whole_and_lists_none_that_is_deleted(machines, tmp_path):
    run = run_on(machines[0], COMMIT, str(machines[0].place))
    code, lines = ended(run)
    assert code == 0, lines
    (stage,) = chain(1)
    assert [*Store(tmp_path / "server").done(stage)["files"]] == ["out/result.json", "stage.json"]
    assert list((tmp_path / "server").rglob(".nfs*")) == []


def test_the_end_of_what_another_machine_does_is_seen_in_seconds_where_absence_is_remembered_for_a_minute(tmp_path):
    server, place = tmp_path / "server", tmp_path / "shared"
    server.mkdir()
    place.mkdir()
    with Machine("alpha", server, place, 60, True) as alpha, Machine("beta", server, place, 60, True) as beta:
        works = driven(beta, "beta", step_s=0.4)
        wait_for(lambda: list(server.glob("runs/attempts/*/*/worker.json")))
        waits = driven(alpha, "alpha", step_s=0.4)
        assert ended(works)[0] == 0
        began = time.monotonic()
        code, lines = ended(waits)
        assert code == 0, lines
        assert time.monotonic() - began < 45
    assert sorted(word for word in words_of(server) if word != "cancelled") == ["ok"] * LENGTH


def test_a_machine_that_goes_down_is_followed_by_another(machines, undisturbed, tmp_path):
    alpha, beta = machines
    server = tmp_path / "server"
    first = driven(alpha, "toys", step_s=0.5)
    wait_for(lambda: list(server.glob("runs/attempts/*/*/checkpoints/step-*/manifest.json")))
    alpha.kill()
    first.communicate()
    code, lines = ended(driven(beta, "toys"))
    assert code == 0, lines
    require_right(server, undisturbed)


PILOTED = """
import sys, time
from pathlib import Path
from support.executors import drive_on
from support.toys import chain
root, length, steps, step_s = sys.argv[1:]
stages = chain(int(length), steps=int(steps), step_s=float(step_s))
print(drive_on("remote_example", Path(root), stages, lambda line: print(line, flush=True)).exit_code)
"""


@pytest.mark.parametrize(
    ("late_s", "asks_when_opened"),
    [pytest.param(LATE_S, False, marks=pytest.mark.soak), (60.0, True)],
    ids=["late", "as NFS"],
)
def test_jobs_of_a_cluster_whose_nodes_see_late_do_a_run_in_seconds(
    tmp_path, monkeypatch, undisturbed, late_s, asks_when_opened
):
    server, place, cluster = tmp_path / "server", tmp_path / "shared", tmp_path / "cluster"
    server.mkdir()
    place.mkdir()
    monkeypatch.setenv("ABLATE_EXAMPLE_CLUSTER", str(cluster))
    start_cluster(cluster).terminate()
    with (
        Machine("alpha", server, place, late_s, asks_when_opened) as alpha,
        Machine("beta", server, place, late_s, asks_when_opened) as beta,
    ):
        controller = [sys.executable, "-m", "ablate.execution.remote_example.cluster", str(cluster), str(os.getpid())]
        beta.popen(controller, env=os.environ | {"PYTHONPATH": str(ROOT)})
        began = time.monotonic()
        code, lines = ended(run_on(alpha, PILOTED, str(place), str(LENGTH), str(STEPS), "0.1"))
        assert (code, lines.splitlines()[-1]) == (0, "0"), lines
        assert time.monotonic() - began < 150, lines  # an absence that is remembered at each stage takes longer
    require_right(server, undisturbed)
    assert sorted(words_of(server)).count("ok") == LENGTH
