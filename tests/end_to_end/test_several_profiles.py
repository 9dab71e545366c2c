"""One study on several profiles of an executor that another package offers: the same numbers, and no trace in them."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.other_packages import ablate, package
from support.toys import one_table

from ablate.cli.app import app

THEIRS = '''
"""Workers on this machine, as if it were two."""

from dataclasses import replace

from ablate.core.values import Frozen
from ablate.execution.executors.local import Local


class Options(Frozen):
    account: str


class Theirs(Local):
    name = "theirs"
    options = Options

    def __init__(self, placing):
        Options.model_validate(dict(placing.options))
        super().__init__(replace(placing, options={}, num_jobs=1))

    def slots(self):
        offline = [slot for slot in super().slots() if "heavy" in slot.takes]
        return [replace(slot, name=f"{self._placing.profile} {slot.name}") for slot in offline]
'''
PROFILES = "a: {kind: theirs, account: physics-0815}\nb: {kind: theirs, account: physics-0815}\n"
CELLS = ("--rehearse", "--only", "*/*/baseline")


def run(study: Path, root: Path, *more: str, folders: tuple[Path, ...] = ()) -> str:
    ran = ablate("run", str(study), *CELLS, "--root", str(root), *more, folders=folders)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_a_study_on_two_profiles_has_the_results_of_this_machine_and_outlives_both(tmp_path, capsys):
    study, there = (
        one_table(tmp_path),
        package(
            tmp_path / "site", "their-executor", {"theirs": THEIRS}, {"ablate.executors": {"theirs": "theirs:Theirs"}}
        ),
    )
    (tmp_path / "executors.yaml").write_text(PROFILES)
    run(study, tmp_path / "here", "--jobs", "2")
    output = run(study, tmp_path / "root", "--executor", "a,b", folders=(there,))
    assert "stages run on a (theirs, up to 1 at once) and b (theirs, up to 1 at once); what fetches runs here" in output

    reports = [root / "reports" / "tiny-rehearsal" for root in (tmp_path / "here", tmp_path / "root")]
    here, elsewhere = ((folder / "results.csv").read_bytes() for folder in reports)
    assert elsewhere == here
    texts = [path.read_bytes() for path in reports[1].rglob("*") if path.is_file()]
    assert not any(b"physics-0815" in text for text in texts)  # an account is nobody else's affair

    requests = [json.loads(path.read_text()) for path in tmp_path.glob("root/runs/attempts/*/*/attempt.json")]
    placed = Counter((request["kind"] == "fetch", request["slot"]["profile"]) for request in requests)
    assert placed.keys() == {(True, "local"), (False, "a"), (False, "b")}
    options = {"account": "physics-0815"}
    for request in requests:
        name = request["slot"]["profile"]
        expected = None if name == "local" else {"name": name, "options": options}
        assert (request.get("profile"), request.get("executor")) == (expected, None if expected is None else "theirs")

    (tmp_path / "executors.yaml").unlink()  # nor is the package installed from here on
    for verb in (("status",), ("verify",), ("gc", "--dry-run"), ("stop",), ("results",)):
        with pytest.raises(SystemExit) as ended:
            app([*verb, "--root", str(tmp_path / "root")])
        assert ended.value.code == 0, capsys.readouterr()
