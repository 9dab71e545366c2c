"""lm-eval's own task files over small data of our making, and its command line asked by way of a driver."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lm_eval.tasks
import torch
import transformers
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from support import tiny_models

TASKS = Path(lm_eval.tasks.__file__).parent
NUM_ROWS = {"train": 7, "validation": 11, "test": 11, "dev": 5}
TEXT = "the old cat sat by a warm stove and a red fox ran over two small hills to see some tall pale trees"
WORDS = TEXT.split()
"""Of which every text is made."""


def text(rng: random.Random, num: int = 6) -> str:
    return " ".join(rng.choices(WORDS, k=num))


def _arc(rng: random.Random) -> dict[str, Any]:
    labels = list("ABCD")[: rng.choice((3, 4))]
    choices = {"text": [text(rng, rng.randint(1, 4)) for _ in labels], "label": labels}
    return {"question": f"{text(rng)}?", "choices": choices, "answerKey": rng.choice(labels)}


def _openbook(rng: random.Random) -> dict[str, Any]:
    row = _arc(rng)
    return {"question_stem": row["question"], "choices": row["choices"], "answerKey": row["answerKey"]}


def _commonsense(rng: random.Random) -> dict[str, Any]:
    choices = {"text": [text(rng, 2) for _ in range(5)], "label": list("ABCDE")}
    return {"question": f" {text(rng)}?", "question_concept": text(rng, 1), "choices": choices} | {
        "answerKey": rng.choice("ABCDE")
    }


def _winogrande(rng: random.Random) -> dict[str, Any]:
    sentence = f"{text(rng)} because _ was {text(rng, 3)}."
    return {"sentence": sentence, "option1": text(rng, 1), "option2": text(rng, 2), "answer": rng.choice("12")}


def _hellaswag(rng: random.Random) -> dict[str, Any]:
    parts = {"ctx_a": f"{text(rng)}.", "ctx_b": "he", "activity_label": f"Doing {text(rng, 2)}"}
    endings = [f"{text(rng, rng.randint(2, 5))} [title] {text(rng, 2)}." for _ in range(4)]
    return parts | {"endings": endings, "label": str(rng.randrange(4)), "source_id": f"s{rng.randrange(4)}"}


def _truthful(rng: random.Random) -> dict[str, Any]:
    targets = {}
    for name, num_true, num in (("mc1_targets", 1, 4), ("mc2_targets", 2, 5)):
        labels = [int(number < num_true) for number in range(num)]
        targets[name] = {"choices": [f"{text(rng, 4)}." for _ in labels], "labels": labels}
    return {"question": f"{text(rng, 4)}?"} | targets


def _gsm8k(rng: random.Random) -> dict[str, Any]:
    one, other = rng.randint(1, 2), rng.randint(1, 2)
    return {"question": f"{one} cats and {other} foxes?", "answer": f"{one}+{other}. #### {one + other}"}


def _mmlu(rng: random.Random) -> dict[str, Any]:
    return {"question": f" {text(rng)} ", "choices": [text(rng, 2) for _ in range(4)], "answer": rng.randrange(4)}


def _page(rng: random.Random) -> dict[str, Any]:
    return {"page": f" = {text(rng, 2)} = \n\n {text(rng, rng.randint(20, 260))} @-@ {text(rng, 9)} . \n"}


Row = Callable[[random.Random], dict[str, Any]]

ROWS: Mapping[str, tuple[str, Row]] = {
    "arc_easy": ("arc/arc_easy.yaml", _arc),
    "arc_challenge": ("arc/arc_challenge.yaml", _arc),
    "piqa": (
        "piqa/piqa.yaml",
        lambda rng: {"goal": text(rng), "sol1": text(rng, 4), "sol2": text(rng, 7), "label": rng.randrange(2)},
    ),
    "winogrande": ("winogrande/default.yaml", _winogrande),
    "boolq": (
        "super_glue/boolq/default.yaml",
        lambda rng: {"passage": text(rng, 12), "question": text(rng), "label": rng.randrange(2)},
    ),
    "openbookqa": ("openbookqa/openbookqa.yaml", _openbook),
    "lambada_openai": ("lambada/lambada_openai.yaml", lambda rng: {"text": text(rng, 9)}),
    "sciq": (
        "sciq/sciq.yaml",
        lambda rng: {
            name: text(rng, 2) for name in ("support", "question", "correct_answer", *map("distractor{}".format, "123"))
        },
    ),
    "copa": (
        "super_glue/copa/default.yaml",
        lambda rng: {
            **{name: f"{text(rng, 4)}.".capitalize() for name in ("premise", "choice1", "choice2")},
            "question": rng.choice(("cause", "effect")),
            "label": rng.randrange(2),
        },
    ),
    "hellaswag": ("hellaswag/hellaswag.yaml", _hellaswag),
    "commonsense_qa": ("commonsense_qa/default.yaml", _commonsense),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", _truthful),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", _truthful),
    "wikitext": ("wikitext/wikitext.yaml", _page),
    "gsm8k": ("gsm8k/gsm8k.yaml", _gsm8k),
    "triviaqa": (
        "triviaqa/default.yaml",
        lambda rng: {"question": text(rng), "answer": {"aliases": rng.sample(WORDS, 12)}},
    ),
    "nq_open": ("nq_open/nq_open.yaml", lambda rng: {"question": text(rng), "answer": rng.sample(WORDS, 12)}),
    **{
        f"mmlu_{subject}": (f"mmlu/default/mmlu_{subject}.yaml", _mmlu)
        for subject in ("anatomy", "astronomy", "marketing", "sociology", "philosophy")
    },
}
"""Task -> its file, and how a row of its data set is made."""
GROUPS = ("_mmlu", "_mmlu_stem", "_mmlu_other", "_mmlu_social_sciences", "_mmlu_humanities")
ALL = (*(name for name in ROWS if not name.startswith("mmlu_")), "mmlu")
"""What is asked for by name; `mmlu` is a group of groups of tags."""


def write(folder: Path) -> Path:
    """-> a folder with those task files as they are but for where their data lies, and the data.

    A file keeps its name without `.yaml`, is included by one of the task's name, and has its Python beside it.
    """
    (folder / "data").mkdir(parents=True)
    for number, (task, (name, row)) in enumerate(ROWS.items()):
        _write_task(folder, task, TASKS / name, row, number)
    for name in GROUPS:
        shutil.copy(TASKS / "mmlu" / "default" / f"{name}.yaml", folder)
    return folder


def _write_task(folder: Path, task: str, file: Path, row: Row, number: int) -> None:
    place = folder / file.parent.relative_to(TASKS)
    place.mkdir(parents=True, exist_ok=True)
    for beside in (*file.parent.glob("*.py"), *file.parent.glob("*_yaml")):
        shutil.copy(beside, place)
    shutil.copy(file, place / f"{file.stem}_yaml")
    merged = yaml.load((place / f"{file.stem}_yaml").read_text(), Loader=_Plain)
    while "include" in merged:
        merged = yaml.load((file.parent / merged.pop("include")).read_text(), Loader=_Plain) | merged
    splits = {merged[key] for key in merged if key.endswith("_split") and merged[key]}
    files = {split: _write_rows(folder, f"{task}-{split}", row, NUM_ROWS[split], number) for split in sorted(splits)}
    own = {"include": f"{file.stem}_yaml", "task": task, "dataset_path": "json", "dataset_name": None}
    (place / f"{file.stem}.yaml").write_text(yaml.safe_dump(own | {"dataset_kwargs": {"data_files": files}}))


def _write_rows(folder: Path, name: str, row: Row, num: int, seed: int) -> str:
    rng = random.Random(f"{name} {seed}")
    lines = [json.dumps(row(rng)) for _ in range(num)]
    (folder / "data" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return f"data/{name}.jsonl"


class _Plain(yaml.SafeLoader):
    """Functions as text."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: node.value)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """-> one of whole words, so that prompts are short and some generated answers are right."""
    special = ["<eos>", "<bos>", "<user>", "<assistant>", "<system>"]
    others = [*"\n .,:?!=+-@<>#", "####", "Question", "Answer", "Q", *"ABCDE", "no", "yes", "cats", "foxes", "he"]
    words = [*special, *others, *map(str, range(20)), *dict.fromkeys(WORDS)]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=" "))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"####|\w+|[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    raw.add_special_tokens(special)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", bos_token="<bos>")
    wrapped.chat_template = tiny_models.CHAT
    return wrapped


def save_model(folder: Path) -> Path:
    """-> a model that has learned how questions and answers look, in a second or two."""
    words = tokenizer()
    torch.manual_seed(3)
    longest = {"vocab_size": len(words) + 3, "max_position_embeddings": 1024, "initializer_range": 0.1}
    model = LlamaForCausalLM(LlamaConfig(**tiny_models.SMALL | longest))
    rng, optimizer = random.Random(5), torch.optim.AdamW(model.parameters(), 1e-2)
    ids = torch.tensor(words("".join(_exchange(rng) for _ in range(1500)))["input_ids"])
    for _ in range(120):
        starts = [rng.randrange(len(ids) - 48) for _ in range(16)]
        batch = torch.stack([ids[start : start + 48] for start in starts])
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _exchange(rng: random.Random) -> str:
    sum_row = _gsm8k(rng)
    asked, answer = rng.choice(((f"{text(rng)}?", f"{text(rng, 1)}."), (sum_row["question"], sum_row["answer"])))
    return f"Question: {asked}\nAnswer: {answer}\n\n"


DRIVER = """
import json, os, sys
from lm_eval.tasks import _index
from lm_eval.__main__ import cli_evaluate
build = _index.TaskIndex.build  # of the 14,000 files of its own it needs none here, and ten seconds
_index.TaskIndex.build = staticmethod(lambda paths, **named: build(paths[-1:], **named))
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["lm_eval", *arguments]
    cli_evaluate()
"""


def command_line(model: Path, tasks: Path, out: Path, runs: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """-> what `lm_eval run` writes, for each of several lists of arguments, all in one process."""
    shared = ["run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu"]
    shared += ["--batch_size", "16", "--include_path", str(tasks), "--log_samples", "--output_path"]
    arguments = [[*shared, str(out / name), *more] for name, more in runs.items()]
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(arguments)], cwd=tasks, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return {name: json.loads(next((out / name).rglob("results_*.json")).read_text()) for name in runs}
