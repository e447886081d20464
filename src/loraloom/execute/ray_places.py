"""How many workers a search asks of a Ray cluster, and what each of them takes of a machine. Plain
numbers: Ray itself is not known here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loraloom.errors import RequestError

WAIT = "LORALOOM_CLUSTER_WAIT"
"""Seconds that a cluster may take to bring machines that it does not have yet, as autoscaling ones
do."""


@dataclass(frozen=True)
class Needs:
    """What one worker takes of a machine.

    Attributes:
        gpus: whole ones, which Ray shows to this worker alone.
        cores: with which it computes.
    """

    gpus: int = 0
    cores: int = 1

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many such workers a machine has room for."""
        asked = [("GPU", self.gpus), ("CPU", self.cores)]
        return min(int(resources.get(name, 0.0) // amount) for name, amount in asked if amount)

    def __str__(self) -> str:
        parts = [(self.gpus, "GPU"), (self.cores, "core")]
        return " and ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in parts if n)


@dataclass(frozen=True)
class Places:
    """What a search asks of a cluster.

    Attributes:
        needs: what each worker takes.
        wanted: how many workers there are to be.
        together: how many of them are on one machine at most.
    """

    needs: Needs
    wanted: int
    together: int = 1


def places_for(machines: Sequence[Mapping[str, float]], *, cuda: bool, workers: int | None) -> Places:
    """As many workers as were asked for, or as the cluster has GPUs; without GPUs one on each machine.
    Cores are shared out evenly.

    Args:
        machines: what each of them has, by Ray's names of it.

    Raises:
        RequestError: the cluster has no machine for even one of them, and is not said to bring one.
    """
    if cuda:
        with_gpu = [one for one in machines if Needs(1, 0).fits(one)]
        gpus = sum(int(one["GPU"]) for one in with_gpu)
        cores = min((int(one.get("CPU", 0) // one["GPU"]) for one in with_gpu), default=0)
        needs, wanted = Needs(1, cores), workers or max(gpus, 1)
    else:
        wanted = workers or max(sum(bool(Needs().fits(one)) for one in machines), 1)
        most = max((int(one.get("CPU", 0)) for one in machines), default=0)
        shares = (cores for cores in range(most, 0, -1) if _room(machines, cores) >= wanted)
        needs = Needs(0, next(shares, 1))
    if not any(map(needs.fits, machines)) and not wait_seconds():
        raise RequestError(
            f"no machine of the Ray cluster has {needs} for a worker",
            got=", ".join(map(_shown, machines)) or "no machine",
            need="at least one such machine (ray status lists what there is)",
            next=f"add one, ask for less, or, if the cluster brings machines when asked, {WAIT}=600",
        )
    together = max((needs.fits(one) for one in machines), default=1)
    return Places(needs, wanted, max(1, min(together, wanted)))


def _room(machines: Iterable[Mapping[str, float]], cores: int) -> int:
    return sum(map(Needs(0, cores).fits, machines))


def _shown(resources: Mapping[str, float]) -> str:
    return f"{resources.get('GPU', 0):g} GPUs and {resources.get('CPU', 0):g} cores"


def wait_seconds() -> float:
    """How long a machine that is not there yet is waited for.

    Raises:
        RequestError: the environment says no number.
    """
    text = os.environ.get(WAIT, "0")
    try:
        return max(float(text), 0.0)
    except ValueError:
        raise RequestError(f"{WAIT} is {text}", need="seconds, such as 600") from None
