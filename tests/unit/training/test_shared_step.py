"""Several ranks, of which one runs out of memory while others wait for it; and a step of no token."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from support import reference
from support import tiny_models as tiny
from torch import Tensor, distributed

from ablate.core.errors import RankLost, StageError
from ablate.study.answer_settings import Sampling
from ablate.training import holdout, ranks, selfcheck
from ablate.training.batches import StepRows
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.loss import CLASS_LOSS
from ablate.training.prompts import Prompt
from ablate.training.shared_step import accumulate_shared
from ablate.training.token_draws import Draws

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
UNSCORED = tiny.random_rows([8, 9], [8, 9])


class FirstOfTwo(ranks.Ranks):
    """Beside another that has the same to say."""

    size = 2

    def __init__(self, *, is_in_step: bool = False, is_full: bool = False) -> None:
        self.is_in_step, self.is_full = is_in_step, is_full

    def gather(self, value):
        return [value, value]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        if self.is_full:
            raise torch.OutOfMemoryError


def training_of(rows=ROWS):
    return reference.training_of("llama", CLASS_LOSS, rows, has_teacher=False)


def out_of_memory(*_):
    raise torch.OutOfMemoryError


def test_out_of_memory_in_a_pass_that_all_ranks_make_together_ends_the_stage():
    training = training_of()
    training.trainable.seed_dropout = out_of_memory
    with pytest.raises(StageError, match="while the others waited for it") as caught:
        accumulate_shared(FirstOfTwo(is_in_step=True), training, training.rows_of(1), 40, "cpu")
    assert caught.value.failure == "oom"


def test_out_of_memory_in_a_pass_of_its_own_is_heard_of_by_all_who_begin_anew():
    training = training_of()
    training.trainable.seed_dropout = out_of_memory
    with pytest.raises(torch.OutOfMemoryError):
        accumulate_shared(FirstOfTwo(), training, training.rows_of(1), 40, "cpu")


def test_out_of_memory_where_gradients_are_added_up_ends_the_stage():
    training = training_of()
    with pytest.raises(StageError, match="while the others waited for it") as caught:
        accumulate_shared(FirstOfTwo(is_full=True), training, training.rows_of(1), 40, "cpu")
    assert caught.value.failure == "oom"


@pytest.mark.parametrize("is_in_step", [True, False])
def test_a_step_without_a_token_to_train_on_has_sums_of_nothing(is_in_step):
    training = training_of(UNSCORED)
    sums = accumulate_shared(FirstOfTwo(is_in_step=is_in_step), training, StepRows(1, UNSCORED, (0, 1)), 40, "cpu")
    assert float(sums.data.class_loss) == 0


def held_out(training, sharing, tmp_path):
    holdout.holdout_losses(training.student, training.rows, 40, "cpu", None, ranks=sharing)


def checked(training, sharing, tmp_path):
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", num_ranks=2)
    selfcheck.require_sound(job, training, 40)


def written(training, sharing, tmp_path):
    prompts = [Prompt(row, 0, (1, 2, 3)) for row in range(4)]
    write_answers(
        Writer(training.student, frozenset(), ranks=sharing), prompts, Sampling(max_new_tokens=2), Draws(1, 1)
    )


@pytest.mark.parametrize("ask", [held_out, checked, written])
def test_out_of_memory_outside_of_a_step_is_not_begun_anew_either_where_all_ranks_are_in_the_same_pass(
    ask, tmp_path, monkeypatch
):
    training, sharing = training_of(), FirstOfTwo(is_in_step=True)
    monkeypatch.setattr(ranks, "_joined", [sharing])
    passes = []

    def full(*_):
        passes.append(1)
        if len(passes) == 1:
            raise torch.OutOfMemoryError

    monkeypatch.setattr(Writer, "are_caches_exact", (True,))  # which is asked before
    training.student.model.base_model.layers[1].register_forward_pre_hook(full)
    with pytest.raises(StageError, match="while the others waited for it") as caught:
        ask(training, sharing, tmp_path)
    assert (caught.value.failure, len(passes)) == ("oom", 1)


class Word:
    """That cannot be brought to other ranks."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self):
        raise self.error


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """-> the one rank of a group."""
    for name, value in ranks.LOOPBACK.items():
        monkeypatch.setenv(name, value)
    store = distributed.FileStore(str(tmp_path / "meeting"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield ranks.SharingRanks(0, 1, lambda: False)
    distributed.destroy_process_group()


def test_a_rank_without_memory_for_what_it_hears_is_out_of_memory_and_no_other_is_thought_lost(alone):
    assert alone.gather(1) == [1]
    with pytest.raises(StageError, match="while the others waited for it") as caught:
        alone.gather(Word(torch.OutOfMemoryError()))
    assert caught.value.failure == "oom"
    with pytest.raises(RankLost, match="no longer answers: connection closed"):
        alone.gather(Word(RuntimeError("connection closed by peer")))
