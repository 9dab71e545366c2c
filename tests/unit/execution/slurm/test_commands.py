"""Slurm's commands: late, failing, missing; and what of this process's environment they may keep."""

import time

import pytest

from ablate.execution.pilots.cluster import Refused, Unreachable
from ablate.execution.slurm import commands

IN_PASSING = [
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "squeue: error: slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates"
    " accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size"
    " and/or time limits)",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "slurm_load_jobs error: Slurm backup controller in standby mode",
]
FOR_GOOD = [
    "sbatch: error: invalid partition specified: nope\n"
    "sbatch: error: Batch job submission failed: Invalid partition name specified",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    "sbatch: unrecognized option '--no-such'",
    "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates"
    " accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: Please say --account and try again\nsbatch: error: Batch job submission failed: Unspecified error",
]


@pytest.mark.parametrize("words", IN_PASSING)
def test_what_may_go_better_next_time_is_no_refusal(words):
    with pytest.raises(Unreachable):
        commands.answer(["sh", "-c", 'printf "%s" "$0" >&2; exit 1', words], timeout_s=20)


@pytest.mark.parametrize("words", FOR_GOOD)
def test_a_refusal_is_told_in_slurms_words(words):
    with pytest.raises(Refused) as caught:
        commands.answer(["sh", "-c", 'printf "%s" "$0" >&2; exit 1', words], timeout_s=20)
    assert words.rpartition(": ")[2] in str(caught.value)


def test_of_a_long_refusal_the_begin_and_the_end_are_told():
    words = "sbatch: error: You have no budget.\n" + 40 * "sbatch: error: Welcome.\n" + FOR_GOOD[2]
    with pytest.raises(Refused, match=r"You have no budget.* \.\.\. .*Invalid account or account/partition") as caught:
        commands.answer(["sh", "-c", 'printf "%s" "$0" >&2; exit 1', words], timeout_s=20)
    assert len(str(caught.value)) < 500


def test_a_command_that_hangs_is_ended_with_all_that_it_started():
    begun_at = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer in 0.3 s"):
        commands.answer(["sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.3)
    assert time.monotonic() - begun_at < 20


def test_a_machine_without_slurm_is_told_so():
    with pytest.raises(Refused, match="login node"):
        commands.answer(["no-such-squeue"], timeout_s=1)


def test_a_code_without_a_word_is_no_refusal():
    with pytest.raises(Unreachable, match="code 3"):
        commands.answer(["sh", "-c", "exit 3"], timeout_s=20)


def test_no_secret_and_nothing_of_the_job_that_a_driver_runs_in_is_handed_on():
    given = {
        "PATH": "/bin", "HF_HOME": "/data/hf", "SLURM_CONF": "/etc/slurm/slurm.conf", "HF_TOKEN": "canary-of-a-token",
        "MY_SECRET": "canary-of-a-token", "SLURM_JOB_ID": "7", "SBATCH_PARTITION": "gpu", "SQUEUE_FORMAT": "%i",
        "SLURM_MEM_PER_CPU": "100", "CUDA_VISIBLE_DEVICES": "3", "GOOGLE_APPLICATION_CREDENTIALS": "/x.json",
        "HTTPS_PROXY": "http://ada:pass@proxy:3128", "HOSTNAME": "login1",
    }  # fmt: skip
    kept = commands.environment(given)
    assert kept == {
        "PATH": "/bin", "HF_HOME": "/data/hf", "SLURM_CONF": "/etc/slurm/slurm.conf",
        "HTTPS_PROXY": "http://proxy:3128",
    }  # fmt: skip


def test_a_token_that_is_known_here_is_handed_on_under_no_name(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-of-a-token")
    assert "NOTE" not in commands.environment({"NOTE": "it is canary-of-a-token", "PATH": "/bin"})
