"""All that computes in a run: the base with its pack, the loss, the trainer. It knows no run folder.

A worker on another machine holds one of these, made from the same request; `run_log` is
what the run itself keeps.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError

from loraloom.config import names
from loraloom.data.batches import collate
from loraloom.data.rows import Example
from loraloom.errors import StoreError
from loraloom.evals.objective import Objective
from loraloom.evals.preference import PreferenceObjective, task_objective
from loraloom.evals.scoring import RowSums, score_of
from loraloom.lora.base import Base, share_copy
from loraloom.lora.device_faults import is_out_of_memory
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import read_adapter, save_adapter, verify_adapter
from loraloom.pipeline.mixing import mixed_orders
from loraloom.pipeline.preferences import preference_objective, preferred_already
from loraloom.pipeline.prepare import Prepared, deciding_metric
from loraloom.pipeline.variants import augmented_orders
from loraloom.plan.planner import candidate
from loraloom.records import Candidate, Score
from loraloom.train.checkpoint import Checkpoint
from loraloom.train.pack import PackTrainer
from loraloom.train.seat import Seat

LOGITS_TOLERANCE = {"float64": 1e-8, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest difference of logits, relative to the largest, between a trained adapter and the same one
loaded by PEFT, which multiplies in float32 whatever the base is in."""
PROBE_ROWS = 4
"""Rows on which a saved adapter's logits are compared with the trained one's."""


class Workbench:
    """The base of a prepared run, its pack and its trainer. The base is loaded when it is first asked
    for: a driver whose workers are elsewhere needs none before the end.

    Attributes:
        metric: what candidates are judged by on validation.
        base_score: what candidates begin with on validation, once it was measured: the bare base, or
            the initial adapter.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared, self.values = prepared, prepared.plan.values()
        self.metric, self.direction = deciding_metric(prepared.config.search.metric, prepared.task)
        self.base_score: Score | None = None

    @cached_property
    def base(self) -> Base:
        return self.prepared.load_base()

    @cached_property
    def objective(self) -> Objective:
        if self.prepared.task == "preference":
            return preference_objective(self.prepared, self.base, self.packed)
        return task_objective(
            self.prepared.task,
            self.base.model,
            self.packed,
            pad_id=self.base.pad_id,
            token_budget=self.prepared.plan.token_budget,
        )

    @cached_property
    def packed(self) -> PackedModel:
        return PackedModel(share_copy(self.base.model), fresh_modules=self.base.fresh_modules)

    @cached_property
    def trainer(self) -> PackTrainer:
        plan, data = self.prepared.plan, self.prepared.data
        variants = self.prepared.variants
        copies = [row for one in variants for row in one.rows]
        trained = self.prepared.trained
        plain = mixed_orders(self.prepared.config.data, data.train, self.prepared.replay)
        trainer = PackTrainer(
            self.packed,
            (*trained, *copies),
            self.objective,
            task=self.base.task,
            pad_id=self.base.pad_id,
            validation=data.validation,
            decide_by=self.metric,
            token_budget=plan.token_budget,
            checkpointing=self.values[names.GRADIENT_CHECKPOINTING],
            signals=self.prepared.config.diagnose.signals,
            workers=plan.workers,
            order_of=augmented_orders(plain, variants, len(trained)) if variants else plain,
        )
        if isinstance(self.objective, PreferenceObjective) and self.objective.note:
            trainer.note(self.objective.note)
        for found in preferred_already(self.objective, self.prepared):
            trainer.note(f"{found.symptom}; {found.evidence}")
        return trainer

    def restore(self, kept: Checkpoint) -> None:
        """Seat the candidates of a checkpoint where they were."""
        self.trainer.load_state_dict(kept.trainer)

    def measure_base(self) -> Score:
        """The bare base on validation: where every candidate starts."""
        score = self.score_base(self.prepared.data.validation, "validation")
        self.take_base(score)
        return score

    def take_base(self, score: Score | None) -> None:
        """What the bare base scores on validation."""
        self.base_score = score
        if self.trainer.gauge:
            self.trainer.gauge.base = score

    # -- scoring
    # -------------------------------------------------------------------------------------------------

    def sums(self, rows: Sequence[Example], trials: Sequence[str]) -> dict[str, RowSums]:
        """Losses of rows under candidates that sit in the pack; under the bare base, as
        "", where none is named."""
        return self.trainer.row_sums(rows, trials)

    def score_base(self, rows: Sequence[Example], split: str) -> Score:
        """The bare base on a split."""
        own = candidate(self.prepared.plan, "base", {}).training.preference
        return score_of(self.sums(rows, [])[""], split, self.objective, self.metric, own)

    def score_saved(
        self, saved: Sequence[tuple[Candidate, Path]], rows: Sequence[Example], split: str
    ) -> dict[str, Score]:
        """Read saved adapters back from their folders and score them together on a split."""
        with self.seated(saved):
            sums = self.sums(rows, [made.id for made, _ in saved])
        return {
            made.id: score_of(
                sums[made.id], split, self.objective, self.metric, made.training.preference
            )
            for made, _ in saved
        }

    @contextmanager
    def seated(self, saved: Sequence[tuple[Candidate, Path]]) -> Generator[None]:
        """Saved adapters, in the pack for a while."""
        for made, folder in saved:
            adapter = self.packed.add(made.id, made.adapter, made.training.seed)
            read_adapter(folder, adapter, self.base.model)
        try:
            yield
        finally:
            for made, _ in saved:
                self.packed.remove(made.id)

    # -- keeping adapters
    # ----------------------------------------------------------------------------------------

    def save(self, seat: Seat, folder: Path) -> float:
        """Save a candidate's adapter, load it with PEFT, compare: the largest
        difference of logits, relative.

        Raises:
            StoreError: the disk refused.
            VerificationError: what was saved is not what was trained.
        """
        length = self.values[names.MAX_LENGTH]
        with keeping(folder):
            save_adapter(
                folder, seat.adapter.tensors(), seat.candidate.adapter, self.base, max_length=length
            )
        try:
            return self._verified(seat, folder, PROBE_ROWS)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.trainer.free_memory()
        return self._verified(seat, folder, 1)

    def _verified(self, seat: Seat, folder: Path, rows: int) -> float:
        return verify_adapter(
            folder, self.packed, seat.id, self.base, self.probe(rows), tolerance=self.tolerance
        )

    @property
    def tolerance(self) -> float:
        """Of `save` and whoever compares logits after it."""
        return LOGITS_TOLERANCE[self.values[names.DTYPE]]

    def probe(self, rows: int = PROBE_ROWS) -> dict[str, torch.Tensor]:
        """A few rows to compare logits on."""
        data = self.prepared.data
        batch = collate((data.validation or data.train)[:rows], self.base.pad_id, self.base.task).to(
            self.packed.device
        )
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
        if self.prepared.task == "seq2seq_lm":
            inputs["decoder_input_ids"] = batch.labels.clamp(min=0)
        return inputs


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
