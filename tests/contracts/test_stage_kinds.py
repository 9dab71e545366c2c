"""Contract of every stage kind in the registry."""

import json
import subprocess
import sys

import pytest
from support.paths import GOLDEN, ROOT
from support.small_plans import plan_of, prepared
from support.stub_models import stub_layers

from ablate.core.errors import StageError
from ablate.core.values import role_of
from ablate.planning.plan import Plan
from ablate.store.kind import KINDS, Cost, words_by_kind
from ablate.store.sizes import model_sizes
from ablate.store.stage import Stage
from ablate.study.answer_settings import Sampling
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.pruning import Prune
from ablate.study.training_recipes import Distill, Finetune

NAMES = [*KINDS]
KEYS = GOLDEN / "keys.json"
NEEDED = {
    "fetch": {"source": "hub", "repo_type": "model", "repo": "org/name", "revision": "0" * 40},
    "rows": {"data": Data(source="org/name")},
    "finetune": {"recipe": Finetune(), "dtype": "bfloat16", "seed": 0},
    "distill": {"recipe": Distill(), "dtype": "bfloat16", "seed": 0},
    "evaluate": {"recipe": Evaluate(dtype="bfloat16"), "lm_eval": "0.4.13"},
    "teacher_cache": {"form": "vector", "dtype": "bfloat16"},
    "generate": {"sampling": Sampling(), "dtype": "bfloat16", "seed": 0},
    "prune": {"cut": Prune(depth=0.5)},
}
"""Settings without a default."""
ASKED_FOR = {"generate": ("distill.answers=teacher", "data.train_on_prompt=false")}
"""What a study says to have one of the kind."""


def default(name: str) -> Stage:
    """-> a stage of a kind with every default, as a study would make it."""
    kind = KINDS[name]
    return Stage(name, kind.version, kind.Settings(**NEEDED.get(name, {})))


def stage_of(name: str, plan: Plan) -> Stage:
    """-> one of a kind that a study leads to, or one alone: toys are in no study."""
    return next((stage for stage in plan.stages if stage.kind == name), default(name))


@pytest.mark.parametrize("name", NAMES)
def test_golden_keys(name):
    """A change here runs everybody's studies again: raise the kind's version and say so in the changelog."""
    assert default(name).key == json.loads(KEYS.read_text())[name]


def test_every_golden_key_is_a_kinds():
    assert sorted(json.loads(KEYS.read_text())) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_classed(name):
    settings = KINDS[name].Settings
    assert [field for field in settings.model_fields if role_of(settings, field) is None] == []


@pytest.mark.parametrize("name", NAMES)
def test_settings_come_to_a_worker_as_they_were_planned(name):
    stage = default(name)
    record = stage.settings.model_dump(mode="json", serialize_as_any=True)
    assert KINDS[name].Settings.model_validate(json.loads(json.dumps(record))) == stage.settings


def test_a_kind_takes_no_stage_of_another_for_its_own():
    with pytest.raises(AssertionError, match=r"rows-.* is of another kind"):
        KINDS["fetch"].settings_of(default("rows"))


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_is_told_the_kind_and_what_it_is_of(name):
    label = KINDS[name].label(default(name), "kd_ratio/kd_ratio=0.25")
    assert label.startswith(f"{name} ")
    assert label.removeprefix(name).strip()


def test_what_reports_say_of_kinds_is_said_of_one_alone():
    words = words_by_kind()
    for field in ("order", "heading", "noun", "work"):
        texts = [text for of_kind in words.values() if (text := getattr(of_kind, field)) not in (None, "")]
        assert len(set(texts)) == len(texts), field
    assert [of_kind.order for of_kind in words.values()] == sorted(of_kind.order for of_kind in words.values())
    assert all(of_kind.heading and of_kind.noun for of_kind in words.values())


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_a_device_has_a_line_in_the_table_of_device_time(name):
    kind = KINDS[name]
    assert not (kind.is_light and kind.words and kind.words.work)
    assert not kind.is_work or (kind.words and kind.words.work and not kind.is_light)


