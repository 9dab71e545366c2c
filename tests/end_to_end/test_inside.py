"""An evaluation reads what is in its key and nothing else, whoever asks for it."""

import json
import os
from pathlib import Path

import pytest
import yaml
from datasets.data_files import resolve_pattern
from hypothesis import given, settings
from hypothesis import strategies as st
from support.asking import ENDINGS, evaluated, fetched, question, write_tasks
from support.paths import TINY

from ablate.core.errors import StageError, StudyError
from ablate.core.local_files import visible_files
from ablate.evaluation.tasks import Tasks
from ablate.planning.project import open_study
from ablate.study.catalog.task_data import Home, Outside

GROUP = """
group: own
task: [{task: hellaswag, dataset_path: json, dataset_kwargs: {data_files: {validation: ABOVE/rows.jsonl}}}]
"""
CARD = "---\nconfigs: [{config_name: default, data_files: [{split: test, path: PATH}]}]\n---\n"


def rows(path: Path, split: str = "test", number: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(question(split, index)) + "\n" for index in range(number)))


@pytest.fixture
def above(tmp_path):
    """-> a folder with rows that nobody named in a key."""
    rows(tmp_path / "above" / "rows.jsonl", "stranger")
    return tmp_path / "above"


def asked(above: Path, text: str) -> dict:
    """-> what an evaluation is given: a task that would be asked of a model which is never loaded."""
    tasks = write_tasks(above / "tasks", endings=text.replace("ABOVE", str(above)))
    (above / "model").mkdir()
    (above / "model" / "empty").touch()
    return {"model": fetched(above / "fetched", above / "model"), "include": fetched(above / "included", tasks)}


@pytest.mark.parametrize(
    "files",
    [
        "../rows.jsonl",
        "ABOVE/rows.jsonl",
        "ABOVE/r*.jsonl",
        "../r*.jsonl",
        "file://ABOVE/rows.jsonl",
        "data/../../r*.jsonl",
    ],
)
def test_a_task_that_reads_outside_its_folder_is_refused(tmp_path, above, files):
    inputs = asked(above, ENDINGS.replace("data/test.jsonl", f"'{files}'"))
    with pytest.raises(StageError, match=r"own_endings cannot be set up: .*(lies outside|'\.\.'\) after a wildcard)"):
        evaluated(tmp_path / "stage", inputs, tasks=("own_endings",))


def test_what_a_group_of_ones_own_gives_to_a_task_of_lm_evals_is_held_inside_too(tmp_path, above):
    with pytest.raises(StageError, match=r"rows\.jsonl lies outside"):
        Tasks(["own"], {}, write_tasks(above / "tasks", group=GROUP.replace("ABOVE", str(above)))).load_one("own")


def test_a_task_file_that_includes_one_from_outside_is_refused(tmp_path, above):
    (above / "other.yaml").write_text(ENDINGS)
    with pytest.raises(StageError, match=r"include: \.\./other\.yaml lies outside"):
        Tasks(["own_endings"], {}, write_tasks(above / "tasks", endings="task: own_endings\ninclude: ../other.yaml"))


@pytest.mark.parametrize("path", ["../../rows.jsonl", "ABOVE/rows.jsonl", "ABOVE/r*.jsonl", "file://ABOVE/rows.jsonl"])
def test_the_card_of_a_folder_of_rows_leads_nowhere_outside(tmp_path, above, path):
    tasks = write_tasks(above / "tasks")
    rows(tasks / "set" / "inside.jsonl")
    task = ENDINGS.replace("json\n", "set\n", 1).replace("dataset_kwargs", "metadata: {version: 1}\n#")
    for name, split in (("endings", "training_split: train"), ("letters", "fewshot_split: train")):
        (tasks / f"{name}.yaml").write_text(task.replace(split, "").replace("own_endings", f"own_{name}"))
    (tasks / "endings.yaml").write_text(task.replace("training_split: train\nfewshot_split: train\n", ""))
    (tasks / "set" / "README.md").write_text(CARD.replace("PATH", path.replace("ABOVE", str(above))))
    with pytest.raises(StageError, match=r"own_endings cannot be set up: .*r.*\.jsonl (lies outside|leads out)"):
        Tasks(["own_endings"], {}, tasks).load_one("own_endings")
    (tasks / "set" / "README.md").write_text(CARD.replace("PATH", "inside.jsonl"))
    assert len(Tasks(["own_endings"], {}, tasks).load_one("own_endings")["tasks"]["own_endings"].eval_docs) == 9


