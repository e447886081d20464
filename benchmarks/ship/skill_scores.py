"""Losses of two tasks under an adapter, the choice of a method's weights, and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from loraloom.adapters.combine.adapters import DENSITY, combine
from loraloom.adapters.form import Form
from loraloom.adapters.inputs import Moments, added, input_moments
from loraloom.data.batches import Batch
from loraloom.pipeline.regmean import ROUNDS

WEIGHTS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 2.5)
DENSITIES = (0.3, 0.6, 1.0)
BATCH = 20
DRAWS = 2000
"""Of the bootstrap."""


@dataclass(frozen=True)
class RowScores:
    """Of each row of a task.

    Attributes:
        loss: nats a token of the answer, its end included.
        right: whether each token of the answer is the likeliest, so that greedy decoding writes it.
    """

    loss: NDArray[np.float64]
    right: NDArray[np.bool_]


Scores = dict[str, RowScores]
"""By task."""
Encoded = dict[str, list[tuple[Tensor, int]]]
"""Ids of each row, and how many of them are the prompt, by task."""


class Scorer:
    """The base in float32, into which an adapter is added for a while."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self._pad = self._tokenizer.pad_token_id

    def encoded(self, rows: Sequence[Mapping[str, str]]) -> list[tuple[Tensor, int]]:
        """Rows as the base's chat template writes them, shortest first."""
        found: list[tuple[Tensor, int]] = []
        end = self._tokenizer.eos_token
        for row in rows:
            talk = [{"role": "user", "content": row["user"]}]
            prompt = self._tokenizer.apply_chat_template(
                talk, tokenize=False, add_generation_prompt=True
            )
            parts = [
                self._tokenizer(text, add_special_tokens=False).input_ids
                for text in (prompt, row["assistant"] + end)
            ]
            found.append((torch.tensor(parts[0] + parts[1]), len(parts[0])))
        return sorted(found, key=lambda one: len(one[0]))

    def scores(self, tasks: Encoded, form: Form | None = None) -> Scores:
        """Of every task, under an adapter or bare."""
        with torch.no_grad(), nullcontext() if form is None else added(self._model, form):
            return {name: self._task(rows) for name, rows in tasks.items()}

    def moments(self, form: Form, rows: Sequence[tuple[Tensor, int]]) -> Moments:
        """Of what the layers read on these rows under an adapter."""
        batches = [self._batch(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
        return input_moments(self._model, form, batches, lambda one: self._model(one.input_ids))

    def _batch(self, rows: Sequence[tuple[Tensor, int]]) -> Batch:
        ids_BT = torch.nn.utils.rnn.pad_sequence(
            [ids for ids, _ in rows], batch_first=True, padding_value=self._pad
        )
        return Batch(ids_BT, ids_BT != self._pad, ids_BT)

    def _task(self, rows: Sequence[tuple[Tensor, int]]) -> RowScores:
        losses: list[float] = []
        right: list[bool] = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            logits_BTV = self._model(self._batch(part).input_ids).logits
            for (ids, prompt), logits_TV in zip(part, logits_BTV, strict=True):
                answer, told_TV = ids[prompt:], logits_TV[prompt - 1 : len(ids) - 1]
                losses.append(float(torch.nn.functional.cross_entropy(told_TV, answer)))
                right.append(bool((told_TV.argmax(-1) == answer).all()))
        return RowScores(np.array(losses), np.array(right))


@dataclass(frozen=True)
class Skills:
    """Adapters of one seed, and rows that each was trained on, for the method that reads some."""

    scorer: Scorer
    forms: Sequence[Form]
    trained_on: Sequence[Sequence[tuple[Tensor, int]]]

    def combined(
        self,
        method: str,
        rank: int | None,
        weights: Sequence[float] = (1.0, 1.0),
        density: float = DENSITY,
    ) -> Form:
        """What `adapter combine` makes of them."""
        if method != "regmean":
            return combine(self.forms, weights, method, rank=rank, density=density).form
        inforce = list(self.forms)
        for _ in range(ROUNDS):
            moments = [
                self.scorer.moments(form, rows)
                for form, rows in zip(inforce, self.trained_on, strict=True)
            ]
            found = combine(self.forms, weights, method, moments=moments).form
            inforce = [found] * len(self.forms)
        return inforce[0]


@dataclass
class Choice:
    """What weights are chosen by: the smaller one of the two shares of gains on validation rows."""

    skills: Skills
    rows: Encoded
    base: Scores
    own: Sequence[Scores]

    def worst(self, form: Form) -> float:
        found = self.skills.scorer.scores(self.rows, form)
        return min(
            _share(self.base[name].loss, alone[name].loss, found[name].loss)
            for name, alone in zip(self.rows, self.own, strict=True)
        )


def choose(aims: Choice, method: str, rank: int | None) -> dict[str, Any]:
    """Climb from weights of 1, one step of one number at a time, until no step is better."""
    axes: list[Sequence[float]] = [WEIGHTS, WEIGHTS]
    place = [WEIGHTS.index(1.0)] * 2
    if method in ("ties", "dare", "knots"):
        axes.append(DENSITIES)
        place.append(len(DENSITIES) - 1)

    def told(at: tuple[int, ...]) -> dict[str, Any]:
        numbers = [axis[i] for axis, i in zip(axes, at, strict=True)]
        return {"weights": numbers[:2]} | ({"density": numbers[2]} if len(numbers) > 2 else {})

    seen: dict[tuple[int, ...], float] = {}

    def value(at: tuple[int, ...]) -> float:
        if at not in seen:
            seen[at] = aims.worst(aims.skills.combined(method, rank, **told(at)))
        return seen[at]

    best = tuple(place)
    while True:
        around = [
            (*best[:axis], best[axis] + step, *best[axis + 1 :])
            for axis in range(len(axes))
            for step in (-1, 1)
            if 0 <= best[axis] + step < len(axes[axis])
        ]
        next_best = max([best, *around], key=value)
        if next_best == best:
            return told(best)
        best = next_best


def shares(base: Scores, own: Sequence[Scores], found: Sequence[Scores]) -> dict[str, Any]:
    """Share of each task's gain that is kept, with a 95% interval by bootstrap over seeds and rows."""
    told: dict[str, Any] = {}
    for name in base:
        bare = base[name].loss
        alone = np.stack([one[name].loss for one in own])
        both = np.stack([one[name].loss for one in found])
        random = np.random.default_rng(0)
        draws: list[float] = []
        for _ in range(DRAWS):
            seeds = random.integers(0, len(alone), len(alone))[:, None]
            rows = random.integers(0, len(bare), len(bare))
            draws.append(_share(bare[rows], alone[seeds, rows], both[seeds, rows]))
        told[name] = {
            "share": _share(bare, alone, both),
            "interval": [float(edge) for edge in np.quantile(draws, (0.025, 0.975))],
            "loss": float(both.mean()),
            "right": float(np.mean([one[name].right.mean() for one in found])),
        }
    return told


def _share(base: NDArray[Any], own: NDArray[Any], found: NDArray[Any]) -> float:
    return float((base.mean() - found.mean()) / (base.mean() - own.mean()))
