"""The script that a cluster's administrator reads, whole; and that bash runs it as it is meant."""

import os
import subprocess
from pathlib import Path

import pytest
from support.paths import GOLDEN

from ablate.execution.pilots.cluster import Refused
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.slurm.script import script

STUDY = Path("/home/ada/kd study/runs/jobs/tiny")
FULL = SlurmOptions(
    partition="gpu",
    account="nlp",
    qos="high",
    time="8h",
    gres="gpu:a100:1",
    cpus=8,
    memory="64GB",
    constraint="a100&nvlink",
    nice=100,
    setup=("module load cuda", "source ~/venv/bin/activate"),
    extra={"reservation": "course 7", "exclude": "n[1-3]", "exclusive": True, "hold": False},
)


def jobs(first: int, num: int, study: Path = STUDY) -> list[PilotJob]:
    return [PilotJob(study / str(number)) for number in range(first, first + num)]


def golden(name: str, text: str) -> None:
    path = GOLDEN / "slurm" / name
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_the_script_of_one_job_with_what_the_cluster_chooses():
    golden("one_job.sh", script(jobs(1, 1), SlurmOptions(), "/opt/ablate/bin/python"))


def test_the_script_of_several_jobs_with_all_that_a_profile_may_say():
    golden("several_jobs.sh", script(jobs(17, 3), FULL, "/opt/ablate/bin/python"))


def run(tmp_path: Path, options: SlurmOptions, task: int | None = None) -> tuple[int, list[str], str]:
    """-> code, arguments of the pilot, log."""
    study = tmp_path / "it's 100 % $HOME" / "runs/jobs/tiny"
    python = tmp_path / "my python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$$" "$@" > "${@: -1}/words"\n')
    python.chmod(0o755)
    chosen = jobs(17, 1 if task is None else 3, study)
    folder = study / str(17 + (task or 0))
    folder.mkdir(parents=True)
    settings = os.environ | ({} if task is None else {"SLURM_ARRAY_TASK_ID": str(task)})
    process = subprocess.Popen(["bash", "-c", script(chosen, options, str(python))], env=settings)
    code = process.wait(20)
    words = (folder / "words").read_text().splitlines() if (folder / "words").exists() else []
    assert not words or words[0] == str(process.pid)  # so that USR2, which goes to the script, reaches the pilot
    return code, words[1:], (folder / "log.txt").read_text()


@pytest.mark.parametrize(("task", "number"), [(None, 17), (0, 17), (2, 19)])
def test_each_task_becomes_the_pilot_of_its_own_folder(tmp_path, task, number):
    code, words, _ = run(tmp_path, SlurmOptions(setup=["echo ready"]), task)
    folder = tmp_path / "it's 100 % $HOME" / f"runs/jobs/tiny/{number}"
    assert (code, words) == (0, ["-P", "-m", "ablate.execution.pilots.pilot", str(folder)])


def test_a_line_of_setup_that_fails_ends_the_job_and_says_so_in_its_log(tmp_path):
    code, words, log = run(tmp_path, SlurmOptions(setup=["no_such_module_command load cuda", "echo went on"]))
    assert code != 0
    assert words == []
    assert "no_such_module_command" in log
    assert "went on" not in log


def test_a_folder_that_no_script_can_name_is_refused():
    with pytest.raises(Refused, match="a sign in its name"):
        script(jobs(1, 1, Path('/home/"ada"/runs/jobs/tiny')), SlurmOptions(), "python")
