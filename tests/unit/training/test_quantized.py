"""Frozen weights in 4 or 8 bits: the numbers that they stand for, and what is trained, asked and written on top."""

import json

import bitsandbytes
import peft
import pytest
import torch
from support import tiny_models as tiny
from support.quantised_models import quantised_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError
from ablate.store.kind import KINDS
from ablate.store.sizes import model_sizes
from ablate.study.quantize import BYTES_A_WEIGHT
from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, card_room, models, trainable
from ablate.training.adapters import Origin
from ablate.training.forward_memory import ForwardMemory, weight_bytes
from ablate.training.memory_estimate import Beside, TrainingMemory
from ablate.training.quantized import FORMS, QuantizedLinear, dequantize, quantized
from ablate.training.selfcheck import TOLERANCE

IDS = torch.arange(20).reshape(2, 10) * 3
FORM = pytest.mark.parametrize("form", FORMS)


def lora(family="llama", **settings):
    return Lora(**{"rank": 3, "alpha": 6.0, "target_modules": tiny.targets(family)} | settings)


def trained(model, folder, family="llama", seed=0):
    """-> adapters on a model that change something, saved."""
    folder.mkdir()
    attached = adapters.attach(model, lora(family), seed)
    for number, adapter in enumerate(attached.values()):
        nn.init.normal_(adapter.lora_B, std=0.2, generator=torch.Generator().manual_seed(number + seed))
    adapters.save(folder, attached, lora(family), Origin())
    return attached


def linear_names(model):
    return [name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)]


@FORM
@pytest.mark.parametrize("shape", [(40, 24), (7, 13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_quantised_module_is_its_formula_in_value_and_gradient(form, dtype, shape):
    torch.manual_seed(0)
    base = nn.Linear(shape[1], shape[0]).to(dtype).requires_grad_(False)
    module = quantized(base, base.weight, form, dtype)
    numbers = module.codes.numbers(torch.float32)
    x = torch.randn(2, 5, shape[1]).to(dtype).requires_grad_()
    y, grad = module(x), torch.randn(2, 5, shape[0]).to(dtype)
    (x_grad,) = torch.autograd.grad(y, x, grad)
    weight = numbers.to(dtype).double()
    bar = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 8e-3)
    assert (y.double() - (x.double() @ weight.T + base.bias.double())).norm() <= bar * y.double().norm()
    assert (x_grad.double() - grad.double() @ weight).norm() <= bar * x_grad.double().norm()


def test_nf4_has_the_numbers_of_bitsandbytes_and_int8_those_of_its_8_bit_weights():
    torch.manual_seed(0)
    weight = torch.randn(48, 64).bfloat16()
    params = bitsandbytes.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", compress_statistics=False
    )
    wanted = bitsandbytes.functional.dequantize_4bit(*(lambda p: (p.data, p.quant_state))(params.to("cpu")))
    assert torch.equal(FORMS["nf4"](weight).numbers(torch.bfloat16), wanted)
    codes, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.float())
    int8 = FORMS["int8"](weight)
    assert int((int8.codes.int() - codes.int()).abs().max()) <= 1  # ties
    torch.testing.assert_close(int8.scales.flatten() * 127, scales.flatten())


@FORM
def test_the_bits_of_a_weight_are_those_that_the_plan_counts(form):
    codes = FORMS[form](torch.randn(64, 256))
    num_bytes = sum(buffer.nbytes for buffer in codes.buffers())
    assert num_bytes / (64 * 256) == pytest.approx(BYTES_A_WEIGHT[form], rel=0.02)


@FORM
@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2", "phi"])
def test_all_linear_modules_but_the_head_are_quantised_and_nothing_else_changes(form, family, tmp_path):
    base = tiny.save(tmp_path / "base", family, 1)
    model = models.load_merged(base, (), "float32", quantize=form).model
    plain = models.load_merged(base, (), "float32").model
    linear = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    assert set(linear_names(model)) == linear - {"lm_head"}
    for name, weight in model.named_parameters():
        assert torch.equal(weight, plain.get_parameter(name))
    for name in linear_names(model):
        module = model.get_submodule(name)
        there = plain.get_parameter(f"{name}.weight")
        difference = module.weight - (there.T if family == "gpt2" else there)
        assert 0 < float(difference.abs().max()) < 0.2 * float(there.abs().max())
        plain.get_parameter(f"{name}.weight").data = module.weight.T if family == "gpt2" else module.weight
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    if family in ("llama_tied", "gpt2"):
        assert model.lm_head.weight is model.get_input_embeddings().weight


