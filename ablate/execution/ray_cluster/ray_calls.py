"""The calls of Ray that pilot jobs need, for the one process that imports it."""

import contextlib
from typing import Any

import ray
import ray.cloudpickle
from ray._private import state  # its public kin, `ray.util.state`, wants a dashboard, which not every cluster has

from ablate.execution.pilots.cluster import Refused
from ablate.execution.ray_cluster import pilot_actor


def connect(address: str, namespace: str) -> None:
    """Joins the cluster as a driver of its own, unless it has. Detached actors outlive it."""
    if not ray.is_initialized():
        ray.init(address, namespace=namespace, log_to_driver=False, configure_logging=False)
        ray.cloudpickle.register_pickle_by_value(pilot_actor)


def submit(jobs: list[dict[str, Any]], options: dict[str, Any], settings: dict[str, str]) -> None:
    """Has actors made, one a job; one whose name is taken is there already. Raises Refused."""
    actors = [_to_make(job["token"], options) for job in jobs]
    for job, actor in zip(jobs, actors, strict=True):
        actor.remote(job["command"], job["folder"], settings | job["settings"], bool(options["num_gpus"]))


def _to_make(name: str, options: dict[str, Any]) -> Any:
    """-> an actor that outlives this process, and is never begun anew."""
    detached = {"name": name, "get_if_exists": True, "lifetime": "detached", "max_restarts": 0}
    try:
        return ray.remote(pilot_actor.PilotActor).options(**detached, **options)
    except (TypeError, ValueError) as error:
        raise Refused(str(error)) from error


def census(tokens: list[str]) -> dict[str, Any]:
    """-> the actors of those names, dead ones too, and all nodes."""
    actors = [actor for actor in state.actors().values() if actor["Name"] in set(tokens)]
    return {"actors": list(map(_actor, actors)), "nodes": list(map(_node, ray.nodes()))}


def cancel(tokens: list[str]) -> None:
    """Kills actors, waiting or running."""
    for token in tokens:
        with contextlib.suppress(ValueError):  # there is none of that name
            ray.kill(ray.get_actor(token))


def _actor(record: dict[str, Any]) -> dict[str, Any]:
    cause, words = _death(record["DeathCause"]) if record["State"] == "DEAD" else ("", "")
    return {
        "name": record["Name"],
        "state": record["State"],
        "node": record["Address"]["NodeID"],
        "num_restarts": record["NumRestarts"],
        "cause": cause,
        "words": " ".join(words.split()),
        "ended_at": record["EndTime"],
    }


def _death(cause: Any) -> tuple[str, str]:
    """-> a word for it, and Ray's words."""
    match cause.WhichOneof("context"):
        case "actor_died_error_context":
            died = cause.actor_died_error_context
            return "NODE_LEFT" if _has_left(died.node_death_info) else died.Reason.Name(died.reason), died.error_message
        case "oom_context":
            return "OUT_OF_MEMORY", cause.oom_context.error_message
        case "creation_task_failure_context":
            return "CREATION", _last_line(cause.creation_task_failure_context.formatted_exception_string)
        case other:
            return other or "", str(cause)


def _last_line(trace: str) -> str:
    """-> what went wrong, after all the places that led to it."""
    return next((line for line in reversed(trace.splitlines()) if line.strip()), "")


def _has_left(node: Any) -> bool:
    """Whether a node has ended in order: it was taken back by whoever lent it, or by the autoscaler."""
    return node.Reason.Name(node.reason) in (
        "EXPECTED_TERMINATION",
        "AUTOSCALER_DRAIN_PREEMPTED",
        "AUTOSCALER_DRAIN_IDLE",
    )


def _node(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": record["NodeID"],
        "address": record["NodeManagerAddress"],
        "is_alive": record["Alive"],
        "resources": record["Resources"],
    }
