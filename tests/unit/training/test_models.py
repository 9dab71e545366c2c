"""Models cut in two, adapters in PEFT's files, and merging."""

import json

import pytest
import torch
from peft import PeftModel
from support import tiny_models as tiny
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError
from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, merging, models, trainable
from ablate.training.adapter_file import parse
from ablate.training.adapters import Origin
from ablate.training.batches import ModelInputs
from ablate.training.lora_linear import LoraLinear
from ablate.training.model_parts import split_model

IDS = torch.arange(20).reshape(2, 10) * 3
ORIGIN = Origin("meta-llama/Llama-3.2-1B-Instruct", "0123abc")


def lora(family="llama", **settings):
    return Lora(**{"rank": 3, "alpha": 6.0, "target_modules": tiny.targets(family)} | settings)


def adapted(family, folder, seed=0):
    """-> a model with a saved adapter that changes something."""
    model = tiny.make(family, 1)
    attached = adapters.attach(model, lora(family), seed)
    for number, adapter in enumerate(attached.values()):
        torch.nn.init.normal_(adapter.lora_B, std=0.05, generator=torch.Generator().manual_seed(number + seed))
    adapters.save(folder, attached, lora(family), ORIGIN)
    return model


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_cut_into_body_and_head(family):
    model = tiny.make(family)
    parts = split_model(model, tiny.VOCABULARY)
    assert parts.head.weight is not None
    logits = model(input_ids=IDS).logits.flatten(0, 1)[:, : tiny.VOCABULARY]
    torch.testing.assert_close(parts.head.logits(parts.hidden(ModelInputs(IDS, torch.arange(20)))), logits)


class OddHead(LlamaForCausalLM):
    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits * 0.9
        return output


class Clairvoyant(LlamaForCausalLM):
    def forward(self, input_ids, **inputs):
        output = super().forward(input_ids=input_ids, **inputs)
        output.logits = output.logits + output.logits.mean(1, keepdim=True)
        return output


def test_a_head_we_do_not_know_is_run_whole_and_right():
    model = OddHead(tiny.make("llama").config).eval()
    parts = split_model(model, tiny.VOCABULARY)
    assert parts.head.weight is None
    hidden = parts.hidden(ModelInputs(IDS, torch.arange(20))).detach()
    logits = model(input_ids=IDS).logits.flatten(0, 1)[:, : tiny.VOCABULARY]
    torch.testing.assert_close(parts.head.logits(hidden), logits)
    grad = torch.randn_like(logits)
    torch.testing.assert_close(parts.head.backward(grad, hidden, logits)[:, : tiny.VOCABULARY], grad)


def test_an_adapter_on_the_head_is_run_whole():
    model = tiny.make("llama")
    adapters.attach(model, lora(target_modules=("lm_head",)), 0)
    assert split_model(model, tiny.VOCABULARY).head.weight is None


def test_a_model_that_sees_later_tokens_is_refused():
    with pytest.raises(StageError, match="depends on later tokens"):
        split_model(Clairvoyant(tiny.make("llama").config).eval(), tiny.VOCABULARY)


def test_a_head_smaller_than_the_tokenizer_is_refused():
    with pytest.raises(StageError, match="has 64 rows, its tokenizer 70 tokens"):
        split_model(tiny.make("llama"), 70)


def test_a_model_with_broken_weights_is_refused_before_training():
    model = tiny.make("llama")
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(StageError, match="not finite"):
        split_model(model, tiny.VOCABULARY)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_peft_reads_our_adapter_and_gives_the_same_logits(family, tmp_path):
    ours = adapted(family, tmp_path)
    theirs = PeftModel.from_pretrained(tiny.make(family, 1), tmp_path)
    torch.testing.assert_close(theirs(input_ids=IDS).logits, ours(input_ids=IDS).logits)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_our_merge_is_pefts_merge(family, tmp_path):
    adapted(family, tmp_path)
    theirs = PeftModel.from_pretrained(tiny.make(family, 1), tmp_path).merge_and_unload()
    ours = tiny.make(family, 1)
    merging.merge(ours, [tmp_path])
    for name, weight in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name), weight, rtol=0, atol=1e-6)


