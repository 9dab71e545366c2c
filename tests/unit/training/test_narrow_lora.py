"""Adapters by products of 16 bits alone, as a card runs them: here on a CPU, against float64 and against PEFT."""

import contextlib
import copy

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from support import tiny_models as tiny
from support.reference import trained_by_peft
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, trainable
from ablate.training.dora_linear import DoraLinear
from ablate.training.lora_linear import LoraLinear

WIDTH_IN, WIDTH_OUT, RANK = 48, 40, 4


class OtherLinear(nn.Linear):
    """As a package that quantises has one: its weight is not to be looked at."""


def conv1d(*widths):
    return Conv1D(*reversed(widths))


BASES = {"linear": nn.Linear, "conv1d": conv1d, "other": OtherLinear}


def adapter_of(make, *, use_dora=False, dropout=0.0):
    """-> (an adapter on a bfloat16 module, its twin in float64)."""
    torch.manual_seed(0)
    base = make(WIDTH_IN, WIDTH_OUT).requires_grad_(False).bfloat16()
    nn.init.normal_(base.bias)
    A, B = torch.randn(RANK, WIDTH_IN), torch.randn(WIDTH_OUT, RANK) / 8
    lora = Lora(rank=RANK, alpha=6.0, dropout=dropout, use_dora=use_dora)
    kind = DoraLinear if use_dora else LoraLinear
    adapter, twin = kind(base, lora, A, B), kind(copy.deepcopy(base).double(), lora, A.double(), B.double())
    for one in (adapter, twin):
        one.row_seeds = ("a", "b", "c")
        one.training = dropout > 0
        if use_dora:
            one.magnitude.data *= torch.linspace(0.9, 1.2, WIDTH_OUT)
    return adapter, twin


def output_and_grads(adapter, forward, dtype):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 7, WIDTH_IN, generator=generator).bfloat16().to(dtype).requires_grad_()
    y = forward(x)
    y.backward(torch.randn(y.shape, generator=generator).bfloat16().to(dtype))
    trained = {name: weight.grad for name, weight in adapter.named_parameters() if weight.requires_grad}
    return {"y": y.detach(), "x": x.grad} | trained


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("base", "use_dora"), [*((base, False) for base in BASES), ("linear", True), ("conv1d", True)])
def test_an_adapter_in_16_bits_is_that_of_float64_to_their_rounding(base, use_dora, dropout):
    adapter, twin = adapter_of(BASES[base], use_dora=use_dora, dropout=dropout)
    ours = output_and_grads(adapter, adapter.forward_in_16_bits, torch.bfloat16)
    exact = output_and_grads(twin, twin, torch.float64)
    assert ours.keys() == exact.keys()
    assert {name: value.dtype for name, value in ours.items() if "lora" in name} == dict.fromkeys(
        ("lora_A", "lora_B"), torch.float32
    )
    for name, value in exact.items():
        assert (ours[name].double() - value).norm() < 5e-3 * value.norm(), name


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_doras_norms_by_products_of_16_bits_are_exact_to_1e_5(dtype):
    adapter, _ = adapter_of(nn.Linear, use_dora=True)
    adapter.base.to(dtype)
    weight = adapter.base.weight.double() + adapter.scale * adapter.lora_B.double() @ adapter.lora_A.double()
    torch.testing.assert_close(adapter._norm_in_16_bits().double(), weight.norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("use_dora", [True, False])
def test_an_adapter_that_a_fused_optimizer_has_moved_is_the_new_one(use_dora):
    model = tiny.make("llama", 1)
    recipe = Train(lora=Lora(rank=3, target_modules=("q_proj",), use_dora=use_dora))
    weights = trainable.make_trainable(model, recipe, 5, adapters.Origin())
    ids = torch.arange(20)[None]
    optimizer = torch.optim.AdamW(weights.weights.values(), lr=0.1, fused=True)
    for _ in range(2):  # B is 0 before the first
        before = model(input_ids=ids).logits
        before.square().sum().backward()
        optimizer.step()
        weights.update_model()
    after = model(input_ids=ids).logits
    for adapter in weights.adapters.values():
        adapter._derived.clear()
    assert torch.equal(model(input_ids=ids).logits, after)
    assert not torch.equal(before, after)


def llama(seed, dtype):
    torch.manual_seed(seed)
    settings = tiny.SMALL | {"hidden_size": 96, "intermediate_size": 192, "initializer_range": 0.05}
    return transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**settings), dtype=dtype).eval()


