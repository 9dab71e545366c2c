"""The stand-in hub, where it lies beside the checkout, served on this machine."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

STAND_IN = ROOT.parent / "shared" / "hub" / "local_hub.py"


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


def start_hub(script: Path, home: Path, *options: str) -> ServedHub:
    process = subprocess.Popen(
        [sys.executable, script, "serve", *options], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    return ServedHub(process.stdout.readline().strip(), home, process)
