"""generate: a teacher's answers to the prompts of the rows, written once for all that are trained on them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from ablate.core import disk, plain_files
from ablate.core.errors import StageError
from ablate.core.values import EXTENSION, IDENTITY, RUNTIME, Cards, Frozen, Int
from ablate.stages.inputs import fetched_model, source
from ablate.stages.row_uses import Use, rows_read, share_read
from ablate.stages.rows import ROWS, longest_row
from ablate.stages.sharing import shared
from ablate.store.job import Job
from ablate.store.kind import KINDS, Cost, Kind, Words
from ablate.store.sizes import RowsSizes, fetched_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.answer_settings import Sampling
from ablate.study.field_types import Dtype
from ablate.study.quantize import Quantize
from ablate.study.training_recipes import Distill
from ablate.training.forward_memory import ForwardMemory, of_text

IN_PART = 0.25
"""Of the rows: a training that reads at most so much of them has only these answered."""
BYTES_A_TOKEN = 16
"""Of an answer: as a token with its mask, and as text."""


class GenerateSettings(Frozen):
    """What decides the answers, apart from the model and the rows."""

    sampling: Annotated[Sampling, IDENTITY]
    dtype: Annotated[Dtype, IDENTITY]
    seed: Annotated[Int, IDENTITY]
    reads: Annotated[tuple[Use, ...] | None, IDENTITY] = None
    """The prompts that these trainings read; None: all."""
    cards: Annotated[Cards, RUNTIME] = "auto"
    quantize: Annotated[Quantize | None, EXTENSION] = None
    """Of the teacher."""


class Generate(Kind[GenerateSettings]):
    """Inputs: `teacher` (fetch), maybe `teacher_adapter` (finetune), `rows`.

    out/: train.safetensors, holdout.safetensors and summary.json as a `rows` stage leaves them, the teacher's answers
    in the place of the data's (`num_answers` rows a prompt; rows that nobody reads are empty), those held out as they
    were; answers.jsonl, one line an answer, to be read by a person.
    """

    Settings = GenerateSettings
    spread = "layers"
    words = Words(15, "answers written", "answer set", work="teachers' answers written", is_rare=True)

    @shared
    def run(self, job: Job) -> None:
        from ablate.data.tokenizers import load_tokenizer
        from ablate.training import given, teacher_answers, vllm_writer
        from ablate.training.decode_loop import Writer
        from ablate.training.prompts import end_tokens
        from ablate.training.ranks import ranks_of

        model, sampling = fetched_model(job.inputs["teacher"]), job.settings.sampling
        vllm = vllm_writer.vllm_for(job, is_code_trusted=model.weights.trust_remote_code)
        rows = given.load_rows(job)
        reading = replace(job, device="cpu") if vllm else job  # vLLM has the card to itself
        teacher = given.load_parts(reading, "teacher", source(job, "teacher", job.settings.quantize), rows)
        tokenizer, train = load_tokenizer(model.tokenizer, model.weights.trust_remote_code), rows.splits["train"]
        chosen = rows_read(job.settings.reads, len(train) * sampling.num_answers)
        reader = Writer(teacher, end_tokens(train, tokenizer, [teacher.model]), ranks=ranks_of(job))
        writer = vllm_writer.VllmWriter(vllm, reader, job.out.with_name("vllm_model")) if vllm else reader
        asked = teacher_answers.TeacherAnswers(writer, tokenizer, train, chosen, sampling.num_answers)
        summary = disk.read_json(job.inputs["rows"] / "out" / "summary.json")
        teacher_answers.write(job, asked, rows.splits, summary or {})

    def cards(self, settings: GenerateSettings) -> Cards:
        return 1 if settings.sampling.writer == "vllm" else settings.cards

    def check(self, folder: Path) -> None:
        ROWS.check(folder)
        if not plain_files.is_file(folder / "out" / "answers.jsonl"):
            raise StageError(f"{folder}: no answers.jsonl")

    def label(self, stage: Stage, name: str) -> str:
        sampling = self.settings_of(stage).sampling
        plain = Sampling()
        further = (
            f"{field} {getattr(sampling, field):g}"
            for field in ("top_p", "top_k", "max_new_tokens")
            if getattr(sampling, field) != getattr(plain, field)
        )
        several = [f"{sampling.num_answers} a prompt"] if sampling.num_answers > 1 else []
        by = ["by vLLM"] if sampling.writer == "vllm" else []
        return ", ".join([f"generate {name}, temperature {sampling.temperature:g}", *further, *several, *by])

    def cost(self, stage: Stage, store: Store, aids: Mapping[str, Stage]) -> Cost:
        settings, rows = self.settings_of(stage), stage.inputs["rows"]
        teacher, sizes = fetched_sizes(store, stage.inputs["teacher"], settings.quantize), rows_sizes(store, rows)
        if teacher is None or sizes is None:
            return Cost()
        planned = _planned(settings.sampling, sizes)
        share = share_read(settings.reads, planned)
        tokens, written = int(planned.tokens * share), int(planned.loss_tokens * share)
        flops = 2.0 * (tokens * teacher.num_body + written * teacher.num_head)
        memory = ForwardMemory(teacher, settings.dtype, of_text(settings.sampling))
        held = memory.held_writing(longest_row(rows, sizes), settings.sampling.max_new_tokens)
        return Cost(tokens, flops, tokens * BYTES_A_TOKEN, held)


GENERATE = Generate()
KINDS.register("generate")(GENERATE)


def _planned(sampling: Sampling, data: RowsSizes) -> RowsSizes:
    """-> what answers to the rows of the data may come to: as long as the data's own, as far as they may be."""
    num = sampling.num_answers
    answers = min(data.loss_tokens, data.rows * sampling.max_new_tokens)
    prompts = data.tokens - data.loss_tokens
    return RowsSizes(data.rows * num, (prompts + answers) * num, answers * num, data.holdout_loss_tokens)


