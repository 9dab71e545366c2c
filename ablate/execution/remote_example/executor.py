"""An executor for another machine, to be read and copied: its cluster answers late, twice, from memory, or not at all.

It takes for granted that the cluster's nodes see the same runs/ at the same path. To make one's own: put the calls of
the cluster in question in the place of `ExampleCluster` (submit, table, cancel), and end this module, in
`ablate/execution/clusters`, with `EXECUTORS.register(NAME)(RemoteExample)`. All else is done for any cluster by
`PilotExecutor`, and the same tests are then run on it: `tests/contracts/test_executors.py`.
"""

import os
from pathlib import Path

from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.remote_example.cluster import ExampleCluster
from ablate.machine.slots import Placing

NAME = "remote_example"


class ExampleOptions(PilotOptions):
    """What a profile of this kind may say, beside what any may."""

    folder: str | None = None
    """Of the cluster; unless said, what ABLATE_EXAMPLE_CLUSTER says."""


class RemoteExample(PilotExecutor):
    """Workers as entries of jobs of a cluster."""

    options = ExampleOptions

    def __init__(self, placing: Placing) -> None:
        options = ExampleOptions.model_validate(dict(placing.options))
        folder = Path(options.folder or os.environ["ABLATE_EXAMPLE_CLUSTER"])
        super().__init__(NAME, placing, ExampleCluster(folder), options)
