"""A model is that of its files, tensor by tensor, or it is refused: never one number from a random weight."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import tiny_models as tiny
from torch import Tensor

from ablate.core.errors import StageError
from ablate.training import models
from ablate.training.tensor_checks import require_saved

IDS = torch.arange(20).reshape(2, 10) * 3
WEIGHTS = "model.safetensors"
FAMILIES = ("llama", "llama_tied", "gpt2", "qwen2")
NUM_EDITS = 75
"""Of each family: 300 in all."""


class Saved(NamedTuple):
    """A model's folder, and what plain transformers makes of it."""

    folder: Path
    tensors: dict[str, Tensor]
    logits: Tensor


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory) -> Saved:
    folder = tiny.save(tmp_path_factory.mktemp("saved") / request.param, request.param, 1)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return Saved(folder, load_file(folder / WEIGHTS), plain(input_ids=IDS).logits.detach())


def with_tensors(saved: Saved, folder: Path, tensors: dict[str, Tensor], **config) -> Path:
    """-> a folder with other tensors, and other settings."""
    shutil.copytree(saved.folder, folder)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def logits_of(folder: Path) -> Tensor:
    return models.load_merged(folder, [], "float32").model(input_ids=IDS).logits.detach()


def refusal(folder: Path, dtype: str = "float32") -> str:
    with pytest.raises(StageError) as caught:
        models.load_merged(folder, [], dtype)
    return str(caught.value)


# what is told


def test_a_prefix_that_explains_all_is_named(saved, tmp_path):
    for prefix in ("_orig_mod.", "student.net."):
        tensors = {prefix + name: tensor for name, tensor in saved.tensors.items()}
        why = refusal(with_tensors(saved, tmp_path / prefix, tensors))
        assert f"The names have {prefix!r} in them, without which all of them fit" in why
        assert f"({prefix}" in why


def test_a_tensor_in_a_wrapper_of_its_own_is_refused(saved, tmp_path):
    name = sorted(saved.tensors)[-1]
    inside = name.rpartition(".")[0] + "._checkpoint_wrapped_module." + name.rpartition(".")[2]
    tensors = {inside if one == name else one: tensor for one, tensor in saved.tensors.items()}
    why = refusal(with_tensors(saved, tmp_path / "a", tensors))
    assert "'_checkpoint_wrapped_module.' in them" in why


def test_a_vocabulary_that_was_resized_is_told_with_both_sizes(saved, tmp_path):
    rows = tiny.VOCABULARY + 3
    grown = {
        name: torch.cat([tensor, tensor[:2]]) if tensor.dim() == 2 and len(tensor) == rows else tensor
        for name, tensor in saved.tensors.items()
    }
    why = refusal(with_tensors(saved, tmp_path / "a", grown))
    assert f"vocab_size {rows}, the file has {rows + 2} rows" in why


def test_another_number_of_layers_is_refused_in_both_directions(saved, tmp_path):
    layers = "n_layer" if "gpt2" in saved.folder.name else "num_hidden_layers"
    kinds = {"layer_types": None, "max_window_layers": 3}
    for number, word in ((1, "more layers"), (3, "fewer layers")):
        folder = with_tensors(saved, tmp_path / str(number), saved.tensors, **{layers: number}, **kinds)
        assert word in refusal(folder)


def test_weights_that_are_no_floats_are_never_cast(saved, tmp_path):
    name = next(name for name, tensor in saved.tensors.items() if tensor.dim() == 2)
    for dtype in (torch.int8, torch.int64, torch.float8_e4m3fn):
        tensors = saved.tensors | {name: saved.tensors[name].to(dtype)}
        why = refusal(with_tensors(saved, tmp_path / str(dtype), tensors))
        assert name in why
        assert "without a word" in why or "cannot be loaded" in why or "can be loaded" in why