@FORM
def test_a_quantised_model_is_one_whatever_the_dtype_that_it_is_run_in(form, tmp_path):
    base = tiny.save(tmp_path / "base", seed=1)
    narrow, wide = (models.load_merged(base, (), dtype, quantize=form).model for dtype in ("bfloat16", "float32"))
    for name in linear_names(wide):
        codes = [model.get_submodule(name).codes for model in (narrow, wide)]
        assert torch.equal(codes[0].codes, codes[1].codes)
        assert torch.equal(codes[0].numbers(torch.bfloat16), codes[1].numbers(torch.float32).bfloat16())


def test_nf4_with_an_adapter_is_what_peft_makes_of_it_on_bitsandbytes(tmp_path):
    """Logits, and the gradients of the adapter's weights, on the same weights in 4 bits."""
    base = tmp_path / "base"
    settings = tiny.SMALL | {"hidden_size": 128, "intermediate_size": 192}  # which its kernels on a CPU take
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    ours = models.load_merged(base, (), "float32", quantize="nf4").model
    attached = trained(ours, tmp_path / "adapter")
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    theirs = AutoModelForCausalLM.from_pretrained(base, quantization_config=settings, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True).train()
    torch.testing.assert_close(ours(IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-4, atol=1e-3)
    weight = torch.randn(2, 10, tiny.VOCABULARY + 3)
    for model in (ours, theirs):
        (model(input_ids=IDS).logits * weight).sum().backward()
    grads = {name: value.grad for name, value in theirs.named_parameters() if value.grad is not None}
    assert len(grads) == 2 * len(attached)
    for name, adapter in adapters.named_tensors(attached).items():
        torch.testing.assert_close(
            adapter.grad, grads[name.replace(".weight", ".default.weight")], rtol=1e-3, atol=1e-3
        )


@FORM
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_asked_later_is_what_was_trained_and_what_is_exported(form, family, dtype, tmp_path):
    base = tiny.save(tmp_path / "base", family, 1)
    student = models.load_merged(base, (), dtype, quantize=form).model
    trained(student, tmp_path / "adapter", family)
    held = models.load_merged(base, (), dtype, quantize=form, trainings=[tmp_path / "adapter"]).model
    bar = 2e-5 if dtype == "float32" else TOLERANCE[torch.bfloat16] / 4
    logits = held(IDS).logits
    assert (logits - student(IDS).logits).norm() < bar * logits.norm()
    assert (
        logits - models.load_merged(base, (), dtype, quantize=form).model(IDS).logits
    ).norm() > 5 * bar * logits.norm()
    dequantize(held)
    held.save_pretrained(tmp_path / "exported")
    assert "quantization_config" not in json.loads((tmp_path / "exported/config.json").read_text())
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=getattr(torch, dtype)).eval()
    assert torch.equal(exported(IDS).logits, logits)


@FORM
def test_a_models_own_adapter_is_in_the_numbers_and_trainings_are_on_top_of_them(form, tmp_path):
    base = tiny.save(tmp_path / "base", seed=1)
    for seed, name in enumerate(("own", "first")):
        trained(tiny.make("llama", 1), tmp_path / name, seed=seed)
    own, first = (tmp_path / name for name in ("own", "first"))
    held = models.load_merged(base, [own], "float32", quantize=form, trainings=[first]).model
    merged = models.load_merged(base, [own], "float32").model
    name = "model.layers.1.self_attn.q_proj"
    wanted = FORMS[form](merged.get_parameter(f"{name}.weight")).numbers(torch.float32)
    adapter = adapters.load(first)[1]
    prefix = f"base_model.model.{name}"
    wanted = wanted + 2.0 * adapter[f"{prefix}.lora_B.weight"] @ adapter[f"{prefix}.lora_A.weight"]
    torch.testing.assert_close(held.get_submodule(name).weight, wanted)


@FORM
def test_nothing_of_a_forward_pass_is_kept_by_a_quantised_module(form):
    module = quantized(nn.Linear(64, 64), torch.randn(64, 64), form, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda tensor: tensor):
        module(torch.randn(3, 64, requires_grad=True))
    assert not kept


