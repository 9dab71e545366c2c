"""A model folder's tokenizer: loaded; and whether two are the same, compared as files, without transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core.errors import StageError

PROBES = (
    "The quick brown fox, aged 12, can't jump 3.5 metres.\n\n  def f(x):\n\treturn x ** 2",
    "Ünïcödé, 日本語, العربية, emoji 🙂 and   runs of    spaces\r\nand A\u0301 composed",
    "Below is an instruction that describes a task.\n\n### Instruction:\nName 1000000 things\n\n### Response:\n",
    "\uff21\uff22 ½ ﬁ ① … “quoted” x\u200by\u00a0z İ 한국 ไท हिन् 👩\u200d👧 camelCase a1b2 https://x.org/?q=~ </a> \n",
)


def load_tokenizer(model_folder: Path, trust_remote_code: bool = False) -> Any:
    """-> the tokenizer of a model folder. Raises StageError when there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ImportError) as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        what = f"{type(error).__name__}: {first_line}"
        raise StageError(f"{model_folder}: no tokenizer can be loaded from it ({what})") from error


def compare(folder_a: Path, folder_b: Path) -> list[str]:
    """-> how the tokenizers of two model folders differ, one sentence each; empty when they are the same.

    Vocabulary with ids, merges, added and special tokens, begin and end of sequence, and how a few probe texts are
    cut. Without a tokenizer.json in both, the vocabulary files are compared byte by byte.
    """
    a, b = _tokenizer_json(folder_a), _tokenizer_json(folder_b)
    if a is None or b is None:
        return _compare_files(folder_a, folder_b)
    return [
        *_differing("vocabulary", _vocabulary(a), _vocabulary(b)),
        *_differing_lists("merges", _merges(a), _merges(b)),
        *_differing("added tokens", _added(a), _added(b)),
        *_differing("special tokens", _special(folder_a), _special(folder_b)),
        *_probed(folder_a, folder_b),
    ]


def size(folder: Path) -> int | None:
    """-> number of ids of a model folder's tokenizer (what `len(tokenizer)` is), None without a tokenizer.json."""
    raw = _tokenizer_json(folder)
    return len(_vocabulary(raw).keys() | _added(raw).keys()) if raw is not None else None


def _tokenizer_json(folder: Path) -> dict[str, Any] | None:
    path = folder / "tokenizer.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _vocabulary(raw: dict[str, Any]) -> dict[str, Any]:
    vocabulary = raw["model"].get("vocab", {})
    if isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of the ids
        return {piece: [index, score] for index, (piece, score) in enumerate(vocabulary)}
    return dict(vocabulary)


def _merges(raw: dict[str, Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in raw["model"].get("merges", [])]


def _added(raw: dict[str, Any]) -> dict[str, Any]:
    return {token["content"]: token["id"] for token in raw.get("added_tokens", [])}


def _special(folder: Path) -> dict[str, Any]:
    # pad is left out: no pad token is ever fed or predicted here, and the models of a family differ in it
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = {name: settings.get(name) for name in ("bos_token", "eos_token", "unk_token")}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in named.items()}


def _differing(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
    shown = ", ".join(f"{name!r} ({a.get(name)} and {b.get(name)})" for name in names[:3])
    return [f"{what}: {len(names)} differ, such as {shown}"] if names else []


def _differing_lists(what: str, a: list[str], b: list[str]) -> list[str]:
    if a == b:
        return []
    first = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return [f"{what}: {len(a)} and {len(b)}, the first that differs is number {first + 1}"]


def _probed(folder_a: Path, folder_b: Path) -> list[str]:
    from tokenizers import Tokenizer

    a, b = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (folder_a, folder_b))
    cut = [text for text in PROBES if a.encode(text).ids != b.encode(text).ids]
    return [f"the text {cut[0][:40]!r}... is cut into other tokens"] if cut else []


def _compare_files(folder_a: Path, folder_b: Path) -> list[str]:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model")
    present = [name for name in names if (folder_a / name).is_file() or (folder_b / name).is_file()]
    if not present:
        return ["no tokenizer files in either folder"]
    return [f"{name} differs" for name in present if _bytes(folder_a / name) != _bytes(folder_b / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