def test_weights_that_are_not_finite_are_refused_though_no_probe_meets_them(saved, tmp_path):
    name = next(name for name, tensor in saved.tensors.items() if "embed_tokens" in name or "wte" in name)
    for value in (float("nan"), float("inf")):
        broken = saved.tensors[name].clone()
        broken[1, 3] = value  # a token that no probe has
        assert f"not finite: {name}" in refusal(
            with_tensors(saved, tmp_path / str(value), saved.tensors | {name: broken})
        )


def test_a_head_that_would_be_random_is_refused(tmp_path):
    folder = tiny.save(tmp_path / "llama", "llama", 1)
    tensors = load_file(folder / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS)
    assert "Its output head would be random" in refusal(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama_tied", "qwen2", "gpt2"])
def test_a_tied_head_may_be_stored_but_not_with_other_numbers(family, dtype, tmp_path):
    folder = tiny.save(tmp_path / family, family, 1)
    tensors = load_file(folder / WEIGHTS)
    embedding = tensors["transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"]
    before = models.load_merged(folder, [], dtype).model(input_ids=IDS).logits
    save_file(tensors | {"lm_head.weight": embedding.clone()}, folder / WEIGHTS)
    model = models.load_merged(folder, [], dtype).model
    assert torch.equal(model(input_ids=IDS).logits, before)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    save_file(tensors | {"lm_head.weight": embedding * 2}, folder / WEIGHTS)
    assert "lm_head.weight is stored with other numbers than the embedding" in refusal(folder, dtype)


def test_masks_that_models_of_earlier_years_stored_are_no_weights(tmp_path):
    folder = tiny.save(tmp_path / "gpt2", "gpt2", 1)
    before, tensors = logits_of(folder), load_file(folder / WEIGHTS)
    mask = torch.ones(1, 1, 128, 128, dtype=torch.bool).tril()
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}  # as openai-community/gpt2
    save_file(old | {"h.0.attn.bias": mask, "h.1.attn.bias": mask.clone()}, folder / WEIGHTS)
    assert torch.equal(logits_of(folder), before)