@pytest.mark.parametrize("name", NAMES)
def test_a_cost_is_not_known_before_models_and_rows_are_here(name, tmp_path):
    plan = plan_of(tmp_path, *ASKED_FOR.get(name, ()))
    stage = stage_of(name, plan)
    cost = KINDS[name].cost(stage, plan.store, plan.aids(stage))
    assert cost._replace(tokens=None) == Cost()  # how much is asked is known before of whom


@pytest.mark.parametrize("name", NAMES)
def test_once_they_are_here_a_cost_is_positive_for_what_takes_a_device_and_nothing_for_the_rest(name, tmp_path):
    plan = prepared(tmp_path, *ASKED_FOR.get(name, ()))
    for model, width in (("teacher", 32), ("student", 16)):
        stub_layers(tmp_path / model, width)
    model_sizes.cache_clear()
    stage, words = stage_of(name, plan), KINDS[name].words
    cost = KINDS[name].cost(stage, plan.store, plan.aids(stage))
    if not words or not words.work:
        assert cost == Cost()
    else:
        assert min(cost.tokens, cost.flops, cost.disk_bytes) > 0
        assert cost.held.estimate > cost.held.weights > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_no_result(name, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError) as error:
        KINDS[name].check(tmp_path)
    assert len(str(error.value).split()) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_what_refers_outside_runs_is_looked_for_there(name, tmp_path):
    assert KINDS[name].is_present(tmp_path) is not KINDS[name].is_online


def test_kinds_are_planned_and_spoken_of_without_torch():
    code = (
        "import sys; from ablate.store.kind import KINDS, words_by_kind; words_by_kind();"
        "print([m for m in ('torch', 'transformers', 'lm_eval', 'datasets', 'numpy', 'pandas') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout.strip() == "[]"


SPARSE = '''
"""sparsify: a kind as another could write it, in one file."""

from ablate.core.values import Frozen
from ablate.store.kind import KINDS, Cost, Kind, Words


class SparsifySettings(Frozen):
    pass


class Sparsify(Kind[SparsifySettings]):
    Settings = SparsifySettings
    is_work = True
    words = Words(35, "made sparse", "sparsification", work="sparsification")

    def run(self, job):
        pass

    def check(self, folder):
        pass

    def cost(self, stage, store, aids):
        return Cost(flops=4e10)


KINDS.register("sparsify")(Sparsify())
'''
ASKED = """
import sys
sys.path.insert(0, "{folder}")
import sparsify
from ablate.core.failures import Ending
from ablate.execution.scheduler_tasks import task_of
from ablate.planning.cost_model import CostModel
from ablate.planning.plan import Plan
from ablate.report.exhibits import costs, lineage, timeline
from ablate.store.kind import KINDS
from ablate.store.stage import Stage

stage = Stage("sparsify", 1, sparsify.SparsifySettings())
plan = Plan(None, None, ())
print(KINDS["sparsify"].label(stage, "p/student"))
print(CostModel(plan).planned_s(stage), task_of(stage, lambda _: 1.0).work, KINDS["sparsify"].is_present(None))
print(lineage.columns(set()), lineage.WORDS["sparsify"].heading, costs.ON_A_DEVICE["sparsify"], timeline.KINDS)
print(len(set(timeline.COLORS.values())))
"""


def test_a_kind_is_one_file(tmp_path):
    (tmp_path / "sparsify.py").write_text(SPARSE)
    command = [sys.executable, "-c", ASKED.format(folder=tmp_path)]
    label, planned, shown, colors = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert label == "sparsify p/student"
    assert planned == "4.0 heavy True"
    assert "'distill': 3, 'sparsify': 4, 'evaluate': 5} made sparse sparsification " in shown
    assert shown.endswith("('finetune', 'distill', 'sparsify', 'evaluate', 'generate', 'teacher_cache')")
    assert colors == "8"


def test_planning_makes_stages_by_the_name_of_their_kind_but_asks_none_for_it():
    files = sorted((ROOT / "ablate/planning").glob("*.py"))
    assert [path.name for path in files if ".kind ==" in path.read_text() or ".kind in" in path.read_text()] == []
