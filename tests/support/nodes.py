"""Processes that take themselves to be on another machine: nobody here can ask or signal them by what they write."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from support.toys import TOYS

ON_NODE = """
import runpy, socket, sys
node, patience_s, *sys.argv = sys.argv[1:]
socket.gethostname = lambda: node
sys.path.insert(0, sys.argv.pop(0))
from ablate.execution import driver_records
driver_records.PATIENCE_S = float(patience_s)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def on_node(node: str, script: Path, *arguments: object, patience_s: float = 30.0, **how: Any) -> subprocess.Popen:
    """Starts a script of the tests as on a machine of that name; `patience_s` of it with drivers on others."""
    support = str(TOYS.parents[1])
    command = [sys.executable, "-c", ON_NODE, node, str(patience_s), support, str(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)


def toys_on(node: str, root: Path, steps: int = 60, step_s: float = 0.05, **how: Any) -> subprocess.Popen:
    """-> a driver of two toys, as in `support.toys`."""
    return on_node(node, TOYS, root, 2, step_s, "fresh", steps, **how)
