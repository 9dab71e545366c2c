"""teacher_cache: what a teacher says of the rows, asked once for all the distillations that learn from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias

from ablate.core.values import EXTENSION, IDENTITY, RUNTIME, Cards, Frozen, Int, Num
from ablate.stages.generate import longest_trained_row, trained_rows
from ablate.stages.inputs import source
from ablate.stages.row_uses import Use, rows_read, share_read
from ablate.stages.sharing import shared
from ablate.store.job import Job
from ablate.store.kind import KINDS, Cost, Kind, Words
from ablate.store.sizes import ModelSizes, fetched_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.field_types import BYTES, Dtype
from ablate.study.quantize import Quantize
from ablate.study.teacher_top_k import bytes_a_token, kept_dtype
from ablate.training.forward_memory import ForwardMemory

Form: TypeAlias = Literal["vector", "hidden", "top_k"]


class TeacherCacheSettings(Frozen):
    """What decides a cache, apart from the models and the rows."""

    form: Annotated[Form, IDENTITY]
    """vector: for forward KL at one temperature and a student with a frozen head (TeacherVectors).
    hidden: for every loss, temperature and student.
    top_k: for one temperature and a teacher of whom no more than `k` tokens are learnt from (TeacherTopK)."""
    dtype: Annotated[Dtype, IDENTITY]
    temperature: Annotated[Num, IDENTITY] = 1.0
    """Of vectors and top_k."""
    k: Annotated[Int | None, EXTENSION] = None
    """Of top_k."""
    reads: Annotated[tuple[Use, ...] | None, IDENTITY] = None
    """The rows that these trainings read; None: all."""
    cards: Annotated[Cards, RUNTIME] = "auto"
    quantize: Annotated[Quantize | None, EXTENSION] = None
    """Of the teacher."""


class TeacherCache(Kind[TeacherCacheSettings]):
    """Inputs: `teacher` (fetch), maybe `teacher_adapter` (finetune), `rows`; for vectors `student` (fetch: its head).

    An aid of distillations. out/: index.json, <part>-<n>.safetensors, head.safetensors (the teacher's). Models that
    cannot be served give an index that says why, and no shard.
    """

    Settings = TeacherCacheSettings
    version = 3
    spread = "layers"
    words = Words(20, "teacher asked once", "teacher cache", work="teachers asked once")

    @shared
    def run(self, job: Job) -> None:
        from ablate.training import capture_plan, given, teacher_cache, teacher_capture

        rows, settings = given.load_rows(job), job.settings
        target: capture_plan.VectorTarget | capture_plan.TopKTarget | None = None
        if settings.form == "vector":
            head = given.load_parts(job, "student", source(job, "student"), rows).head
            if why := teacher_cache.why_no_vectors(head):
                return teacher_capture.write_empty_cache(job, why)
            target = capture_plan.VectorTarget(head, settings.temperature)
        elif settings.form == "top_k":
            target = capture_plan.TopKTarget(settings.k, settings.temperature)
        model = source(job, "teacher", settings.quantize)
        teacher = given.load_parts(job, "teacher", model, rows)
        if target is None and teacher.head.weight is None:
            return teacher_capture.write_empty_cache(job, "the teacher's logits are made whole")
        read: dict[teacher_cache.RowSplit, Sequence[int]] = {
            "train": rows_read(settings.reads, len(rows.splits["train"])),
            "holdout": range(len(rows.splits["holdout"])),
        }
        plan = capture_plan.CapturePlan(model.made_by, settings.dtype, teacher, target, rows.splits, read)
        return teacher_capture.capture_teacher(job, plan)

    def cards(self, settings: TeacherCacheSettings) -> Cards:
        return settings.cards

    def check(self, folder: Path) -> None:
        from ablate.training.teacher_cache import check_cache

        check_cache(folder)

    def label(self, stage: Stage, name: str) -> str:
        settings = self.settings_of(stage)
        heat = "" if settings.temperature == 1.0 else f", temperature {settings.temperature:g}"
        form = f"top {settings.k}" if settings.form == "top_k" else settings.form
        return f"teacher_cache {name}, {form}{heat}"

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        settings, size = self.settings_of(stage), cache_size(stage, store)
        teacher = fetched_sizes(store, stage.inputs["teacher"], settings.quantize)
        rows = trained_rows(store, stage.inputs["rows"])
        if teacher is None or rows is None or size is None:
            return Cost()
        student = fetched_sizes(store, stage.inputs["student"]) if "student" in stage.inputs else None
        share = share_read(settings.reads, rows)
        tokens, scored = int(rows.tokens * share), int(rows.loss_tokens * share)
        heads = teacher.num_head + student.num_head if student else 0  # hidden states alone need neither
        heads = teacher.num_head if settings.form == "top_k" else heads
        flops = 2.0 * (tokens * teacher.num_body + scored * heads)
        longest = longest_trained_row(store, stage.inputs["rows"], rows)
        kept = token_bytes(settings.form, settings.dtype, teacher, student or teacher, settings.k)
        memory = ForwardMemory(teacher, settings.dtype, settings.form, student.num_head if student else 0, kept)
        return Cost(tokens, flops, size.num_bytes, memory.held(longest))


TEACHER_CACHE = TeacherCache()
KINDS.register("teacher_cache")(TEACHER_CACHE)


class CacheSize(NamedTuple):
    """What a cache takes of the disk."""

    num_bytes: int
    token: str
    """What it keeps of one, in words."""


def token_bytes(form: Form, dtype: Dtype, teacher: ModelSizes, student: ModelSizes, k: int | None = None) -> int:
    """-> what a cache keeps of one token."""
    width = BYTES[dtype]
    if form == "top_k":
        assert k is not None
        return bytes_a_token(min(k, teacher.vocab), dtype)
    return student.hidden * max(4, width) + 8 if form == "vector" else teacher.hidden * width


def cache_size(cache: Stage, store: Store) -> CacheSize | None:
    """-> with held-out rows and the teacher's head included; None where models or rows are not here."""
    settings, inputs = TEACHER_CACHE.settings_of(cache), cache.inputs
    rows, teacher = trained_rows(store, inputs["rows"]), fetched_sizes(store, inputs["teacher"])
    student = fetched_sizes(store, inputs["student"]) if "student" in inputs else teacher
    if rows is None or teacher is None or student is None:
        return None
    hidden = token_bytes("hidden", settings.dtype, teacher, student)
    of_token = token_bytes(settings.form, settings.dtype, teacher, student, settings.k)
    train = int(rows.loss_tokens * share_read(settings.reads, rows)) * of_token
    has_hidden = settings.form == "hidden" or rows.holdout_loss_tokens
    head = teacher.num_head * BYTES[settings.dtype] if has_hidden else 0
    token = {
        "vector": f"a vector of {student.hidden} float32",
        "hidden": f"a hidden state of {teacher.hidden} {settings.dtype}",
        "top_k": f"{settings.k} tokens and {kept_dtype(settings.dtype)} log-probabilities",
    }[settings.form]
    return CacheSize(train + rows.holdout_loss_tokens * hidden + head, token)
