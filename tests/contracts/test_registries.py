"""Contract of every registry that is open to other packages: what they offer is found, or told of; ours stays ours."""

import json
import re
import sys
import tomllib
from functools import cache
from types import SimpleNamespace

import pytest
from support.other_packages import LOSS, ablate, package, python, with_half
from support.paths import ROOT, TINY

from ablate.core.entry_points import Origin
from ablate.core.errors import AblateError
from ablate.core.registry import Registry
from ablate.report.exhibits.base import EXHIBITS, Piece, piece_of
from ablate.report.page import _without_clashes

KEY = (
    "from ablate.core.values import digest, identity; from ablate.study.schema import Distill;"
    "print(digest(identity(Distill.model_validate({'loss': %r}))))"
)
REGISTRIES = {
    "ablate.losses": "from ablate.losses import LOSSES as registry",
    "ablate.exhibits": "from ablate.report.exhibits.base import EXHIBITS as registry",
    "ablate.overviews": "from ablate.report.exhibits.base import OVERVIEWS as registry",
    "ablate.trackers": "from ablate.execution.trackers.base import TRACKERS as registry",
    "ablate.executors": "from ablate.execution.executors.base import EXECUTORS as registry",
}
PART = "def part(*given):\n    return None\n"


def key_of(loss, *folders):
    done = python(KEY % loss, *folders)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(group, *folders):
    """-> names with their origin, and what was noted."""
    done = python(
        f"import json; {REGISTRIES[group]}; print(json.dumps([[name, *registry.origin(name)] for name in registry]))",
        *folders,
    )
    assert done.returncode == 0, done.stderr
    return {name: tuple(origin) for name, *origin in json.loads(done.stdout)}, done.stderr


@cache
def listed_alone(group):
    """-> names with their origin, with no other package there."""
    return listed(group)[0]


def offering(folder, group, value, code=PART, name="theirs"):
    entries = {group: {name: value}}
    return package(folder / group, f"their-{group.rpartition('.')[2]}", {"theirs": code}, entries)


# what is offered is found


@pytest.mark.parametrize("group", REGISTRIES)
def test_alone_every_part_is_ours(group):
    parts, notes = listed(group)
    assert parts
    assert set(parts.values()) == {("ablate", "")}
    assert notes == ""


@pytest.mark.slow
@pytest.mark.parametrize("group", REGISTRIES)
def test_a_part_of_another_package_is_found_after_ours_and_knows_where_it_comes_from(tmp_path, group):
    loss = LOSS.replace('"half"', '"theirs"') + "\npart = Half\n"
    there = offering(tmp_path, group, "theirs:part", loss if group == "ablate.losses" else PART)
    alone, (parts, notes) = listed_alone(group), listed(group, there)
    assert parts == alone | {"theirs": (f"their-{group.rpartition('.')[2]}", "1.0")}
    assert [name for name in parts if name != "theirs"] == [*alone]
    assert notes == ""


def test_nothing_of_another_package_is_imported_or_looked_for_by_help(tmp_path):
    there = package(tmp_path, "loud", {"loud": "raise SystemExit(7)"}, {"ablate.losses": {"loud": "loud:Loss"}})
    done = ablate("--help", folders=(there,))
    assert (done.returncode, done.stderr) == (0, "")
    code = "import sys, ablate.cli.app; print('importlib.metadata' in sys.modules)"
    assert python(code, there).stdout == "False\n"


# a loss can change a result: its package and version are in the key


def test_a_strangers_loss_is_found_by_a_study_and_planned_in_stages_of_its_own(tmp_path):
    there = with_half(tmp_path / "there")
    arguments = ("plan", str(TINY), "--json", "--root", str(tmp_path))
    done = ablate(*arguments, "--set", "distill.loss={name: half, share: 0.25}", folders=(there,))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"]
    refused = ablate(*arguments, "--set", "distill.loss=half")
    assert refused.returncode == 2
    assert "unknown loss 'half'" in refused.stderr


def test_a_strangers_losss_key_changes_with_its_version_and_ours_do_not_change(tmp_path):
    first, second = with_half(tmp_path / "first"), with_half(tmp_path / "second", "1.1")
    assert len({key_of("half", first), key_of("half", second), key_of("jsd")}) == 3
    assert key_of("half", first) == key_of("half", first)
    assert key_of("jsd", first) == key_of("jsd")
    assert key_of({"name": "half", "share": 0.5}, first) == key_of("half", first)
    assert key_of({"name": "half", "share": 0.1}, first) != key_of("half", first)


