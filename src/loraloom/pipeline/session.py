"""A run that works: base loaded, folder made, pack ready. `train` and `tune` differ only in who asks for candidates."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Generator, Sequence
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
from loraloom.errors import ConfigError, StoreError, VerificationError
from loraloom.evals.objective import objective_for
from loraloom.evals.scoring import row_sums, score_of
from loraloom.facts.device import environment
from loraloom.lora.base import Base, share_copy
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import load_peft, logits_of, read_adapter, save_adapter, verify_adapter
from loraloom.lora.targets import short_label
from loraloom.pipeline.drive import Driver, Job
from loraloom.pipeline.prepare import Prepared
from loraloom.pipeline.recorder import Recorder, Watch, named
from loraloom.plan.planner import candidate
from loraloom.records import Candidate, Event, Score
from loraloom.report.page import write_report
from loraloom.store.database import Database, default_url
from loraloom.store.folder import RunFolder, require_space
from loraloom.store.result import RunResult, RunStatus
from loraloom.train.pack import PackTrainer, Seat

LOGITS_TOLERANCE = {"float64": 1e-8, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of logits, relative to the largest, between a trained adapter and the same one loaded by PEFT, which
multiplies in float32 whatever the base is in."""
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
    """Everything that a running `train` or `tune` holds."""

    def __init__(self, prepared: Prepared, verb: str, watch: Watch) -> None:
        config = prepared.config
        self.prepared, self.values = prepared, prepared.plan.values()
        self.began = time.monotonic()
        self.base: Base = prepared.load_base()
        self.metric, direction = deciding_metric(config.search.metric, prepared.task)
        self.objective = objective_for(prepared.task, self.base.model, prepack=prepared.plan.prepack)
        self.packed = PackedModel(
            share_copy(self.base.model), fresh_modules=self.base.fresh_modules, prepack=prepared.plan.prepack
        )
        require_space(config.output_dir, space_needed(prepared))
        self.folder = RunFolder.create(config.output_dir, config.name)
        self.folder.write_config(to_plain(config))
        self.folder.write_resolved(prepared.plan.settings)
        result = RunResult(
            name=self.folder.name, verb=verb, status="running", model=self.base.name_or_path, task=prepared.task,
            started_at=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            metric=f"validation_{self.metric}", direction=direction, environment=environment(),
            base_parameters=self.base.parameters, labels=list(prepared.data.label_names or ()),
        )  # fmt: skip
        self.recorder = Recorder(self.folder, result, watch)
        self.trainer = PackTrainer(
            self.packed, prepared.data.train, self.objective, task=prepared.task, pad_id=self.base.pad_id,
            validation=prepared.data.validation, decide_by=self.metric, token_budget=prepared.plan.token_budget,
            checkpointing=bool(self.values["training.gradient_checkpointing"]),
        )  # fmt: skip
        self.recorder.emit(
            "run_started", verb=verb, model=result.model, task=result.task, started_at=result.started_at, metric=result.metric,
            direction=direction, base_parameters=result.base_parameters,
        )  # fmt: skip
        self.base_score: Score | None = None
        for warning in prepared.plan.warnings:
            self.recorder.note(warning)

    @property
    def result(self) -> RunResult:
        return self.recorder.result

    def driver(self, slots: int) -> Driver:
        limits = [s for s in (parse_seconds(self.prepared.config.limits.time), self.prepared.config.search.budget) if s]
        deadline = self.began + min(limits) if limits else None
        expired: Callable[[], bool] = lambda: deadline is not None and time.monotonic() > deadline  # noqa: E731
        return Driver(self.trainer, self.recorder, slots, self.save, expired)

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
            save_adapter(folder, seat.adapter.tensors(), made.adapter, self.base)
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
        """Whatever ends the run early is written down before it is passed on: no result stays at "running"."""
        try:
            yield
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            # A disk that is full refuses this as well; the first error is the one to report.
            with suppress(StoreError):
                self.recorder.abandon("the run was interrupted" if interrupted else "the run failed")
                self._close("interrupted" if interrupted else "failed")
            raise

    def finish(self) -> Outcome:
        """Write the result, the report and the index; the run is over."""
        self._close("completed")
        return Outcome(self.folder, self.result)

    def _close(self, status: RunStatus) -> None:
        self.result.status = status
        self.recorder.emit("run_finished", status=status)
        self.recorder.write()
        write_report(self.folder)
        with Database(default_url(self.prepared.config.output_dir)) as database:
            database.record(self.result, self.folder.path)


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


def deciding_metric(asked: str, task: str) -> tuple[str, Any]:
    """(name without its split, direction) of the metric that decides.

    Raises:
        ConfigError: a metric that the task does not have.
    """
    share = "accuracy" if task == "seq_cls" else "token_accuracy"
    name = asked.removeprefix("validation_")
    if name == "auto":
        name = share if task == "seq_cls" else "loss"
    if name not in ("loss", share):
        raise ConfigError(
            f"`search.metric` is {asked}", need=f"auto, validation_loss or validation_{share} for {task}", next="leave it auto"
        )
    return name, "minimize" if name == "loss" else "maximize"


def space_needed(prepared: Prepared) -> int:
    """Bytes of disk that the run's adapters and tokenizers may take."""
    config = prepared.config
    made = candidate(prepared.plan, "size", {})
    linears = {fact.path: fact for fact in prepared.facts.model.linears}
    weights = sum(made.adapter.r * (linears[p].in_features + linears[p].out_features) for p in made.adapter.target_modules)
    return (config.search.trials + 10) * (8 * weights + 4 * 2**20)


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
    anew = logits_of(load_peft(target, session.prepared.load_base().model), inputs)
    difference = float((resident - anew).abs().max() / resident.abs().max().clamp(min=1e-12))
    if not difference <= LOGITS_TOLERANCE[session.values["model.dtype"]]:
        raise VerificationError(
            f"best/ over freshly read weights gives other logits than the trained adapter: {difference:.2g} relative",
            next="check that the model's files did not change during the run",
        )
    return target
