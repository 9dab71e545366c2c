"""executors.yaml: which file wins, every mistake at once with its place, no tokens, and what editors are told of it."""

import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field
from support.executors import Instant

from ablate.core import secrets
from ablate.core.errors import AblateError, StudyError
from ablate.core.values import Frozen, Int
from ablate.core.yaml import parse
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.fleet import fleet_of
from ablate.execution.profile_file import profiles_named
from ablate.execution.profile_options import options_model
from ablate.execution.profile_template import json_schema, write_template
from ablate.execution.profiles import HERE, Profile, profile_in
from ablate.machine.slots import Placing


class Options(Frozen):
    """Of an executor of these tests."""

    partition: str | None = None
    memory: Annotated[str, Field(pattern="^[0-9]+G$")] = "1G"
    max_jobs: Annotated[Int, Field(ge=1)] = 8
    setup: tuple[str, ...] = ()
    ratio: float = 1.0
    extra: dict[str, str] = Field(default_factory=dict)


class Slrum(Instant):
    options = Options

    def __init__(self, placing: Placing) -> None:
        super().__init__([])


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executor "slrum", with options; one "plain" without; the user's configuration folder is one of the test's."""

    for name, maker in (("slrum", Slrum), ("plain", lambda placing: Instant([]))):
        monkeypatch.setitem(EXECUTORS._parts, name, maker)
        monkeypatch.setitem(EXECUTORS._orders, name, 0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


def beside(tmp_path: Path, text: str) -> Path:
    """-> the study's folder, now with profiles."""
    (tmp_path / "executors.yaml").write_text(text)
    return tmp_path


