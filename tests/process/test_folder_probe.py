"""Two machines find out what the folder that both see does; what it does wrong is told as a problem."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.late_view import Machine, why_not
from support.paths import ROOT

from ablate.maintenance.shared_folder_checks import lines
from ablate.store import folder_probe

ANSWER = """
import sys
from pathlib import Path
from ablate.store import folder_probe
folder_probe.answer(Path(sys.argv[1]))
"""
TWICE = "from ablate.core import disk; disk.create = lambda path, data: disk.write(path, data) or True; "
ONTO = "import shutil; from ablate.core import disk; disk.rename = lambda a, b: (shutil.rmtree(b), a.rename(b)); "
EMPTY = "from ablate.store import folder_probe; folder_probe._read = lambda path: None; "
SETTINGS = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
ASK = """
import sys
from pathlib import Path
from ablate.store import folder_probe
from ablate.maintenance.shared_folder_checks import lines
for line in lines(folder_probe.ask(Path(sys.argv[1]))):
    print(line.state, line.what, line.text, sep="|")
"""


def states(folder: Path, broken: str = "") -> dict[str, str]:
    """-> thing: state, where another process of this machine answers, of code that is broken."""
    other = subprocess.Popen([sys.executable, "-c", broken + ANSWER, str(folder)], env=SETTINGS)
    try:
        return {line.what: line.state for line in lines(folder_probe.ask(folder))}
    finally:
        assert other.wait(30) == 0


def test_a_disk_of_ones_own_does_all_of_it(tmp_path):
    assert set(states(tmp_path / "probe").values()) == {"ok"}


@pytest.mark.parametrize(
    ("broken", "what"),
    [(TWICE, "exclusive create"), (ONTO, "rename, seen there"), (EMPTY, "rename, seen there")],
    ids=["made twice", "replaced", "seen in parts"],
)
def test_what_a_folder_does_wrong_is_a_problem(tmp_path, broken, what):
    seen = states(tmp_path / "probe", broken)
    assert {name for name, state in seen.items() if state == "problem"} == {what}


def test_where_nobody_answers_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_probe, "STEP_S", 0.3)
    with pytest.raises(folder_probe.NoAnswer, match="nothing came of it in"):
        folder_probe.ask(tmp_path / "probe")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_how_late_another_machine_sees_a_file_is_measured_there_and_back(tmp_path):
    server, place = tmp_path / "server", tmp_path / "shared"
    server.mkdir()
    place.mkdir()
    with Machine("alpha", server, place, 0.1) as alpha, Machine("beta", server, place, 0.1) as beta:
        runs = [
            machine.popen([sys.executable, "-c", code, str(place / "probe")], stdout=subprocess.PIPE, env=SETTINGS)
            for machine, code in ((alpha, ASK), (beta, ANSWER))
        ]
        out = runs[0].communicate(timeout=120)[0].decode()
    seen = {what: (state, text) for state, what, text in (line.split("|") for line in out.splitlines())}
    assert {state for state, _ in seen.values()} == {"ok"}, out
    assert seen["user"][1].endswith("on beta as on alpha")
    assert seen["locks between machines"][1].startswith("given to everyone")
    number, unit = seen["seen there"][1].rpartition("; ")[2].split()[:2]
    assert float(number) / {"ms": 1000, "s": 1}[unit] > 0.07, out
