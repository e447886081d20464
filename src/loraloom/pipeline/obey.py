"""Obey what a user asks of a run while it goes (`store.control`), between two turns of a pack.

Only the driver does so. Before a command takes effect, it is written to control.applied.jsonl with its
clock: the phase, how many times a pack has trained by then, and the step of its trial. No resume cuts
that file, so that a run which goes on from an earlier state does the same again at the same moment, and
with one worker comes to the same bits. A checkpoint names those whose effect it holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

from loraloom.errors import RequestError
from loraloom.pipeline.clone import clone_of, require_clone
from loraloom.pipeline.job import Record
from loraloom.pipeline.queue import Queue, Source
from loraloom.pipeline.run_log import RunLog
from loraloom.records import PRUNED_BY_HAND, EndStatus, Event
from loraloom.report.words import duration
from loraloom.store.control import (
    TRIALS,
    Command,
    changed_settings,
    check,
    command_of_plain,
    is_warm,
    read,
)
from loraloom.store.lines import Lines
from loraloom.store.to_json import to_json
from loraloom.train.orders import Lend, Order, Report, SeatView

LOOK_SECONDS = 0.25
"""How often the file of commands is looked at, at most."""
FOREIGN = "control.jsonl has lines that are no commands; they were passed over"

Course = Generator[Sequence[Order] | None, Report | None, None]
Act = Callable[[], Generator[Sequence[Order] | None, Report | None, str | None]]
"""Does what was asked, and names the candidate that it has made, if any. After its last turn nothing is
left to do: a checkpoint holds all of it or nothing."""


class Pack(Protocol):
    """A pack, as far as commands have to do with it (`pipeline.turns`)."""

    several: bool

    @property
    def seats(self) -> Mapping[str, SeatView]: ...

    def do(self, *orders: Order) -> Generator[Sequence[Order], Report | None, Report]:
        """One turn of its worker."""
        ...

    def end(self, trial: str, status: EndStatus, reason: str | None, *, keep: bool = False) -> Course:
        """Let a candidate go."""
        ...


@runtime_checkable
class OpenSource(Source, Protocol):
    """A source of candidates that a user may add to."""

    def add(self, params: Mapping[str, Any]) -> str:
        """A candidate of the user's own: its id."""
        ...

    def extend(self, count: int) -> None:
        """So many candidates more."""
        ...

    def withdraw(self, trial: str) -> None:
        """A candidate is about to leave for a reason that says nothing of its setting."""
        ...


@dataclass(frozen=True)
class Obeyed:
    """What became of a command, and when.

    Attributes:
        racing: whether the search was over by then.
        turn: how many times a pack had trained.
        step: of the command's trial, where it trained.
        seconds: since the run began.
        refused: why nothing was done; None where it was obeyed.
    """

    command: Command
    racing: bool
    turn: int
    step: int | None
    seconds: float
    refused: str | None = None


