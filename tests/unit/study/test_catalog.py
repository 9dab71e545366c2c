import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import STUDIES

from ablate.core.errors import StudyError
from ablate.study import catalog
from ablate.study.catalog import index
from ablate.study.load import load

TUTORIAL = ("truthfulqa_mc2", "hellaswag", "commonsense_qa")


def _write(folder: Path, **files: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder)


def test_the_tutorials_tasks_are_looked_up_in_a_moment_without_lm_eval():
    code = f"""
import sys, time
from ablate.study import catalog
catalog.lm_eval_version()
start = time.process_time()
sources = [catalog.sources(task) for task in {TUTORIAL} if catalog.task_exists(task)]
took = time.process_time() - start
assert took < 0.1, took
assert [path for ((path, *_),) in sources] == ["truthfulqa/truthful_qa", "Rowan/hellaswag", "tau/commonsense_qa"]
assert not {{"lm_eval", "torch", "datasets"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def lm_evals_own():
    """lm-eval's own index of some folders of every sort, for it takes long over all of them."""
    from lm_eval.tasks._index import TaskIndex

    folders = (
        "truthfulqa",
        "mmlu",
        "glue",
        "super_glue",
        "bbh",
        "arithmetic",
        "lambada",
        "squadv2",
        "xnli",
        "leaderboard",
    )
    return {folder: TaskIndex.build([index.tasks_folder() / folder]) for folder in folders}


def test_the_text_scan_finds_what_lm_eval_finds(lm_evals_own):
    for folder, theirs in lm_evals_own.items():
        ours = index.scan(index.tasks_folder() / folder)
        assert ours.files == {name: str(entry.yaml_path) for name, entry in theirs.items() if entry.yaml_path}
        assert {tag: sorted(tasks) for tag, tasks in ours.tags.items()} == {
            name: sorted(entry.tags) for name, entry in theirs.items() if entry.kind.name == "TAG"
        }


def test_a_tasks_data_are_those_that_lm_eval_would_load(lm_evals_own):
    num_checked = 0
    for theirs in lm_evals_own.values():
        for name, entry in theirs.items():
            if entry.kind.name == "TASK" and "/" in str(entry.cfg.get("dataset_path")):
                assert catalog.sources(name) == ((entry.cfg["dataset_path"], entry.cfg.get("dataset_name"), None),)
                num_checked += 1
    assert num_checked > 100


def test_the_second_look_at_all_tasks_comes_from_the_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    index.whole_index.cache_clear()
    first = index.whole_index()
    (kept,) = tmp_path.rglob("lm_eval-*.json")
    assert len(first.files) > 1000
    kept.write_text('{"files": {"one": "x.yaml"}, "tags": {}}')
    index.whole_index.cache_clear()
    assert index.whole_index().files == {"one": "x.yaml"}
    index.whole_index.cache_clear()


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("mmlu", ("cais/mmlu", "anatomy", None)),
        ("truthfulqa", ("truthfulqa/truthful_qa", "generation", None)),
        ("arithmetic_1dc", ("EleutherAI/arithmetic", None, None)),
        ("squadv2", ("lighteval/squad_v2", None, None)),
    ],
)
def test_groups_tags_files_on_the_hub_and_tasks_in_python_name_their_data(name, some):
    assert some in catalog.sources(name)


def test_a_name_that_is_none_gets_the_nearest():
    assert not catalog.task_exists("hellaswagg")
    assert "Did you mean 'hellaswag'" in catalog.unknown_task("hellaswagg")


OWN = "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\n"


def test_tasks_of_ones_own_come_before_lm_evals_and_read_local_files(tmp_path):
    own = _write(tmp_path, mine=OWN, hellaswag="include: mine.yaml\ntask: hellaswag\n")
    assert catalog.sources("mine", own) == ()
    assert catalog.sources("hellaswag", own) == ()
    assert catalog.sources("hellaswag") == (("Rowan/hellaswag", None, None),)
    assert not catalog.task_exists("mine")


def test_a_task_file_that_is_edited_is_read_again(tmp_path):
    own = _write(tmp_path, mine=OWN)
    assert catalog.sources("mine", own) == ()
    _write(tmp_path, mine="task: mine\ndataset_path: some/data\n")
    assert catalog.sources("mine", own) == (("some/data", None, None),)


def test_a_group_of_ones_own_may_name_lm_evals_tasks_and_change_their_data(tmp_path):
    members = "- hellaswag\n- {task: commonsense_qa, dataset_path: other/data}\n- {group: in, task: [mine]}\n"
    own = _write(tmp_path, ours=f"group: ours\ntask:\n{members}", mine=OWN)
    assert catalog.sources("ours", own) == (("Rowan/hellaswag", None, None), ("other/data", None, None))
    assert [entry.name for entry in catalog.entries("ours", own)] == ["ours", "hellaswag", "commonsense_qa", "mine"]


def test_an_unknown_member_of_a_group_is_told_with_its_group(tmp_path):
    own = _write(tmp_path, ours="group: ours\ntask: [helaswag]\n")
    with pytest.raises(catalog.UnknownTask, match=r"'helaswag' \(a member of ours\).*'hellaswag'"):
        catalog.sources("ours", own)


def test_a_group_inside_itself_is_an_error_not_a_loop(tmp_path):
    own = _write(tmp_path, a="group: a\ntask: [b]\n", b="group: b\ntask: [a]\n")
    with pytest.raises(catalog.UnknownTask):
        catalog.sources("a", own)


SCRIPT = "metric_list: [{metric: acc}, {metric: ./mine.py}]"


@pytest.mark.parametrize(
    "line", ["process_docs: !function utils.f", "x: !<!function> utils.f", "x: [1, {y: !foo z}]", SCRIPT]
)
def test_python_in_a_task_file_is_found_however_it_is_written(tmp_path, line):
    (tmp_path / "base.inc").write_text("doc_to_text: a\n")
    own = _write(tmp_path / "tasks", mine=f"include: ../base.inc\n{OWN}")
    assert catalog.uses_code(own) == []
    (tmp_path / "base.inc").write_text(f"doc_to_text: a\n{line}\n")
    (place,) = catalog.uses_code(own)
    assert place.startswith(f"{tmp_path}/base.inc:")


def test_a_task_file_whose_alias_leads_back_to_itself_is_read_to_its_end(tmp_path):
    (tmp_path / "round.yaml").write_text("task: t\nmetric_list: &all\n- {metric: own/score.py}\n- *all\n")
    (place,) = catalog.uses_code(tmp_path)
    assert place.endswith("round.yaml: metric own/score.py (a script)")


def test_a_task_file_that_cannot_be_read_is_told_at_the_folder_that_a_study_names(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "broken.yaml").write_text("task: a\n  b: [\n")
    with pytest.raises(StudyError, match=r"evaluate\.include_path: .*broken\.yaml: not a task file that can be read"):
        load(STUDIES / "kd_llama.yaml", [f"evaluate.include_path={tmp_path / 'tasks'}"])
