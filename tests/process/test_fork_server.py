"""What the fork server imports beforehand."""

import subprocess
import sys

from ablate.execution import fork_server

STRICTLY = """
import importlib
from ablate.execution.fork_server import modules
for name in modules():
    importlib.import_module(name)
"""


def test_all_that_the_fork_server_imports_can_be_imported():
    """`warm_up` leaves out what cannot: a name that has gone stale would make every start slower, without a word."""
    done = subprocess.run([sys.executable, "-c", STRICTLY], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def test_every_package_of_ours_is_imported_with_its_modules():
    names = fork_server.modules()
    for package in fork_server.OURS:
        assert any(name.startswith(f"{package}.") for name in names)