def of_the_user(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "configuration" / "ablate"
    folder.mkdir(parents=True)
    (folder / "executors.yaml").write_text(text)
    return tmp_path


def mistakes(tmp_path: Path, text: str, name: str = "a100") -> list[str]:
    with pytest.raises(StudyError) as error:
        profiles_named([name], beside(tmp_path, text))
    return str(error.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_profile_is_a_kind_and_what_else_it_says(tmp_path):
    folder = beside(tmp_path, "a100: {kind: slrum, partition: gpu, ratio: 1e-4}\nb: {kind: plain}\n")
    assert profiles_named(["a100,local", "b"], folder) == (
        Profile("a100", "slrum", {"partition": "gpu", "ratio": 1e-4}),
        HERE,
        Profile("b", "plain"),
    )


def test_what_lies_beside_the_study_wins_over_the_users_own_name_by_name(tmp_path):
    of_the_user(tmp_path, "a: {kind: slrum, partition: mine}\nb: {kind: slrum, partition: mine}\n")
    beside(tmp_path, "a: {kind: slrum, partition: ours}\n")
    assert [one.options["partition"] for one in profiles_named(["a,b"], tmp_path)] == ["ours", "mine"]


def test_a_run_on_this_machine_reads_no_file(tmp_path):
    beside(tmp_path, "{")
    assert profiles_named([], tmp_path) == profiles_named(["local"], tmp_path) == (HERE,)


def test_inside_an_allocation_of_several_nodes_stages_run_on_its_nodes_unless_said_otherwise(tmp_path, monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURMD_NODENAME": "node-1"}.items():
        monkeypatch.setenv(name, value)
    assert profiles_named([], tmp_path) == (Profile("srun", "srun"),)
    assert profiles_named(["local"], tmp_path) == (HERE,)
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    assert profiles_named([], tmp_path) == (HERE,)


def test_an_executors_name_is_a_profile_without_options_unless_a_file_says_more(tmp_path):
    assert profiles_named(["slrum"], tmp_path) == (Profile("slrum", "slrum"),)
    beside(tmp_path, "slrum: {kind: slrum, max_jobs: 3}")
    assert profiles_named(["slrum"], tmp_path) == (Profile("slrum", "slrum", {"max_jobs": 3}),)


def test_a_file_of_comments_alone_has_no_profiles(tmp_path):
    assert profiles_named(["plain"], beside(tmp_path, "# a100: {kind: slrum}\n")) == (Profile("plain", "plain"),)


def test_every_mistake_is_told_at_once_with_its_place_what_was_given_and_what_is_possible(tmp_path):
    text = """\
a100: {kind: slrum, partion: gpu, max_jobs: 0}
b: {kind: slrum, setup: module load cuda, ratio: fast}
a100: {kind: plain}
c: slrum
d: {partition: gpu}
e: {kind: 3}
plain: {kind: slrum}
local: {kind: local, gpus: [0]}
"a,b": {kind: plain, max_jobs: 3}
f: {kind: slrum, extra: {qos: 3}, <<: x}
g: {kind: slrum, memory: lots}
"""
    assert mistakes(tmp_path, text) == [
        "executors.yaml:1:21: a100: unknown key 'partion'. Did you mean 'partition'? Possible: extra, max_jobs, "
        "memory, partition, ratio, setup.",
        "executors.yaml:1:45: a100: max_jobs: must be at least 1, got 0",
        "executors.yaml:2:25: b: setup: a list is expected, got 'module load cuda'",
        "executors.yaml:2:50: b: ratio: Input should be a valid number, unable to parse string as a number, got 'fast'",
        "executors.yaml:3:1: 'a100' is said twice, first in line 1: keep one",
        "executors.yaml:4:4: c: a mapping is expected, got 'slrum': write {kind: slrum}",
        f"executors.yaml:5:1: d: 'kind' is missing: {' or '.join(EXECUTORS)}",
        f"executors.yaml:6:11: e: kind: {' or '.join(EXECUTORS)} is expected, got 3",
        "executors.yaml:7:1: plain: 'plain' is an executor: give the profile another name",
        "executors.yaml:8:1: local: 'local' is an executor: give the profile another name",
        "executors.yaml:9:1: a,b: this cannot be a name: letters, digits, '.', '_' and '-', at most 64, the first a "
        "letter or digit",
        "executors.yaml:9:22: a,b: unknown key 'max_jobs': executor 'plain' takes none but `kind`",
        "executors.yaml:10:31: f: extra.qos: text is expected, got 3",
        "executors.yaml:10:35: `<<` is not read here: write the keys out; a study takes over another file by "
        "`extends:`",
        "executors.yaml:11:26: g: memory: String should match pattern '^[0-9]+G$', got 'lots'",
    ]


def test_a_profile_that_is_wanted_must_be_of_an_executor_that_is_here_another_need_not(tmp_path):
    text = "a100: {kind: plian, partition: gpu}\nb: {kind: slrum}\n"
    (line,) = mistakes(tmp_path, text)
    assert line.startswith("executors.yaml:1:14: a100: kind: unknown executor 'plian'. Did you mean 'plain'? Possible:")
    assert profiles_named(["b"], tmp_path) == (Profile("b", "slrum"),)


@pytest.mark.parametrize("text", ["- a100", "a100", "{", "\x01", "a: !!python/object:os.system {}"])
def test_a_file_that_holds_no_mapping_is_refused_with_its_place(tmp_path, text):
    (line,) = mistakes(tmp_path, text)
    assert re.match(r"executors.yaml:\d:\d+: ", line)


def test_an_unknown_name_lists_the_profiles_with_their_files_and_the_executors(tmp_path):
    beside(tmp_path, "a100: {kind: slrum}\n")
    of_the_user(tmp_path, "crowd: {kind: plain}\n")
    with pytest.raises(AblateError) as error:
        profiles_named(["a10"], tmp_path)
    text = str(error.value)
    assert "unknown executor 'a10'. Did you mean 'a100'? Possible: a100, crowd, local, plain" in text
    assert f"in {tmp_path}/executors.yaml and {tmp_path}/configuration/ablate/executors.yaml." in text


@pytest.mark.parametrize("record", ["a100", None, 7, []])
def test_a_record_of_a_job_that_says_no_profile_counts_as_one_of_its_kind(record):
    assert profile_in({"executor": "slurm", "profile": record}) == Profile("slurm", "slurm", {})


def test_without_a_file_an_unknown_name_says_where_one_is_read_and_how_to_have_it(tmp_path):
    with pytest.raises(AblateError) as error:
        profiles_named(["a100"], tmp_path)
    places = f"{tmp_path}/executors.yaml or {tmp_path}/configuration/ablate/executors.yaml"
    assert str(error.value).endswith(f"read from {places}: `ablate new --executors` writes one to start from.")


@pytest.mark.parametrize("words", [[""], [" , "], ["", ","]])
def test_a_name_that_is_empty_is_not_taken_for_this_machine(tmp_path, words):
    with pytest.raises(AblateError, match=r"names nothing: a profile of executors\.yaml or .*local.* is expected"):
        profiles_named(words, tmp_path)


def test_a_profile_that_is_named_twice_is_one(tmp_path):
    folder = beside(tmp_path, "a100: {kind: slrum}\n")
    assert [one.name for one in profiles_named(["a100,a100,", "local", "a100"], folder)] == ["a100", "local"]


SECRET = "hf_" + "a" * 20


@pytest.mark.parametrize(
    "options",
    [
        f"setup: ['export HF_TOKEN={SECRET}']",
        "setup: ['export WANDB_API_KEY=0123456789']",
        "setup: ['git clone https://me:0123456789@example.org/x']",
        "api_key: '0123456789'",
        f"extra: {{qos: {SECRET}}}",
        f"max_jobs: {SECRET}",
    ],
)
def test_a_token_is_refused_and_not_quoted(tmp_path, options):
    (line,) = mistakes(tmp_path, f"a100: {{kind: slrum, {options}}}")
    assert "cannot stand in a profile, which is kept in runs/ and in job scripts" in line
    assert SECRET not in line
    assert "0123456789" not in line
    assert secrets.hidden(line) == line


def test_a_token_that_a_node_reads_from_a_file_of_its_own_is_none(tmp_path):
    folder = beside(tmp_path, "a100: {kind: slrum, setup: ['export WANDB_API_KEY=$(cat ~/.key)', 'N_TOKENS=3 x']}")
    assert profiles_named(["a100"], folder)[0].options["setup"][1] == "N_TOKENS=3 x"


def test_a_profile_made_by_a_program_is_checked_alike():
    with pytest.raises(StudyError, match=r"profile a100: max_jobs: must be at least 1, got 0\n.*'partion'"):
        fleet_of([Profile("a100", "slrum", {"max_jobs": 0, "partion": "gpu"})], Placing())


# this machine, by a profile


def test_a_profile_of_this_machine_says_cards_and_jobs_and_the_command_line_comes_before_it(tmp_path):
    (mine,) = profiles_named(["mine"], beside(tmp_path, "mine: {kind: local, jobs: 3}"))
    for placing, num in ((Placing(), 3), (Placing(num_jobs=2), 2)):
        slots = [slot for slot in fleet_of([mine], placing).slots() if "heavy" in slot.takes]
        assert (len(slots), {slot.profile for slot in slots}) == (num, {"mine"})
    assert mine.record() == {}
    cards = Profile("cards", "local", {"gpus": [7]})
    with pytest.raises(AblateError, match="gpus of profile cards names 7, but the cards visible here are"):
        fleet_of([cards], Placing()).slots()


# for whoever writes one


def test_the_template_with_its_comments_taken_off_is_right(tmp_path):
    write_template(tmp_path / "executors.yaml")
    assert profiles_named(["plain"], tmp_path) == (Profile("plain", "plain"),)
    written = re.sub("^# ", "", (tmp_path / "executors.yaml").read_text().partition("\n\n")[2], flags=re.MULTILINE)
    kinds = {profile["kind"] for profile in parse(written, lambda *_: None).data.values()}
    assert kinds == {"slurm", "ray", "local"}
    beside(tmp_path, written)
    assert profiles_named(["first_card"], tmp_path)[0].kind == "local"
    with pytest.raises(
        AblateError, match=r"exists already: .* `ablate new --executors ~/\.config/ablate/executors.yaml"
    ):
        write_template(tmp_path / "executors.yaml")
    write_template(tmp_path / "no such/folder/executors.yaml")


def test_editors_are_told_the_options_of_every_executor():
    schemas = {schema["title"]: schema for schema in json_schema()["additionalProperties"]["oneOf"]}
    assert schemas.keys() == set(EXECUTORS)
    assert schemas["slrum"]["properties"]["max_jobs"] == {
        "default": 8,
        "minimum": 1,
        "title": "Max Jobs",
        "type": "integer",
    }
    assert schemas["slrum"]["properties"]["kind"] == {"const": "slrum"}
    assert schemas["plain"]["properties"].keys() == {"kind"}
    assert schemas["plain"]["additionalProperties"] is False


def test_every_option_of_every_executor_is_explained():
    models = {kind: model for kind in EXECUTORS if kind not in ("slrum", "plain") and (model := options_model(kind))}
    assert "local" in models
    for kind, model in models.items():
        assert [f"{kind}: {name}" for name, field in model.model_fields.items() if not field.description] == []
