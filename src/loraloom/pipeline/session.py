"""A run that works: base loaded, folder made, pack ready. `train` and `tune` differ only in who asks for candidates."""

from __future__ import annotations

import datetime
import shlex
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from loraloom.config.decode import to_plain
from loraloom.config.units import parse_seconds
from loraloom.data.batches import collate
from loraloom.data.encode import Row
from loraloom.errors import InterruptedRunError, StoreError, VerificationError, first_line
from loraloom.evals.objective import objective_for
from loraloom.evals.scoring import row_sums, score_of
from loraloom.facts.device import environment
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import load_peft, logits_of, read_adapter, save_adapter, verify_adapter
from loraloom.lora.targets import short_label
from loraloom.pipeline.device_errors import in_our_words
from loraloom.pipeline.diagnosing import Diagnosis
from loraloom.pipeline.drive import Driver, Job
from loraloom.pipeline.fingerprint import MODEL, fingerprints, refuse_changes
from loraloom.pipeline.keep import Keeper
from loraloom.pipeline.past_searches import KEY as HISTORY
from loraloom.pipeline.prepare import Prepared, deciding_metric
from loraloom.pipeline.recorder import Recorder, Watch, named
from loraloom.pipeline.resume import Reopened, journal_of
from loraloom.pipeline.trackers import tracked
from loraloom.plan.document import plan_json
from loraloom.plan.planner import candidate
from loraloom.records import Candidate, Event, Score
from loraloom.report.page import write_report
from loraloom.report.words import busy, duration
from loraloom.search.pruners import is_wide
from loraloom.store.database import Database, default_url
from loraloom.store.folder import RunFolder, require_space
from loraloom.store.plain import plain
from loraloom.store.result import RunResult, RunStatus
from loraloom.train.checkpoint import Checkpoint
from loraloom.train.checkpoint import save as save_checkpoint
from loraloom.train.pack import PackTrainer, Seat
from loraloom.train.resume import score_of_plain

