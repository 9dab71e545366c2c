"""Where a study was read from, and with which overrides."""

from ablate.planning.plan import Plan


def study_file(plan: Plan) -> str | None:
    """-> the file that the study was read from: below its root where it lies there, else with its folder's name."""
    origin, root = plan.origin, plan.store.root
    if origin is None:
        return None
    parts = origin.file.relative_to(root).parts if origin.file.is_relative_to(root) else origin.file.parts[-2:]
    return "/".join(parts)


def overrides(plan: Plan) -> tuple[str, ...]:
    """-> as given with --set."""
    return plan.origin.overrides if plan.origin else ()