def read_in_part(recipe: Distill, seed: int, num_rows: int | None) -> tuple[Use, ...] | None:
    """-> what a distillation reads of the rows, where that is so little that it has answers written of its own.

    None: all, written for every distillation and seed together. `num_rows`: of the data.
    """
    if recipe.max_steps is None or num_rows is None:
        return None
    use = Use(seed=seed, batch_size=recipe.batch_size, num_steps=recipe.max_steps, drop_last=recipe.drop_last)
    num_read = recipe.max_steps * recipe.batch_size
    return (use,) if num_read <= IN_PART * num_rows * recipe.sampling.num_answers else None


def is_written(rows: Stage) -> bool:
    """Whether the answers of rows that are trained on are the teacher's."""
    return isinstance(rows.settings, GenerateSettings)


def trained_rows(store: Store, rows: Stage) -> RowsSizes | None:
    """-> counts of the rows that are trained on, whoever wrote their answers; an estimate until they are written."""
    written = rows_sizes(store, rows)
    if not isinstance(rows.settings, GenerateSettings):
        return written
    data = rows_sizes(store, rows.inputs["rows"])
    if written is None:
        return _planned(rows.settings.sampling, data) if data else None
    share = share_read(rows.settings.reads, written) or 1.0
    return written._replace(tokens=int(written.tokens / share), loss_tokens=int(written.loss_tokens / share))


def longest_trained_row(store: Store, rows: Stage, sizes: RowsSizes) -> int:
    """-> at most so many tokens in a row, as far as the study says; `sizes`: those of `trained_rows`."""
    if not isinstance(rows.settings, GenerateSettings):
        return longest_row(rows, sizes)
    data = rows.inputs["rows"]
    return longest_row(data, rows_sizes(store, data) or sizes) + rows.settings.sampling.max_new_tokens
