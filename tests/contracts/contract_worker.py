"""Workers of the executors' contract, made from plain values wherever they work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloom.errors import RunError
from loraloom.records import Score
from loraloom.train.orders import End, Examined, Order, Report, ScoreSaved

if TYPE_CHECKING:
    from loraloom.train.seat import Seat
    from loraloom.train.worker import Worker

FACTORY = "contract_worker:RenewedWorker"
LIGHT_FACTORY = "contract_worker:light_worker"


@dataclass(frozen=True)
class Renew:
    """An order that only this worker knows: be as if you had just been made of this request."""

    request: Mapping[str, Any]


class RenewedWorker:
    """A worker that many tests use one after the other: a process takes seconds to start."""

    def __init__(self, name: str, request: Mapping[str, Any]) -> None:
        self.name = name
        self.renew(request)

    def renew(self, request: Mapping[str, Any]) -> None:
        self.worker = made_worker(self.name, request)

    def obey(self, orders: Sequence[Order | Renew]) -> Report:
        if orders and isinstance(orders[0], Renew):
            self.renew(orders[0].request)
            return Report(self.name)
        return self.worker.obey(orders)  # type: ignore[arg-type]


class LightWorker:
    """One that is there at once and trains nothing: for what happens to processes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def obey(self, orders: Sequence[Order]) -> Report:
        for order in orders:
            refusing(str(order))()
        return Report(self.name)


def light_worker(name: str, request: Mapping[str, Any]) -> LightWorker:
    """A light worker; "joining" in the request is a fault that comes before it is there."""
    if request.get("joining"):
        refusing(request["joining"])()
    return LightWorker(name)


class OwnError(Exception):
    """One that a library might raise, and that cannot be made from its words alone."""

    def __init__(self, what: str, *, number: int) -> None:
        super().__init__(f"{what} {number}")


def refusing(kind: str) -> Any:
    """What happens where a fault is planted: the process dies, or waits, or an error is raised."""

    def fails() -> Any:
        if kind == "dies":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        if kind == "waits":
            time.sleep(600)
        if kind == "own":
            raise OwnError("planted", number=7)
        raise RunError("planted", got="a fault", next="mend it")

    return fails


def made_worker(name: str, request: Mapping[str, Any]) -> Worker:
    """A worker.

    Args:
        request: "folder" of what is kept; "shared", where others go on with it; "resumed", from the last
            checkpoint there; "tick", a fault that its first tick has.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))
    import tiny
    import torch
    from engine import causal_rows, trainer

    from loraloom.train import checkpoint
    from loraloom.train.worker import Worker

    torch.set_num_threads(1)
    rows = causal_rows(12)
    made = trainer(tiny.model_of("llama", torch.float32), rows, "causal_lm", validation=rows[:4])
    made.shelf.folder = Path(request["folder"])
    if request.get("resumed"):
        kept = checkpoint.load(made.shelf.folder)
        assert kept is not None
        made.load_state_dict(kept.trainer)
    if request.get("tick"):
        made.tick = refusing(request["tick"])  # type: ignore[method-assign]

    def save(seat: Seat, folder: Path) -> float:
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(seat.adapter.arena.weights.numpy().tobytes())
        return 0.25

    def examine(seat: Seat, order: End) -> Examined:
        return Examined((), {"seen_exit": seat.signals.seen_exit, "base": base[-1:]})

    def score(order: ScoreSaved) -> Mapping[str, Score]:
        names = [made.id for made, _ in order.saved] or [""]
        return {one: Score(order.split, {"loss": 1.0}, (1.0,), (1.0,)) for one in names}

    base: list[Any] = []
    return Worker(
        name,
        made,
        save,
        examine,
        score=score,
        take_base=base.append,
        shared=bool(request.get("shared")),
        pack_size=request.get("pack_size"),
    )
