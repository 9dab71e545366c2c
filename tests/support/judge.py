"""The best schedule there is, as OR-Tools' CP-SAT finds it, on equal cards or not: what ours is measured against."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    return _solved(model, [span.end_expr() for span in spans.values()], horizon, tick_s, limit_s)


def judge_unequal(
    tasks: Sequence[Task], seconds: Callable[[Task, str], float], nums: Mapping[str, int], limit_s: float = 10.0
) -> Judgement:
    """-> the same on cards of several sorts (unrelated machines). `nums`: how many there are of each.

    `seconds`: what a task takes on one of them.
    """
    quickest_s = {task.key: min(seconds(task, sort) for sort in nums) for task in tasks}
    tick_s = max(quickest_s.values()) / PRECISION
    model, horizon = cp_model.CpModel(), int(sum(quickest_s.values()) / tick_s) + len(tasks)
    starts = {task.key: model.new_int_var(0, horizon, "") for task in tasks}
    ends = {task.key: model.new_int_var(0, horizon, "") for task in tasks}
    spans: dict[str, list[Any]] = {sort: [] for sort in nums}
    for task in tasks:
        chosen = {sort: model.new_bool_var("") for sort in nums}
        model.add_exactly_one(chosen.values())
        for sort, is_chosen in chosen.items():
            size = int(seconds(task, sort) / tick_s)  # rounded down, so that the bound holds for the true times
            key = task.key
            spans[sort].append(model.new_optional_interval_var(starts[key], size, ends[key], is_chosen, ""))
        for need in {*task.needs, *task.aids} & starts.keys():
            model.add(starts[task.key] >= ends[need])
    for sort, num in nums.items():
        model.add_cumulative(spans[sort], [1] * len(spans[sort]), num)
    return _solved(model, list(ends.values()), horizon, tick_s, limit_s)


def judge_shared(
    tasks: Sequence[Task], seconds: Callable[[Task, int], float], num_cards: int, limit_s: float = 10.0
) -> Judgement:
    """-> the same on equal cards of which a task has any number at once. `seconds`: what it takes on so many."""
    nums, tick_s = range(1, num_cards + 1), max(task.cost_s for task in tasks) / PRECISION
    model, horizon = cp_model.CpModel(), int(sum(task.cost_s for task in tasks) / tick_s) + len(tasks)
    starts = {task.key: model.new_int_var(0, horizon, "") for task in tasks}
    ends = {task.key: model.new_int_var(0, horizon, "") for task in tasks}
    spans, demands = [], []
    for task in tasks:
        chosen = {num: model.new_bool_var("") for num in nums}
        model.add_exactly_one(chosen.values())
        for num, is_chosen in chosen.items():
            size = int(seconds(task, num) / tick_s)  # rounded down, so that the bound holds for the true times
            spans.append(model.new_optional_interval_var(starts[task.key], size, ends[task.key], is_chosen, ""))
            demands.append(num)
        for need in {*task.needs, *task.aids} & starts.keys():
            model.add(starts[task.key] >= ends[need])
    model.add_cumulative(spans, demands, num_cards)
    return _solved(model, list(ends.values()), horizon, tick_s, limit_s)


def _solved(model: Any, ends: Sequence[Any], horizon: int, tick_s: float, limit_s: float) -> Judgement:
    end = model.new_int_var(0, horizon, "makespan")
    model.add_max_equality(end, ends)
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
