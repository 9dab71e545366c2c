"""A task file names only what is in its key, however it spells it."""

import os
from pathlib import Path

import pytest
import yaml

from ablate.study import catalog
from ablate.study.catalog.task_data import Home, HubPlace, Outside, hub_file, hub_set
from ablate.study.catalog.taskfile import merged

TASK = {"task": "own", "dataset_path": "json", "test_split": "test", "doc_to_text": "x", "doc_to_target": "y"}


@pytest.fixture
def root(tmp_path) -> Path:
    """-> a folder of task files: what is beside it, and what is hidden in it, is in no key."""
    (tmp_path / "secret.jsonl").write_text("{}\n")
    tasks = tmp_path / "tasks"
    (tasks / "data" / "more").mkdir(parents=True)
    (tasks / "deep").mkdir()
    for name in ("data/test.jsonl", "data/more/test.jsonl", ".hidden.jsonl", "odd [1]*.jsonl"):
        (tasks / name).write_text("{}\n")
    (tasks / "link.jsonl").symlink_to("../secret.jsonl")
    (tasks / "near.jsonl").symlink_to("data/test.jsonl")
    for link in ("linked", "linked too"):  # through which there is no end of ways
        (tasks / link).symlink_to("..")
    (tasks / "dangling.jsonl").symlink_to("nowhere")
    return tasks


def places(root: Path, folder: str = ".") -> Home:
    return Home(root / folder, root)


def written(root: Path, name: str = "own.yaml", **fields) -> str:
    (root / name).write_text(yaml.safe_dump(TASK | fields))
    return str(root)


OUTSIDE = [
    "../secret.jsonl",
    "./../secret.jsonl",
    "data/../../secret.jsonl",
    "data//..//..//secret.jsonl",
    "{above}/secret.jsonl",
    "{above}/secr*.jsonl",
    "{above}/tasks/../secret.jsonl",
    "/**/*.jsonl",
    "//**",
    "../*.jsonl",
    "../[s]ecret.jsonl",
    "../secret.json?",
    "*/../../secret.jsonl",
    "**/../../secret.jsonl",
    "link.jsonl",
    "li*.jsonl",
    "linked/secret.jsonl",
    "linked/*.jsonl",
    "*/secret.jsonl",
    "**.jsonl",
    ".hidden.jsonl",
    ".*.jsonl",
    "dangling.jsonl",
    "file://{above}/secret.jsonl",
    "file://localhost{above}/secret.jsonl",
    "FILE://{above}/secret.jsonl",
    "file:{above}/secret.jsonl",
    "file:../secret.jsonl",
    "local://{above}/secret.jsonl",
    "local:{above}/secret.jsonl",
    "http://127.0.0.1:9/secret.jsonl",
    "HTTP://127.0.0.1:9/secret.jsonl",
    "hTTps://example.org/secret.jsonl",
    "http:/127.0.0.1/secret.jsonl",
    "//127.0.0.1/secret.jsonl",
    "ftp://127.0.0.1/secret.jsonl",
    "s3://bucket/secret.jsonl",
    "gs://bucket/secret.jsonl",
    "memory://secret.jsonl",
    "data:application/json;base64,e30=",
    "github://org:name@main/secret.jsonl",
    "hf://org/model/secret.jsonl",
    "hf://buckets/org/name/secret.jsonl",
    "HF://datasets/org/name/secret.jsonl",
    "hf://datasets/org/name/../../other/secret.jsonl",
    "hf://datasets/org/name/x.jsonl::http://127.0.0.1/",
    "zip://secret.jsonl::{above}/secret.zip",
    "zip://secret.jsonl::data/inside.zip",
    "zip://secret.jsonl::http://127.0.0.1:9/secret.zip",
    "simplecache::http://127.0.0.1:9/secret.jsonl",
    "filecache::file://{above}/secret.jsonl",
    "~/secret.jsonl",
    "~root/secret.jsonl",
    "$HOME/secret.jsonl",
    "${{HOME}}/secret.jsonl",
    "..\\secret.jsonl",
    "C:\\secret.jsonl",
    "%2e%2e/secret.jsonl",
    "%2E%2E%2Fsecret.jsonl",
    " ../secret.jsonl",
    "../secret.jsonl\0",
    "data",
    "x" * 300,
    "",
]


