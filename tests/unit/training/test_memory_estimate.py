"""What a stage is thought to hold of a card, against an allocator that follows every storage."""

import pytest
import torch
import transformers
from support import judged_memory as judged
from support import tiny_models as tiny

from ablate.study.training_recipes import Distill, Train
from ablate.training import adapters, trainable
from ablate.training.layer_shapes import num_trained
from ablate.training.loss import CLASS_LOSS
from ablate.training.memory_estimate import CLASS_LOSS as CLASS_LOSS_TENSORS
from ablate.training.memory_estimate import Beside, TrainingMemory, peak_tensors
from ablate.training.model_parts import split_model
from ablate.training.training import Training

WIDER = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
OTHERS = {
    "gpt2": {"n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 256},
    "phi": WIDER | {"num_key_value_heads": 4},
    "gemma2": WIDER | {"head_dim": 32},
}
WAYS = {
    "lora": {"lora": {"target_modules": "all-linear", "rank": 8}},
    "dora": {"lora": {"target_modules": "all-linear", "rank": 8, "use_dora": True}},
    "all weights": {"lora": None},
    "checkpointing": {"lora": {"target_modules": "all-linear", "rank": 8}, "gradient_checkpointing": True},
}
ROWS = [250] * 4


def wide_model(family):
    name, settings = tiny.FAMILIES[family]
    config = getattr(transformers, name)(**settings | OTHERS.get(family, WIDER))
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2", "cohere", "phi"])
def test_a_training_holds_what_is_estimated(family, way):
    model, recipe = wide_model(family), Train.model_validate(WAYS[way])
    sizes = judged.sizes(model)
    weights = trainable.make_trainable(model, recipe, 0, adapters.Origin())
    assert num_trained(sizes, recipe.lora) == sum(weight.numel() for weight in weights.weights.values())
    parts = split_model(model, tiny.VOCABULARY)
    training = Training(recipe, 0, tiny.random_rows(ROWS), parts, weights, CLASS_LOSS)
    memory = TrainingMemory(recipe, sizes, "float32", CLASS_LOSS_TENSORS).at(sum(ROWS), max(ROWS))
    assert memory.total - memory.context == pytest.approx(judged.two_steps(training, device="cpu").peak, rel=0.15)


FEW = {"num_hidden_layers": 4}
REAL = {
    "Llama 1B": (judged.LLAMA_1B | FEW, "Llama"),
    "Llama 3B": (judged.LLAMA_3B | FEW, "Llama"),
    "Llama 8B": (judged.LLAMA_8B | FEW, "Llama"),
    "Qwen 0.5B": (judged.QWEN_05B, "Qwen2"),
}


@pytest.mark.parametrize("tokens", [1024, 8192])
@pytest.mark.parametrize("model", REAL)
def test_of_real_shapes_in_bfloat16_too(model, tokens):
    recipe, student = Train(), judged.meta_model(*REAL[model])
    memory = TrainingMemory(recipe, judged.sizes(student), "bfloat16", peak_tensors(recipe)).at(tokens, tokens)
    held = judged.two_steps(judged.meta_training(recipe, student, lengths=(tokens,)))
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
    assert memory.needed - held.given == pytest.approx(held.peak - held.given, rel=0.15)


@pytest.mark.parametrize("loss", ["forward_kl", "reverse_kl", "jsd", "adaptive_skew_forward_kl", "tvd"])
def test_beside_a_live_teacher_under_every_kind_of_loss(loss):
    recipe, student = Distill.model_validate({"loss": loss}), judged.meta_model(*REAL["Llama 1B"])
    teacher = judged.meta_model(*REAL["Llama 8B"])
    beside = Beside((judged.sizes(teacher),), outputs=judged.LLAMA_8B["hidden_size"])
    memory = TrainingMemory(recipe, judged.sizes(student), "bfloat16", peak_tensors(recipe), beside).at(2048, 2048)
    held = judged.two_steps(judged.meta_training(recipe, student, teacher, (2048,)))
    assert memory.needed == pytest.approx(held.peak, rel=0.15)


@pytest.mark.parametrize("way", [{"gradient_checkpointing": True}, {"lora": None}])
def test_checkpointed_and_of_all_weights_too(way):
    recipe, student = Train.model_validate(way), judged.meta_model(*REAL["Llama 1B"])
    memory = TrainingMemory(recipe, judged.sizes(student), "bfloat16", peak_tensors(recipe)).at(4096, 4096)
    held = judged.two_steps(judged.meta_training(recipe, student, lengths=(4096, 4096)), budget=4096)
    assert memory.needed == pytest.approx(held.peak, rel=0.15)
