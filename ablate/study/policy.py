"""How the gradient of the reverse KL of whole answers is estimated, as the engine and the cost of it need to know."""

from typing import NamedTuple

from ablate.study.training_recipes import Distill


class Policy(NamedTuple):
    """What of a recipe decides the estimate: see ablate/training/policy_gradient.py."""

    discount: float
    is_exact: bool
    """Whether a token's own reward is its expectation over the vocabulary."""
    normalize_length: bool
    clip: float | None
    """Most that a token's weight may be; None: an answer's tokens all have the product of its weights."""
    mix: float = 0.0
    """The teacher's share of the distribution that answers were drawn from; 0 makes every weight 1."""

    @property
    def needs_whole_answers(self) -> bool:
        """Whether what a token is given hangs on other tokens, so that both heads are asked twice."""
        return self.discount > 0 or (self.mix > 0 and self.clip is None)


def policy_of(recipe: Distill) -> Policy | None:
    """-> the estimate that a recipe asks for; None where the divergence at each token is lowered."""
    if recipe.objective == "divergence":
        return None
    how = recipe.policy_gradient
    mix = recipe.sampling.mix if recipe.answers == "mixed" else 0.0
    return Policy(how.discount, how.single_step == "exact", how.normalize_length, how.clip, mix)
