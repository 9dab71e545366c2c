"""The best schedule there is, as OR-Tools' CP-SAT finds it: what ours is measured against."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ortools.sat.python import cp_model

from ablate.execution.task_graph import Task

PRECISION = 10_000
"""Ticks in the longest chain or so: times are whole numbers there."""


class Judgement(NamedTuple):
    """Both in seconds."""

    bound_s: float
    """No schedule is shorter, proven."""
    best_s: float
    """The shortest that was found."""


def judge(tasks: Sequence[Task], num_cards: int, limit_s: float = 10.0) -> Judgement:
    """-> what is known of the shortest schedule of tasks on equal cards, one stage a card."""
    total_s = sum(task.cost_s for task in tasks)
    tick_s = max(task.cost_s for task in tasks) / PRECISION
    model = cp_model.CpModel()
    horizon = int(total_s / tick_s) + len(tasks)
    spans = {}
    for task in tasks:
        size = int(task.cost_s / tick_s)  # rounded down, so that the bound holds for the true times
        start = model.new_int_var(0, horizon, "")
        spans[task.key] = model.new_fixed_size_interval_var(start, size, task.key)
    for task in tasks:
        for need in (*task.needs, *task.aids):
            if need in spans:
                model.add(spans[task.key].start_expr() >= spans[need].end_expr())
    model.add_cumulative(list(spans.values()), [1] * len(spans), num_cards)
    for twins in _twins(tasks, {task.key: int(task.cost_s / tick_s) for task in tasks}):
        for one, other in itertools.pairwise(twins):
            model.add(spans[one].start_expr() <= spans[other].start_expr())
    end = model.new_int_var(0, horizon, "makespan")
    model.add_max_equality(end, [span.end_expr() for span in spans.values()])
    model.minimize(end)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit_s
    solver.parameters.relative_gap_limit = 0.005
    solver.parameters.num_workers = 8
    solver.parameters.use_overload_checker_in_cumulative = True
    solver.parameters.use_timetable_edge_finding_in_cumulative = True
    solver.parameters.random_seed = 0
    assert solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return Judgement(solver.best_objective_bound * tick_s, solver.objective_value * tick_s)


def _twins(tasks: Sequence[Task], sizes: Mapping[str, int]) -> Iterable[list[str]]:
    """-> tasks that can change places, all that waits for them included: in which order they start is no matter."""
    users: dict[str, list[Task]] = {task.key: [] for task in tasks}
    for task in tasks:
        for need in {*task.needs, *task.aids} & users.keys():
            users[need].append(task)

    def looks(task: Task, below: str | None = None) -> Any:
        needs = sorted(({*task.needs, *task.aids} & users.keys()) - {below})
        return sizes[task.key], needs, sorted(looks(user, task.key) for user in users[task.key])

    alike: dict[str, list[str]] = {}
    for task in tasks:
        alike.setdefault(repr(looks(task)), []).append(task.key)
    return alike.values()
