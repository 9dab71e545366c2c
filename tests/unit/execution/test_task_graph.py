"""Which stage waits for which, and how long the chain behind each takes."""

from ablate.execution.task_graph import Task, TaskGraph


def task(name: str, *needs: str, aids: tuple[str, ...] = (), cost: float = 1.0, kind: str = "toy") -> Task:
    return Task(name, kind, name, "heavy", needs, cost, aids)


def test_a_task_is_free_once_its_needs_are_done_and_its_aids_are_over():
    graph = TaskGraph([task("need"), task("aid"), task("user", "need", aids=("aid",))])
    assert not graph.is_free("user")
    assert graph.end("aid", is_done=False) == ["user"]
    assert not graph.is_free("user")
    assert graph.end("need", is_done=True) == ["user"]
    assert graph.is_free("user")


def test_a_need_that_came_to_nothing_frees_nobody():
    graph = TaskGraph([task("need"), task("user", "need")])
    assert graph.end("need", is_done=False) == []
    assert not graph.is_free("user")


def test_what_is_not_in_it_counts_as_done():
    assert TaskGraph([task("user", "done before", aids=("so was this",))]).is_free("user")


def test_the_longest_chain_behind_a_task_counts_with_what_each_kind_takes():
    tasks = [task("head", cost=2), task("short", "head", cost=1), task("long", aids=("head",), cost=3, kind="slow")]
    assert TaskGraph(tasks).remaining_s({"toy": 1, "slow": 10}) == {"head": 32, "short": 1, "long": 30}
