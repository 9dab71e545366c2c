"""An executor for another machine, to be read and copied: its cluster answers late, twice, from memory, or not at all.

It takes for granted that the cluster's nodes see the same runs/ at the same path. To make one's own: put the calls of
the cluster in question in the place of `ExampleCluster` (submit, table, cancel), and end this module with
`EXECUTORS.register(NAME)(remote_example)`, in `ablate/execution/clusters`. All else is done for any cluster by
`PilotExecutor`, and the same tests are then run on it: `tests/contracts/test_executors.py`.
"""

import os
from pathlib import Path

from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions, options_of
from ablate.execution.remote_example.cluster import ExampleCluster
from ablate.machine.slots import Placing

NAME = "remote_example"


class ExampleOptions(PilotOptions):
    """What a profile of this kind may say, beside what any may."""

    folder: str | None = None
    """Of the cluster; unless said, what ABLATE_EXAMPLE_CLUSTER says."""


def remote_example(placing: Placing) -> PilotExecutor:
    """-> an executor on the cluster that a profile names."""
    options = options_of(ExampleOptions, placing)
    folder = Path(options.folder or os.environ["ABLATE_EXAMPLE_CLUSTER"])
    return PilotExecutor(NAME, placing, ExampleCluster(folder), options)