@pytest.mark.parametrize("shape", ["text", "list", "split", "splits", "folder"])
@pytest.mark.parametrize("said", OUTSIDE)
def test_data_outside_the_key_are_refused_however_they_are_spelt(root, said, shape):
    said = said.format(above=root.parent)
    inside = "data/test.jsonl"
    kwargs = {
        "text": {"data_files": said},
        "list": {"data_files": [inside, said] if said else [said]},
        "split": {"data_files": {"test": said}},
        "splits": {"data_files": {"train": inside, "test": [inside, said]} if said else None},
        "folder": {"data_dir": os.path.dirname(said) or said, "data_files": os.path.basename(said)},  # noqa: PTH119, PTH120
    }
    config = TASK | {"dataset_kwargs": kwargs[shape]}
    if shape == "folder" and said in ("data", ".hidden.jsonl", ".*.jsonl", "link.jsonl", "li*.jsonl", "dangling.jsonl"):
        config["dataset_kwargs"]["data_dir"] = "."
    with pytest.raises(Outside):
        places(root).localized(config)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("data/test.jsonl", "data/test.jsonl"),
        ("./data/test.jsonl", "data/test.jsonl"),
        ("deep/../data/test.jsonl", "data/test.jsonl"),
        ("data//test.jsonl", "data/test.jsonl"),
        ("{root}/data/test.jsonl", "data/test.jsonl"),
        ("file://{root}/data/test.jsonl", "data/test.jsonl"),
        ("near.jsonl", "near.jsonl"),
        ("data/*.jsonl", "data/*.jsonl"),
        ("data/**/*.jsonl", "data/**/*.jsonl"),
        ("{root}/data/[t]est.jsonl", "data/[t]est.jsonl"),
        ("odd [1]*.jsonl", "odd [[]1][*].jsonl"),
    ],
)
def test_what_lies_inside_is_read_by_its_absolute_name(root, said, means):
    for folder in (".", "deep"):  # beside the task's file, or below the folder of all
        config = TASK | {"dataset_kwargs": {"data_files": {"test": [said.format(root=root)]}}}
        local = places(root, folder).localized(config)
        assert local["dataset_kwargs"]["data_files"] == {"test": [str(root / means)]}
        assert places(root).localized(local) == local


@pytest.mark.parametrize(
    "kwargs",
    [
        None,
        {},
        {"data_files": None},
        {"data_files": 7},
        {"data_files": {"test": [[["data/test.jsonl", 1.5]]]}},
        {"data_files": "data/test.jsonl", "cache_dir": "/tmp"},
        {"data_files": "data/test.jsonl", "download_config": {}},
        {"data_files": "data/test.jsonl", "token": "hf_x"},
        {"data_files": "data/test.jsonl", "storage_options": {"http": {}}},
        {"data_files": "data/test.jsonl", "save_infos": True},
        ["data/test.jsonl"],
        {"data_dir": "/etc"},
        {"data_dir": ["data"]},
    ],
)
def test_a_reader_says_which_files_and_nothing_of_places_and_secrets(root, kwargs):
    with pytest.raises(Outside):
        places(root).localized(TASK | {"dataset_kwargs": kwargs})


@pytest.mark.parametrize("custom", ["text", "''", "0", "{a: 1}"])
def test_what_stands_where_python_would_give_the_data_lets_no_file_by(root, custom):
    """lm-eval takes a function there, and reads `data_files` where there is anything else."""
    path = root / "own.yaml"
    path.write_text(
        f"{yaml.safe_dump(TASK)}dataset_kwargs: {{data_files: ../secret.jsonl}}\ncustom_dataset: {custom}\n"
    )
    with pytest.raises(Outside):
        places(root).localized(merged(path))
    path.write_text(path.read_text().replace(f"custom_dataset: {custom}", "custom_dataset: !function utils.read"))
    assert places(root).localized(merged(path))["custom_dataset"] == f"{root}/utils.read"


