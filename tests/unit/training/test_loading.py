"""What it takes to load a model and merge what was trained on top of it: memory of the host, reads of the disk."""

import gc
import weakref
from collections import Counter

import pytest
import torch
from support import tiny_models as tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters, merging, models, trainable
from ablate.training.adapters import Origin

RECIPE = Lora(rank=4, alpha=8.0)


class Live(TorchDispatchMode):
    """Bytes of the storages that operations made on the CPU and that something still holds."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key, size):
        self.known.discard(key)
        self.live -= size


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """-> a model's folder, in float32, and the folders of an adapter and of a training of all weights on top."""
    root = tmp_path_factory.mktemp("loading")
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=500, num_hidden_layers=8, **shape)).eval()
    model.save_pretrained(root / "base")
    tiny.tokenizer().save_pretrained(root / "base")
    for folder in ("whole", "adapter"):
        (root / folder).mkdir()
    trainable.FullWeights(model).save(root / "whole")
    attached = adapters.attach(model, RECIPE, 0)
    for adapter in attached.values():
        torch.nn.init.normal_(adapter.lora_B, std=0.05)
    adapters.save(root / "adapter", attached, RECIPE, Origin())
    return root


@pytest.mark.parametrize(
    ("chain", "dtype"), [((), "bfloat16"), (("adapter", "adapter"), "bfloat16"), (("whole", "adapter"), "float32")]
)
def test_the_host_holds_the_model_and_one_weight_more_while_it_is_loaded_and_merged(stored, chain, dtype, monkeypatch):
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # this thread alone is counted
    folders = [stored / name for name in chain]
    models.load_merged(stored / "base", folders, dtype)
    gc.collect()
    with Live() as held:
        model = models.load_merged(stored / "base", folders, dtype).model
    num_bytes = sum(weight.nbytes for weight in model.parameters())
    largest = max(weight.numel() for weight in model.parameters()) * 4
    assert held.peak <= num_bytes + 3 * largest  # beside it the product of an adapter, and the sum before it is cast


def test_only_weights_that_a_training_changed_are_read_once_more(stored):
    """Of a checkpoint in float32 for a model in bfloat16, whose own weights are rounded."""
    reads = Counter()
    model = models.load_merged(stored / "base", (), "bfloat16").model
    checkpoint = merging.Checkpoint(stored / "base", model, pytest.fail)

    def exact(name):
        reads[name] += 1
        return checkpoint.weight(name)

    merging.merge(model, [stored / "adapter", stored / "adapter"], exact=exact)
    assert reads == dict.fromkeys((f"{name}.weight" for name in adapters.attach(model, RECIPE, 0)), 1)


def test_an_adapter_on_a_tied_head_leaves_the_embedding_as_it_is(tmp_path):
    """As in peft, where it is not merged; whatever the dtypes of file and model."""
    base = tiny.save(tmp_path / "base", "llama_tied", 1)
    model = tiny.make("llama_tied", 1)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    recipe = Lora(rank=3, alpha=6.0, target_modules=("lm_head",))
    attached = adapters.attach(model, recipe, 0)
    torch.nn.init.normal_(attached["lm_head"].lora_B, std=0.5)
    adapters.save(tmp_path, attached, recipe, Origin())
    for dtype in ("float32", "bfloat16"):
        merged = models.load_merged(base, [tmp_path], dtype).model
        plain = models.load_merged(base, (), dtype).model
        assert torch.equal(merged.model.embed_tokens.weight, plain.model.embed_tokens.weight)
        wanted = tiny.make("llama_tied", 1).lm_head.weight + attached["lm_head"].scale * (
            attached["lm_head"].lora_B @ attached["lm_head"].lora_A
        )
        torch.testing.assert_close(merged.lm_head.weight, wanted.to(merged.dtype))


def test_what_all_weights_were_trained_to_is_cast_once(stored):
    exact = models.load_merged(stored / "base", [stored / "whole", stored / "adapter"], "float32").model
    narrow = models.load_merged(stored / "base", [stored / "whole", stored / "adapter"], "bfloat16").model
    for name, weight in narrow.named_parameters():
        assert torch.equal(weight, exact.get_parameter(name).bfloat16())
    assert trainable.make_trainable(narrow, Train(lora=None), 0, Origin()).weights