def test_two_tensors_of_the_files_for_one_of_the_model_are_refused(tmp_path):
    """transformers would take one of the two, and not say which."""
    folder = tiny.save(tmp_path / "llama", "llama", 1)
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"norm.weight": tensors["model.norm.weight"] * 2}, folder / WEIGHTS)
    assert "model.norm.weight and norm.weight of the files are one tensor of the model" in refusal(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_that_transformers_fuses_are_taken_whole_or_refused(dtype, tmp_path):
    config = transformers.MixtralConfig(**tiny.SMALL, num_local_experts=4)
    torch.manual_seed(0)
    folder = tmp_path / "moe"
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    loaded = models.load_merged(folder, [], dtype).model
    assert torch.equal(loaded(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    tensors = load_file(folder / WEIGHTS)
    names = sorted(name for name in tensors if ".experts.2." in name)
    for edit in ("drop", "number", "name", "shape"):
        rest = {name: tensor for name, tensor in tensors.items() if name not in names}
        moved = {
            "drop": {},
            "number": {name.replace("experts.2.", "experts.9."): tensors[name] for name in names},
            "name": {name.replace("experts.", "expert."): tensors[name] for name in names},
            "shape": {name: tensors[name][:-1].clone() for name in names},
        }[edit]
        save_file(rest | moved, folder / WEIGHTS)
        assert len(refusal(folder, dtype)) > 80


# random edits


def renamed(name: str, rng: random.Random) -> str:
    """-> the name as a wrapper, another library, another version or a slip of the hand would have it."""
    parts = name.split(".")
    place = rng.randrange(len(parts))
    letter = rng.randrange(len(name))
    ways: list[Callable[[], str]] = [
        lambda: rng.choice(["_orig_mod.", "module.", "model.", "transformer.", "base_model.model.", "x."]) + name,
        lambda: ".".join(parts[:place] + parts[place + 1 :]) or "x",
        lambda: ".".join([*parts[:place], parts[place], *parts[place:]]),
        lambda: name[:letter] + name[letter + 1 :] or "x",
        lambda: name[:letter] + rng.choice("abcxyz_0.9") + name[letter + 1 :],
        lambda: name + rng.choice([".weight", "_", ".default", ".0", "s"]),
        lambda: ".".join(str(int(part) + rng.choice([1, 2, 10])) if part.isdigit() else part for part in parts),
        lambda: name.replace("weight", "gamma").replace("bias", "beta"),
        lambda: name.swapcase(),
        lambda: ".".join(rng.sample(parts, len(parts))),
    ]
    return rng.choice(ways)()


def reshaped(tensor: Tensor, rng: random.Random) -> Tensor:
    ways: list[Callable[[], Tensor]] = [
        lambda: tensor.T if tensor.dim() == 2 and len(tensor) != tensor.shape[1] else tensor[None],
        lambda: tensor[:-1],
        lambda: torch.cat([tensor, tensor[:1]]),
        lambda: tensor.flatten() if tensor.dim() == 2 else tensor[:, None],
        lambda: tensor[None],
        lambda: tensor[..., : max(1, tensor.shape[-1] // 2)],
        lambda: tensor[:0],
        lambda: tensor.reshape(-1)[0],
    ]
    return rng.choice(ways)()


def edited(tensors: dict[str, Tensor], rng: random.Random) -> dict[str, Tensor]:
    """-> the tensors with one name or shape changed, one more or one less; or all names with another prefix."""
    name = rng.choice(sorted(tensors))
    rest = {other: tensor for other, tensor in tensors.items() if other != name}
    match rng.choice(["rename", "rename", "rename", "reshape", "reshape", "drop", "double", "all", "layer"]):
        case "rename":
            return {**rest, renamed(name, rng): tensors[name]}
        case "reshape":
            return {**rest, name: reshaped(tensors[name], rng)}
        case "drop":
            return rest
        case "double":
            return {renamed(name, rng): tensors[name] + 1, **tensors}
        case "layer":
            number = rng.choice("01")
            return {one: tensor for one, tensor in tensors.items() if f".{number}." not in one}
    prefix = rng.choice(["module.", "model.", "transformer.", "_orig_mod.", "student."])
    return {prefix + one if rng.random() < 0.8 else one: tensor for one, tensor in tensors.items()}


@pytest.mark.slow
def test_a_random_edit_of_names_or_shapes_is_refused_or_changes_nothing(saved, tmp_path):
    rng = random.Random(saved.folder.name)
    refusals: list[str] = []
    for number in range(NUM_EDITS):
        folder = with_tensors(saved, tmp_path / str(number), edited(saved.tensors, rng))
        try:
            logits = logits_of(folder)
        except StageError as error:
            refusals.append(str(error))
            continue
        torch.testing.assert_close(logits, saved.logits, rtol=0, atol=0)
    assert len(refusals) > 0.7 * NUM_EDITS
    assert all("do not fit" in why or "can be loaded" in why for why in refusals)


# what export writes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_written_of_a_model_is_compared_with_it_number_by_number(saved, dtype, tmp_path):
    model = models.load_merged(saved.folder, [], dtype).model
    model.save_pretrained(tmp_path)
    require_saved(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = sorted(tensors)[-1]
    for wrong in (tensors[name] * 2, tensors[name].double()):
        save_file(tensors | {name: wrong}, tmp_path / WEIGHTS)
        with pytest.raises(StageError, match=f"has other numbers in {name}: it is not the model"):
            require_saved(model, tmp_path)
    save_file({one: tensor for one, tensor in tensors.items() if one != name}, tmp_path / WEIGHTS)
    with pytest.raises(StageError, match=f"lacks {name}"):
        require_saved(model, tmp_path)


def test_a_family_that_is_saved_under_other_names_is_loaded_again_to_be_compared(tmp_path):
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**tiny.SMALL, num_local_experts=4)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    require_saved(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    name = next(name for name in tensors if ".experts.1." in name)
    save_file(tensors | {name: tensors[name] * 2}, tmp_path / WEIGHTS)
    with pytest.raises(StageError, match="has other numbers in"):
        require_saved(model, tmp_path)
