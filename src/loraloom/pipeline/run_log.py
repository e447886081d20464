"""What a run keeps: its folder, its events and records, its checkpoints; how it begins,
goes on, stops and ends."""

from __future__ import annotations

import datetime
import shlex
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loraloom.config import names
from loraloom.config.decode import to_plain
from loraloom.config.units import parse_seconds
from loraloom.errors import ConfigError, InterruptedRunError, StoreError, first_line
from loraloom.facts.device import environment
from loraloom.pipeline.device_errors import in_our_words
from loraloom.pipeline.diagnosing import findings_of_run
from loraloom.pipeline.fingerprint import MODEL, fingerprints, refuse_changes
from loraloom.pipeline.initial_adapter import keep_copy
from loraloom.pipeline.job import Job, job_of_plain, records_of_plain, records_to_plain
from loraloom.pipeline.live_index import LiveIndex
from loraloom.pipeline.past_searches import KEY as HISTORY
from loraloom.pipeline.prepare import Prepared
from loraloom.pipeline.recorder import Recorder, Watch, named
from loraloom.pipeline.resume import Reopened, journal_of
from loraloom.pipeline.trackers import tracked
from loraloom.pipeline.workbench import Workbench
from loraloom.plan.document import plan_json
from loraloom.plan.planner import candidate
from loraloom.records import Event, Finding, Score
from loraloom.report.diversity import lines_of
from loraloom.report.page import write_report
from loraloom.report.words import busy, duration, metric_words, with_error
from loraloom.search.pruners import is_wide
from loraloom.store.database import Database, default_url
from loraloom.store.disk import refusal
from loraloom.store.diversity import write_diversity
from loraloom.store.folder import RunFolder, require_space
from loraloom.store.names import this_host
from loraloom.store.result import RunResult, RunStatus
from loraloom.store.to_json import plain
from loraloom.train.checkpoint import Checkpoint, KeptApart, save
from loraloom.train.orders import Keep, Kept
from loraloom.train.resume import fingerprint, score_of_plain

WAITING = 20
"""Bytes of a weight of a candidate that waits: itself, its gradient, two moments, and its best value."""


@dataclass
class Outcome:
    """What a verb came to."""

    folder: RunFolder
    result: RunResult

    def to_json(self) -> dict[str, Any]:
        return self.result.to_plain()


def set_up(
    prepared: Prepared, verb: str, watch: Watch, place: Reopened | None = None
) -> tuple[Workbench, RunLog]:
    """Load the base, where it is trained on in this process, and open the run's folder, in the order in
    which least is lost when one of them cannot be.

    Raises:
        RequestError: `place`, the run to go on with, was begun with other data or another model.
        StoreError: the disk has no room, or the index of runs cannot be used.
    """
    marks = fingerprints(prepared)
    if place is not None and place.checkpoint is not None:
        refuse_changes(place.checkpoint.run["fingerprints"], marks, prepared)
        _refuse_other_keeping(place.checkpoint, place.config.execute)
    config = prepared.config
    # A wrong URL is told before the work, not after it.
    Database(default_url(config.output_dir)).close()
    bench = Workbench(prepared)
    inline = config.execute == "inline"
    if inline:
        bench.trainer  # noqa: B018  (whatever is wrong with the base shows before anything is written)
    require_space(config.output_dir, space_needed(prepared))
    if place is None:
        folder = RunFolder.create(config.output_dir, config.name)
        folder.lock()
        folder.write_config(to_plain(config))
        if prepared.facts.initial is not None:
            keep_copy(prepared.facts.initial, folder)
    else:
        folder = place.folder
        place.take_up()
    if inline:
        bench.trainer.shelf.folder = folder.checkpoints
    model = prepared.facts.model
    result = RunResult(
        name=folder.name,
        verb=verb,
        status="running",
        model=model.name_or_path,
        task=prepared.task,
        started_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        id=uuid.uuid4().hex,
        host=this_host(),
        metric=f"validation_{bench.metric}",
        direction=bench.direction,
        environment=environment(bench.values[names.DTYPE]),
        base_parameters=bench.base.parameters if inline else model.parameters,
        base_quantization=bench.base.held if inline else prepared.held,
        base_fingerprint=marks.get(MODEL, ""),
        labels=list(prepared.data.label_names or ()),
    )
    if prepared.diversity is not None:
        write_diversity(folder, lines_of(prepared.diversity), prepared.diversity.to_json())
    watch = tracked(config.report_to, folder.path, to_plain(config), watch)
    recorder = Recorder(folder, result, watch, marks)
    return bench, RunLog(prepared, recorder, None if place is None else place.checkpoint)


