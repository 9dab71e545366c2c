"""Shared by all tests: a home of their own, and the stand-in hub where it lies beside the checkout."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# before torch is imported anywhere: two thread pools on a small machine wait for each other
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}

# before huggingface_hub is: no test reads or writes the caches of whoever runs it
_HOME = tempfile.TemporaryDirectory(prefix="ablate-tests-")
os.environ |= {"XDG_CACHE_HOME": _HOME.name, "HF_HOME": f"{_HOME.name}/huggingface"}

LONGEST = ("test_soak.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no core waits for them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A worker or driver that runs in the tests' process keeps no signal of it: pools are ended by SIGTERM."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


STAND_IN = Path(__file__).parents[1].parent / "shared" / "hub" / "local_hub.py"


@pytest.fixture(scope="session")
def hub() -> Path:
    """The stand-in hub's script."""
    if not STAND_IN.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the stand-in hub is missing: {STAND_IN}")
        pytest.skip(f"wants the stand-in hub: {STAND_IN}")
    return STAND_IN


@dataclass(frozen=True)
class ServedHub:
    """A stand-in hub that runs, and a folder for what is downloaded from it."""

    url: str
    home: Path
    process: subprocess.Popen[str]

    def env(self, **more: str) -> dict[str, str]:
        """An environment whose hub is this one, with no token in it unless given (HF_TOKEN=...)."""
        left_out = {"HF_TOKEN", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"}
        env = {name: value for name, value in os.environ.items() if name not in left_out}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(self.home), "HF_HUB_DISABLE_XET": "1"}
        env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        return env | more

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


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


def start_hub(script: Path, home: Path, *options: str) -> ServedHub:
    process = subprocess.Popen(
        [sys.executable, script, "serve", *options], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    return ServedHub(process.stdout.readline().strip(), home, process)
