"""What a step of a 16-bit model costs a card: counted on the meta device, at a real model's shapes or a small one's."""

import pytest
import torch
import transformers
from support import tiny_models as tiny
from support.counts import counting
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ablate.losses import parse
from ablate.study.policy import Policy
from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, trainable
from ablate.training.head import Head
from ablate.training.loss import CLASS_LOSS, Objective, Scratch, TopKForm, fused_loss
from ablate.training.mixed_products import matmul
from ablate.training.policy_gradient import Answers, policy_gradient_loss
from ablate.training.teacher_outputs import NoTeacher, TeacherHidden, TeachersHidden, TeacherVectors
from ablate.training.teacher_top_k import CutHidden

WITHOUT_A_MASK = "counted"
AttentionInterface.register(WITHOUT_A_MASK, sdpa_attention_forward)

SIX = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA_1B = {
    "vocab_size": 128,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
}
ROWS, LENGTH = 8, 304
"""A micro-batch of 128 rows of 209 tokens on average, as they are padded."""


def on_meta(name, settings, recipe, dtype=torch.bfloat16):
    """-> (a model on the meta device, what is trained of it)."""
    attention = "eager" if name == "Gemma2Config" else WITHOUT_A_MASK  # torch's kernel has no cap of scores
    config = getattr(transformers, name)(**settings, attn_implementation=attention)
    with torch.device("meta" if settings["vocab_size"] == LLAMA_1B["vocab_size"] else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    weights = trainable.make_trainable(model, recipe, 5, adapters.Origin())
    return model.to("meta"), weights


def counted(model):
    """-> counts of a forward and backward of a model's body, of a first micro-batch."""
    width = model.config.get_text_config().hidden_size
    embedded = torch.empty(ROWS, LENGTH, width, dtype=model.dtype, device="meta", requires_grad=True)
    with counting(model.parameters()) as counts:
        masks = dict.fromkeys(("full_attention", "sliding_attention")) if model.config.model_type == "gemma2" else None
        hidden = model.base_model(inputs_embeds=embedded, attention_mask=masks, use_cache=False)[0]
        torch.autograd.backward(hidden, torch.empty_like(hidden))
    return counts


def of_a_layer(recipe):
    one, two = (counted(on_meta("LlamaConfig", LLAMA_1B | {"num_hidden_layers": num}, recipe)[0]) for num in (1, 2))
    num_tokens = ROWS * LENGTH
    return {
        "kernels": two.kernels - one.kernels,
        "kB moved": (two.bytes_moved - one.bytes_moved) / num_tokens / 1e3,
        "kB kept": (two.bytes_kept - one.bytes_kept) / num_tokens / 1e3,
        "float32": two.flops[torch.float32] - one.flops[torch.float32],
    }


def test_a_layer_with_six_adapters_launches_few_kernels_and_moves_and_keeps_few_bytes():
    """Products in float32, as before: 188 kernels, 2,754 and 154 kB. Without adapters: 98, 1,247 and 76."""
    layer = of_a_layer(Train(lora=Lora(rank=64, alpha=64.0, target_modules=SIX)))
    assert layer["float32"] == 0
    assert layer["kernels"] <= 150
    assert layer["kB moved"] <= 1700
    assert layer["kB kept"] <= 110


def float32_products(counts):
    """-> those that a step of 16 bits may not have.

    Exempt are the angles of rotary embeddings (positions times frequencies), whose sines need every digit: outer
    products, of one factor each.
    """
    return [product for product in counts.products if product.dtype == torch.float32 and product.k > 1]


FAMILIES = ("llama", "qwen2", "gemma2", "phi", "gpt2")
KINDS = {
    "lora": Train(lora=Lora(rank=4, target_modules="all-linear")),
    "scaled": Train(lora=Lora(rank=4, alpha=6.0, use_rslora=True, target_modules="all-linear")),
    "dropout": Train(lora=Lora(rank=4, dropout=0.1, target_modules="all-linear")),
    "dora": Train(lora=Lora(rank=4, use_dora=True, target_modules="all-linear")),
    "dora with dropout": Train(lora=Lora(rank=4, use_dora=True, dropout=0.1, target_modules="all-linear")),
    "everything": Train(lora=None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_layer_of_16_bits_multiplies_float32_or_waits_for_a_value(family, kind):
    name, settings = tiny.FAMILIES[family]
    model, weights = on_meta(name, settings, KINDS[kind])
    weights.seed_dropout(5, 1, range(ROWS), [LENGTH] * ROWS)
    counts = counted(model)
    assert counts.flops[torch.bfloat16] > 0
    assert not float32_products(counts)
    assert counts.syncs == 0


# heads and losses

M, D, V = 6, 8, 40


def narrow(*shape):
    return torch.empty(*shape, dtype=torch.bfloat16, device="meta")


def wide(*shape, dtype=torch.float32):
    return torch.empty(*shape, dtype=dtype, device="meta")


HEADS = {
    "plain": lambda: Head(narrow(V, D), V, scale=0.5),
    "biased": lambda: Head(narrow(V, D), V, bias=narrow(V)),
    "capped": lambda: Head(narrow(V, D), V, softcap=30.0),
    "trained": lambda: Head(narrow(V, D).requires_grad_(), V),
    "trained with a bias": lambda: Head(narrow(V, D).requires_grad_(), V, bias=narrow(V).requires_grad_()),
}
DIVERGENCES = (
    "forward_kl",
    "reverse_kl",
    "symmetric_kl",
    "jsd",
    "tvd",
    "skew_forward_kl",
    "skew_reverse_kl",
    "adaptive_skew_forward_kl",
    "adaptive_skew_reverse_kl",
    "top_k",
)


def hidden_teacher():
    return TeacherHidden(narrow(M, D), Head(narrow(V, D), V))


def cases():
    yield "none", CLASS_LOSS, NoTeacher
    yield (
        "vectors",
        Objective(0.5, parse("forward_kl")),
        lambda: TeacherVectors(wide(M, D), wide(M, dtype=torch.double)),
    )
    yield (
        "tempered vectors",
        Objective(0.5, parse("forward_kl"), 2.0, True),
        lambda: TeacherVectors(wide(M, D), wide(M, dtype=torch.double)),
    )
    for name in DIVERGENCES:
        yield name, Objective(0.5, parse(name), 2.0), hidden_teacher
    yield "live forward_kl", Objective(0.5, parse("forward_kl")), hidden_teacher
    yield (
        "several",
        Objective(0.5, parse("jsd")),
        lambda: TeachersHidden((hidden_teacher(), hidden_teacher()), (0.5, 0.5), "probabilities"),
    )
    yield "cut", Objective(0.5, parse("reverse_kl"), top_k=TopKForm(4, True)), lambda: CutHidden(*hidden_teacher())


CASES = {name: (objective, teacher) for name, objective, teacher in cases()}


PAIRS = [(case, head) for case in CASES for head in HEADS if "vectors" not in case or head == "plain"]


@pytest.mark.parametrize(("case", "head"), PAIRS)
def test_no_loss_of_a_16_bit_model_multiplies_float32(case, head):
    (objective, teacher), student = CASES[case], HEADS[head]()
    labels = torch.empty(M, dtype=torch.int64, device="meta")
    with counting() as counts:
        loss = fused_loss(objective, narrow(M, D), student, labels, teacher(), Scratch())
    assert loss.grad_MD.dtype == torch.bfloat16
    assert counts.flops[torch.bfloat16] > 0
    assert not float32_products(counts)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("is_exact", [True, False])
def test_no_policy_gradient_of_a_16_bit_model_multiplies_float32(is_exact, head):
    policy = Policy(discount=0.0, is_exact=is_exact, normalize_length=False, clip=1.0)
    labels = torch.empty(M, dtype=torch.int64, device="meta")
    answers = Answers(labels, labels)
    with counting() as counts:
        policy_gradient_loss(policy, narrow(M, D), HEADS[head](), answers, hidden_teacher(), Scratch())
    assert counts.flops[torch.bfloat16] > 0
    assert not float32_products(counts)


def test_what_is_projected_beside_a_16_bit_model_multiplies_no_float32():
    weight, bias = wide(7, D).requires_grad_(), wide(7).requires_grad_()
    states = (narrow(M, D).requires_grad_(), wide(M, D).requires_grad_())
    with counting() as counts:
        for state in states:
            matmul(state, weight.T, torch.bfloat16, bias).sum().backward()
    assert {one.grad.dtype for one in (weight, bias)} == {torch.float32}
    assert [state.grad.dtype for state in states] == [torch.bfloat16, torch.float32]
    assert len(counts.products) == 6
    assert not float32_products(counts)


def test_a_trained_heads_gradient_is_added_to_without_another_matrix_of_its_size():
    student = HEADS["trained"]()
    labels = torch.empty(3 * M, dtype=torch.int64, device="meta")
    cuts = [slice(begin, begin + M) for begin in range(0, 3 * M, M)]
    with counting() as counts:
        fused_loss(CLASS_LOSS, narrow(3 * M, D), student, labels, NoTeacher(), Scratch(), cuts)
    assert counts.kernels_by_name["addmm"] == 2  # the first chunk's is the sum