def test_a_link_among_rows_leads_nowhere_outside(tmp_path, above):
    task = ENDINGS.replace("json\n", "set\n", 1).replace("dataset_kwargs", "metadata: {version: 1}\n#")
    tasks = write_tasks(above / "tasks", endings=task.replace("training_split: train\nfewshot_split: train\n", ""))
    (tasks / "set").mkdir()
    (tasks / "set" / "test.jsonl").symlink_to("../data/test.jsonl")
    assert docs(tasks) == contexts("test", 9)
    (tasks / "set" / "test.jsonl").unlink()
    (tasks / "set" / "test.jsonl").symlink_to(above / "rows.jsonl")
    with pytest.raises(StageError, match=r"own_endings cannot be set up: .*test\.jsonl lies outside"):
        docs(tasks)


def test_python_of_a_task_reads_data_sets_inside_alone(tmp_path, above):
    code = "import datasets\ndef read(**_):\n    return datasets.load_dataset('json', data_files={'test': FILE})\n"
    task = ENDINGS.replace("dataset_path: json", "custom_dataset: !function utils.read").replace("dataset_kwargs", "#")
    task = task.replace("training_split: train\nfewshot_split: train\n", "")
    tasks = write_tasks(above / "tasks", endings=task)
    for file in (above / "rows.jsonl", "http://127.0.0.1:9/rows.jsonl"):
        (tasks / "utils.py").write_text(code.replace("FILE", repr(str(file))))
        with pytest.raises(StageError, match="cannot be set up"):
            Tasks(["own_endings"], {}, tasks).load_one("own_endings")
    (tasks / "utils.py").write_text(code.replace("FILE", repr(str(tasks / "data" / "test.jsonl"))) + "# again\n")
    assert len(Tasks(["own_endings"], {}, tasks).load_one("own_endings")["tasks"]["own_endings"].eval_docs) == 9


def test_python_of_a_task_that_asks_for_a_data_set_of_the_hub_gets_its_snapshot(tmp_path):
    code = "import datasets\ndef read(**_):\n    return datasets.load_dataset('org/name', revision='v2')\n"
    task = ENDINGS.replace("dataset_path: json", "custom_dataset: !function utils.read").replace("dataset_kwargs", "#")
    tasks = write_tasks(tmp_path / "tasks", endings=task.replace("training_split: train\nfewshot_split: train\n", ""))
    (tasks / "utils.py").write_text(code)
    rows(tmp_path / "snapshot" / "test.jsonl", "hub", 3)
    assert docs(tasks, {"org/name@v2": tmp_path / "snapshot"}) == contexts("hub", 3)
    with pytest.raises(StageError, match="org/name is no data set that was fetched for this evaluation"):
        docs(tasks, {"org/name": tmp_path / "snapshot"})


def docs(tasks: Path, snapshots=None) -> list[str]:
    loaded = Tasks(["own_endings"], snapshots or {}, tasks).load_one("own_endings")["tasks"]["own_endings"]
    return [doc["context"] for doc in loaded.eval_docs]


def contexts(split: str, number: int) -> list[str]:
    return [question(split, index)["context"] for index in range(number)]


