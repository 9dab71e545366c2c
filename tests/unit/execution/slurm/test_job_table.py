"""What squeue and sacct answer: read as it is meant, and never taken for an answer when it is none."""

import pytest
from support.paths import GOLDEN
from support.slurm_commands import HEADER, line

from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.slurm import job_table, reasons

RECORDED = (GOLDEN / "slurm/squeue.txt").read_text()
"""Of a Slurm 22.05 with two nodes, one of which went down."""


def status(state: str, reason: str = "None", job: str = "7", comment: str = "ablate-1a2b3c4d-3", **options: bool):
    rows = job_table.by_token(job_table.rows(HEADER + line(job, state, "0", "n1", reason, comment)))
    (row,) = rows.values()
    return job_table.status(row, **options)


def test_what_a_real_slurm_has_answered_is_read():
    rows = job_table.by_token(job_table.rows(RECORDED))
    phases = {token.rpartition("-")[2]: (job_table.status(row).phase, row.id) for token, row in rows.items()}
    assert phases == {
        "3": ("running", "1_0"), "4": ("running", "1_1"), "5": ("running", "1_2"), "6": ("queued", "11_0"),
        "7": ("queued", "11_1"), "8": ("queued", "11_2"), "12": ("over", "2"), "13": ("over", "3"),
        "14": ("queued", "4"), "15": ("queued", "5"), "16": ("queued", "6"), "17": ("running", "7"),
        "18": ("over", "8"), "40": ("running", "10"),
    }  # fmt: skip
    assert rows["ablate-1a2b3c4d-17"].num_restarts == 1
    assert rows["ablate-1a2b3c4d-3"].node == "node0"
    assert [job_table.status(row).is_hopeless for row in rows.values()].count(True) == 1


def test_an_empty_queue_is_an_answer():
    assert job_table.rows(HEADER) == []


RUBBISH = ["", "\n", "no such thing\n", "slurm_load_jobs error: Unable to contact slurm controller\n", HEADER[:300],
           HEADER + "rubbish\n", HEADER + line("7", "RUNNING", "many", "n1", "None", "x"),
           HEADER + line("7", "what?", "0", "n1", "None", "x"), RECORDED[5:]]  # fmt: skip


@pytest.mark.parametrize("answer", RUBBISH)
def test_what_is_no_answer_says_nothing_of_any_job(answer):
    with pytest.raises(Unreachable):
        job_table.rows(answer)


def test_jobs_of_others_are_none_of_ours():
    assert job_table.rows(HEADER + line("7", "RUNNING", "0", "n1", "None", "my job | ablate")) == []


@pytest.mark.parametrize(("job", "state"), [("7+1", "RUNNING"), ("7", "YET_UNKNOWN"), ("7_3", "PENDING")])
def test_whatever_else_a_user_runs_our_jobs_are_read(job, state):
    answer = (
        HEADER + line(job, state, "0", "n1", "None", "x") + line("9", "RUNNING", "0", "n1", "None", "ablate-1a2b3c4d-3")
    )
    assert [row.id for row in job_table.rows(answer)] == ["9"]


def test_a_state_of_a_later_slurm_is_no_end():
    assert status("YET_UNKNOWN").phase == "running"
    assert status("YET_UNKNOWN").why == "yet_unknown"


def test_of_two_jobs_with_one_token_the_one_that_is_not_over_counts_then_the_later():
    lines = [line(job, state, "0", "n1", "None", "ablate-1a2b3c4d-3") for job, state in
             [("12", "FAILED"), ("9", "RUNNING"), ("10", "CANCELLED")]]  # fmt: skip
    assert job_table.by_token(job_table.rows(HEADER + "".join(lines)))["ablate-1a2b3c4d-3"].id == "9"
    assert job_table.by_token(job_table.rows(HEADER + lines[2] + lines[0]))["ablate-1a2b3c4d-3"].id == "12"


