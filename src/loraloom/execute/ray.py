"""Workers on a Ray cluster: one plain actor each. The only file that knows Ray.

Ray finds a place for a worker, carries orders and reports, and says when one is gone; who trains what is
decided by the driver alone. So no actor is ever restarted and no call made twice, and nothing lies in
Ray's object store: what has to last is in the run folder, which all machines see.

https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from loraloom.errors import LoraloomError, RequestError, RunError, StoreError, first_line
from loraloom.execute import Joined, Lost
from loraloom.execute.host import Invitation, join
from loraloom.execute.ray_places import Needs, Places, wait_seconds
from loraloom.train.orders import Order, Report

CONNECT_SECONDS = 10.0
"""How long an address may take to answer."""
PLACE_SECONDS = 120.0
"""How long a worker may wait for a place that the cluster has, and that others may be using."""
LOAD_SECONDS = 1800.0
"""How long it may then take to read base and data. One that dies is noticed at once; this is for one
that hangs."""
LOOK_SECONDS = 5.0
"""How often is looked for workers that are missing, or late."""
SPARE_FAILURES = 2
"""More failures to bring a worker up than workers are wanted, without any that joins in between: no more
are asked for."""
SETTINGS = {
    # Statistics of its use are sent to Ray's makers only where the user asked for that.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray tells on the driver's screen what becomes of each process; `Lost` says what matters of it.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Who needs no GPU is shown none, also by versions in which that will not be the default any more.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
"""Read by Ray as it is imported; what the user set wins."""
ATTEMPTS = {"RAY_NUM_REDIS_GET_RETRIES": "5"}
"""How often a cluster that runs is asked to let this driver in: with a wrong token it never does."""


class Cluster:
    """The Ray cluster that this process is connected to."""

    def machines(self) -> list[Mapping[str, float]]:
        """What each machine that is up has, used or not."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def places(self, needs: Needs) -> int:
        """How many workers it has room for, if nobody else used it."""
        return sum(map(needs.fits, self.machines()))

    def close(self) -> None:
        """Disconnect, where `connect` had connected. A cluster that was started here ends with that; any
        other stays as it is."""
        import ray

        if self in _connected:
            _connected.remove(self)
            ray.shutdown()


_connected: list[Cluster] = []
"""What this process is connected to, if it is and nobody else did it: one at most."""


def connect() -> Cluster:
    """Connect to the cluster at RAY_ADDRESS, to the one that runs on this machine, or to one that is
    started here; until `Cluster.close`, or the end of this process.

    Raises:
        RequestError: there is no Ray, or nothing that could be connected to.
    """
    if find_spec("ray") is None:
        raise RequestError(
            "`execute: ray` needs Ray, which is not installed",
            next='pip install "loraloom[cluster]", on every machine',
        )
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:
        raise RequestError(
            f"RAY_ADDRESS is {address}",
            need="HOST:PORT of the cluster, asked from one of its own machines",
            next="run loraloom there (ray job submit, ray exec), where the run folder is",
        )
    named = _is_answered(address)
    for name, value in {**SETTINGS, **(ATTEMPTS if named else {})}.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return _connected[0] if _connected else Cluster()
    with _same_handler():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (
            Exception
        ) as error:  # a handful of types, from a wrong address to another version of Python
            raise RequestError(
                "the Ray cluster cannot be used",
                where=address or None,
                got=first_line(error),
                need="one that runs, with the same Ray and Python as here, and its token here",
                next="RAY_AUTH_MODE=token and the cluster's own ~/.ray/auth_token (docs/cluster.md)",
            ) from error
    _connected[:] = [Cluster()]
    return _connected[0]


def _is_answered(address: str) -> bool:
    """Whether this is the address of a machine, and not "auto", "local" or nothing.

    Raises:
        RequestError: nobody listens there. Ray itself would try for a quarter of an hour.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return False
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"no Ray cluster answers at {address}",
            got=first_line(error),
            need="RAY_ADDRESS as `ray start --head` has printed it, or none for one of this machine",
            next="see whether it runs, and whether this machine may reach it",
        ) from error
    return True


@contextlib.contextmanager
def _same_handler() -> Generator[None]:
    """Ray takes SIGTERM for itself as it starts; here it keeps the meaning that it had."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


class Post:
    """The actor: a process on some machine, in which a worker works."""

    def look(self, file: str) -> tuple[str, str]:
        """Where this is, and what is read here in a file."""
        try:
            seen = Path(file).read_text()
        except OSError as error:
            seen = str(error)
        return f"{socket.gethostname()}, process {os.getpid()}", seen

    def begin(self, name: str, invitation: Invitation) -> None:
        """Make the worker; errors as in `join`."""
        self._worker = join(name, invitation)

    def obey(self, orders: Sequence[Order]) -> Report:
        """One turn."""
        return self._worker.obey(orders)


@dataclass
class _Hand:
    """One worker, as the driver knows it.

    Attributes:
        call: what it was asked last and has not answered; None while it waits for orders.
        until: when it is given up; infinite once it works, as Ray says when it dies.
        machine: where it is; empty until that is known.
        working: whether it has joined.
    """

    actor: Any
    call: Any
    until: float
    machine: str = ""
    working: bool = False