def test_lists_that_hold_themselves_are_refused(root):
    endless: list = ["data/test.jsonl"]
    endless.append(endless)
    with pytest.raises(Outside, match="without an end"):
        places(root).localized(TASK | {"dataset_kwargs": {"data_files": endless}})


SETS = [
    *(
        "sql",
        "pandas",
        "generator",
        "cache",
        "imagefolder",
        "/etc",
        "..",
        "linked",
        "../tasks/..",
        "./nowhere",
        "~/data",
    ),
    *("http://127.0.0.1/data", "hf://org/model", "hf://buckets/org/name", "org/name@main", "a/b/c", 7, ["json"]),
]


@pytest.mark.parametrize("path", SETS)
def test_a_data_set_is_one_of_the_hub_or_a_folder_inside(root, path):
    with pytest.raises(Outside):
        places(root).localized(TASK | {"dataset_path": path})


def test_files_of_a_data_set_are_named_inside_it(root):
    local = places(root).localized(TASK | {"dataset_path": "data", "dataset_kwargs": {"data_files": "more/*.jsonl"}})
    assert local["dataset_path"] == str(root / "data")
    assert local["dataset_kwargs"] == {"data_files": "more/*.jsonl"}
    for said in ("../../secret.jsonl", "/etc/hosts", "http://127.0.0.1/x", "~/x", "zip://a::b"):
        for path in ("data", "org/name"):
            with pytest.raises(Outside):
                places(root).localized(TASK | {"dataset_path": path, "dataset_kwargs": {"data_dir": said}})


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("hf://datasets/org/name/a/b.jsonl", HubPlace("org/name", None, "a/b.jsonl")),
        ("hf://datasets/org/name@v2/b.jsonl", HubPlace("org/name", "v2", "b.jsonl")),
        ("hf://datasets/org/name@main/b.jsonl", HubPlace("org/name", None, "b.jsonl")),
        ("https://huggingface.co/datasets/org/name/resolve/main/b.jsonl", HubPlace("org/name", None, "b.jsonl")),
        (
            "https://huggingface.co/datasets/org/name/resolve/v2/b.jsonl?download=true",
            HubPlace("org/name", "v2", "b.jsonl"),
        ),
        ("https://example.org/datasets/org/name/resolve/main/b.jsonl", None),
        ("hf://org/name/b.jsonl", None),
    ],
)
def test_a_file_on_the_hub_is_of_a_data_set_that_is_fetched(root, said, place):
    assert hub_file(said) == place
    source = catalog.sources("own", written(root, dataset_kwargs={"data_files": {"test": said}}))
    assert source == (((place.repo, None, place.revision),) if place else ())
    if place:
        home = Home(root, root, {place.name: Path("/snap[1]")})
        local = home.localized(TASK | {"dataset_kwargs": {"data_files": said}})
        assert local["dataset_kwargs"]["data_files"] == f"/snap[[]1]/{place.file}"


@pytest.mark.parametrize("path", ["../secret.jsonl", "/etc/hosts", "http://127.0.0.1/x", "{a: [../secret.jsonl]}"])
def test_the_card_of_a_folder_of_rows_names_files_inside_it(root, path):
    (root / "data" / "README.md").write_text(f"---\nconfigs: [{{data_files: {path}}}]\n---\n")
    with pytest.raises(Outside, match=r"README\.md: .* leads out of its data set"):
        places(root).localized(TASK | {"dataset_path": "data"})
    (root / "data" / "README.md").write_text("---\nconfigs: [{data_files: 'more/*.jsonl'}]\n---\n")
    assert places(root).localized(TASK | {"dataset_path": "data"})["dataset_path"] == str(root / "data")
    (root / "data" / ".huggingface.yaml").write_text("")
    with pytest.raises(Outside, match="what is hidden counts in no key"):
        places(root).localized(TASK | {"dataset_path": "data"})