def _is_apart(kept: Checkpoint) -> bool:
    """Whether its candidates are kept by themselves, for workers that come and go."""
    return kept.run.get("apart") is not None


def _refuse_other_keeping(kept: Checkpoint, execute: str) -> None:
    """Raises ConfigError where candidates were kept together and are to go on by themselves, or the
    other way round."""
    if _is_apart(kept) == (execute == "inline"):
        before = "in other processes" if _is_apart(kept) else "in one process"
        raise ConfigError(
            f"this run was begun {before}, and cannot go on with `execute: {execute}`",
            next="leave `execute`, `limits.devices` and --workers out: the run's own config says it",
        )


class RunLog:
    """What lasts of a run.

    Attributes:
        pack_size: how many candidates train at once; None until it was decided.
        held: candidates that were asked for and found no memory; they join before any other.
        apart: what the driver of several workers needs to go on (`Queue.to_plain`); None for one worker.
        racing: whether the search is over and its finalists are trained anew.
        base_score: what candidates begin with on validation, once it was measured: the bare base, or
            the initial adapter.
        turns: how many times a pack has trained.
        files: of candidates that workers have kept, as long as they may still be there.
        obeyed: commands of the user whose effect is part of the run (`pipeline.obey`).
        of_run: findings that are no single candidate's, as they were made.
        resumed: whether the run goes on from a checkpoint.
    """

    def __init__(self, prepared: Prepared, recorder: Recorder, kept: Checkpoint | None) -> None:
        self.prepared, self.recorder, self._kept = prepared, recorder, kept
        self.folder = recorder.folder
        self.journal = journal_of(self.folder)
        self.resumed = kept is not None
        self.pack_size: int | None = None
        self.held: list[Job] = []
        self.apart: Mapping[str, Any] | None = None
        self.racing = False
        self.turns = 0
        self.obeyed: list[str] = []
        self.base_score: Score | None = None
        self.of_run: list[Finding] = []
        self._began = time.monotonic()
        waiting = {} if kept is None else kept.trainer.get("waiting", {})
        self._named: set[str] = {one["file"] for one in waiting.values()}
        self.files = set(self._named)
        recorder.index = LiveIndex(default_url(prepared.config.output_dir), self.folder, self._say)

    @property
    def result(self) -> RunResult:
        return self.recorder.result

    def expired(self) -> bool:
        """Whether the time that was allowed is used up."""
        asked = self.prepared.config
        limits = [s for s in (parse_seconds(asked.limits.time), asked.search.budget) if s]
        return bool(limits) and time.monotonic() > self._began + min(limits)

    def measured(self, base: Score, initial: Score | None = None) -> None:
        """The bare base was scored on validation, and the adapter that candidates begin with."""
        self.base_score = initial or base
        self.result.baseline = named(base)
        self.recorder.send(Event("evaluated", data={"split": "validation", **base.metrics}))
        if initial is not None:
            self.measured_initial(initial)

    def measured_initial(self, score: Score) -> None:
        """The adapter that candidates begin with was scored."""
        place, known = self.prepared.config.adapter.init_from, self.result.initial
        self.result.initial = {
            "adapter": place,
            "metrics": {**known.get("metrics", {}), **named(score)},
        }
        metric = self.result.metric.removeprefix("validation_")
        scored = with_error(score.metrics[metric], score.metrics[f"{metric}_se"])
        words = metric_words(f"{score.split}_{metric}")
        self.recorder.note(f"{place}, with which every candidate begins: {words} {scored}")

    # -- its course
    # ----------------------------------------------------------------------------------------------

    @contextmanager
    def running(self, restore: Callable[[Checkpoint], None]) -> Generator[None]:
        """Begin, or go on where the run stopped; whatever ends it early is written down
        before it is passed on.

        Args:
            restore: brings the trainer of this process to where the checkpoint was taken; workers
                elsewhere take candidates up one by one.

        Raises:
            InterruptedRunError: Ctrl-C.
        """
        command = f"loraloom {self.result.verb} --resume {shlex.quote(str(self.folder.path))}"
        try:
            if self._kept is None:
                self._begin()
            else:
                if not _is_apart(self._kept):
                    restore(self._kept)
                self._go_on(self._kept)
                self._kept = None  # it holds the weights of all who train
            yield
        except KeyboardInterrupt as error:
            self._stop("interrupted", "the run was interrupted")
            raise InterruptedRunError(
                "the run was interrupted; it can go on where it stopped", next=command
            ) from error
        except BaseException as error:
            failed = in_our_words(
                error, f"{command} (nothing is lost but the time since its last checkpoint)"
            )
            refused = self._of_folder(error)
            self._stop("failed", f"the run failed: {first_line(failed or refused or error)}")
            if failed is not None:
                raise failed from error
            (refused or error).add_note(f"to go on with the run: {command}")
            if refused is not None:
                raise refused from error
            raise
        finally:
            self.folder.unlock()

    def _begin(self) -> None:
        result, plan = self.result, self.prepared.plan
        self.folder.write_resolved(plan.settings)
        self.recorder.emit(
            "run_started",
            verb=result.verb,
            model=result.model,
            task=result.task,
            started_at=result.started_at,
            metric=result.metric,
            direction=result.direction,
            base_parameters=result.base_parameters,
            base_quantization=result.base_quantization,
            base_fingerprint=result.base_fingerprint,
            id=result.id,
            host=result.host,
        )
        self.recorder.index_later()
        self.recorder.emit("forecast", **plan_json(plan)["forecast"])
        history = [f"history: {plan.settings[HISTORY].reason}"] if self.prepared.past else []
        for text in (*plan.warnings, *plan.notes, *history, *self._busy()):
            self.recorder.note(text)

    def _busy(self) -> list[str]:
        """That others use the machine, where they do: the forecast is for an idle one."""
        seconds, share = self.prepared.plan.forecast["time"].value, self.prepared.facts.device.share
        words = busy(seconds / share, share)
        return [f"forecast: {duration(seconds)} {words}"] if words else []

    def _go_on(self, kept: Checkpoint) -> None:
        """Be where the run was when `kept` was written."""
        state, environment = kept.run, self.result.environment
        result = RunResult.from_plain(state["result"])
        trials = {trial.id: trial for trial in result.trials}
        self.recorder.restore(result, state["seconds"], records_of_plain(state["driver"], trials))
        self._began -= state["seconds"]
        self.pack_size, self.racing = state["slots"], state["racing"]
        self.held = [job_of_plain(one) for one in state.get("held", ())]
        self.apart = state.get("apart")
        self.turns, self.obeyed = state.get("turns", 0), list(state.get("obeyed", ()))
        self.base_score = state["base_score"] and score_of_plain(state["base_score"])
        living = [seat["candidate"]["id"] for seat in kept.trainer["seats"]]
        self.recorder.gone_on(living)
        for text in kept.passed_over:
            self.recorder.note(
                f"a checkpoint could not be used, and the one before it was taken: {text}"
            )
        changed = _other_versions(result.environment, environment)
        if changed:
            self.recorder.note(
                f"this run was begun with other versions ({changed}): last digits may differ"
            )
        if moved := _other_device(result.environment, environment):
            self.recorder.note(moved)
        result.environment, result.status, result.host = environment, "running", this_host()
        there, waiting = ", ".join(living) or "none", ", ".join(kept.trainer.get("waiting", {}))
        there += f"; waiting: {waiting}" if waiting else ""
        self.recorder.emit(
            "note", text=f"the run goes on after {state['seconds']:.1f} s; in training: {there}"
        )
        self.recorder.write()
        self.recorder.index_later()

    def _stop(self, status: RunStatus, reason: str) -> None:
        # A disk that is full, or a memory that is, refuses this as well; the first
        # error is the one to report.
        with suppress(Exception):
            self.recorder.suspend(reason)
            self.result.reason = reason
            self._close(status)

    def _of_folder(self, error: BaseException) -> StoreError | None:
        """What the run's own folder refused, whoever read or wrote there; None for any other error."""
        at = error.filename if isinstance(error, OSError) else None
        if not isinstance(error, OSError) or not isinstance(at, str):
            return None
        return refusal(error, Path(at)) if Path(at).is_relative_to(self.folder.path) else None

    def finish(self) -> Outcome:
        """Write the result, the report and the index; the run is over."""
        self._close("completed")
        self.folder.drop_checkpoints()
        return Outcome(self.folder, self.result)

    def _close(self, status: RunStatus) -> None:
        result = self.result
        trials = [record.trial for record in self.recorder.records.values()]
        result.status, result.findings = (
            status,
            findings_of_run(self.prepared, trials, result.metric, self.of_run),
        )
        self.recorder.emit("run_finished", status=status, reason=result.reason)
        self.recorder.write()
        write_report(self.folder)
        self.recorder.index_last()

    def _say(self, text: str) -> None:
        """Show what is no part of the run."""
        self.recorder.watch(Event("note", at=self.recorder.seconds, data={"text": text}))

    # -- going on later
    # ------------------------------------------------------------------------------------------

    def checkpoint(self) -> Keep:
        """The order to write one: with all of the run that is not in a file of its own,
        and how far those files go."""
        return Keep(self.folder.checkpoints, self._state())

    def write_checkpoint(self, apart: Mapping[str, Any], kept: Mapping[str, Kept]) -> None:
        """Write one here, where every candidate is kept by itself.

        Args:
            apart: as `Queue.to_plain` gives it.
            kept: the last state of each candidate.
        """
        files = {trial: {"file": one.file, "sha256": one.sha256} for trial, one in kept.items()}
        rows, budget = fingerprint(self.prepared.trained), self.prepared.plan.token_budget
        run = {**self._state(), "held": apart["held"], "apart": apart}
        named = {one.file for one in kept.values()}
        dropped = self.files - named - self._named
        save(self.folder.checkpoints, KeptApart(rows, budget, files), run, dropped=dropped)
        self.files, self._named = named | self._named, named

    def _state(self) -> dict[str, Any]:
        return {
            "seconds": self.recorder.seconds,
            "events": vars(self.folder.log.mark()),
            "search": vars(self.journal.mark()),
            "result": self.recorder.gathered().to_plain(),
            "base_score": self.base_score and asdict(self.base_score),
            "slots": self.pack_size,
            "held": [one.plain for one in self.held],
            "racing": self.racing,
            "turns": self.turns,
            "obeyed": list(self.obeyed),
            "driver": records_to_plain(self.recorder.records),
            "fingerprints": self.recorder.rows,
            "free_bytes": self.prepared.facts.device.free_bytes,
            "trials": self.prepared.plan.trials,
            "past": plain(self.prepared.past),
        }