STAGE = (
    "import json; from ablate.core.entry_points import versions_in; from ablate.store.kind import KINDS;"
    "from ablate.store.stage import Stage; kind = KINDS['distill'];"
    "settings = kind.Settings.model_validate({'recipe': {'loss': 'half'}, 'dtype': 'float32', 'seed': 0});"
    "stage = Stage('distill', kind.version, settings);"
)
PLANNED = STAGE + (
    "print(json.dumps({'kind': 'distill', 'version': stage.version, 'payload': stage.payload, 'key': stage.key,"
    "'settings': settings.model_dump(mode='json', serialize_as_any=True)}))"
)
WORKED_ON = (
    "from ablate.execution.worker import _settings; from ablate.store.kind import KINDS;"
    "print(_settings(KINDS['distill'], %r).recipe.loss.share)"
)


def test_a_worker_refuses_a_stage_whose_loss_is_of_another_version_than_planned(tmp_path):
    first, second = with_half(tmp_path / "first"), with_half(tmp_path / "second", "1.1")
    request = json.loads(python(PLANNED, first).stdout)
    assert python(WORKED_ON % request, first).stdout == "0.5\n"
    assert "code and plan disagree" in python(WORKED_ON % request, second).stderr
    assert "unknown loss 'half'" in python(WORKED_ON % request).stderr


def test_what_a_stages_record_says_of_versions_holds_the_package_of_its_loss(tmp_path):
    done = python(STAGE + "print(versions_in(stage.payload['settings']))", with_half(tmp_path))
    assert done.stdout == "{'half-loss': '1.0'}\n"
    assert python(STAGE.replace("half", "jsd") + "print(versions_in(stage.payload['settings']))").stdout == "{}\n"


def test_workers_find_what_the_driver_found_wherever_it_lies(tmp_path):
    code = (
        f"import sys; sys.path.append({str(with_half(tmp_path))!r});"
        "from ablate.execution.executors.base import environment;"
        "print(environment({'slot': {'device': 'cpu', 'gpu': None, 'threads': 1}, 'is_online': False})['PYTHONPATH'])"
    )
    assert str(tmp_path) in python(code).stdout.strip().split(":")


# exhibits and executors

SHOWN = """
from ablate.report.exhibits.base import Piece


def headline(results, ablation):
    return Piece(f"<p>Headline of {ablation.name}</p>", f"Headline of {ablation.name}", {
        f"their-exhibits/{ablation.name}.txt": b"theirs"})


headline.order = 5


def spoilt(results, ablation):
    raise RuntimeError("<b>no luck</b>")


def rude(results):
    return Piece("", "", {"tables/learning_rate.csv": b""})
"""
REPORT = """
from pathlib import Path
from support.report_study import bench
from ablate.report.write import write_report

study = bench(Path(%r), ablations={"learning_rate": {"grid": {"distill.lr": [1e-3]}}})
study.commit(*(cell for cell in study.plan().cells if not study.store.done(cell.evaluate)))
print(write_report(study.plan()))
"""


def reported(root, *folders):
    done = python(REPORT % str(root), *folders)
    assert done.returncode == 0, done.stderr
    return root / "reports" / "small", done.stderr


@pytest.mark.slow
def test_a_strangers_exhibit_stands_on_the_page_and_one_that_fails_says_so_there(tmp_path):
    exhibits = {"headline": "shown:headline", "spoilt": "shown:spoilt"}
    entries = {"ablate.exhibits": exhibits, "ablate.overviews": {"rude": "shown:rude"}}
    there = package(tmp_path / "there", "their-exhibits", {"shown": SHOWN}, entries)
    folder, _ = reported(tmp_path)
    plain = json.loads((folder / "results.json").read_text())
    assert "packages" not in plain
    folder, notes = reported(tmp_path, there)
    page, text = ((folder / name).read_text() for name in ("report.html", "report.md"))
    assert page.count("<p>Headline of learning_rate</p>") == text.count("Headline of learning_rate") == 1
    assert page.index("Headline of") < page.index("<table")
    assert (folder / "their-exhibits" / "learning_rate.txt").read_bytes() == b"theirs"
    assert "The exhibit spoilt of package their-exhibits 1.0 failed: RuntimeError." in page
    assert "note: the exhibit 'spoilt' of package their-exhibits 1.0 failed: <b>no luck</b>" in notes
    assert "its files do not lie in their-exhibits/: tables/learning_rate.csv" in notes
    assert json.loads((folder / "results.json").read_text()) == plain | {"packages": {"their-exhibits": "1.0"}}
    assert "Headline" not in (reported(tmp_path)[0] / "report.html").read_text()


