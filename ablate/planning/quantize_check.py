"""Whether weights that are to be kept in few bits can be, by what is known before anything is made."""

from ablate.core.errors import Problem, StudyError
from ablate.planning.plan import Plan
from ablate.study.quantize import NOT_INSTALLED, is_installed


def require_quantizer(plan: Plan) -> None:
    """Raises StudyError where bitsandbytes is needed for something that is not there yet, and is not installed.

    Stages run with the Python that asks here.
    """
    stages = [] if is_installed() else [stage for stage in plan.stages if _needs_it(stage.settings)]
    if any(plan.store.done(stage) is None for stage in stages):
        raise StudyError([Problem(None, NOT_INSTALLED)])


def _needs_it(settings: object) -> bool:
    quantize = getattr(settings, "quantize", None)
    return "nf4" in (quantize.values() if isinstance(quantize, dict) else [quantize])
