"""Evaluation on a card: lm-eval's answers."""

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from support import tiny_models as tiny
from support.asking import Ear, agree, instances
from support.tree_requests import ALL, BRANCHING, SHARING, make, with_preamble

from ablate.evaluation.model import SharingLM

PAIRS = {"all sorts": ALL, "one preamble": with_preamble(BRANCHING)}


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("family", SHARING)
def test_every_answer_in_float32_is_lm_evals(family, pairs):
    ear = agree(make(family).cuda(), tiny.tokenizer(), pairs)
    assert (ear.num_of_lm_evals, ear.notes.keys() - {"cut from the left"}) == (0, set())


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_answers_in_bfloat16_differ_by_its_rounding(family):
    model, ear, asked = make(family).cuda().bfloat16(), Ear(), instances(ALL)
    exact = HFLM(pretrained=make(family).double().cuda(), tokenizer=tiny.tokenizer(), batch_size=1)
    theirs = HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=1)
    reference = torch.tensor([answer[0] for answer in exact.loglikelihood(asked, disable_tqdm=True)])
    errors = [
        float((torch.tensor([answer[0] for answer in answers]) - reference).abs().mean())
        for answers in (SharingLM(model, tiny.tokenizer(), 4, ear).loglikelihood(asked), theirs.loglikelihood(asked))
    ]
    assert ear.num_of_lm_evals == 0
    assert errors[0] < 1.5 * errors[1]


def test_a_card_that_is_too_small_is_answered_with_smaller_micro_batches():
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    settings = tiny.SMALL | {"hidden_size": 1024, "intermediate_size": 8192, "initializer_range": 0.02}
    settings["max_position_embeddings"] = 1024
    settings["vocab_size"] = len(tiny.tokenizer()) + 3
    model = AutoModelForCausalLM.from_config(LlamaConfig(**settings)).cuda().eval()
    pairs = [(f"{number} " * 90, f" ENDING {ending}" * 4) for number in range(100, 164) for ending in "ABCD"]
    roomy, small = Ear(), Ear()
    whole = SharingLM(model, tiny.tokenizer(), 4, roomy).loglikelihood(instances(pairs))
    peak, held = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((held + (peak - held) / 2) / total)
    again = SharingLM(model, tiny.tokenizer(), 4, small).loglikelihood(instances(pairs))
    assert "halved" in small.notes["out of memory"]
    assert "out of memory" not in roomy.notes
    assert [answer[0] for answer in again] == pytest.approx([answer[0] for answer in whole], abs=1e-3)