def test_a_comment_names_each_task_of_an_array():
    tokens = [f"ablate-1a2b3c4d-{number}" for number in (98, 99, 100)]
    answer = "".join(line(f"5_{n}", "PENDING", "0", "n/a", "Priority", job_table.comment(tokens)) for n in range(3))
    assert list(job_table.by_token(job_table.rows(HEADER + answer))) == tokens


ENDINGS = {
    "COMPLETED": None, "FAILED": None, "TIMEOUT": "preempted", "PREEMPTED": "preempted", "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost", "OUT_OF_MEMORY": "memory", "CANCELLED": "cancelled", "DEADLINE": "preempted",
}  # fmt: skip


@pytest.mark.parametrize("state", ENDINGS)
def test_how_a_job_ends_is_told_from_how_a_stage_fails(state):
    ending = status(state).ending
    assert (ending.failure if ending else None) == ENDINGS[state]


@pytest.mark.parametrize("state", ["COMPLETING", "CONFIGURING", "SUSPENDED", "RUNNING", "STAGE_OUT", "SIGNALING"])
def test_a_job_that_has_a_node_is_not_over(state):
    assert status(state).phase == "running"


@pytest.mark.parametrize("state", ["PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED"])
def test_a_job_that_will_be_begun_anew_is_not_over(state):
    assert status(state).phase == "queued"


NEVER = ["PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS",
         "QOSMaxWallDurationPerJobLimit", "AssocMaxWallDurationPerJobLimit", "QOSMaxGRESPerJob",
         "QOSMaxCpuPerJobLimit", "AssocMaxCpuPerJobLimit", "QOSMaxGRESPerNode", "QOSMinCpuNotSatisfied",
         "DependencyNeverSatisfied", "AccountNotAllowed", "QOSNotAllowed"]  # fmt: skip
LATER = ["Resources", "Priority", "QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit", "AssocGrpGRES",
         "AssocMaxJobsLimit", "QOSGrpCpuLimit", "ReqNodeNotAvail, UnavailableNodes:n7", "ReqNodeNotAvail",
         "BeginTime", "Dependency", "JobHeldUser", "JobHeldAdmin", "Reservation", "JobArrayTaskLimit", "None",
         "Licenses", "NodeDown", "PartitionDown", "PartitionInactive", "QOSMaxGRESPerUser", "Nodes required for job"
         " are DOWN, DRAINED or reserved for jobs in higher priority partitions"]  # fmt: skip


@pytest.mark.parametrize("reason", NEVER)
def test_what_no_waiting_mends_is_hopeless_in_slurms_own_words(reason):
    assert status("PENDING", reason).is_hopeless
    assert reason in status("PENDING", reason).why


@pytest.mark.parametrize("reason", LATER)
def test_what_passes_is_waited_for(reason):
    assert not status("PENDING", reason).is_hopeless
    assert reason in status("PENDING", reason).why


def test_the_limit_of_one_partition_says_nothing_of_a_job_that_may_go_to_several():
    assert not status("PENDING", "PartitionTimeLimit", is_of_many_partitions=True).is_hopeless
    assert status("PENDING", "BadConstraints", is_of_many_partitions=True).is_hopeless


@pytest.mark.parametrize("reason", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_a_hold_of_slurms_own_is_known_in_old_and_new_words(reason):
    assert reasons.is_held_by_slurm(reason)
    assert not reasons.is_held_by_slurm("JobHeldUser")


def test_accounts_tell_ends_alone_and_who_cancelled():
    answer = "12|CANCELLED by 1000|n1\n13_4|NODE_FAIL|n2\n14|RUNNING|n3\n15|CANCELLED+|None assigned\n"
    ends = dict(job_table.accounted(answer))
    assert set(ends) == {"12", "13_4", "15"}
    assert ends["12"].why == "CANCELLED by user 1000"
    assert ends["13_4"].ending.failure == "lost"
    assert ends["15"].node == ""


def test_the_size_of_an_array_is_as_the_cluster_allows():
    assert job_table.array_limit("JobRequeue = 1\nMaxArraySize            = 1001\n") == 1001
    with pytest.raises(Unreachable):
        job_table.array_limit("")