def test_a_strangers_executor_is_offered(tmp_path):
    code = "from ablate.execution.executors.local import Local\n\nclass Theirs(Local):\n    pass\n"
    there = offering(tmp_path, "ablate.executors", "theirs:Theirs", code)
    arguments = ("run", str(TINY), "--root", str(tmp_path), "--executor")
    assert "Possible: local, ray, slurm, srun, theirs." in ablate(*arguments, "thers", folders=(there,)).stderr
    done = python(f"{REGISTRIES['ablate.executors']}; print(registry['theirs'].__mro__[1].__name__)", there)
    assert done.stdout == "Local\n"


@pytest.mark.slow
def test_what_the_documentation_shows_works(tmp_path):
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", text, re.DOTALL))
    project = tomllib.loads(blocks["toml"])["project"]
    there = package(tmp_path, project["name"], {"our_parts": blocks["python"]}, project["entry-points"])
    for group, entries in project["entry-points"].items():
        parts, notes = listed(group, there)
        assert notes == ""
        assert [name for name, origin in parts.items() if origin == ("our-parts", "1.0")] == [*entries]
    headed, _ = listed("ablate.exhibits", there)
    assert next(iter(headed)) == "headline"
    equal = (
        "import torch; from ablate.losses import parse; x = torch.randn(3, 9); print(parse('squared')(x, x).tolist())"
    )
    assert python(equal, there).stdout == "[0.0, 0.0, 0.0]\n"


# what is broken is told of, and stops nothing

BROKEN = {
    "import": ("import nothing_of_that_name", "theirs:part", "ModuleNotFoundError"),
    "syntax": ("def", "theirs:part", "SyntaxError"),
    "exit": ("raise SystemExit(3)", "theirs:part", "SystemExit: 3"),
    "lacks": ("", "theirs:part", "AttributeError"),
    "no part": ("part = 7", "theirs:part", "cannot be called"),
    "no order": (PART + "part.order = 'first'\n", "theirs:part", "its order is no whole number: 'first'"),
}


@pytest.mark.slow
@pytest.mark.parametrize("group", REGISTRIES)
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_part_is_told_of_once_by_name_package_and_reason(tmp_path, group, case):
    code, value, why = BROKEN[case]
    package_name = f"their-{group.rpartition('.')[2]}"
    alone, (parts, notes) = listed_alone(group), listed(group, offering(tmp_path, group, value, code))
    assert parts == alone
    assert notes.count("note: ") == 1
    assert f"'theirs' of package {package_name} 1.0 cannot be used: " in notes
    assert (why in notes) or (group == "ablate.losses" and "no subclass" in notes)
    asked = python(f"{REGISTRIES[group]}; registry['theirs']", tmp_path / group).stderr
    assert f"But the {group.rpartition('.')[2][:4]}" in asked
    assert f"'theirs' of package {package_name} 1.0 cannot be used" in asked.splitlines()[-1]


NESTED = """shares: Annotated["Shares | None", IDENTITY] = None
    share = property(lambda self: self.shares.first)


from ablate.core.values import Frozen
class Shares(Frozen):
    first: float = 0.5


Half.model_rebuild()
class _Rest:"""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("class Half(Loss)", "class Half"), "no subclass of ablate.losses.Loss"),
        (('= "half"', '= "whole"'), "its `name` has the default 'whole'"),
        (("Annotated[float, IDENTITY]", "float"), "no key would hold share"),
        (("share: Annotated[float, IDENTITY] = 0.5", NESTED), "no key would hold shares.first"),
    ],
)
def test_a_loss_that_would_spoil_a_key_is_refused(tmp_path, change, why):
    there = package(
        tmp_path, "spoilt-loss", {"half_loss": LOSS.replace(*change)}, {"ablate.losses": {"half": "half_loss:Half"}}
    )
    done = python("from ablate.losses import LOSSES; print('half' in LOSSES, 'jsd' in LOSSES)", there)
    assert done.stdout == "False True\n"
    assert "'half' of package spoilt-loss 1.0 cannot be used: " in done.stderr
    assert why in done.stderr


REGISTERED = LOSS.replace("import Loss", "import LOSSES, Loss").replace(
    "class Half", '@LOSSES.register("half")\nclass Half'
)


def test_a_loss_that_registers_itself_as_ours_do_is_its_packages_all_the_same(tmp_path):
    there = package(tmp_path, "half-loss", {"half_loss": REGISTERED}, {"ablate.losses": {"half": "half_loss:Half"}})
    assert listed("ablate.losses", there)[0]["half"] == ("half-loss", "1.0")
    assert key_of("half", there) == key_of("half", with_half(tmp_path / "plain"))
    assert python("import half_loss;" + KEY % "half", there).stdout == key_of("half", there)