def test_all_weights_of_a_quantised_model_cannot_be_trained(tmp_path):
    model = models.load_merged(tiny.save(tmp_path / "base"), (), "float32", quantize="int8").model
    with pytest.raises(StageError, match="lora: none: weights that are kept in few bits"):
        trainable.make_trainable(model, Train(lora=None), 0, Origin())
    with pytest.raises(StageError, match=r"lora\.modules_to_save: .model\.layers\.0\.mlp.: weights"):
        trainable.make_trainable(
            model, Train(lora=lora(modules_to_save=["0.mlp"], target_modules=["q_proj"])), 0, Origin()
        )


def test_a_weight_that_is_not_finite_is_told_before_it_is_quantised(tmp_path):
    model = tiny.make("llama")
    model.model.layers[1].mlp.up_proj.weight.data[2, 3] = float("nan")
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(StageError, match=r"model.layers.1.mlp.up_proj.weight is not finite"):
        models.load_merged(tmp_path, (), "float32", quantize="int8")


@FORM
def test_the_plan_counts_the_bytes_that_a_quantised_model_holds(form, tmp_path):
    model = quantised_model(tmp_path, form, num_layers=3)
    holds = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    sizes = model_sizes(tmp_path)._replace(quantize=form)
    assert weight_bytes(sizes, 2) == pytest.approx(holds, rel=0.04)
    assert weight_bytes(sizes, 2) < 0.65 * weight_bytes(sizes._replace(quantize=None), 2)
    assert ForwardMemory(sizes, "bfloat16").held(100).weights == weight_bytes(sizes, 2)
    assert card_room.model_sizes(model)._replace(tensors=()) == sizes._replace(tensors=())
    training = TrainingMemory(Train(), sizes, "bfloat16", Beside((sizes,))).at(100, 100)
    assert training.frozen == training.teacher == weight_bytes(sizes, 2)


def test_a_card_quantises_a_model_that_is_kept_elsewhere(tmp_path):
    folder = tiny.save(tmp_path / "base")
    there = models.load_merged(folder, (), "float32", quantize="int8", quantize_on="cpu:0").model
    assert torch.equal(there(IDS).logits, models.load_merged(folder, (), "float32", quantize="int8").model(IDS).logits)
    with pytest.raises(RuntimeError, match="meta"):  # where there are no numbers to quantise
        models.load_merged(folder, (), "float32", quantize="int8", quantize_on="meta")


TRAIN = {
    "epochs": None,
    "max_steps": 3,
    "batch_size": 2,
    "warmup_steps": 0,
    "lr": 1e-2,
    "lora": {"rank": 2, "alpha": 4.0, "target_modules": ["q_proj", "down_proj"]},
}


def stage(folder, kind, inputs, **settings):
    """-> what a stage leaves, and its job's notes."""
    job = tiny.job(folder, KINDS[kind].Settings.model_validate({"dtype": "float32"} | settings), **inputs)
    KINDS[kind].run(job)
    KINDS[kind].check(folder)
    return job.notes


def test_a_quantised_teacher_is_tuned_kept_and_learnt_from_as_one_model(tmp_path):
    """Its cache stands for it, and not for the same teacher without quantising."""
    inputs = tiny.stage_inputs(tmp_path, tiny.random_rows([9, 17, 5, 12]), tiny.random_rows([7, 8], seed=9))
    given = {"model": inputs["teacher"], "rows": inputs["rows"]}
    stage(tmp_path / "tuned", "finetune", given, recipe=TRAIN, seed=0, quantize="nf4")
    teacher = {"teacher": inputs["teacher"], "rows": inputs["rows"], "teacher_adapter": tmp_path / "tuned"}
    stage(tmp_path / "cache", "teacher_cache", teacher, form="hidden", quantize="nf4")
    given = teacher | {"student": inputs["student"]}
    forms = {"student": "int8", "teacher": "nf4"}
    losses = []
    for name, more, quantize in (
        ("beside", {}, forms),
        ("cached", {"teacher_cache": tmp_path / "cache"}, forms),
        ("other", {"teacher_cache": tmp_path / "cache"}, {"student": "int8"}),
    ):
        notes = stage(tmp_path / name, "distill", given | more, recipe=TRAIN, seed=0, quantize=quantize)
        assert ("were read from" in notes.get("teacher", "")) == (name == "cached")
        losses.append(json.loads((tmp_path / name / "out/holdout.json").read_text())["forward_kl"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
