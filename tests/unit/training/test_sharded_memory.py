"""What a rank of a sharded training holds of the models' weights, by torch's FSDP2 itself (a process group of one)."""

import weakref

import pytest
import torch
import torch.distributed as dist
import transformers
from support import judged_cards as by_hand
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ablate.training import ranks, sharding

NUM_CARDS = 8
NUM_LAYERS = 8


class FakeRanks(ranks.Ranks):
    size = NUM_CARDS


class Resized(TorchDispatchMode):
    """The bytes of all storages after each operation, at most: FSDP2 gives them back by making them empty."""

    def __init__(self, given):
        super().__init__()
        self._storages = {}
        self.peak = 0
        for tensor in given:
            self._add(tensor)

    def _add(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._storages.setdefault(key, weakref.ref(storage, lambda _: self._storages.pop(key, None)))

    @property
    def live(self):
        return sum(storage.nbytes() for known in list(self._storages.values()) if (storage := known()))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((result, args, kwargs)):
            if type(value) in (torch.Tensor, torch.nn.Parameter):
                self._add(value)
        self.peak = max(self.peak, self.live)
        return result


@pytest.fixture
def model():
    """-> a model in shards, whose layers are far larger than what goes through them, as the first of eight ranks."""
    dist.init_process_group("fake", rank=0, world_size=NUM_CARDS, store=FakeStore())
    widths = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
    config = transformers.LlamaConfig(**widths, num_hidden_layers=NUM_LAYERS, vocab_size=64, pad_token_id=0)
    yield transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).requires_grad_(False)
    dist.destroy_process_group()


def test_a_rank_holds_its_part_of_all_layers_and_gathers_three_at_most_on_the_way_there_and_two_on_the_way_back(model):
    layer, whole = by_hand.nbytes(model.model.layers[0].parameters()), by_hand.shard(model, NUM_CARDS)
    buffers = by_hand.nbytes(model.buffers())
    sharding.shard(model, "cpu", FakeRanks())
    locals_ = [getattr(weight, "_local_tensor", weight) for weight in model.parameters()]
    seen = Resized([*locals_, *model.buffers()])
    assert seen.live == whole + buffers
    inputs = torch.zeros(1, 2, 256, dtype=torch.bfloat16, requires_grad=True)
    with seen:
        hidden = model.base_model(inputs_embeds=inputs, use_cache=False)[0]
        there, seen.peak = seen.peak - whole, 0
        hidden.float().sum().backward()
    assert there / layer == pytest.approx(3, abs=0.1)
    assert (seen.peak - whole) / layer == pytest.approx(2, abs=0.1)
    assert seen.live - whole < 0.1 * layer
