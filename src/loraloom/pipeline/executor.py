"""Where the candidates of a run are trained."""

from __future__ import annotations

from dataclasses import replace

from loraloom.execute import Executor
from loraloom.execute.inline import Inline
from loraloom.execute.processes import Processes
from loraloom.execute.ray import RayWorkers, connect
from loraloom.facts.device import device_facts
from loraloom.pipeline.places import places_of, ray_places
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.warmup import plan_of_packs
from loraloom.pipeline.workbench import Workbench
from loraloom.pipeline.worker_from_request import invitation_to, worker_on


def executor_of(bench: Workbench, log: RunLog, most: int | None = None) -> Executor:
    """The executor that the request asks for. Only one that trains in this process uses the bench.

    Args:
        most: workers that there is use for; None for all that were asked for.
    """
    config = log.prepared.config
    if config.execute == "processes":
        places = places_of(config, device_facts())
        return Processes(invitation_to(log), places[:most])
    if config.execute == "ray":
        return _on_cluster(log, most)
    return Inline(worker_on(bench, "inline"))


def _on_cluster(log: RunLog, most: int | None) -> Executor:
    """Workers on the Ray cluster that was found."""
    cluster = connect()
    places = ray_places(log.prepared.config, cluster, log.prepared.facts.device)
    wanted = min(places.wanted, most or places.wanted)
    room = cluster.places(places.needs)
    if room < wanted:
        log.recorder.note(
            f"the Ray cluster has room for {room} of {wanted} workers; the others start when it has more"
        )
    folder = log.folder.path.resolve()
    return RayWorkers(cluster, invitation_to(log), folder, replace(places, wanted=wanted))


def packed_at_once(bench: Workbench, log: RunLog, executor: Executor) -> int:
    """How many candidates train at once, on all workers together. Each of several workers finds out for
    itself how many that are there; a search begins with as many as the plan expects."""
    if not executor.several:
        return plan_of_packs(bench, log)
    plan = log.prepared.plan
    return plan.pack_size * max(1, len(plan.facts.workers))