def _other_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Packages whose version is another than when the run was begun."""
    packages, present = before.get("packages", {}), now.get("packages", {})
    changed = [name for name in packages if packages[name] != present.get(name)]
    return ", ".join(f"{name} {packages[name]}, now {present.get(name, 'none')}" for name in changed)


def _other_device(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """That a run goes on elsewhere than it was begun; empty where it does not."""
    devices = before.get("device", {}), now.get("device", {})
    if not devices[0] or devices[0].get("kind") == devices[1].get("kind"):
        return ""
    was, is_ = (f"{device.get('name')} ({device.get('kind')})" for device in devices)
    return f"this run was begun on {was} and goes on on {is_}: last digits and speed may differ"


def space_needed(prepared: Prepared) -> int:
    """Bytes of disk that the run's adapters and tokenizers may take."""
    made = candidate(prepared.plan, "size", {})
    linears = {fact.path: fact for fact in prepared.facts.model.linears}
    weights = sum(
        made.adapter.r * (linears[p].in_features + linears[p].out_features)
        for p in made.adapter.target_modules
    )
    kept = 8 + (WAITING if is_wide(prepared.config.search.pruner, prepared.plan.trials) else 0)
    return (prepared.plan.trials + 10) * (kept * weights + 4 * 2**20)
