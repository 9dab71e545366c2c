"""CUDA's device for memory is made before a stage leaves the network, after which no helper has the rights to."""

import pytest

from ablate.machine import card_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """-> one with a driver, and a helper that makes the device."""
    (tmp_path / "version").touch()
    helper = tmp_path / "nvidia-modprobe"
    helper.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n: > {tmp_path}/nvidia-uvm\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(card_memory, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(card_memory, "DEVICE", tmp_path / "nvidia-uvm")
    return tmp_path


def test_the_device_is_made_once_by_nvidias_helper(machine):
    card_memory.require_device()
    card_memory.require_device()
    assert (machine / "nvidia-uvm").exists()
    assert (machine / "asked").read_text() == "-c=0 -u\n"


@pytest.mark.parametrize("missing", ["version", "nvidia-modprobe"])
def test_without_a_driver_or_its_helper_nothing_is_done(machine, missing):
    (machine / missing).unlink()
    card_memory.require_device()
    assert not (machine / "asked").exists()
