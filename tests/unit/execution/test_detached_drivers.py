"""What a cluster is given of a driver, and what is refused before anything is started."""

import os
from pathlib import Path

import pytest
from support.paths import GOLDEN

from ablate.core.errors import AblateError
from ablate.execution.detached.detach import host_of
from ablate.execution.detached.driver_host import DriverCommand
from ablate.execution.detached.slurm_script import driver_script
from ablate.execution.pilots.cluster import Refused
from ablate.execution.profiles import Profile

WORDS = ["/opt/ablate/bin/python", "-P", "-m", "ablate", "run", "my study.yaml", "--executor", "a100"]
ASKED = {"partition": "cpu", "account": "nlp", "time": "1-00:00:00", "cpus-per-task": 1, "mem": "2G", "qos": None}


def script(log: str) -> str:
    command = DriverCommand("kd", WORDS, Path("/home/me/my studies"), Path(log), {"HF_TOKEN": "hf_of_nobody"})
    return driver_script(command, "a100", "ablate-1a2b3c4d-1", ASKED)


def test_the_script_of_a_driver_is_one_that_an_administrator_can_read():
    text, path = script("/shared/runs/studies/kd/100%/run.log"), GOLDEN / "slurm" / "driver.sh"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
    assert "hf_of_nobody" not in text


@pytest.mark.parametrize("sign", ['"', "\\", "\n"])
def test_a_folder_that_no_script_can_hold_is_refused(sign):
    with pytest.raises(Refused, match="has a sign in its name"):
        script(f"/shared/{sign}/run.log")


def test_where_no_driver_can_run_says_what_is_possible():
    with pytest.raises(AblateError, match=r"of kind 'cloud', where none can run\. Possible kinds: local, .*slurm"):
        host_of(Profile("far", "cloud"))
