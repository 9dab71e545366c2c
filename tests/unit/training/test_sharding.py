"""Which module of a family gathers the weights of a sharded training, with a process group of one."""

import pytest
import torch
from support import tiny_models as tiny
from torch import distributed

from ablate.training import ranks
from ablate.training.batches import ModelInputs
from ablate.training.model_parts import split_model
from ablate.training.sharding import shard

FURTHER = {
    "opt": ("OPTConfig", tiny.SMALL | {"ffn_dim": 32, "word_embed_proj_dim": 24}),
    "gpt_neox": ("GPTNeoXConfig", tiny.SMALL),
    "one layer": ("LlamaConfig", tiny.SMALL | {"num_hidden_layers": 1}),
}
IDS = torch.arange(10)[None]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """-> the one rank of a group."""
    for name, value in ranks.LOOPBACK.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tiny, "FAMILIES", tiny.FAMILIES | FURTHER)
    store = distributed.FileStore(str(tmp_path / "meeting"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield ranks.Ranks()
    distributed.destroy_process_group()


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "one layer"])
def test_a_sharded_model_answers_as_it_did_by_its_head_and_by_its_body(family, alone):
    model = tiny.make(family).requires_grad_(False)
    logits, states = model(input_ids=IDS).logits, model.base_model(input_ids=IDS).last_hidden_state
    shard(model, "cpu", alone)
    parts = split_model(model, tiny.VOCABULARY)  # which asks the head first
    assert parts.head.weight is not None
    assert torch.equal(model(input_ids=IDS).logits, logits)
    assert torch.equal(model.base_model(input_ids=IDS).last_hidden_state, states)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "gemma2"])
def test_a_sharded_model_gives_the_states_of_its_layers_too(family, alone):
    whole, model = (tiny.make(family).requires_grad_(False) for _ in range(2))
    known = whole.base_model(input_ids=IDS, output_hidden_states=True).hidden_states
    shard(model, "cpu", alone)
    parts = split_model(model, tiny.VOCABULARY)
    _, states = parts.hidden_and_layers(ModelInputs(IDS, torch.arange(IDS.numel())), range(parts.depth + 1))
    assert all(torch.equal(ours, theirs[0]) for ours, theirs in zip(states, known, strict=True))