def test_a_revision_that_a_task_says_is_the_one_that_is_fetched(root):
    assert hub_set("hf://datasets/org/name@v2") == hub_set("org/name", "v2") == HubPlace("org/name", "v2")
    for fields in ({"dataset_path": "hf://datasets/org/name@v2"}, {"dataset_kwargs": {"revision": "v2"}}):
        own = written(root, **{"dataset_path": "org/name", "dataset_name": "small"} | fields)
        assert catalog.sources("own", own) == (("org/name", "small", "v2"),)
    other = Home(root, root, {"org/name": root / "data"})
    with pytest.raises(Outside, match=r"org/name@v2 was not fetched .*those that were: org/name\)"):
        other.localized(TASK | {"dataset_path": "org/name", "dataset_kwargs": {"revision": "v2"}})


def test_a_group_that_gives_a_task_other_files_is_looked_through_too(root):
    for members in (
        [{"task": "hellaswag", "dataset_path": "json", "dataset_kwargs": {"data_files": "../secret.jsonl"}}],
        [
            {
                "group": "inner",
                "task": [{"task": "piqa", "dataset_path": "json", "dataset_kwargs": {"data_dir": "/etc"}}],
            }
        ],
    ):
        (root / "group.yaml").write_text(yaml.safe_dump({"group": "all", "task": members}))
        (problem,) = dict.fromkeys(why.partition(": ")[2] for why in catalog.places_outside("all", str(root)))
        assert "secret.jsonl lies outside" in problem or "there is no folder /etc" in problem or "/etc lies" in problem


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("include: ../other.yaml", "include: ../other.yaml lies outside"),
        ("include: {above}/other.yaml", "lies outside"),
        ("include: [near.yaml, linked/other.yaml]", "linked/other.yaml lies outside"),
        ("include: nowhere.yaml", "is not there"),
        ("include: /dev/zero", "lies outside"),
        ("include: pipe", "is not there"),
        ("include: .hidden.yaml", "is hidden"),
        ("include: indirect", "include: ../other.yaml lies outside"),
        ("process_docs: !function ../other.f", None),
        ("process_docs: !function linked/other.f", "!function linked/other.f lies outside"),
        ("process_docs: !function {above}/other.f", "lies outside"),
        ("metric_list: [{{metric: ../other.py}}]", "metric: ../other.py lies outside"),
        ("use_prompt: '{above}/other.yaml:x'", "use_prompt"),
        ("use_prompt: 'near.yaml:x'", "use_prompt"),
        ("include: near.yaml", None),
        ("include: {lm_eval}/hellaswag/hellaswag.yaml", None),
        ("process_docs: !function utils.f", None),
    ],
)
def test_the_files_that_a_task_is_made_of_lie_inside(root, text, why):
    for name in ("other.yaml", "other.py", "tasks/near.yaml", "tasks/utils.py", "tasks/.hidden.yaml"):
        (root.parent / name).write_text("")
    (root / "indirect").write_text("include: ../other.yaml")
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "pipe.yaml")
    (root / "pipe.yaml").unlink()
    (root / "own.yaml").write_text(text.format(above=root.parent, lm_eval=catalog.index.tasks_folder()))
    problems = [problem for problem in catalog.files_outside(root) if "hidden.yaml is hidden" not in problem or why]
    problems = [problem for problem in problems if not problem.startswith(str(root / ".hidden.yaml"))]
    assert len(problems) == (why is not None)
    assert all(why in problem for problem in problems)


def test_a_task_file_that_leads_outside_or_is_hidden_is_none(root):
    (root.parent / "other.yaml").write_text("task: other")
    (root / "other.yaml").symlink_to("../other.yaml")
    (root / ".own.yaml").write_text("task: own")
    hidden, outside = catalog.files_outside(root)
    assert ".own.yaml is hidden" in hidden
    assert "other.yaml lies outside" in outside


def test_a_pipe_among_task_files_keeps_nobody_waiting(root):
    os.mkfifo(root / "pipe.yaml")
    (root / "own.yaml").write_text("task: own\ninclude: pipe.yaml")
    assert catalog.task_exists("own", str(root))
    assert not catalog.task_exists("pipe", str(root))
