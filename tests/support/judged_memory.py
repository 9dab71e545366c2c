"""Stages of real shapes on the meta device, and what an allocator that follows every storage says that they hold."""

from typing import Any

import torch
import transformers
from transformers import AttentionInterface

from ablate.store.sizes import ModelSizes, TensorShape, sizes_of
from ablate.study.training_recipes import Distill, Train
from ablate.training import adapters, batches, trainable
from ablate.training.head import make_head
from ablate.training.loss import CLASS_LOSS, Objective, objective
from ablate.training.model_parts import ModelParts
from ablate.training.optimizer import Optimizer
from ablate.training.step_loss import accumulate
from ablate.training.training import Training
from support import tiny_models as tiny
from support.allocations import Allocations, allocations

LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
LLAMA_3B = LLAMA_1B | {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "head_dim": 128,
}
LLAMA_8B = LLAMA_1B | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
QWEN_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
FLASH = "judged"


def _flash(module: Any, query: Any, key: Any, value: Any, mask: Any = None, scaling: Any = None, **_: Any) -> Any:
    """As a card's kernel: no score is kept."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    return flash(query, key, value, 0.0, True, scale=scaling)[0].transpose(1, 2).contiguous(), None


AttentionInterface.register(FLASH, _flash)


def meta_model(shape: dict[str, Any], kind: str = "Llama", dtype: torch.dtype = torch.bfloat16) -> Any:
    """-> a causal model without numbers."""
    config = getattr(transformers, f"{kind}Config")(**shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.set_attn_implementation(FLASH)
    return model


def sizes(model: Any) -> ModelSizes:
    """-> as they are read from a model's files."""
    shapes = [TensorShape(name, tuple(weight.shape)) for name, weight in model.named_parameters()]
    known = sizes_of(model.config.to_dict(), shapes)
    assert known
    return known


def meta_training(recipe: Train, student: Any, teacher: Any = None, lengths: tuple[int, ...] = (1024,)) -> Training:
    """-> a training whose step reads rows of such lengths."""
    weights = trainable.make_trainable(student, recipe, 0, adapters.Origin())
    goal: Objective = objective(recipe) if isinstance(recipe, Distill) else CLASS_LOSS
    return Training(
        recipe=recipe,
        seed=0,
        rows=tiny.random_rows(list(lengths)),
        student=parts(student),
        trainable=weights,
        objective=goal,
        teacher=parts(teacher) if teacher is not None else None,
    )


def parts(model: Any) -> ModelParts:
    """-> a model cut in two without a look at its numbers."""
    head = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return ModelParts(model, make_head(head.weight, head.bias, head.weight.shape[0], 1.0, cap))


def two_steps(training: Training, budget: int = 1 << 20, device: str = "meta") -> Allocations:
    """-> what was allocated in two optimizer steps, all that is loaded included."""
    loaded = [training.student.model, *([training.teacher.model] if training.teacher else [])]
    tensors = [tensor for model in loaded for tensor in (*model.parameters(), *model.buffers())]
    with allocations([*tensors, *training.trainable.weights.values()]) as held:
        optimizer = Optimizer(training.trainable.weights, training.recipe)
        for _ in range(2):
            training.trainable.discard_grads()
            rows = batches.StepRows(1, training.rows, tuple(range(len(training.rows))))
            accumulate(training, rows, budget, device)
            optimizer.adamw.step()
            training.trainable.update_model()
    return held
