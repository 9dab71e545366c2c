"""Same tokenizer or not, told from files alone."""

import json
import subprocess
import sys

import pytest
from support import tiny_models as tiny
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ablate.data.tokenizers import compare, size


def folder(path, corpus="low lower lowest new newer newest", **special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        [corpus],
        trainers.BpeTrainer(vocab_size=265, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.add_special_tokens(["<eos>"])
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"} | special))
    return path


def edit(path, change):
    raw = json.loads((path / "tokenizer.json").read_text())
    change(raw)
    (path / "tokenizer.json").write_text(json.dumps(raw))
    return path


def test_equal_tokenizers_differ_in_nothing_the_pad_token_apart(tmp_path):
    assert compare(folder(tmp_path / "a"), folder(tmp_path / "b", pad_token="<eos>")) == []


def test_another_vocabulary_of_the_same_size_is_another_tokenizer(tmp_path):
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b", "wide wider widest old older oldest")
    assert size(a) == size(b) == 266
    differences = compare(a, b)
    assert differences[0].startswith("vocabulary:")
    assert any(sentence.startswith("merges:") for sentence in differences)


def test_merges_in_another_order_are_another_tokenizer(tmp_path):
    b = edit(folder(tmp_path / "b"), lambda raw: raw["model"]["merges"].reverse())
    assert compare(folder(tmp_path / "a"), b)[0] == "merges: 9 and 9, the first that differs is number 1"


def test_other_special_tokens_are_another_tokenizer(tmp_path):
    differences = compare(folder(tmp_path / "a"), folder(tmp_path / "b", eos_token="</s>"))
    assert differences == ["special tokens: 1 differ, such as 'eos_token' (<eos> and </s>)"]


def test_text_cut_otherwise_is_another_tokenizer(tmp_path):
    b = edit(folder(tmp_path / "b"), lambda raw: raw.update(normalizer={"type": "Lowercase"}))
    assert "is cut into other tokens" in compare(folder(tmp_path / "a"), b)[0]


def test_the_size_is_what_transformers_says(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    assert size(tmp_path) == len(tiny.tokenizer())


def test_without_a_tokenizer_json_the_files_are_compared(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.json").write_text(text)
    assert compare(tmp_path / "a", tmp_path / "b") == []
    assert compare(tmp_path / "a", tmp_path / "c") == ["vocab.json differs"]


@pytest.mark.hub
def test_the_tutorials_pairs_share_their_tokenizers_and_the_families_do_not(hub):
    root = hub.parent / "root/models"
    llama = [root / "meta-llama" / name for name in ("Llama-3.1-8B-Instruct", "Llama-3.2-1B-Instruct")]
    qwen = [root / "Qwen" / name for name in ("Qwen2-1.5B-Instruct", "Qwen2-0.5B-Instruct")]
    assert compare(*llama) == []
    assert compare(*qwen) == []
    assert len(compare(llama[1], qwen[1])) >= 3


def test_comparing_imports_neither_torch_nor_transformers():
    code = "import sys, ablate.data.tokenizers, ablate.data.steps; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
