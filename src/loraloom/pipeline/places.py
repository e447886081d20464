"""Which workers a search has, what each of them gets, and what a plan may count on."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.errors import ConfigError, RequestError
from loraloom.execute.processes import Place
from loraloom.execute.ray import Cluster, connect
from loraloom.execute.ray_places import Places, places_for
from loraloom.facts.device import DeviceFacts, device_facts, usable_cores
from loraloom.facts.speed import cores_share

AUTO_ON_CORES = 2
"""Workers on a processor where nobody says how many: each holds a base, and has to have a core."""


def machine(config: Config) -> tuple[DeviceFacts, tuple[str, ...]]:
    """The device that one worker trains on, and every worker's place in words; none where the run is
    this process alone. On a processor workers share cores and memory evenly.

    Raises:
        RequestError: what was asked for is not here.
    """
    device = device_facts()
    device = replace(device, share=cores_share(device.kind))
    match config.execute:
        case "inline":
            return device, ()
        case "processes":
            places = places_of(config, device)
            words = tuple(place.words for place in places)
            together, threads = len(places), places[0].threads
        case "ray":
            asked = ray_places(config, connect(), device)
            words = (f"on the Ray cluster, {asked.needs}",) * asked.wanted
            together, threads = asked.together, asked.needs.cores
    if device.kind != "cpu":
        return device, words
    shared = replace(
        device,
        total_bytes=device.total_bytes // together,
        free_bytes=device.free_bytes // together,
        cores=max(1, device.cores // together),
        threads=threads or 1,
    )
    return shared, words


def for_one(config: Config) -> Config:
    """The same request for a single candidate, which has use for one worker."""
    devices = config.limits.devices
    one = devices[:1] if isinstance(devices, tuple) else 1
    inline = config.execute == "inline"
    return config if inline else replace(config, limits=replace(config.limits, devices=one))


def ray_places(config: Config, cluster: Cluster, device: DeviceFacts) -> Places:
    """What a search on a Ray cluster asks of it; its machines are taken to be like this one.

    Raises:
        RequestError: no machine of the cluster has that.
    """
    asked = config.limits.devices
    if isinstance(asked, tuple):
        raise ConfigError(
            f"`{names.DEVICES}` is {', '.join(asked)}, which names GPUs of one machine",
            need="a number of workers: Ray finds a GPU for each",
            next="--workers N",
        )
    workers = None if asked == "auto" else asked
    return places_for(cluster.machines(), cuda=device.kind == "cuda", workers=workers)


def places_of(config: Config, device: DeviceFacts) -> tuple[Place, ...]:
    """What each worker process has to itself.

    Raises:
        RequestError: more is asked for than is here, or processes cannot be had here.
    """
    if sys.platform == "win32" or device.kind == "mps":
        raise RequestError(
            "`execute: processes` does not work here",
            got="one GPU that shares the host's memory" if device.kind == "mps" else "Windows",
            need="Linux or macOS with CUDA or on the processor",
            next="leave `execute` and `limits.devices` out",
        )
    asked = config.limits.devices
    if device.kind == "cuda":
        return tuple(Place(gpu) for gpu in _gpus(asked, device.count))
    if isinstance(asked, tuple):
        raise _not_here(", ".join(asked), "no GPU", "a number of workers, which share the cores")
    cores = usable_cores()
    count = min(AUTO_ON_CORES, cores) if asked == "auto" else asked
    if count > cores:
        raise _not_here(f"{count} workers", f"{_counted(cores, 'core')} that may be used")
    return tuple(Place(None, own, _threads(device, count)) for own in _groups(count))


def _gpus(asked: int | tuple[str, ...] | str, count: int) -> list[int]:
    """Which of `count` GPUs."""
    here = [f"cuda:{gpu}" for gpu in range(count)]
    if asked == "auto":
        return list(range(count))
    if isinstance(asked, int):
        if asked > count:
            raise _not_here(f"{asked} workers", _counted(count, "GPU"))
        return list(range(asked))
    unknown = [name for name in asked if name not in here]
    if unknown or len(set(asked)) < len(asked):
        raise _not_here(", ".join(asked), ", ".join(here), "some of these, each once")
    return [here.index(name) for name in asked]


def _threads(device: DeviceFacts, workers: int) -> int:
    """Of one worker. Where torch has less than the cores, someone has set a limit for all of it."""
    return max(1, min(device.threads, usable_cores()) // workers)


def _groups(count: int) -> list[tuple[int, ...]]:
    """Cores for each worker, evenly; empty where a system does not bind processes to cores."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * count
    cores = sorted(cast(Any, os).sched_getaffinity(0))
    bounds = [len(cores) * number // count for number in range(count + 1)]
    return [tuple(cores[low:high]) for low, high in pairwise(bounds)]


def _not_here(asked: str, got: str, need: str | None = None) -> ConfigError:
    return ConfigError(
        f"`{names.DEVICES}` asks for {asked}, and that is not here",
        got=got,
        need=need or "one GPU, or at least one core, for each worker",
        next="--workers N, or leave it out",
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
