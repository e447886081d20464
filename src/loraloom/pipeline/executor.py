"""Where the candidates of a run are trained."""

from __future__ import annotations

from loraloom.config.asked import Config
from loraloom.execute import Executor
from loraloom.execute.inline import Inline
from loraloom.execute.processes import Processes
from loraloom.execute.ray import RayWorkers, connect
from loraloom.facts.device import device_facts
from loraloom.pipeline.places import for_one, places_of, ray_places
from loraloom.pipeline.run_log import RunLog
from loraloom.pipeline.warmup import plan_of_packs
from loraloom.pipeline.workbench import Workbench
from loraloom.pipeline.worker_from_request import invitation_to, worker_on


def executor_of(bench: Workbench, log: RunLog) -> Executor:
    """The executor that the request asks for. Only one that trains in this process uses the bench."""
    config = log.prepared.config
    if log.result.verb == "train":
        config = for_one(config)
    if config.execute == "processes":
        return Processes(invitation_to(log), places_of(config, device_facts()))
    if config.execute == "ray":
        return _on_cluster(config, log)
    return Inline(worker_on(bench, "inline"))


def _on_cluster(config: Config, log: RunLog) -> Executor:
    """Workers on the Ray cluster that was found."""
    cluster = connect()
    places = ray_places(config, cluster, log.prepared.facts.device)
    room = cluster.places(places.needs)
    if room < places.wanted:
        log.recorder.note(
            f"the Ray cluster has room for {room} of {places.wanted} workers; others start later"
        )
    return RayWorkers(cluster, invitation_to(log), log.folder.path.resolve(), places)


def packed_at_once(bench: Workbench, log: RunLog, executor: Executor) -> int:
    """How many candidates train at once, on all workers together. Each of several workers finds out for
    itself how many that are there; a search begins with as many as the plan expects."""
    if not executor.several:
        return plan_of_packs(bench, log)
    plan = log.prepared.plan
    return plan.pack_size * max(1, len(plan.facts.workers))
