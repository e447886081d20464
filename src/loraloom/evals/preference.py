"""Learning to choose between answers: log-probabilities of both sides, and what is formed of them.

Minus a row's loss in `CausalObjective` is the log-probability of its answer, with gradient; all else is
arithmetic on a few numbers a pair (`evals.preference_losses`). Candidates of one pack may differ in loss
and beta, and share the reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraloom.data.batches import Batch, Term
from loraloom.data.rows import IGNORED, Example, Judged, Row
from loraloom.evals.cross_entropy import Positions
from loraloom.evals.joined import reads_joined, side_losses, worth_joining
from loraloom.evals.objective import CausalObjective, Objective, RowLosses, objective_for
from loraloom.evals.preference_losses import Answers, Compared, kto, pair_loss
from loraloom.evals.reference import ReferenceLogps
from loraloom.evals.reward import RewardObjective
from loraloom.lora.packed import PackedModel
from loraloom.lora.transfer import send
from loraloom.records import Task

ROUNDING = 8
"""Sums of log-probabilities that are equal but for the way in which they were added differ by a few
times the precision of their numbers."""
REFERENCE_TOLERANCE = {
    torch.float64: 1e-6,
    torch.float32: 1e-3,
    torch.bfloat16: 5e-2,
    torch.float16: 2e-2,
}
"""How far a log-probability may be off that another run has kept, as a share of itself or of 1 nat:
passes of other shapes round otherwise."""


def task_objective(
    task: Task, model: Any, packed: PackedModel, *, pad_id: int, token_budget: int
) -> Objective:
    """The objective of a task, for preferences held against the base. Arguments as of
    `PreferenceObjective`."""
    if task == "reward":
        return RewardObjective(model)
    if task != "preference":
        return objective_for(task, model)
    return PreferenceObjective(model, packed, pad_id=pad_id, token_budget=token_budget)


class PreferenceObjective(CausalObjective):
    """Losses of pairs of answers, or of answers that are judged one by one. Rows that stand alone have
    the loss of a language model.

    Args:
        model: the base, before any layer is wrapped.
        packed: the same base with its adapters; None where a plain model is scored.
        token_budget: padded tokens of a pass of the reference.
        reference: a plain model that candidates are held against; None for the frozen base, or where
            there is no `packed`, for the model that is scored itself.
        by_likelihood: right is an answer that is likelier a token than the other one, where no
            candidate's loss has a reference in it; else one whose log-ratio is larger.
    """

    metric = "reward_accuracy"
    note: str | None = None
    """What a user should know of how the reference came to be."""

    def __init__(
        self,
        model: Any,
        packed: PackedModel | None,
        *,
        pad_id: int,
        token_budget: int,
        reference: Any = None,
        by_likelihood: bool = False,
    ) -> None:
        super().__init__(model)
        self.packed = packed
        # Of two answers, all alike: a loss that stays far above is no choice that is still to be learnt.
        self.chance = math.log(2)
        self.held_to_base = reference is None
        self.by_likelihood = by_likelihood
        self.reference = ReferenceLogps(
            self,
            packed.base_only if packed and reference is None else lambda: nullcontext(reference),
            pad_id=pad_id,
            token_budget=token_budget,
            tolerance=REFERENCE_TOLERANCE[model.dtype],
        )

    def join(self, examples: Sequence[Example]) -> None:
        """From now on let pairs go through the model as one row each, if that is less work and every
        model that is asked reads such rows as it reads two.

        Args:
            examples: what a run trains and is scored on.
        """
        assert self.packed is not None
        for opened in dict.fromkeys((self.packed.base_only, self.reference.model)):
            with opened() as model:
                if not (
                    worth_joining(examples, model.config.get_text_config())
                    and reads_joined(model, self.form, examples, self.reference.pad_id)
                ):
                    return
        self.joined = True

    def targets(self, batch: Batch) -> Tensor:
        """As of a language model, and the prompt of the chosen side where it is learnt too (`orpo`)."""
        targets_SU = super().targets(batch)
        whole = [place for place, term in enumerate(batch.terms) if "orpo" in term.spec.loss_type]
        if whole:
            targets_SU = targets_SU.clone()
        for place in whole:
            ids = batch.examples[place].sides[0].input_ids[1:]
            targets_SU[2 * place, : len(ids)] = torch.from_numpy(ids)
        return targets_SU

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        """One of each example of the batch: its loss, 1 for its weight, whether it was right (a half
        where nothing tells), and in `answers` its sides."""
        if not batch.examples:
            return super().rows(model, batch, at)
        host = batch.on_host
        # The prompt's tokens count in the likelihood of the whole alone.
        answer_S, nll_S = side_losses(model, self.form, batch, self.targets(host))
        if self.held_to_base and (self.packed is None or self.packed.bare):
            # A model against itself: no rounding is to look like a preference.
            reference_S = -answer_S.detach()
        else:
            known_S = self.reference.of(batch.examples)
            reference_S = send(known_S.to(answer_S.dtype), answer_S.device)
        answers_SU = host.labels[:, 1:] != IGNORED
        tokens_S = send(answers_SU.sum(1).to(answer_S.dtype), answer_S.device)
        return self._formed(batch, Answers(-answer_S, reference_S, tokens_S), nll_S)

    def _formed(self, batch: Batch, sides: Answers, nll_S: Tensor) -> RowLosses:
        if isinstance(batch.examples[0], Judged):
            good = [isinstance(one, Judged) and one.good for one in batch.examples]
            return self._of_judged(batch, sides, send(torch.tensor(good), nll_S.device))
        chosen, rejected = (_every(sides, slice(first, None, 2)) for first in (0, 1))
        pairs = Compared(chosen, rejected, nll_S[0::2])
        losses = [
            pair_loss(_scaled(pairs, terms, place), terms[0].spec)
            for place, terms in _groups(batch.terms)
        ]
        difference = pairs.difference
        if self.by_likelihood:
            difference = chosen.mean_logp - rejected.mean_logp
        return RowLosses(
            torch.cat(losses) if losses else torch.zeros_like(chosen.logp.detach()),
            torch.ones_like(chosen.tokens),
            _right(difference, chosen.logp.abs() + rejected.logp.abs()),
            answers=_columns(chosen, rejected),
        )

    def _of_judged(self, batch: Batch, sides: Answers, good: Tensor) -> RowLosses:
        losses = [
            kto(_every(sides, place), good[place], terms[0].kl, terms[0].spec)
            for place, terms in _groups(batch.terms)
        ]
        right = _right(torch.where(good, sides.ratio, -sides.ratio), sides.logp.abs())
        return RowLosses(
            torch.cat(losses) if losses else torch.zeros_like(sides.logp.detach()),
            torch.ones_like(sides.tokens),
            right,
            answers=_columns(_kept(sides, good), _kept(sides, ~good)),
        )


def _right(difference: Tensor, size: Tensor) -> Tensor:
    """1 where a difference is above 0, 0 below, and a half where it is no more than rounding leaves of
    numbers of this size: a candidate that has not moved yet prefers nothing."""
    nothing = ROUNDING * torch.finfo(size.dtype).eps * size
    told = torch.where(difference.abs() > nothing, difference, torch.zeros_like(difference))
    return (1 + told.detach().sign()) / 2


def _groups(terms: Sequence[Term]) -> list[tuple[slice, list[Term]]]:
    """The examples of each candidate, which stand beside one another."""
    groups: list[tuple[slice, list[Term]]] = []
    start = 0
    for _, same in groupby(terms, key=lambda term: (term.spec, term.kl)):
        own = list(same)
        groups.append((slice(start, start + len(own)), own))
        start += len(own)
    return groups


def _scaled(pairs: Compared, terms: Sequence[Term], place: slice) -> Compared:
    """The pairs of one candidate, with the likelihood as its window averages it."""
    scale = torch.tensor([term.per_token for term in terms], dtype=pairs.nll.dtype)
    nll = pairs.nll[place] * send(scale, pairs.nll.device)
    return Compared(_every(pairs.chosen, place), _every(pairs.rejected, place), nll)


def _every(sides: Answers, place: slice) -> Answers:
    return Answers(sides.logp[place], sides.reference[place], sides.tokens[place])


def _kept(sides: Answers, which: Tensor) -> Answers:
    """These answers; 0 tokens where there is another one."""
    nothing = torch.zeros_like(sides.tokens)
    return Answers(
        *(torch.where(which, one, nothing) for one in (sides.logp, sides.reference, sides.tokens))
    )


def _columns(chosen: Answers, rejected: Answers) -> Tensor:
    """[N, 6]: `logp`, `reference` and `tokens` of the chosen side, then of the rejected one."""
    columns = [one for side in (chosen, rejected) for one in (side.logp, side.reference, side.tokens)]
    return torch.stack([column.detach() for column in columns], 1)


def crossed(judged: Sequence[Example], longest: int) -> list[Row]:
    """Each prompt with the answer of the row before it, the first with the last one's: answers that
    nobody gave, by which `kto` estimates how far a candidate has moved (as TRL does, in its batches).

    Args:
        judged: the examples of a window.
        longest: tokens after which a row is cut.
    """
    rows = [one.sides[0] for one in judged]
    starts = [int(np.argmax(row.labels != IGNORED)) for row in rows]
    found: list[Row] = []
    for place, (row, start) in enumerate(zip(rows, starts, strict=True)):
        other, after = rows[place - 1], starts[place - 1]
        prompt, answer = row.input_ids[:start], other.input_ids[after:]
        labels = np.concatenate([np.full(start, IGNORED, np.int32), other.labels[after:]])
        found.append(Row(np.concatenate([prompt, answer])[:longest], labels[:longest]))
    return found
