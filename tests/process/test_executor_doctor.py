"""`ablate doctor --executor`: stages are sent to a profile's machines, what they see is told, and nothing stays."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.executors import Instant, Service, example_service
from support.slurm import RealSlurm, shared_slurm
from support.toys import ours, wait_for

from ablate.core.doctor_line import Line
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.profiles import Profile
from ablate.execution.remote_example.executor import NAME
from ablate.machine.slots import Slot
from ablate.maintenance import executor_doctor, node_lines, node_visit
from ablate.stages.machine_check import machine, with_sender

REMOTE = Profile(NAME, NAME)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with example_service(tmp_path / "cluster") as service:
        for name, value in service.variables.items():
            monkeypatch.setenv(name, value)
        yield service
    for left in ours(tmp_path):
        left.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def lines_of(root: Path, profile: Profile, wait_s: float = 60.0) -> tuple[list[Line], list[str]]:
    """-> what is told, and what was said meanwhile."""
    said_meanwhile: list[str] = []
    return list(executor_doctor.doctor(root, profile, wait_s, said_meanwhile.append)), said_meanwhile


def test_stages_run_where_the_profile_says_their_machines_are_told_and_nothing_stays(cluster, root):
    lines, _ = lines_of(root, REMOTE)
    assert [line for line in lines if line.state != "ok"] == []
    runs = [line for line in lines if line.what == f"a stage on {NAME}"]
    assert len(runs) == 2
    assert all("node-" in line.text for line in runs)
    host = machine()["host"]
    whats = {line.what for line in lines}
    assert {host, f"libraries of {host}", f"models on {host}", f"exclusive create, {host} and here"} <= whats
    assert list(root.iterdir()) == []
    wait_for(lambda: ours(root) == [], 20)


def test_a_job_that_does_not_come_is_said_while_it_is_waited_for_and_taken_back_in_the_end(cluster, root, monkeypatch):
    monkeypatch.setattr(node_visit, "SAY_EVERY_S", 0.5)
    cluster.hold()
    lines, said_meanwhile = lines_of(root, REMOTE, wait_s=2.0)
    problems = [line for line in lines if line.state == "problem"]
    assert len(problems) == 2
    assert all(line.text.startswith("waited for without an end: job") and "--wait" in line.advice for line in problems)
    assert any(text.startswith("waiting for job") and text.endswith("of 2 s)") for text in said_meanwhile)
    cluster.release()
    time.sleep(1.0)
    assert ours(root) == []
    assert list(root.iterdir()) == []


def test_stopped_it_takes_back_what_it_sent(cluster, root):
    cluster.hold()
    code = (
        "import sys; from pathlib import Path; import support.executors;"
        "from ablate.execution.profiles import Profile; from ablate.maintenance.executor_doctor import doctor;"
        f"print(list(doctor(Path(sys.argv[1]), Profile({NAME!r}, {NAME!r}), 60.0, print)))"
    )
    asked = subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(root.glob(".ablate-doctor-*/runs/attempts/*/1/attempt.json")))
    asked.send_signal(2)
    assert "KeyboardInterrupt" in asked.communicate(timeout=90)[1]
    assert list(root.iterdir()) == []
    cluster.release()
    time.sleep(1.0)
    assert ours(root) == []


NODE = """
import json, platform, sys
from pathlib import Path
from typing import Any
platform.node = lambda: "node-" + sys.argv[2]
from ablate.stages import machine_check
print(json.dumps({"host": platform.node(), "between": machine_check._tried(Path(sys.argv[1]), int(sys.argv[2]))}))
"""


def nodes(shared: Path, *numbers: int) -> list[dict[str, Any]]:
    """-> what nodes write that tried a folder with this process, and between themselves."""
    shared.mkdir()
    questions = [node_visit.FolderQuestion(with_sender(shared, number)) for number in numbers]
    command = [sys.executable, "-c", NODE, str(shared)]
    answering = [subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE) for number in numbers]
    written = [json.loads(one.communicate(timeout=120)[0]) for one in answering]
    for question in questions:
        assert {line.state for line in question.lines("a node and here")} == {"ok"}
    return written


def test_two_nodes_try_between_themselves_the_folder_that_both_see(tmp_path):
    lines = list(node_lines.between(nodes(tmp_path / "shared", 0, 1)))
    assert {line.state for line in lines} == {"ok"}
    assert {"exclusive create, node-1 and node-0", "seen there, node-1 and node-0"} <= {line.what for line in lines}


def test_what_nodes_find_wrong_is_a_problem_and_two_jobs_on_one_node_are_said():
    record = {"host": "node-0", "between": {"node-1": "nothing came of it in 120 s (facts)"}}
    (line,) = node_lines.between([record, {"host": "node-1", "between": {}}])
    assert (line.state, line.what) == ("problem", "folder, node-1 and node-0")
    (line,) = node_lines.between([{"host": "node-0", "between": {}}] * 2)
    assert (line.state, line.text) == ("ok", "not tried: both jobs ran on node-0")


class Checked(Instant):
    """Says that something is wrong; keeps what is sent to it."""

    name = "slrum"

    def __init__(self, answer: Iterable[Line]) -> None:
        super().__init__([Slot("job 1", frozenset({"light", "heavy"}))])
        self.check = lambda: iter(answer)


def out_of_reach() -> Iterator[Line]:
    yield Line("ok", "sbatch", "slurm 21.08")
    raise Unreachable("slurmctld does not answer")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ([Line("problem", "partition", "there is no partition gpuu", "gpu, cpu")], "there is no partition gpuu"),
        (out_of_reach(), "slurmctld does not answer"),
    ],
)
def test_nothing_is_sent_to_a_cluster_that_says_what_is_wrong(root, monkeypatch, answer, text):
    executor = Checked(answer)
    monkeypatch.setitem(EXECUTORS._parts, "slrum", lambda placing: executor)
    lines, _ = lines_of(root, Profile("a100", "slrum"))
    assert (lines[-1].state, lines[-1].text) == ("problem", text)
    assert executor.placed == {}
    assert list(root.iterdir()) == []


def test_a_profile_that_says_what_is_not_possible_is_a_problem(root):
    (line,), _ = lines_of(root, Profile("mine", "local", {"job": 2}))
    assert line.state == "problem"
    assert "unknown key 'job'. Did you mean 'jobs'?" in line.text


def test_a_node_with_other_versions_or_models_elsewhere_is_a_warning_with_both_named():
    here = machine()
    node = here | {"device": "NVIDIA A100", "python": "3.12.1", "hub_cache": ["/home/me/.cache/huggingface/hub", 7]}
    node["versions"] = here["versions"] | {"torch": "2.0.0"}
    lines = {line.what: line for line in node_lines.compared(node, here)}
    host = here["host"]
    assert lines[host].text.startswith("NVIDIA A100, ")
    libraries = lines[f"libraries of {host}"]
    assert libraries.state == "warning"
    assert f"python 3.12.1 ({here['python']} here), torch 2.0.0 ({here['versions']['torch']} here)" in libraries.text
    models = lines[f"models on {host}"]
    assert (models.state, "HF_HOME" in models.advice) == ("warning", True)
    assert models.text.startswith("looked for in /home/me/.cache/huggingface/hub; they are fetched to ")


@pytest.mark.parametrize(
    ("seen", "said", "state", "words"),
    [
        (4, {"num_gpus": 4, "memory_bytes": 80 * 10**9}, "ok", "4 x NVIDIA A100, 80.0 GB"),
        (2, {"num_gpus": 4}, "problem", "2 x NVIDIA A100, 80.0 GB; the profile says 4"),
        (4, {}, "warning", "4 x NVIDIA A100, 80.0 GB, of which a stage uses 1"),
        (1, {}, "ok", "1 x NVIDIA A100, 80.0 GB"),
        (1, {"memory_bytes": 90 * 10**9}, "warning", "1 x NVIDIA A100, 80.0 GB; the profile says 90.0 GB"),
    ],
)
def test_the_cards_of_a_job_are_told_beside_what_its_profile_says(seen, said, state, words):
    node = machine() | {"device": "NVIDIA A100", "card_bytes": [80 * 10**9] * seen}
    (line,) = node_lines.cards(node, Slot("a100 job 1", frozenset({"heavy"}), "cuda", **said))
    assert (line.state, line.text) == (state, words)
    assert list(node_lines.cards(machine(), Slot("c job 1", frozenset({"heavy"})))) == []


# on a real Slurm

SMALL = {"memory": "500M", "cpus": 1, "device": "cpu", "look_s": 0.5, "submissions_per_minute": 600}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> RealSlurm:
    slurm = shared_slurm()
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)
    return slurm


@pytest.mark.slow
def test_on_a_real_slurm_jobs_are_sent_and_gone_again(slurm, root):
    lines, _ = lines_of(root, Profile("a100", "slurm", SMALL | {"partition": "batch"}), wait_s=120.0)
    assert [line for line in lines if line.state != "ok"] == []
    assert {"sbatch", "slurmctld", "such a job"} <= {line.what for line in lines}
    assert len([line for line in lines if line.text.startswith("run by job ") and " on " in line.text]) == 2
    wait_for(lambda: slurm.jobs() == {}, 30)
    assert list(root.iterdir()) == []


def test_where_slurm_has_no_commands_it_says_so(root, monkeypatch):
    monkeypatch.setenv("PATH", str(root))
    lines, _ = lines_of(root, Profile("a100", "slurm"))
    assert (lines[-1].state, lines[-1].what) == ("problem", "sbatch")
    assert "login node" in lines[-1].advice


@pytest.mark.slow
def test_what_a_real_slurm_refuses_is_told_once_in_its_own_words(slurm, root):
    lines, _ = lines_of(root, Profile("a100", "slurm", SMALL | {"partition": "gpuu"}))
    (problem,) = [line for line in lines if line.state == "problem"]
    assert problem == lines[-1]  # nothing was sent
    assert "gpuu" in problem.text
    assert slurm.jobs() == {}
    assert list(root.iterdir()) == []