class Commands:
    """The commands of a run, as its driver obeys them.

    Attributes:
        stopping: whether the run is to stop, as by Ctrl-C.
    """

    def __init__(self, log: RunLog, queue: Queue) -> None:
        self.stopping = False
        self._log, self._queue, self._recorder = log, queue, log.recorder
        self._lines = Lines(log.folder.obeyed_path)
        before = _read(self._lines)
        self._known = {one.command.uuid for one in before}
        self._again = [one for one in before if one.command.uuid not in log.obeyed]
        self._earlier = {one.uuid for one in read(log.folder).commands}
        self._new: list[Command] = []
        self._size, self._next_look = 0, 0.0

    # -- when
    # -------------------------------------------------------------------------------------------------

    def turn(self, pack: Pack) -> Course:
        """Obey what is to be obeyed now, and concerns this pack or none."""
        for one in list(self._again):
            if one in self._again and self._is_time(one, pack):
                self._again.remove(one)
                yield from self._obey(pack, one, refused=one.refused)
        self._look()
        for command in list(self._new):
            if command in self._new and self._concerns(command, pack):
                self._new.remove(command)
                one = self._clocked(command, pack)
                if command.verb == "stop" and command.uuid in self._earlier:
                    one = replace(one, refused="the run had stopped by itself before it was obeyed")
                yield from self._obey(pack, one, refused=one.refused, anew=True)

    def _is_time(self, one: Obeyed, pack: Pack) -> bool:
        """Whether the moment has come again. Of several workers only steps tell it."""
        trial = one.command.trial or ""
        if pack.several and trial in pack.seats:
            return pack.seats[trial].step >= (one.step or 0)
        now = self._log.racing, self._log.turns
        return now >= (one.racing, one.turn) and self._concerns(one.command, pack)

    def _concerns(self, command: Command, pack: Pack) -> bool:
        """Whether the command is this pack's to obey: its trial is there, or in no pack."""
        trial = command.trial
        if trial is None or trial in pack.seats or self._held(trial):
            return True
        return not self._queue.is_elsewhere(trial)

    def _held(self, trial: str) -> bool:
        """Whether a candidate is still to begin."""
        asked = any(trial == job.candidate.id for job in self._log.held)
        return asked and trial not in self._recorder.records

    def _look(self) -> None:
        """See what is new in control.jsonl, if it is time."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            size = self._log.folder.control_path.stat().st_size
        except OSError:
            return
        if size != self._size:
            self._size = size
            asked = read(self._log.folder)
            self._new = [one for one in asked.commands if one.uuid not in self._known]
            if asked.unreadable and FOREIGN not in self._log.result.notes:
                self._recorder.note(FOREIGN)

    def _clocked(self, command: Command, pack: Pack | None, refused: str | None = None) -> Obeyed:
        """A command with the present moment."""
        seat = pack.seats.get(command.trial or "") if pack else None
        step = seat.step if seat else None
        seconds = round(self._recorder.seconds, 3)
        return Obeyed(command, self._log.racing, self._log.turns, step, seconds, refused)

    def refuse_rest(self) -> None:
        """The run is over: say so of what was never obeyed."""
        self._next_look = 0.0
        self._look()
        for one in [
            self._clocked(one, None, "the run was over before it was obeyed") for one in self._new
        ]:
            self._keep(one)
            self._tell(one, one.refused)
        self._new = []

    # -- what
    # -------------------------------------------------------------------------------------------------

    def _obey(self, pack: Pack, one: Obeyed, *, refused: str | None, anew: bool = False) -> Course:
        """Do what was asked, or say why not. It is written down first: what a crash leaves half done is
        done again."""
        act: Act | None = None
        if refused is None:
            try:
                check(one.command)
                act = self._decide(pack, one, anew=anew)
            except RequestError as error:
                refused = error.what
        if anew:
            one = replace(one, refused=refused)
            self._keep(one)
        try:
            made = None if act is None else (yield from act())
        except GeneratorExit:  # its worker was lost: where the candidate goes on, it is done again
            self._again.append(one)
            raise
        self._log.obeyed.append(one.command.uuid)
        self._tell(one, refused, made)

    def _keep(self, one: Obeyed) -> None:
        self._known.add(one.command.uuid)
        self._lines.append(to_json(asdict(one)))
        self._lines.mark()  # on the disk before anything follows from it

    def _tell(self, one: Obeyed, refused: str | None, made: str | None = None) -> None:
        told = {key: value for key, value in asdict(one.command).items() if value}
        state = "applied" if refused is None else "refused"
        more = {"state": state, "reason": refused, "made": made}
        self._recorder.send(Event("command", None, one.step, data={**told, **more}))

    def _decide(self, pack: Pack, one: Obeyed, *, anew: bool) -> Act:
        """What a command comes to.

        Raises:
            RequestError: it cannot be obeyed.
        """
        command = one.command
        match command.verb:
            case "prune":
                return self._prune(pack, command.trial or "")
            case "stop":
                return self._stop if anew else _nothing
            case "clone":
                return self._clone(pack, command, anew=anew)
            case "extend":
                return self._extend(command.changes[TRIALS], anew=anew)
            case _:
                text = " ".join((command.text or "").split())
                return lambda: self._note(f"by hand, after {duration(one.seconds)}: {text}")

    def _stop(self) -> Course:
        self.stopping = True
        yield from ()

    def _note(self, text: str) -> Course:
        self._recorder.note(text)
        yield from ()

    def _prune(self, pack: Pack, trial: str) -> Act:
        """It leaves; its adapter is saved as it was at its best, if it was ever scored."""
        source = self._queue.source
        if self._held(trial):
            return lambda: self._drop(trial)
        self._living(trial)
        is_scored = self._best_cost(pack, trial) is not None
        if self._log.result.verb == "train" and not is_scored:
            raise RequestError(f"{trial} is the only candidate, and nothing of it could be kept yet")

        def act() -> Course:
            if isinstance(source, OpenSource):
                source.withdraw(trial)
            self._queue.forget_decisions(trial)
            yield from pack.end(trial, "pruned", PRUNED_BY_HAND, keep=is_scored)

        return act

    def _drop(self, trial: str) -> Course:
        """One that has not begun."""
        self._log.held[:] = [job for job in self._log.held if job.candidate.id != trial]
        cast(OpenSource, self._queue.source).withdraw(trial)
        self._queue.ended(trial, "pruned", None)
        yield from ()

    def _clone(self, pack: Pack, command: Command, *, anew: bool) -> Act:
        """A candidate with other settings, which joins before any other."""
        source = self._open(anew=anew)
        parent, prepared = self._record(command.trial or ""), self._log.prepared
        changes, warm = changed_settings(command), is_warm(command)
        require_clone(prepared, parent.job, changes, warm=warm)
        lasting = parent.trial.adapter
        if warm and lasting is None and self._best_cost(pack, parent.id) is None:
            raise RequestError(
                f"{parent.id} has no weights to begin with: it was not scored, or not kept"
            )

        lent = f"{self._log.folder.checkpoints.name}/start-{command.uuid}.safetensors"
        start = (lasting or lent) if warm else None

        def act() -> Generator[Sequence[Order] | None, Report | None, str]:
            if start == lent:
                waiting = None if parent.id in pack.seats else self._queue.waiting[parent.id]
                yield from pack.do(Lend(parent.id, lent, waiting))
            trial = source.add({**parent.job.candidate.params, **changes})
            made = clone_of(prepared, parent.job, trial, changes)
            made = replace(made, candidate=replace(made.candidate, start=start))
            self._log.held.insert(0, made)
            return trial

        return act

    def _extend(self, count: int, *, anew: bool) -> Act:
        source = self._open(anew=anew)

        def act() -> Course:
            source.extend(count)
            yield from self._note(f"by hand: {count} more candidates are tried")

        return act

    def _open(self, *, anew: bool) -> OpenSource:
        """The source that candidates can be added to."""
        source = self._queue.source
        if self._log.racing:
            raise RequestError("the search is over: its finalists are trained anew")
        if not isinstance(source, OpenSource):
            raise RequestError("`train` has one candidate: `tune` can have more")
        if anew and self._log.expired():
            raise RequestError("the time that was allowed is used up")
        return source

    def _record(self, trial: str) -> Record:
        """A candidate that has begun."""
        record = self._recorder.records.get(trial)
        if record is None:
            begun = "has not begun yet" if self._held(trial) else "is none of this run's"
            raise RequestError(f"trial {trial} {begun}")
        return record

    def _living(self, trial: str) -> None:
        record = self._record(trial)
        if record.place is not None:
            raise RequestError(f"trial {trial} has ended already: it is {record.trial.status}")

    def _best_cost(self, pack: Pack, trial: str) -> float | None:
        """Of a candidate that trains or waits: its best evaluation; None where it has none."""
        if trial in pack.seats:
            return pack.seats[trial].best_cost
        return self._queue.waiting[trial].cost if trial in self._queue.waiting else None


def _nothing() -> Course:
    """The run stopped then, and goes on now."""
    yield from ()


def _read(lines: Lines) -> list[Obeyed]:
    """What control.applied.jsonl holds. A line that a power cut left torn was not obeyed."""
    found: list[Obeyed] = []
    for line in lines:
        try:
            plain: dict[str, Any] = json.loads(line)
            command = command_of_plain(plain.pop("command"))
            found.append(Obeyed(command, **plain))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return found
