"""`python -m ablate.example.make DEST` writes the assets of the tiny studies, models included, in some minutes."""

import argparse
import json
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from ablate.example import tokenizer as words
from ablate.example.facts import Person, people
from ablate.example.reading import KINDS, documents
from ablate.example.rows import rows
from ablate.example.tasks import write_jsonl, write_tasks
from ablate.example.walks.roads import Map, make_map
from ablate.example.walks.tasks import write_walk_tasks
from ablate.example.walks.walks import rows as walk_rows
from ablate.example.walks.walks import wanderers

SEED = 0


def vocabulary(everybody: tuple[Person, ...]) -> Tokenizer:
    """-> the tokenizer of every word that a long reading meets."""
    shares = dict.fromkeys((*KINDS, "met"), 1.0)
    return words.build(
        document.given + document.text
        for document in islice(documents(everybody, everybody, shares, f"vocabulary {SEED}"), 6000)
    )


def walk_vocabulary(roads: Map) -> Tokenizer:
    """-> the tokenizer of every place, and of how walks are written."""
    read = islice(wanderers(roads, f"vocabulary {SEED}"), 2000)
    return words.build(document.given + document.text for document in read)


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Write what `AutoTokenizer` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": words.BOS,
        "eos_token": words.EOS,
        "pad_token": words.PAD,
        "unk_token": words.UNK,
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(words.CHAT_TEMPLATE, encoding="utf-8")


def write_texts(folder: Path) -> None:
    """Write everything but the weights: the same bytes each time."""
    everybody = people(SEED)
    write_jsonl(folder / "data" / "train.jsonl", rows(everybody, SEED))
    write_tasks(folder / "tasks", everybody, SEED)
    for name in ("teacher", "student", "close_teacher", "close_student"):
        write_tokenizer(folder / "models" / name, vocabulary(everybody))
    write_walk_texts(folder / "walks", make_map(SEED))


def write_walk_texts(folder: Path, roads: Map) -> None:
    write_jsonl(folder / "data" / "train.jsonl", walk_rows(roads, SEED))
    write_walk_tasks(folder / "tasks", roads, SEED)
    for name in ("teacher", "student"):
        write_tokenizer(folder / "models" / name, walk_vocabulary(roads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dest", type=Path, help="the folder to write, for instance ablate/example/assets")
    parser.add_argument("--no-models", action="store_true", help="leave the weights as they are")
    args = parser.parse_args()
    write_texts(args.dest)
    if not args.no_models:
        from ablate.example.pretrain import write_models
        from ablate.example.walks.models import write_walkers

        write_models(args.dest / "models", people(SEED), vocabulary(people(SEED)), SEED)
        roads = make_map(SEED)
        write_walkers(args.dest / "walks" / "models", roads, walk_vocabulary(roads), SEED)


if __name__ == "__main__":
    main()
