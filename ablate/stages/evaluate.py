"""evaluate: lm-eval's questions put to a model, trained or not.

out/results.json: `lm_eval`, `dtype`, `batch_size`, `limit`, `num_fewshot`, what else the recipe says of the asking
(`apply_chat_template`, `gen_kwargs`, ...), and `tasks`: task -> version, n, asked (what it alone was asked by),
num_fewshot, metrics {metric: {value, stderr}}, higher_is_better, questions and prompts (digests of what was asked, and
in which words), finer (like metrics, of the right answer: log_probability in nats, bits_per_byte). Groups stand beside
their tasks, with `members` and nothing finer. NaN is "NaN"; a stderr that lm-eval does not give is null. Of a model
whose training diverged: `diverged` instead of `tasks`.
out/samples/<task>.jsonl: one line a question: doc_id, doc_hash, scores {metric: number}, target, loglikelihoods (one a
choice), finer {metric: number}, cluster (what questions of one origin share, where the data says). Of a text that was
written: asked, written, extracted {filter: what it took out of the text}.
out/questions/<task>.jsonl.gz: one line a question with choices: doc_id, doc_hash, question (its end), choices. Nothing
depends on it but what a report can show; evaluations of before it was kept lack it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from ablate.core import disk, plain_files
from ablate.core.errors import StageError
from ablate.core.values import EXTENSION, IDENTITY, Cards, Frozen, fields_of, identity
from ablate.example import assets
from ablate.stages.inputs import fetched, model_source
from ablate.stages.sharing import shared
from ablate.stages.task_sizes import num_questions, task_size
from ablate.store.job import Job
from ablate.store.kind import KINDS, Cost, Kind, Words
from ablate.store.sizes import fetched_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.catalog import UnknownTask, lm_eval_version, sources_of
from ablate.study.evaluation_settings import Asking
from ablate.study.evaluation_settings import Evaluate as Recipe
from ablate.study.quantize import Quantize
from ablate.training.forward_memory import LONGEST, SCORED, ForwardMemory, keys_and_values_of


class EvaluateSettings(Frozen):
    """What decides an evaluation, apart from the model and the data."""

    recipe: Annotated[Recipe, IDENTITY]
    """`dtype` is resolved."""
    lm_eval: Annotated[str, IDENTITY]
    """Its version."""
    quantize: Annotated[Quantize | None, EXTENSION] = None
    """Of the model."""


class Evaluate(Kind[EvaluateSettings]):
    """Inputs: `model` (fetch), `adapter_<i>` in the order they were trained, `data_<i>` and `include` (fetch)."""

    version = 4
    Settings = EvaluateSettings
    is_work = True
    spread = "layers"
    is_verdict = True
    words = Words(40, "evaluated", "evaluation", work="evaluation")

    @shared
    def run(self, job: Job) -> None:
        settings: EvaluateSettings = job.settings
        paths = (training / "out/diverged.json" for training in trainings_of(job.inputs))
        diverged = next(filter(None, map(disk.read_json, paths)), None)
        results = _conditions(settings) | ({"diverged": diverged} if diverged else {"tasks": _scored(job)})
        if job.is_first:
            disk.write_json(job.out / "results.json", results)

    def cards(self, settings: EvaluateSettings) -> Cards:
        return settings.recipe.cards

    def check(self, folder: Path) -> None:
        results = disk.read_json(folder / "out" / "results.json") or {}
        for task, scores in results.get("tasks", {}).items():
            lines = 0 if "members" in scores else _num_lines(folder / "out" / "samples" / f"{task}.jsonl")
            if lines != (0 if "members" in scores else scores["n"]):
                raise StageError(f"{task} has {scores['n']} answers in its score and {lines} in its samples")
        if not results.get("tasks") and not results.get("diverged"):
            raise StageError("the evaluation left no score")

    def glance(self, folder: Path) -> None:
        self.check(folder)  # which counts lines

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        settings = self.settings_of(stage)
        recipe, model = settings.recipe, fetched_sizes(store, stage.inputs["model"], settings.quantize)
        limits = {task: recipe.asking(task).limit for task in recipe.task_names}
        tokens = sum(num_questions(task, limit) * task_size(task).tokens for task, limit in limits.items())
        if model is None:
            return Cost(tokens)
        flops = 2.0 * tokens * (model.num_body + model.num_head)
        assert recipe.dtype
        kept = keys_and_values_of(model, LONGEST, recipe.dtype)
        held = ForwardMemory(model, recipe.dtype).held(LONGEST, kept, SCORED)
        return Cost(tokens, flops, tokens // 10, held)


KINDS.register("evaluate")(Evaluate())


def trainings_of(inputs: Mapping[str, Path]) -> list[Path]:
    """-> the trainings on top of a model, the first one first."""
    names = sorted((name for name in inputs if name.startswith("adapter_")), key=lambda name: int(name[8:]))
    return [inputs[name] for name in names]


def _conditions(settings: EvaluateSettings) -> dict[str, Any]:
    recipe = settings.recipe
    return {
        "lm_eval": settings.lm_eval,
        "dtype": recipe.dtype,
        "batch_size": recipe.batch_size,
        "limit": recipe.limit,
        "num_fewshot": recipe.num_fewshot,
    } | {name: value for name, value in identity(recipe).items() if name in fields_of(Recipe, EXTENSION)}


def _num_lines(path: Path) -> int:
    try:
        with plain_files.opened(path) as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def _scored(job: Job) -> dict[str, Any]:
    from ablate.evaluation import evaluation_run, limits, tasks

    _require_version(job.settings)
    recipe = job.settings.recipe
    include = _own_tasks(job)
    is_trusted = recipe.allow_code or (include is not None and assets() in include.parents)
    code = tasks.no_code_of(include, allow_code=is_trusted)
    with code, limits.endless_is_ended(), tasks.templates_compiled_once():
        known = _known_tasks(job, include)
        loaded = {name: _loaded_alone(known, name, recipe.asking(name)) for name in recipe.task_names}
        model = model_source(job.inputs["model"], trainings_of(job.inputs), job.settings.quantize)
        return evaluation_run.evaluate_stage(job, model, loaded)


def _loaded_alone(known: Any, name: str, asking: Asking) -> Any:
    """-> a task as the command line sets it up that asks nothing else: some shuffle their choices meanwhile."""
    from ablate.evaluation import lm_eval_scores

    lm_eval_scores.seed_as_lm_eval()
    metrics = {"metric_list": [metric.model_dump() for metric in asking.metric_list]} if asking.metric_list else None
    loaded = known.load_one(name, metrics)
    lm_eval_scores.prepare(loaded, asking)
    return loaded


def _own_tasks(job: Job) -> Path | None:
    """-> the folder of task files of one's own."""
    return fetched(job.inputs["include"]).path if "include" in job.inputs else None


def _require_version(settings: EvaluateSettings) -> None:
    if (here := lm_eval_version()) != settings.lm_eval:
        raise StageError(f"planned with lm-eval {settings.lm_eval}, but {here} is installed here", "mismatch")


def _known_tasks(job: Job, include: Path | None) -> Any:
    from ablate.evaluation.tasks import Tasks

    tasks = job.settings.recipe.task_names
    try:
        sources = enumerate(sources_of(tasks, str(include) if include else None))
        snapshots = {source.name: fetched(job.inputs[f"data_{number}"]).path for number, source in sources}
        return Tasks(tasks, snapshots, include)
    except UnknownTask as error:
        raise StageError(str(error), "missing") from error