PARTS = [
    *("..", ".", "", "data", "data", "in", "out", "*", "**", "?ata", "[d]ata", "*.jsonl", "*.jsonl", "test.jsonl"),
    *("near.jsonl", "link.jsonl", "li*", ".hidden.jsonl", ".*", "[.]*", "[!x]*", "?.", "~", "x:y"),
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """-> a folder of rows with links of every sort in it."""
    above = tmp_path_factory.mktemp("above")
    tasks = above / "tasks"
    (tasks / "data" / "more").mkdir(parents=True)
    for name in ("data/test.jsonl", "data/more/test.jsonl", "data/.hidden.jsonl", "odd [1]*.jsonl", "../test.jsonl"):
        (tasks / name).write_text("{}")
    links = {"link.jsonl": "../test.jsonl", "near.jsonl": "data/test.jsonl", "data/out": "../..", "data/in": "more"}
    for link, target in links.items():
        (tasks / link).symlink_to(target)
    return tasks


@settings(max_examples=600, deadline=None)
@given(
    beginning=st.sampled_from(["", "", "", "./", "TASKS/", "ABOVE/", "file://TASKS/", "/", "file:"]),
    parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=5),
)
def test_of_names_of_any_spelling_datasets_finds_what_is_in_the_key_or_they_are_refused(mixed, beginning, parts):
    spelt = (beginning + "/".join(parts)).replace("TASKS", str(mixed)).replace("ABOVE", str(mixed.parent))
    try:
        local = Home(mixed, mixed).localized({"dataset_path": "json", "dataset_kwargs": {"data_files": spelt}})
        files = resolve_pattern(local["dataset_kwargs"]["data_files"], "/")
    except (Outside, FileNotFoundError):  # it looks through no link to a folder after a wildcard
        return
    for file in files:
        assert Path(os.path.realpath(file)).relative_to(mixed).as_posix() in visible_files(mixed)


def test_files_that_a_pattern_finds_inside_are_read_in_the_order_of_their_names(tmp_path):
    tasks = write_tasks(tmp_path / "odd [1] folder", endings=ENDINGS.replace("data/test.jsonl", "parts/**/*.jsonl"))
    for name in ("b", "a/z", "c", "a/a"):
        rows(tasks / "parts" / f"{name}.jsonl", name, 2)
    (tasks / "parts" / ".hidden.jsonl").write_text("not json")
    assert docs(tasks) == [context for name in ("a/a", "a/z", "b", "c") for context in contexts(name, 2)]


@pytest.mark.parametrize(
    "said",
    ["hf://datasets/org/name/parts/*.jsonl", "https://huggingface.co/datasets/org/name/resolve/main/parts/a.jsonl"],
)
def test_a_data_set_on_the_hub_is_read_from_its_snapshot(tmp_path, said):
    tasks = write_tasks(tmp_path / "tasks", endings=ENDINGS.replace("data/test.jsonl", f"'{said}'"))
    snapshot = tmp_path / "hub" / "datasets--org--name" / "snapshots" / "abc"
    blobs = snapshot.parents[1] / "blobs"
    rows(blobs / "123", "hub", 3)
    (snapshot / "parts").mkdir(parents=True)
    (snapshot / "parts" / "a.jsonl").symlink_to("../../../blobs/123")
    assert docs(tasks, {"org/name": snapshot}) == contexts("hub", 3)
    rows(tmp_path / "rows.jsonl")
    (snapshot / "parts" / "a.jsonl").unlink()
    (snapshot / "parts" / "a.jsonl").symlink_to(tmp_path / "rows.jsonl")
    with pytest.raises(StageError, match=r"a\.jsonl lies outside"):
        docs(tasks, {"org/name": snapshot})


def test_rows_that_were_changed_behind_their_time_are_read_anew(tmp_path):
    tasks = write_tasks(tmp_path / "tasks")
    assert docs(tasks) == contexts("test", 9)
    file = tasks / "data" / "test.jsonl"
    before = file.stat()
    rows(file, "TEST")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert docs(tasks) == contexts("TEST", 9)


def test_a_study_whose_task_reads_outside_is_refused_by_validate(tmp_path, above):
    study = yaml.safe_load(TINY.read_text())
    write_tasks(tmp_path / "tasks", endings=ENDINGS.replace("data/test.jsonl", "../above/r*.jsonl"))
    study["evaluate"] = {"tasks": ["own_letters", "own_endings"], "include_path": "tasks"}
    study.get("report", {}).pop("primary", None)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(StudyError, match=r"endings\.yaml: .*r\*\.jsonl lies outside .*put it inside"):
        open_study(tmp_path / "study.yaml", tmp_path / "root")
