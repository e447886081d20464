"""From a padded batch to one loss a row: what every training step and every evaluation stands on.

The model's own `labels=` is never used: its mean runs over the whole batch and would couple the
candidates. Here each row gives the sum of its token losses and the number of its supervised tokens;
whoever calls divides. For language models the head is applied to supervised positions only and in
chunks, so that the logits of a batch (tokens x vocabulary) never exist at once.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from loraloom.data.batches import Batch
from loraloom.evals.cross_entropy import Positions, head_form, losses_at
from loraloom.evals.shift import shift_of


@dataclass
class RowLosses:
    """Per row of a batch: `loss` [B], the sum over its supervised tokens, in nats (differentiable);
    `weight` [B], their number; `correct` [B], how many of them the model's first choice got right (NaN
    where a language model trains: it would cost a pass over the logits); `chosen` [B], the class that a
    classifier chose. Of pairs, one of each pair; `answers` [B, 6] has log-probability, reference's
    log-probability and tokens of the chosen side and of the rejected one; under a reward model
    `rewards` [B, 4] has the rewards of the chosen side and of the rejected one, then their tokens."""

    loss: Tensor
    weight: Tensor
    correct: Tensor
    chosen: Tensor | None = None
    answers: Tensor | None = None
    rewards: Tensor | None = None

    def slice(self, rows: slice) -> RowLosses:
        """These rows only."""
        return RowLosses(
            self.loss[rows],
            self.weight[rows],
            self.correct[rows],
            None if self.chosen is None else self.chosen[rows],
            None if self.answers is None else self.answers[rows],
            None if self.rewards is None else self.rewards[rows],
        )


class Objective(Protocol):
    """How a task's rows are scored. Call it inside `PackedModel.route`."""

    metric: str
    """Name of the share that is right: accuracy, or token_accuracy."""
    chance: float
    """Loss of guessing, all choices alike, in nats."""
    concurrent: bool
    """Whether several threads may ask for rows at once: asking leaves the model alone."""
    joined: bool
    """Whether pairs go through the model as one row each (`data.joined`)."""

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        """`at` is where `targets` are not -100, for who has looked already."""
        ...

    def targets(self, batch: Batch) -> Tensor | None:
        """What a language model should choose after each token [B, T], -100 where
        nothing is supervised."""
        ...


def per_row(at: Positions, size: int, losses_N: Tensor, right_N: Tensor) -> RowLosses:
    ones_N = torch.ones_like(losses_N.detach())
    if at.counted_N is not None:
        ones_N = at.counted_N.to(losses_N.dtype)
        losses_N = losses_N * ones_N
        right_N = right_N * ones_N
    loss = losses_N.new_zeros(size).index_add(0, at.rows_N, losses_N)
    weight = losses_N.new_zeros(size).index_add(0, at.rows_N, ones_N)
    correct = losses_N.new_zeros(size).index_add(0, at.rows_N, right_N.to(losses_N.dtype))
    return RowLosses(loss, weight, correct)


class CausalObjective:
    """Next-token loss of a decoder. Rows are padded on the right and need no mask: a
    token never looks ahead."""

    metric = "token_accuracy"
    joined = False

    def __init__(self, model: Any) -> None:
        self.form = head_form(model, {"input_ids": _some_ids(model)})
        self.concurrent = self.form.hidden != "given"
        self.chance = math.log(model.config.get_text_config().vocab_size)

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        at = Positions.of(self.targets(batch.on_host), batch.labels.device) if at is None else at
        losses_N, right_N = losses_at(model, self.form, {"input_ids": batch.input_ids}, at)
        return per_row(at, len(batch.labels), losses_N, right_N)

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels[:, 1:]


class ClassificationObjective:
    """Cross entropy of a class for each row."""

    metric = "accuracy"
    concurrent = True
    joined = False

    def __init__(self, model: Any) -> None:
        self.chance = math.log(max(2, model.config.num_labels))
        # A decoder would fill a cache that nobody reads.
        self.options = (
            {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
        )

    def targets(self, batch: Batch) -> None:
        return None

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """What the head says of each row [B, C], in float32 at least."""
        return _wide(
            model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **self.options
            ).logits
        )

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        logits_BC = self.logits(model, batch)
        loss = F.cross_entropy(logits_BC, batch.labels, reduction="none")
        chosen = logits_BC.detach().argmax(-1)
        right = (chosen == batch.labels).to(loss.dtype)
        return RowLosses(loss, torch.ones_like(right), right, chosen)


class Seq2SeqObjective:
    """Loss of the target's tokens given the source. The decoder reads the target one
    place to the right."""

    metric = "token_accuracy"
    joined = False

    def __init__(self, model: Any) -> None:
        ids = _some_ids(model)
        self.form = head_form(model, {"input_ids": ids, "decoder_input_ids": ids})
        self.concurrent = self.form.hidden != "given"
        self.shift = shift_of(model)
        self.chance = math.log(model.config.get_text_config(decoder=True).vocab_size)

    def targets(self, batch: Batch) -> Tensor:
        return batch.labels

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask.long(),
            "decoder_input_ids": self.shift(batch.labels),
        }
        at = Positions.of(self.targets(batch.on_host), batch.labels.device) if at is None else at
        losses_N, right_N = losses_at(model, self.form, inputs, at)
        return per_row(at, len(batch.labels), losses_N, right_N)


def objective_for(task: str, model: Any) -> Objective:
    """The objective of a task; asks the model (outside any wrapping) what its head is like."""
    if task == "causal_lm":
        return CausalObjective(model)
    if task == "seq_cls":
        return ClassificationObjective(model)
    return Seq2SeqObjective(model)


def _some_ids(model: Any) -> Tensor:
    vocabulary = model.config.get_text_config().vocab_size
    return torch.arange(4, device=next(model.parameters()).device)[None] % vocabulary


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
