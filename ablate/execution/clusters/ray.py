"""Stages as pilot jobs of Ray: kind `ray`, actors of a Ray cluster that the driver's machine is a node of."""

import importlib.util
from collections.abc import Iterable

from ablate.core.doctor_line import Line
from ablate.core.errors import AblateError
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.pilots.executor import PilotExecutor
from ablate.execution.ray_cluster.cluster import RayCluster
from ablate.execution.ray_cluster.options import RayOptions
from ablate.machine.slots import Placing

NAME = "ray"


@EXECUTORS.register(NAME)
class RayExecutor(PilotExecutor):
    """Workers as entries of jobs that are actors. Raises AblateError where Ray is not installed."""

    options = RayOptions

    def __init__(self, placing: Placing) -> None:
        if importlib.util.find_spec("ray") is None:
            raise AblateError(
                "executor 'ray' wants Ray, which is not installed here: pip install 'ablate[ray]', in the version that"
                " the cluster runs, on this machine and on its nodes"
            )
        options = RayOptions.model_validate(dict(placing.options))
        self._ray = RayCluster(options)
        super().__init__(NAME, placing, self._ray, options)

    def check(self) -> Iterable[Line]:
        """For `ablate doctor`: whether the cluster answers, and whether a node has what a job asks for."""
        try:
            have, problem = self._ray.offers()
        except Unreachable as error:
            advice = "run `ablate` on a node of the cluster; `ray status` there says whether it is up"
            yield Line("problem", "Ray", str(error), advice)
            return
        yield Line("ok", "Ray", have)
        if problem:
            yield Line(
                "problem", "resources", problem, "ask for less, or say `autoscaling: true` where nodes may still come"
            )
