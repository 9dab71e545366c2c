"""Shared by all tests: a home of their own, and the stand-in hub where it lies beside the checkout."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.paths import TESTS
from support.served_hub import STAND_IN, ServedHub, start_hub

# before torch is imported anywhere: two thread pools on a small machine wait for each other
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

# before huggingface_hub is: no test reads or writes the caches of whoever runs it
_HOME = tempfile.TemporaryDirectory(prefix="ablate-tests-")
os.environ |= {"XDG_CACHE_HOME": _HOME.name, "HF_HOME": f"{_HOME.name}/huggingface"}

# processes that tests start find what tests share
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))

NOT_TESTED = "NOT TESTED"
"""How the reason of a skipped test begins that should have run: what it runs on is missing here."""

LONGEST = (
    "test_clusters.py", "test_slurm.py", "test_soak.py", "test_ray.py", "test_interrupted.py", "test_detach.py",
    "test_cluster_soak.py",
)  # fmt: skip
"""Files whose tests take longest: those that compute in turn with those that mostly wait, for each other's cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no core waits for them at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not tested for want of something is told last, and in red."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", ()))
    reasons = (reason[2] for reason in skipped if isinstance(reason, tuple))
    for reason in sorted({reason.removeprefix("Skipped: ") for reason in reasons}):
        if reason.startswith(NOT_TESTED):
            terminalreporter.write_line(reason, red=True, bold=True)


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A worker or driver that runs in the tests' process keeps no signal of it: pools are ended by SIGTERM."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def hub() -> Path:
    """The stand-in hub's script."""
    if not STAND_IN.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the stand-in hub is missing: {STAND_IN}")
        pytest.skip(f"wants the stand-in hub: {STAND_IN}")
    return STAND_IN


@pytest.fixture
def serve_hub(hub: Path, tmp_path: Path) -> Iterator[Callable[..., ServedHub]]:
    """Starts stand-in hubs, `serve_hub("--gated", "meta-llama")`, each with the test's own download folder."""
    started: list[ServedHub] = []

    def serve(*options: str) -> ServedHub:
        started.append(start_hub(hub, tmp_path / "hf", *options))
        return started[-1]

    yield serve
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def plain_hub(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHub]:
    """One stand-in hub without faults for the whole session; what one test downloads, the next one finds."""
    served = start_hub(hub, tmp_path_factory.mktemp("hub") / "hf")
    yield served
    served.stop()


@pytest.fixture(scope="session")
def ray_head() -> Iterator[None]:
    """The head of a real Ray, which tests of one session share."""
    from support import ray_cluster  # it takes the executors with it

    ray_cluster.require_ray()
    with ray_cluster.shared_head():
        yield
