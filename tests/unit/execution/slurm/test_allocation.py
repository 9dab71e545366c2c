"""What an allocation holds, and where `run` places stages inside one."""

import time

import pytest

from ablate.execution.slurm.allocation import Allocation, default_profile, read

DETAILS = """\
JobId=9 JobName=interactive
   RunTime=00:00:03 TimeLimit=00:10:00 TimeMin=N/A
   StartTime=2026-11-30T20:37:54 EndTime=2026-11-30T20:47:54 Deadline=N/A
   NumNodes=2 NumCPUs=8 NumTasks=8 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   TRES=cpu=8,mem=4G,node=2,billing=8
   JOB_GRES=gpu:fake:2
     Nodes=node[0-1] CPU_IDs=12-15 Mem=2048 GRES=gpu:fake:1(IDX:0)
   TresPerNode=gres:gpu:1
"""
"""Of `scontrol --details show job`, Slurm 22.05."""

ON_A_NODE = {"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "n1"}
PLACES = [
    ({}, "local"),
    (ON_A_NODE, "local"),
    (ON_A_NODE | {"SLURM_JOB_NUM_NODES": "2"}, "srun"),
    ({"SLURM_JOB_ID": "9", "SLURM_NNODES": "2", "SLURMD_NODENAME": "n1"}, "srun"),
    ({"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "1"}, "srun"),  # a shell of salloc's on a login node
]


@pytest.mark.parametrize(("environ", "profile"), PLACES)
def test_run_uses_the_nodes_of_an_allocation_or_this_machine(environ, profile):
    assert default_profile(environ) == profile


def test_what_slurm_says_of_an_allocation_is_read():
    here = read("9", DETAILS)
    assert here[:4] == ("9", 2, 8, 2)
    assert here.memory_bytes == 4 << 30
    assert time.strftime("%H:%M:%S", time.localtime(here.ends_at)) == "20:47:54"


def test_an_answer_that_says_little_is_enough_for_one_pilot():
    assert read("9", "") == Allocation("9")
    assert Allocation("9").num_pilots(Allocation("9").cpus_of(1), 1) == 1


def test_each_card_has_a_pilot_with_its_share_of_the_processors():
    here = Allocation("9", num_nodes=2, num_cpus=32, num_cards=8, memory_bytes=8 << 30)
    assert (here.cpus_of(1), here.num_pilots(here.cpus_of(1), 1)) == (4, 8)


def test_without_cards_processors_and_memory_say_how_many_pilots_fit():
    assert Allocation("9", num_cpus=32, memory_bytes=64 << 30).num_pilots(4, 1) == 8
    assert Allocation("9", num_cpus=32, memory_bytes=8 << 30).num_pilots(4, 1) == 2
    assert Allocation("9", num_cpus=2).num_pilots(4, 1) == 1