class RayWorkers:
    """An `Executor` whose workers are actors of a Ray cluster.

    As many as are wanted are asked for, as soon as the cluster has room for them: at the start, when one
    is lost, and when a machine joins. None is waited for without end.

    Args:
        cluster: is let go of by `close`.
        invitation: what each worker is made from.
        folder: of the run, which every machine has to see.
        places: what is asked of the cluster.
    """

    several = True

    def __init__(self, cluster: Cluster, invitation: Invitation, folder: Path, places: Places) -> None:
        self._cluster, self._invitation, self._folder = cluster, invitation, folder
        self._needs, self._wanted = places.needs, places.wanted
        self._patience = wait_seconds()
        self._hands: dict[str, _Hand] = {}
        self._news: deque[Report | Lost | Joined] = deque()
        self._names = count()
        self._failures = 0
        self._refusal: Exception | None = None
        self._next_look = 0.0
        self._token = token_hex(16)
        self._sign = folder / f".cluster-{self._token[:8]}.part"
        self._sign.write_text(self._token)
        self._look_after()

    @property
    def coming(self) -> bool:
        """Whether workers are on their way."""
        return any(not hand.working for hand in self._hands.values())

    def workers(self) -> Sequence[str]:
        return [name for name, hand in self._hands.items() if hand.working]

    def place_of(self, worker: str) -> str:
        return self._hands[worker].machine if worker in self._hands else ""

    def send(self, worker: str, orders: Sequence[Order]) -> None:
        hand = self._hands.pop(worker, None)
        if hand is None:
            return  # it is lost, and `next` says so
        hand.call = hand.actor.obey.remote(orders)
        self._hands[worker] = hand  # last: whoever waits longest is heard first

    def next(self, timeout: float | None = None) -> Report | Lost | Joined | None:
        """As the protocol says.

        Raises:
            LoraloomError: no worker can be brought up; what the last one said.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._news:
            self._look_after()
            left = until - time.monotonic()
            self._listen(max(0.0, min(left, LOOK_SECONDS)))
            if left <= 0:
                break
        return self._news.popleft() if self._news else None

    def close(self) -> None:
        for name in list(self._hands):
            self._dismiss(name)
        self._sign.unlink(missing_ok=True)
        self._cluster.close()

    # -- hearing

    def _listen(self, seconds: float) -> None:
        """Hear what comes first, if anything does."""
        import ray

        calls = {hand.call: name for name, hand in self._hands.items() if hand.call is not None}
        if not calls:
            time.sleep(seconds)
            return
        answered, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        for call in answered:
            self._hear(calls[call])

    def _hear(self, name: str) -> None:
        from ray import exceptions, get

        hand = self._hands[name]
        try:
            answer = get(hand.call)
        except exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if hand.working:
                raise cause from error
            self._refuse(name, cause)
        except exceptions.RayError as error:
            self._lose(name, _in_short(error))
        else:
            hand.call = None
            self._go_on(name, hand, answer)

    def _go_on(self, name: str, hand: _Hand, answer: Any) -> None:
        """A worker has answered its last call."""
        if hand.working:
            self._news.append(answer)
        elif not hand.machine:
            hand.machine, seen = answer
            if seen != self._token:
                self._refuse(name, self._blind(hand.machine, seen))
                return
            hand.until = time.monotonic() + LOAD_SECONDS
            hand.call = hand.actor.begin.remote(name, self._invitation)
        else:
            hand.until, hand.working = math.inf, True
            self._failures = 0
            self._news.append(Joined(name))

    def _blind(self, machine: str, seen: str) -> StoreError:
        return StoreError(
            "a machine of the Ray cluster does not see the run folder",
            where=f"{self._folder} on {machine}",
            got=f"{seen}, where this machine has just written a mark",
            need="one folder that all machines share, under the same path",
            next="put the runs on a shared filesystem: --output-dir FOLDER",
        )

    # -- coming and going

    def _look_after(self) -> None:
        """Ask for workers that are missing; give up those that do not come."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        for name, hand in list(self._hands.items()):
            if now > hand.until:
                late = f"base and data were not read within {LOAD_SECONDS:g} s"
                if not hand.machine:
                    seconds = PLACE_SECONDS + self._patience
                    late = f"it had no place within {seconds:g} s, as others use the cluster"
                self._lose(name, late)
        room = math.inf if self._patience else self._cluster.places(self._needs)
        if self._failures <= self._wanted + SPARE_FAILURES:
            for _ in range(int(min(self._wanted, room) - len(self._hands))):
                self._hire()
        if not self._hands and self._refusal:
            raise self._refusal

    def _hire(self) -> None:
        import ray

        name = f"w{next(self._names)}"
        kind = ray.remote(Post).options(
            num_gpus=self._needs.gpus,
            num_cpus=self._needs.cores,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        actor: Any = kind.remote()
        until = time.monotonic() + PLACE_SECONDS + self._patience
        self._hands[name] = _Hand(actor, actor.look.remote(str(self._sign)), until)

    def _refuse(self, name: str, cause: Exception) -> None:
        """A worker could not be made. What loraloom says on purpose will not change: nobody is asked for
        in its place."""
        if isinstance(cause, LoraloomError):
            self._wanted -= 1
        self._lose(name, first_line(cause))
        self._refusal = cause

    def _lose(self, name: str, reason: str) -> None:
        hand = self._dismiss(name)
        told = f"{reason} ({hand.machine})" if hand.machine else reason
        if hand.working:
            self._next_look = 0.0
        else:
            self._failures += 1
            self._refusal = RunError(
                "no worker comes up on the Ray cluster",
                got=told,
                next="see ray status, and the logs of Ray there; the run goes on with --resume",
            )
        self._news.append(Lost(name, told))

    def _dismiss(self, name: str) -> _Hand:
        """Let one go; what it still says is not heard."""
        import ray

        hand = self._hands.pop(name)
        with contextlib.suppress(Exception):  # it may be gone, and the cluster with it
            ray.kill(hand.actor)
        return hand


def _in_short(error: Exception) -> str:
    """Ray's account of a death, without its identifiers and guesses: the kind, and what is known."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
    known, *_ = lines[-1].split(" Some common causes") if lines else [""]
    return f"{type(error).__name__}: {known[:300]}"
