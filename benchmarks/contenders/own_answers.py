"""ablate's step on answers that the student writes for it."""

from collections.abc import Mapping
from dataclasses import replace

from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.study.training_recipes import Distill
from ablate.training import batches, trainable
from ablate.training.adapters import Origin
from ablate.training.card_room import card_room
from ablate.training.decode_loop import Writer
from ablate.training.giving_way import fitted_budget
from ablate.training.loss import objective, own_objective
from ablate.training.model_parts import split_model
from ablate.training.on_policy import Writing, Written
from ablate.training.optimizer import Optimizer
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.training import Training
from benchmarks import models, rows
from benchmarks.contenders.ours import recipe_of
from benchmarks.setup import ENDS, LR, NEW_TOKENS, Setup


def prompts(setup: Setup) -> TokenRows:
    """-> rows whose answers, of one token, are not looked at."""
    asked = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
    return lay(TokenRow([*ids, ENDS], [False] * len(ids) + [True]) for ids in asked)


class OwnAnswers:
    """Reverse KL at all of their tokens, the teacher beside."""

    forwarded = 0

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.models = {
            name: models.load(setup.model(name), setup.dtype, setup.device) for name in ("student", "teacher")
        }

    def prepare(self) -> None:
        setup = self.setup
        own = {"answers": "student", "loss": "reverse_kl", "sampling": {"max_new_tokens": NEW_TOKENS}}
        recipe = Distill.model_validate(recipe_of(setup).model_dump() | own)
        weights = trainable.make_trainable(self.models["student"], recipe, setup.seed, Origin())
        student, teacher = (split_model(self.models[name], setup.vocabulary) for name in ("student", "teacher"))
        training = Training(recipe, setup.seed, prompts(setup), student, weights, objective(recipe))
        writing = Writing(recipe, setup.seed, 1000, Writer(student, frozenset({ENDS})), str)
        self.training = replace(training, own_objective=own_objective(recipe), teacher=teacher, writing=writing)
        self.optimizer = Optimizer(weights.weights, recipe)
        self.written = Written.nothing(writing)
        self.budget = fitted_budget(self.training, card_room(setup.device))

    def step(self) -> Mapping[str, float]:
        training = self.training
        own = self.written.step(training.rows_of(1), lambda: None)
        counts = batches.counts(own.rows)
        training.trainable.discard_grads()
        sums = accumulate(training, own.rows, self.budget, self.setup.device)
        losses = mean_losses(training, sums, counts.loss)
        self.optimizer.divide_grad(counts.loss)
        self.optimizer.step(LR)
        training.trainable.update_model()
        self.written.finish(own, sums.own)
        self.forwarded = counts.all
        return {"kd_loss": losses["kd_loss"], "writing_share": own.seconds}
