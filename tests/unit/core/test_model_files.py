"""What can be told of a model by its files alone is told, with what to do, and nothing of a model that is sound."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ablate.core.model_faults import causal_model_types, faults
from ablate.core.model_files import INDEX, files_of
from ablate.core.tensor_headers import BadTensorFileError, stored_tensors
from ablate.example import assets

SINGLE = "model.safetensors"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model of two layers."""
    path = tmp_path / "model"
    path.mkdir()
    config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 5, "num_hidden_layers": 2}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    save_file(TENSORS, path / SINGLE)
    return path


TENSORS = {"model.embed_tokens.weight": np.zeros((5, 4), np.float16)} | {
    f"model.layers.{number}.mlp.up_proj.weight": np.ones((3, 4), np.float32) for number in range(2)
}


def shards(folder: Path) -> None:
    """Two files and their index in the place of one."""
    (folder / SINGLE).unlink()
    names = sorted(TENSORS)
    parts = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, part in parts.items():
        save_file({name: TENSORS[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def configured(folder: Path, **settings) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def only(folder: Path, name: str) -> None:
    (folder / SINGLE).unlink()
    (folder / name).write_bytes(b"x")


def sharded_without(folder: Path, name: str) -> None:
    shards(folder)
    (folder / name).unlink()


def torn(folder: Path, keep: int) -> None:
    path = folder / SINGLE
    path.write_bytes(path.read_bytes()[:keep])


def reindexed(folder: Path, weight_map: dict[str, str]) -> None:
    shards(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def moved(folder: Path) -> None:
    """The shards of another model under the same names."""
    shards(folder)
    save_file({"model.norm.weight": np.ones(4, np.float32)}, folder / "model-00002-of-00002.safetensors")


def stored_as(folder: Path, dtype: type) -> None:
    save_file(TENSORS | {"model.layers.0.mlp.up_proj.weight": np.ones((3, 4), dtype)}, folder / SINGLE)


def prefixed(folder: Path, prefix: str) -> None:
    save_file({prefix + name: tensor for name, tensor in TENSORS.items()}, folder / SINGLE)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles": (lambda f: only(f, "pytorch_model.bin"), "only as pytorch_model.bin, which can run code"),
    "another pickle": (lambda f: only(f, "consolidated.00.pth"), "only as consolidated.00.pth"),
    "llama.cpp": (lambda f: only(f, "model-q4.gguf"), "only in llama.cpp's GGUF format (model-q4.gguf)"),
    "another name": (lambda f: (f / SINGLE).rename(f / "weights.safetensors"), "weights.safetensors) are neither"),
    "no weights": (lambda f: (f / SINGLE).unlink(), "it has no weights"),
    "a shard missing": (
        lambda f: sharded_without(f, "model-00002-of-00002.safetensors"),
        "1 of the 2 files that model.safetensors.index.json names is missing (model-00002-of-00002.safetensors)",
    ),
    "no index": (lambda f: sharded_without(f, INDEX), "nor listed in a model.safetensors.index.json"),
    "a torn index": (lambda f: (shards(f), (f / INDEX).write_text("{")), "names no weights"),
    "an index that leads outside": (
        lambda f: reindexed(f, dict.fromkeys(TENSORS, "../model/model.safetensors")),
        "missing (../model/model.safetensors)",
    ),
    "an index with a tensor more": (
        lambda f: reindexed(f, dict.fromkeys([*TENSORS, "x"], "model-00001-of-00002.safetensors")),
        "which does not hold them",
    ),
    "shards of another model": (moved, "which does not hold them"),
    "cut short": (lambda f: torn(f, 400), "model.safetensors cannot be read: it is cut short"),
    "cut in its header": (lambda f: torn(f, 40), "model.safetensors cannot be read"),
    "empty": (lambda f: torn(f, 0), "model.safetensors cannot be read: it is cut short: it has 0 bytes"),
    "a page of an error": (lambda f: (f / SINGLE).write_text("<html>not found</html>" * 9), "no safetensors file"),
    "a pointer of git lfs": (lambda f: (f / SINGLE).write_text("version https://git-lfs"), "no safetensors file"),
    "no config": (lambda f: (f / "config.json").unlink(), "there is no config.json in it"),
    "a torn config": (lambda f: (f / "config.json").write_text('{"a"'), "its config.json is no JSON mapping"),
    "gptq": (lambda f: configured(f, quantization_config={"quant_method": "gptq", "bits": 4}), "(gptq, 4 bits)"),
    "awq": (lambda f: configured(f, quantization_config={"quant_method": "awq", "bits": 4}), "(awq, 4 bits)"),
    "fp8": (lambda f: configured(f, quantization_config={"quant_method": "fp8"}), "quantised (fp8)"),
    "mxfp4 inside": (
        lambda f: configured(f, text_config={"quantization_config": {"quant_method": "mxfp4"}}), "quantised (mxfp4)"
    ),
    "integers": (lambda f: stored_as(f, np.int8), "model.layers.0.mlp.up_proj.weight as I8"),
    "an encoder-decoder": (
        lambda f: configured(f, model_type="t5", is_encoder_decoder=True, architectures=["T5ForConditionalGeneration"]),
        "it is an encoder-decoder (T5ForConditionalGeneration)",
    ),
    "an encoder": (
        lambda f: configured(f, model_type="bert", architectures=["BertForMaskedLM"]), "predicts no next token"
    ),
    "a classifier": (
        lambda f: configured(f, architectures=["Qwen2ForSequenceClassification"]), "predicts no next token"
    ),
    "an unknown kind": (lambda f: configured(f, model_type="qwen22"), "Did you mean 'qwen2'?"),
    "code that is not trusted": (
        lambda f: configured(f, model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
        "say trust_remote_code: true",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer"),
    "compiled": (lambda f: prefixed(f, "_orig_mod."), "'_orig_mod.' in them: it is torch.compile's"),
    "data parallel": (lambda f: prefixed(f, "module."), "DataParallel's"),
    "an adapter inside": (
        lambda f: save_file(
            {name.replace(".weight", ".base_layer.weight"): t for name, t in TENSORS.items()}, f / SINGLE
        ),
        "hold an adapter that is not merged",
    ),
    "another vocabulary": (lambda f: configured(f, vocab_size=7), "says vocab_size 7"),
    "more layers": (lambda f: configured(f, num_hidden_layers=3), "says 3 layers, and its weights have 2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_a_folder_that_cannot_be_loaded_is_told_with_the_reason(kind, folder):
    spoil, why = SPOILT[kind]
    spoil(folder)
    reasons = list(faults(files_of(folder)))
    assert any(why in reason for reason in reasons), reasons
    assert len(reasons) == 1


def nothing(folder: Path) -> None:
    """As it is."""


def stray(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    save_file({"x": np.zeros(1)}, folder / "adapter_model.safetensors")


SOUND: dict[str, Callable[[Path], object]] = {
    "one file": nothing,
    "shards": shards,
    "pickles beside": lambda f: (f / "pytorch_model.bin").write_bytes(b"x"),
    "consolidated weights beside": lambda f: save_file({"y": np.zeros(1)}, f / "consolidated.safetensors"),
    "an adapter beside": stray,
    "code of its own beside a known kind": lambda f: configured(f, auto_map={"AutoModelForCausalLM": "a.B"}),
    "an old mask": lambda f: save_file(TENSORS | {"h.0.attn.bias": np.ones((1, 1, 9, 9), np.uint8)}, f / SINGLE),
    "weights of 64 bits": lambda f: stored_as(f, np.float64),
    "no vocabulary in the config": lambda f: configured(f, vocab_size=None, num_hidden_layers=None),
}


@pytest.mark.parametrize("kind", SOUND)
def test_nothing_is_said_against_a_folder_that_can_be_loaded(kind, folder):
    SOUND[kind](folder)
    assert list(faults(files_of(folder))) == []


def test_an_adapter_as_a_trainer_leaves_it_is_an_adapter_alone(tmp_path):
    stray(tmp_path)
    for name in ("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "training_args.bin"):
        (tmp_path / name).write_bytes(b"x")
    assert files_of(tmp_path).is_adapter
    assert list(faults(files_of(tmp_path))) == []


def test_code_that_is_trusted_has_to_be_there(folder):
    configured(folder, model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (reason,) = faults(files_of(folder), trust_remote_code=True)
    assert "there is no modeling_mine.py in it" in reason
    (folder / "modeling_mine.py").write_text("")
    assert list(faults(files_of(folder), trust_remote_code=True)) == []


def test_the_models_that_ship_with_ablate_are_sound():
    for folder in (assets() / "models").iterdir():
        assert list(faults(files_of(folder))) == []


def test_headers_are_what_safetensors_itself_reads(folder):
    theirs = {name: array.shape for name, array in load_file(folder / SINGLE).items()}
    assert {name: tensor.shape for name, tensor in stored_tensors(folder / SINGLE).items()} == theirs


def test_a_file_cut_anywhere_is_torn(folder):
    raw = (folder / SINGLE).read_bytes()
    for length in range(0, len(raw), 7):
        (folder / SINGLE).write_bytes(raw[:length])
        with pytest.raises(BadTensorFileError):
            stored_tensors(folder / SINGLE)


def test_the_kinds_of_models_are_those_of_transformers():
    code = (
        "from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as names;"
        "print(*sorted(names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(causal_model_types()) == done.stdout.split()
