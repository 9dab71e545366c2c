"""Whether answers that vLLM is to write can be, by what is known before anything is made."""

from ablate.core.errors import Problem, StudyError
from ablate.planning.plan import Plan
from ablate.stages.generate import GenerateSettings
from ablate.study.vllm_words import NO_CARD, NOT_INSTALLED, is_installed


def require_vllm(plan: Plan, *, has_card: bool) -> None:
    """Raises StudyError where vLLM is to write answers that are not there yet, and it is not installed or has no card.

    Stages run with the Python that asks here.
    """
    generated = ((stage, stage.settings) for stage in plan.stages)
    by_vllm = [one for one, how in generated if isinstance(how, GenerateSettings) and how.sampling.writer == "vllm"]
    faults = [NOT_INSTALLED] * (not is_installed()) + [NO_CARD] * (not has_card)
    if faults and any(plan.store.done(stage) is None for stage in by_vllm):
        raise StudyError([Problem(None, fault) for fault in faults])