LOGITS_TOLERANCE = {"float64": 1e-8, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of logits, relative to the largest, between a trained adapter and the same one loaded by PEFT, which
multiplies in float32 whatever the base is in."""
WAITING = 20
"""Bytes of a weight of a candidate that waits: itself, its gradient, two moments, and its best value."""
PROBE_ROWS = 4
"""Rows on which a saved adapter's logits are compared with the trained one's."""


@dataclass
class Outcome:
    """What a verb came to."""

    folder: RunFolder
    result: RunResult

    def to_json(self) -> dict[str, Any]:
        return self.result.to_plain()


class Session:
    """Everything that a running `train` or `tune` holds.

    Attributes:
        slots: how many candidates train at once; None until it was decided.
        racing: whether the search is over and its finalists are trained anew.

    Raises:
        RequestError: `place`, the run to go on with, was begun with other data or another model.
    """

    def __init__(self, prepared: Prepared, verb: str, watch: Watch, place: Reopened | None = None) -> None:
        config = prepared.config
        self.prepared, self.values = prepared, prepared.plan.values()
        kept = None if place is None or place.checkpoint is None else place.checkpoint.run
        self.fingerprints = fingerprints(prepared)
        if kept is not None:
            refuse_changes(kept["fingerprints"], self.fingerprints, prepared)
        # A wrong URL is told before the work, not after it.
        Database(default_url(config.output_dir)).close()
        self.base: Base = prepared.load_base()
        self.metric, direction = deciding_metric(config.search.metric, prepared.task)
        self.objective = objective_for(prepared.task, self.base.model, prepack=prepared.plan.prepack)
        self.packed = PackedModel(
            share_copy(self.base.model), fresh_modules=self.base.fresh_modules, prepack=prepared.plan.prepack
        )
        require_space(config.output_dir, space_needed(prepared))
        if place is None:
            self.folder = RunFolder.create(config.output_dir, config.name)
            self.folder.lock()
            self.folder.write_config(to_plain(config))
        else:
            self.folder = place.folder
            place.take_up()
        self.journal = journal_of(self.folder)
        result = RunResult(
            name=self.folder.name, verb=verb, status="running", model=self.base.name_or_path, task=prepared.task,
            started_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            metric=f"validation_{self.metric}", direction=direction, environment=environment(self.values["model.dtype"]),
            base_parameters=self.base.parameters, base_fingerprint=self.fingerprints.get(MODEL, ""),
            labels=list(prepared.data.label_names or ()),
        )  # fmt: skip
        watch = tracked(config.report_to, self.folder.path, to_plain(config), watch)
        self.recorder = Recorder(self.folder, result, watch, self.fingerprints)
        self.trainer = PackTrainer(
            self.packed, prepared.data.train, self.objective, task=prepared.task, pad_id=self.base.pad_id,
            validation=prepared.data.validation, decide_by=self.metric, token_budget=prepared.plan.token_budget,
            checkpointing=bool(self.values["training.gradient_checkpointing"]), signals=config.diagnose.signals,
            workers=prepared.plan.workers,
        )  # fmt: skip
        self.trainer.shelf.folder = self.folder.checkpoints
        self.diagnosis = Diagnosis(self)
        self.base_score: Score | None = None
        self.slots: int | None = None
        self.racing = False
        self.began = time.monotonic()
        self._driver: Driver | None = None
        self._driven: Mapping[str, Any] | None = None
        self._kept = None if place is None else place.checkpoint

    def _begin(self) -> None:
        result = self.result
        self.folder.write_resolved(self.prepared.plan.settings)
        self.recorder.emit(
            "run_started", verb=result.verb, model=result.model, task=result.task, started_at=result.started_at,
            metric=result.metric, direction=result.direction, base_parameters=result.base_parameters,
            base_fingerprint=result.base_fingerprint,
        )  # fmt: skip
        self.recorder.emit("forecast", **plan_json(self.prepared.plan)["forecast"])
        history = [f"history: {self.prepared.plan.settings[HISTORY].reason}"] if self.prepared.past else []
        for text in (*self.prepared.plan.warnings, *self.prepared.plan.notes, *history, *self._busy()):
            self.recorder.note(text)

    def _busy(self) -> list[str]:
        """That others use the machine, where they do: the forecast is for an idle one."""
        seconds, share = self.prepared.plan.forecast["time"].value, self.prepared.facts.device.share
        words = busy(seconds / share, share)
        return [f"forecast: {duration(seconds)} {words}"] if words else []

    def _go_on(self, kept: Checkpoint) -> None:
        """Be where the run was when `kept` was written."""
        state, environment = kept.run, self.result.environment
        self.trainer.load_state_dict(kept.trainer)
        self.recorder.restore(RunResult.from_plain(state["result"]), state["seconds"])
        self.began -= state["seconds"]
        self.slots, self.racing, self._driven = state["slots"], state["racing"], state["driver"]
        self.base_score = state["base_score"] and score_of_plain(state["base_score"])
        if self.trainer.gauge:
            self.trainer.gauge.base = self.base_score
        self.recorder.gone_on(self.trainer.seats)
        for text in kept.passed_over:
            self.recorder.note(f"a checkpoint could not be used, and the one before it was taken: {text}")
        changed = _other_versions(self.result.environment, environment)
        if changed:
            self.recorder.note(f"this run was begun with other versions ({changed}): its last digits may differ")
        self.result.environment, self.result.status = environment, "running"
        living = ", ".join(self.trainer.seats) or "nobody"
        if self.trainer.shelf:
            living += f"; waiting: {', '.join(self.trainer.shelf)}"
        self._kept = None
        self.recorder.emit("note", text=f"the run goes on after {state['seconds']:.1f} s; in training: {living}")
        self.recorder.write()

    @property
    def result(self) -> RunResult:
        return self.recorder.result

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the trainer: all of the run that is not in a file of its own, and how far those go."""
        return {
            "seconds": self.recorder.seconds,
            "events": vars(self.folder.log.mark()),
            "search": vars(self.journal.mark()),
            "result": self.recorder.gathered().to_plain(),
            "base_score": self.base_score and asdict(self.base_score),
            "slots": self.slots,
            "racing": self.racing,
            "driver": self._driver and self._driver.state_dict(),
            "fingerprints": self.fingerprints,
            "free_bytes": self.prepared.facts.device.free_bytes,
            "trials": self.prepared.plan.trials,
            "past": plain(self.prepared.past),
        }

    @property
    def resumed(self) -> bool:
        """Whether it began with a checkpoint."""
        return self._driven is not None

    def driver(self) -> Driver:
        """The one driver of the run, with what it had come to in an earlier process."""
        limits = [s for s in (parse_seconds(self.prepared.config.limits.time), self.prepared.config.search.budget) if s]
        deadline = self.began + min(limits) if limits else None
        expired: Callable[[], bool] = lambda: deadline is not None and time.monotonic() > deadline  # noqa: E731
        keeper = Keeper(lambda: save_checkpoint(self.folder.checkpoints, self.trainer, self.state()))
        self._driver = Driver(self.trainer, self.recorder, self.slots or 1, self.save, expired, self.diagnosis, keeper)
        if self._driven is not None:
            self._driver.load_state_dict(self._driven)
        return self._driver

    def job(self, trial: str, params: dict[str, Any], *, seed_offset: int = 0, role: str = "sampled") -> Job:
        """A candidate of the plan's settings with `params` over them."""
        made = candidate(self.prepared.plan, trial, params, seed_offset=seed_offset)
        return Job(made, settings_of(made, self.values | params, self.prepared), role)

    # -- measuring -----------------------------------------------------------------------------------------------

    def score_base(self, rows: Sequence[Row], split: str) -> Score:
        """The bare base on a split."""
        sums = row_sums(
            self.packed, self.objective, rows, [], task=self.prepared.task, pad_id=self.base.pad_id,
            token_budget=2 * self.trainer.token_budget,
        )  # fmt: skip
        return score_of(sums[""], split, self.objective, self.metric)

    def measure_baseline(self) -> None:
        """The bare base on validation: where every candidate starts."""
        self.base_score = score = self.score_base(self.prepared.data.validation, "validation")
        self.result.baseline = named(score)
        if self.trainer.gauge:
            self.trainer.gauge.base = score
        self.recorder.send(Event("evaluated", data={"split": "validation", **score.metrics}))

    def score_saved(self, jobs: Sequence[Job], rows: Sequence[Row], split: str) -> dict[str, Score]:
        """Read saved adapters back and score them together on a split."""
        with self.seated(jobs):
            trials = [job.candidate.id for job in jobs]
            sums = row_sums(
                self.packed, self.objective, rows, trials, task=self.prepared.task, pad_id=self.base.pad_id,
                token_budget=2 * self.trainer.token_budget,
            )  # fmt: skip
        return {trial: score_of(sums[trial], split, self.objective, self.metric) for trial in trials}

    @contextmanager
    def seated(self, jobs: Sequence[Job]) -> Generator[None]:
        """The saved adapters of these candidates, in the pack for a while."""
        for job in jobs:
            made = job.candidate
            adapter = self.packed.add(made.id, made.adapter, made.training.seed)
            read_adapter(self.folder.trial_folder(made.id) / "adapter", adapter, self.base.model)
        try:
            yield
        finally:
            for job in jobs:
                self.packed.remove(job.candidate.id)

    # -- keeping -------------------------------------------------------------------------------------------------

    def save(self, seat: Seat) -> str:
        """Save a candidate's adapter, load it with PEFT, compare; only then it counts."""
        made = seat.candidate
        folder = self.folder.trial_folder(made.id) / "adapter"
        with keeping(folder):
            save_adapter(folder, seat.adapter.tensors(), made.adapter, self.base, max_length=self.values["data.max_length"])
        tolerance = LOGITS_TOLERANCE[self.values["model.dtype"]]
        difference = verify_adapter(folder, self.packed, made.id, self.base, self.probe(), tolerance=tolerance)
        self.recorder.emit("saved", made.id, seat.step, logits_difference=difference)
        return str(folder.relative_to(self.folder.path))

    def probe(self) -> dict[str, torch.Tensor]:
        """A few rows to compare logits on."""
        data = self.prepared.data
        rows = (data.validation or data.train)[:PROBE_ROWS]
        batch = collate(rows, self.base.pad_id, self.prepared.task).to(self.packed.device)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
        if self.prepared.task == "seq2seq_lm":
            inputs["decoder_input_ids"] = batch.labels.clamp(min=0)
        return inputs

    @contextmanager
    def running(self) -> Generator[None]:
        """Begin, or go on where the run stopped; whatever ends it early is written down before it is passed on.

        Raises:
            InterruptedRunError: Ctrl-C.
        """
        command = f"loraloom {self.result.verb} --resume {shlex.quote(str(self.folder.path))}"
        try:
            self._begin() if self._kept is None else self._go_on(self._kept)
            yield
        except KeyboardInterrupt as error:
            self._stop("interrupted", "the run was interrupted")
            raise InterruptedRunError("the run was interrupted; it can go on where it stopped", next=command) from error
        except BaseException as error:
            told = in_our_words(error, f"{command} (nothing is lost but the time since its last checkpoint)")
            self._stop("failed", f"the run failed: {first_line(told or error)}")
            if told is not None:
                raise told from error
            error.add_note(f"to go on with the run: {command}")
            raise
        finally:
            self.folder.unlock()

    def _stop(self, status: RunStatus, reason: str) -> None:
        # A disk that is full, or a memory that is, refuses this as well; the first error is the one to report.
        with suppress(Exception):
            self.recorder.suspend(reason)
            self.result.reason = reason
            self._close(status)

    def finish(self) -> Outcome:
        """Write the result, the report and the index; the run is over."""
        self._close("completed")
        self.folder.drop_checkpoints()
        return Outcome(self.folder, self.result)

    def _close(self, status: RunStatus) -> None:
        self.result.status, self.result.findings = status, self.diagnosis.of_run()
        self.recorder.emit("run_finished", status=status, reason=self.result.reason)
        self.recorder.write()
        write_report(self.folder)
        try:
            with Database(default_url(self.prepared.config.output_dir)) as database:
                database.record(self.result, self.folder.path)
        except StoreError as error:
            # The index can be made anew from the folders at any time: no reason to call a run failed.
            text = f"the index of runs was not brought up to date ({error.what}); `loraloom runs` does that when it can"
            self.recorder.watch(Event("note", at=self.recorder.seconds, data={"text": text}))


@contextmanager
def keeping(folder: Path) -> Generator[None]:
    """While an adapter is written: what the disk refuses, as a StoreError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise StoreError(
            "the adapter could not be saved",
            where=str(folder),
            got=getattr(error, "strerror", None) or str(error),
            next="make room, or choose another disk: --output-dir FOLDER; what was saved before is kept",
        ) from error


def _other_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Packages whose version is another than when the run was begun."""
    packages, present = before.get("packages", {}), now.get("packages", {})
    changed = [name for name in packages if packages[name] != present.get(name)]
    return ", ".join(f"{name} {packages[name]}, now {present.get(name, 'none')}" for name in changed)


def space_needed(prepared: Prepared) -> int:
    """Bytes of disk that the run's adapters and tokenizers may take."""
    made = candidate(prepared.plan, "size", {})
    linears = {fact.path: fact for fact in prepared.facts.model.linears}
    weights = sum(made.adapter.r * (linears[p].in_features + linears[p].out_features) for p in made.adapter.target_modules)
    kept = 8 + (WAITING if is_wide(prepared.config.search.pruner, prepared.plan.trials) else 0)
    return (prepared.plan.trials + 10) * (kept * weights + 4 * 2**20)


def settings_of(made: Candidate, values: dict[str, Any], prepared: Prepared) -> dict[str, object]:
    """Every setting of a candidate by dotted key, as tables and run.json show it."""
    adapter, training = asdict(made.adapter), asdict(made.training)
    shown = {key: value for key, value in values.items() if key.split(".")[0] in ("adapter", "training")}
    shown |= {f"adapter.{key}": value for key, value in adapter.items() if f"adapter.{key}" in shown}
    shown |= {f"training.{key}": value for key, value in training.items() if f"training.{key}" in shown}
    shown["adapter.target_modules"] = short_label(made.adapter.target_modules, prepared.facts.model.linears)
    shown["adapter.modules_to_save"] = list(made.adapter.modules_to_save)
    shown["training.seed"] = made.training.seed
    return shown


def best_folder(session: Session, trial: str) -> Path:
    """Copy a saved adapter to best/, load it with PEFT over weights read anew from the model's folder, compare."""
    source, target = session.folder.trial_folder(trial) / "adapter", session.folder.best
    with keeping(target):
        shutil.copytree(source, target, dirs_exist_ok=True)
    inputs = session.probe()
    resident = logits_of(load_peft(source, share_copy(session.base.model, own_biases=True)), inputs)
    # On the host: a second base may not fit beside the first one on a GPU.
    anew = logits_of(load_peft(target, session.prepared.load_base("cpu").model), {name: x.cpu() for name, x in inputs.items()})
    difference = float((resident - anew).abs().max() / resident.abs().max().clamp(min=1e-12))
    if not difference <= LOGITS_TOLERANCE[session.values["model.dtype"]]:
        raise VerificationError(
            f"best/ over freshly read weights gives other logits than the trained adapter: {difference:.2g} relative",
            next="check that the model's files did not change during the run",
        )
    return target
