"""docs/clusters.md: commands are verbs with such options, profiles are understood, the tables have every option."""

import re
import shlex

import pytest
import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from support.paths import ROOT

from ablate.cli.app import app
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.profile_options import options_model, require_valid
from ablate.execution.profiles import Profile

TEXT = (ROOT / "docs" / "clusters.md").read_text()
COMMANDS = [
    re.split(r"\s+# ", line.strip())[0] for line in re.findall(r"^ {4}.*", TEXT, re.MULTILINE) if "ablate " in line
]
PROFILES = {
    f"{number}: {name}": profile
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
    for name, profile in yaml.safe_load(block).items()
}
VERBS = typer.main.get_command(app).commands


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("ablate ")])
def test_a_command_is_a_verb_with_such_options(command):
    words = shlex.split(command)
    verb = VERBS[words[1]]
    known = {option for parameter in verb.params for option in parameter.opts}
    assert [word for word in words if word.startswith("-") and word not in known] == []


def test_slurm_and_ray_are_begun_in_ten_lines_and_one_machine_in_three():
    sections = dict(re.findall(r"^## (.*)\n((?:.*\n)*?)(?=^## |\Z)", TEXT, re.MULTILINE))
    lines = {title: len(re.findall(r"^ {4}\S", text, re.MULTILINE)) for title, text in sections.items()}
    assert 0 < lines["First study on Slurm"] <= 10
    assert 0 < lines["First study on Ray"] <= 10
    assert 0 < lines["One machine with eight cards"] <= 3


def table_after(line: str) -> dict[str, str]:
    """-> option -> default, of the table below a line; of two options in one row, each."""
    rows = re.findall(
        r"^\| (`.*?) \| (.*?) \|", TEXT.partition(line)[2].partition("\n\n\n")[0].split("\n\n")[1], re.MULTILINE
    )
    return {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}


def shown(field: FieldInfo) -> str | None:
    """-> a default as the table has it; None where it is no plain value."""
    default = field.get_default(call_default_factory=True)
    return (
        None if default in (None, (), {}) or isinstance(default, BaseModel) else str(default).removesuffix(".0").lower()
    )


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Every option of a job", None),
        ("Of `kind: slurm`", "slurm"),
        ("Of `kind: ray`", "ray"),
        ("Of `kind: srun`", "srun"),
    ],
)
def test_its_tables_have_every_option_with_its_default(line, kind):
    fields = options_model(kind).model_fields if kind else PilotOptions.model_fields
    own = {name: field for name, field in fields.items() if kind is None or name not in PilotOptions.model_fields}
    table = table_after(line)
    assert set(table) == set(own)
    assert {name: default for name, default in table.items() if shown(own[name]) not in (None, default)} == {}


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_in_it_is_understood(name):
    profile = dict(PROFILES[name])
    require_valid(Profile(name, profile.pop("kind"), profile))
