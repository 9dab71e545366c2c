"""The cards of a machine and who is on them, told by a stand-in for NVIDIA's library."""

import getpass
import os
import subprocess
import sys

import psutil
import pytest
from support.fake_nvml import GIB, Device, FakeNvml, Process

from ablate.machine import gpus
from ablate.machine.gpus import cards, visible

FOUR = FakeNvml([Device(f"GPU-{letter * 8}") for letter in "abcd"])


def chosen(limit: str | None, nvml: FakeNvml = FOUR) -> list[str]:
    return [card.number for card in visible(cards(nvml), limit)]


def test_a_machine_without_a_driver_has_no_card():
    code = "from ablate.machine import gpus; print(gpus.cards())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_no_driver())
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def _no_driver() -> dict[str, str]:
    """NVIDIA's library is looked for by its name alone; where there is one, this hides it."""
    return dict(os.environ) | {"LD_LIBRARY_PATH": "/nowhere"} if not gpus.cards() else pytest.skip("there is a card")


def test_a_card_says_what_it_is_and_who_is_on_it():
    nvml = FakeNvml([Device("GPU-aaaa", processes=[Process(os.getpid(), 3 * GIB), Process(2**22 + 1, None)])])
    (card,) = cards(nvml)
    assert (card.number, card.uuid, card.name) == ("0", "GPU-aaaa", "NVIDIA H100 80GB HBM3")
    assert (card.total_bytes, card.free_bytes) == (80 * GIB, 77 * GIB)
    me = psutil.Process().username()
    assert getpass.getuser() in me
    assert [str(holder) for holder in card.holders] == [
        f"pid {os.getpid()} of {me} (3,072 MiB)",
        f"pid {2**22 + 1} of somebody (0 MiB)",
    ]


def test_a_card_that_is_lost_does_not_hide_the_others():
    nvml = FakeNvml([Device("GPU-aaaa", is_lost=True), Device("GPU-bbbb")])
    assert [(card.number, card.uuid) for card in cards(nvml)] == [("1", "GPU-bbbb")]


@pytest.mark.parametrize(
    ("limit", "numbers"),
    [
        (None, ["0", "1", "2", "3"]),
        ("", []),
        ("-1", []),
        ("2,0", ["2", "0"]),
        ("GPU-bbbbbbbb", ["1"]),
        ("GPU-bb, 3", ["1", "3"]),
        ("1,7,2", ["1"]),  # as CUDA does: what follows a card that is not there is ignored
        ("1,1", ["1"]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(limit, numbers):
    assert chosen(limit) == numbers


def test_a_card_that_mig_has_cut_is_its_slices():
    slices = [Device("MIG-one", total=20 * GIB), None, Device("MIG-two", total=40 * GIB)]
    nvml = FakeNvml([Device("GPU-aaaa", slices=slices), Device("GPU-bbbb")])
    assert [(card.number, card.total_bytes // GIB) for card in cards(nvml)] == [("0:0", 20), ("0:2", 40), ("1", 80)]
    assert chosen("MIG-two,1", nvml) == ["0:2", "1"]
    assert chosen("0", nvml) == ["0:0"]


@pytest.mark.parametrize(
    ("name", "tflops"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A100-SXM4-40GB", 312), ("NVIDIA L4", 121), ("?", 300)]
)
def test_a_card_is_as_fast_as_its_name_says(name, tflops):
    assert gpus.flops_per_s(name) == pytest.approx(gpus.USE * tflops * 1e12)