def test_a_loss_that_no_package_offers_has_no_key(tmp_path):
    (tmp_path / "half_loss.py").write_text(REGISTERED)
    done = python("import half_loss;" + KEY % "half", tmp_path)
    assert "the loss 'half' has no key: no package offers it" in done.stderr


def test_one_of_our_own_parts_is_no_other_packages(tmp_path):
    package(tmp_path, "copycat", {}, {"ablate.losses": {"jsd": "ablate.losses.jsd:JSD"}})
    parts, notes = listed("ablate.losses", tmp_path)
    assert parts["jsd"] == ("ablate", "")
    assert "'jsd' of package copycat 1.0 cannot be used: the name is taken by ablate" in notes


def test_a_name_that_is_taken_is_told_and_stays_who_has_it(tmp_path):
    one = with_half(tmp_path / "one")
    other = package(tmp_path / "other", "wholes", {"other_half": LOSS}, {"ablate.losses": {"half": "other_half:Half"}})
    third = package(tmp_path / "third", "thirds", {"third_half": LOSS}, {"ablate.losses": {"jsd": "third_half:Half"}})
    for folders in ((one, other, third), (third, other, one)):
        parts, notes = listed("ablate.losses", *folders)
        assert parts["half"] == ("half-loss", "1.0")
        assert parts["jsd"] == ("ablate", "")
        assert "the loss 'half' of package wholes 1.0 cannot be used: the name is taken by half-loss 1.0" in notes
        assert "the loss 'jsd' of package thirds 1.0 cannot be used: the name is taken by ablate" in notes
        assert notes.count("note: ") == 2


def test_a_package_that_is_half_removed_stops_nothing(tmp_path):
    there = with_half(tmp_path / "there")
    torn = package(tmp_path / "torn", "torn", {}, {"ablate.losses": {"torn": "torn:Torn"}})
    (torn / "torn-1.0.dist-info" / "METADATA").unlink()
    parts, notes = listed("ablate.losses", there, torn)
    assert "jsd" in parts
    assert "half" in parts
    assert "'torn' of package without a name cannot be used: its package's metadata tell no version" in notes


def test_what_a_package_prints_while_it_is_imported_is_no_part_of_what_a_verb_prints(tmp_path):
    there = package(
        tmp_path, "loud-loss", {"loud": f"print('hello')\n{LOSS}"}, {"ablate.losses": {"half": "loud:Half"}}
    )
    planned = ablate("plan", str(TINY), "--json", "--root", str(tmp_path), folders=(there,))
    assert json.loads(planned.stdout)["cells"]
    assert "hello" in planned.stderr


SPOILING = {
    "one file for every ablation": Piece("", "", {"theirs/summary.txt": b""}),
    "no file of its own folder": Piece("", "", {"tables/rates.csv": b""}),
    "outside": Piece("", "", {"theirs/../rates.txt": b""}),
    "a file as a folder": Piece("", "", {"theirs/rates/a.txt": b""}),
    "text in a file": Piece("", "", {"theirs/rates.txt": "text"}),
    "no text": Piece(b"", ""),
    "no piece": "text",
}


@pytest.mark.parametrize("case", SPOILING)
def test_an_exhibit_of_another_package_that_would_spoil_a_report_says_so_in_its_place(monkeypatch, case):
    registry = Registry("exhibit", "ablate.report.exhibits")
    monkeypatch.setattr(registry, "_load", lambda: None)
    monkeypatch.setattr(registry, "_parts", {"theirs": lambda results, ablation: SPOILING[case]})
    monkeypatch.setattr(registry, "_origins", {"theirs": Origin("theirs", "1.0")})
    piece = piece_of(registry, "theirs", None, SimpleNamespace(name="rates"))
    assert piece.files == {}
    assert "The exhibit theirs of package theirs 1.0 failed" in piece.html


def test_an_exhibit_of_another_package_that_ends_its_process_ends_no_report(monkeypatch):
    registry = Registry("overview", "ablate.report.exhibits")
    monkeypatch.setattr(registry, "_load", lambda: None)
    monkeypatch.setattr(registry, "_parts", {"theirs": lambda results: sys.exit(3)})
    monkeypatch.setattr(registry, "_origins", {"theirs": Origin("theirs", "1.0")})
    assert "SystemExit" in piece_of(registry, "theirs", None).html


def test_of_files_of_another_package_that_have_one_name_the_first_is_kept(monkeypatch):
    monkeypatch.setattr(EXHIBITS, "packages", lambda: {"theirs": "1.0"})
    files = [("a.csv", b"1"), ("theirs/b", b"2"), ("theirs/b", b"3")]
    assert _without_clashes(files) == files[:2]
    with pytest.raises(AblateError, match="rename an ablation"):
        _without_clashes([*files, ("a.csv", b"4")])