def test_an_adapter_names_its_model_and_says_nothing_of_this_machine(tmp_path):
    adapted("llama", tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == ORIGIN.name
    assert saved["revision"] == ORIGIN.revision
    assert str(tmp_path) not in (tmp_path / "adapter_config.json").read_text()


def test_a_new_adapter_changes_nothing_yet():
    model = tiny.make("llama")
    before = model(input_ids=IDS).logits
    adapters.attach(model, lora(), 0)
    torch.testing.assert_close(model(input_ids=IDS).logits, before, rtol=0, atol=0)


def test_an_adapters_first_weights_follow_from_seed_and_name_alone():
    alone = adapters.attach(tiny.make("llama"), lora(target_modules=("q_proj",)), 7)
    among = adapters.attach(tiny.make("llama", 9), lora(target_modules=("down_proj", "q_proj")), 7)
    other = adapters.attach(tiny.make("llama"), lora(target_modules=("q_proj",)), 8)
    name = "model.layers.1.self_attn.q_proj"
    assert torch.equal(alone[name].lora_A, among[name].lora_A)
    assert not torch.equal(alone[name].lora_A, other[name].lora_A)
    assert float(alone[name].lora_A.detach().abs().max()) <= 24**-0.5


@pytest.mark.parametrize("rank", [2, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["linear", "bias", "conv1d"])
def test_an_adapted_module_is_its_formula_whatever_its_shape_and_dtype(kind, dtype, rank):
    torch.manual_seed(0)
    base = Conv1D(40, 24) if kind == "conv1d" else nn.Linear(24, 40, bias=kind == "bias")
    if base.bias is not None:
        nn.init.normal_(base.bias)
    base = base.to(dtype).requires_grad_(False)
    recipe = lora(rank=rank, alpha=0.3)
    adapter = LoraLinear(base, recipe, torch.randn(rank, 24), torch.randn(40, rank))
    x_BTI, grad_BTO = torch.randn(3, 31, 24).to(dtype).requires_grad_(), torch.randn(3, 31, 40).to(dtype)
    given = [x_BTI, adapter.lora_A, adapter.lora_B]
    y_BTO = adapter(x_BTI)
    ours = [y_BTO, *torch.autograd.grad(y_BTO, given, grad_BTO)]

    x, lora_A, lora_B = exact = [tensor.detach().double().requires_grad_() for tensor in given]
    weight = base.weight.double().T if kind == "conv1d" else base.weight.double()
    y = x @ (weight + adapter.scale * lora_B @ lora_A).T + (0 if base.bias is None else base.bias.double())
    wanted = [y, *torch.autograd.grad(y, exact, grad_BTO.double())]
    for one, other in zip(ours, wanted, strict=True):
        bar = 2e-6 if one.dtype == torch.float32 else 8e-3
        assert (one.double() - other).norm() < bar * other.norm()


def test_modules_the_model_lacks_are_told_with_those_it_has():
    with pytest.raises(StageError) as caught:
        adapters.attach(tiny.make("llama"), lora(target_modules=("q_proj", "c_attn")), 0)
    assert "no linear module 'c_attn'" in str(caught.value)
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in str(caught.value)


def test_an_adapter_on_a_tied_head_is_refused():
    with pytest.raises(StageError, match="shares its weights"):
        adapters.attach(tiny.make("llama_tied"), lora(target_modules=("lm_head",)), 0)


def chain(tmp_path):
    """-> a model folder and two adapters, the second trained on top of the first."""
    base = tiny.save(tmp_path / "base", seed=1)
    outs = [tmp_path / "first", tmp_path / "second"]
    for number, out in enumerate(outs):
        out.mkdir()
        adapted("llama", out, seed=number)
    return base, outs


def test_adapters_are_merged_in_float32_and_cast_once(tmp_path):
    base, outs = chain(tmp_path)
    wide = models.load_merged(base, outs, "float32").model
    narrow = models.load_merged(base, outs, "bfloat16").model
    name = "model.layers.0.self_attn.q_proj.weight"
    by_hand = tiny.make("llama", 1).get_parameter(name).detach().clone()
    for out in outs:
        by_hand += parse(*adapters.load(out), out).adapted[name.removesuffix(".weight")].delta()
    torch.testing.assert_close(wide.get_parameter(name), by_hand)
    assert torch.equal(narrow.get_parameter(name), wide.get_parameter(name).bfloat16())
    assert {weight.dtype for weight in narrow.parameters()} == {torch.bfloat16}


def test_a_tied_head_stays_tied_when_merged(tmp_path):
    base = tiny.save(tmp_path / "base", "llama_tied", 1)
    (tmp_path / "out").mkdir()
    adapted("llama_tied", tmp_path / "out")
    model = models.load_merged(base, [tmp_path / "out"], "bfloat16").model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_fully_trained_weights_replace_the_models(tmp_path):
    base = tiny.save(tmp_path / "base", "llama_tied", 1)
    trained = tiny.make("llama_tied", 2)
    trainable.make_trainable(trained, Train(lora=None), 0, Origin()).save(tmp_path)
    model = models.load_merged(base, [tmp_path], "float32").model
    torch.testing.assert_close(model(input_ids=IDS).logits, trained(input_ids=IDS).logits)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_weights_of_another_model_are_refused(tmp_path):
    base = tiny.save(tmp_path / "base", "llama", 1)
    trainable.make_trainable(tiny.make("llama_tied", 2), Train(lora=None), 0, Origin()).save(tmp_path)
    with pytest.raises(StageError, match=r"do not fit LlamaForCausalLM: lm_head.weight"):
        models.load_merged(base, [tmp_path], "float32")


def test_a_model_in_pickle_files_is_refused(tmp_path):
    base = tiny.save(tmp_path / "base")
    torch.save({}, base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(StageError, match="no causal language model can be loaded"):
        models.load_merged(base, [], "float32")


def test_a_torn_adapter_is_told_with_its_place(tmp_path):
    base, outs = chain(tmp_path)
    weights = outs[0] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StageError, match=r"first: no readable adapter"):
        models.load_merged(base, outs, "float32")


@pytest.mark.parametrize("has_adapter", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_16_bit_model_is_the_one_that_from_pretrained_loads(tmp_path, family, has_adapter):
    """Rotary frequencies in bfloat16 would move every position, and the exported folder would be another model."""
    base = tiny.save(tmp_path / "base", family)
    if has_adapter:  # B is zero: it changes nothing
        attached = adapters.attach(tiny.make(family), lora(family), 0)
        adapters.save(tmp_path, attached, lora(family), ORIGIN)
    merged = models.load_merged(base, [tmp_path] if has_adapter else [], "bfloat16").model
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    assert torch.equal(merged(IDS).logits, plain(IDS).logits)
    dtypes = [{name: buffer.dtype for name, buffer in model.named_buffers()} for model in (merged, plain)]
    assert dtypes[0] == dtypes[1]
    assert torch.float32 in dtypes[0].values()