def grads_of(model, weights, seed, *, is_autocast=False):
    ids = torch.randint(tiny.VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(seed))
    dtype = model.dtype
    with torch.autocast("cpu", dtype) if is_autocast else contextlib.nullcontext():
        logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    logits = logits.to(torch.promote_types(dtype, torch.float32))
    functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    return torch.cat([weights[name].grad.double().flatten() for name in sorted(weights)])


def errors(seed, dtype, folder):
    """-> how far gradients are from float64's of the same model of 16 bits: ours, PEFT's, PEFT's under autocast."""
    model = llama(seed, dtype)
    targets = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    recipe = Train(lora=Lora(rank=8, alpha=8.0, target_modules=targets))
    weights = trainable.make_trainable(model, recipe, seed, adapters.Origin())
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.05)
    weights.save(folder)
    for adapter in weights.adapters.values():
        adapter.forward = adapter.forward_in_16_bits
    theirs = [PeftModel.from_pretrained(llama(seed, dtype), folder, is_trainable=True).eval() for _ in range(3)]
    exact = theirs[0].double()
    exact_grads = grads_of(exact, trained_by_peft(exact), seed)
    grads = [
        grads_of(model, weights.weights, seed),
        grads_of(theirs[1], trained_by_peft(theirs[1]), seed),
        grads_of(theirs[2], trained_by_peft(theirs[2]), seed, is_autocast=True),
    ]
    return torch.stack([(one - exact_grads).norm() / exact_grads.norm() for one in grads])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_16_bits_are_as_exact_as_pefts_under_autocast_and_nearly_as_with_float32_adapters(dtype, tmp_path):
    ours, wide, autocast = torch.stack([errors(seed, dtype, tmp_path) for seed in range(3)]).mean(0)
    assert ours < 1.3 * wide
    assert ours < autocast  # most of both is what the rest of the model rounds; alone: the next test


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-4, 1.0])
def test_the_first_steps_gradients_are_no_less_exact_however_small_b_still_is(size, dtype, dropout):
    adapter, twin = adapter_of(nn.Linear, dropout=dropout)
    adapter.base.to(dtype)
    for one in (adapter, twin):
        one.lora_B.data *= size
    for forward, wide in ((adapter.forward_in_16_bits, dtype), (twin, torch.float64)):
        generator = torch.Generator().manual_seed(1)
        x, grad = (1e-3 * torch.randn(3, 7, width, generator=generator).bfloat16() for width in (WIDTH_IN, WIDTH_OUT))
        forward(1e3 * x.to(wide)).backward(grad.to(wide))
    for name in ("lora_A", "lora_B"):
        ours, exact = getattr(adapter, name).grad, getattr(twin, name).grad
        assert (ours.double() - exact).norm() <= 5e-3 * exact.norm(), name


class Alone(nn.Module):
    """A model of one linear module."""

    def __init__(self, dtype) -> None:
        super().__init__()
        self.proj = nn.Linear(96, 192, bias=False, dtype=dtype)

    def forward(self, x):
        return self.proj(x)


def grads_alone(module, factors, x, grad, *, is_autocast=False):
    """-> the gradients of A, B and x, where that of y is given."""
    x = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if is_autocast else contextlib.nullcontext():
        y = module(x)
    return [one.double() for one in torch.autograd.grad(y, (*factors, x), grad.to(y.dtype))]


@pytest.mark.parametrize("seed", range(4))
def test_the_gradients_of_a_module_alone_are_at_least_as_exact_as_pefts_under_autocast(seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    x, grad = (torch.randn(512, width, generator=generator).bfloat16() for width in (96, 192))
    theirs = get_peft_model(Alone(torch.bfloat16), LoraConfig(r=8, lora_alpha=8, target_modules=["proj"]))
    layer = theirs.base_model.model.proj
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    nn.init.normal_(B, std=0.05)
    recipe = Lora(rank=8, alpha=8.0, target_modules=("proj",))
    ours = LoraLinear(layer.base_layer, recipe, A.detach().clone(), B.detach().clone())
    mine = grads_alone(ours.forward_in_16_bits, (ours.lora_A, ours.lora_B), x, grad)
    autocast = grads_alone(theirs, (A, B), x, grad, is_autocast=True)
    exact = theirs.double()
    reference = grads_alone(exact, (A, B), x.double(), grad.double())
    for one, other, true in zip(mine, autocast, reference, strict=True):
        assert (one - true).norm() <= (other - true).norm()
