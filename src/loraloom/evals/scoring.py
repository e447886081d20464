"""Score candidates on a split: all of them in the same passes, one number a row kept
for paired comparisons."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from loraloom.data.batches import collate
from loraloom.data.joined import padded_tokens
from loraloom.data.rows import Example, Judged
from loraloom.evals.metrics import class_metrics
from loraloom.evals.objective import Objective, RowLosses
from loraloom.evals.preference_scores import preference_losses, preference_metrics
from loraloom.evals.reward import reward_metrics
from loraloom.lora.packed import PackedModel
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.lora.transfer import fetch
from loraloom.lora.workers import Workers
from loraloom.records import PreferenceSpec, Score, Task
from loraloom.search.compare import ratio_of_sums

EVALUATION_FACTOR = 2
"""A pass that only scores holds this many times the tokens of a training pass, and one
row of each candidate at least."""


@dataclass(frozen=True)
class RowSums:
    """Per row of a split: sum of losses, supervised tokens, and right first choices; each [rows].

    A classifier's rows also have the class that was `chosen` and the true one, `labels`. `clusters` as
    in `Score`; empty where each row is a draw of its own. Pairs have one of each pair, and `answers`
    [rows, 6] or `rewards` [rows, 4] as of `RowLosses`. `sources` names the source of each row, where
    there are several.
    """

    loss: np.ndarray
    weight: np.ndarray
    correct: np.ndarray
    chosen: np.ndarray | None = None
    labels: np.ndarray | None = None
    clusters: tuple[int, ...] = ()
    answers: np.ndarray | None = None
    sources: tuple[str, ...] = ()
    rewards: np.ndarray | None = None

    def of_source(self, name: str) -> RowSums:
        """The rows of one source."""
        own = np.array([source == name for source in self.sources])
        clusters = tuple(np.array(self.clusters)[own].tolist()) if self.clusters else ()
        return RowSums(self.loss[own], self.weight[own], self.correct[own], clusters=clusters)


class RowTable:
    """Row sums as they come in, batch by batch, in any order."""

    def __init__(self, rows: Sequence[Example]) -> None:
        self._sums = np.zeros((3, len(rows)))
        self._answers: np.ndarray | None = None
        self._rewards: np.ndarray | None = None
        self._classes = np.full((2, len(rows)), -1, dtype=np.int64)
        owners = [row.cluster if row.cluster >= 0 else -1 - number for number, row in enumerate(rows)]
        self._clusters = tuple(owners) if len(set(owners)) < len(owners) else ()
        sources = tuple(row.source for row in rows)
        self._sources = sources if len(set(sources)) > 1 else ()

    def put(self, places: Sequence[int], result: RowLosses, labels: Tensor) -> None:
        """The rows of `places`; `result` and `labels` hold them in that order, on the host."""
        self._sums[:, places] = (
            torch.stack([result.loss, result.weight, result.correct]).double().numpy()
        )
        if result.chosen is not None:
            self._classes[:, places] = torch.stack([result.chosen, labels]).numpy()
        self._answers = self._with(self._answers, places, result.answers)
        self._rewards = self._with(self._rewards, places, result.rewards)

    def _with(
        self, table: np.ndarray | None, places: Sequence[int], found: Tensor | None
    ) -> np.ndarray | None:
        """A table of all rows with what was found of some of them, where there is anything."""
        if found is None:
            return table
        table = np.zeros((self._sums.shape[1], found.shape[1])) if table is None else table
        table[places] = found.double().numpy()
        return table

    def sums(self) -> RowSums:
        loss, weight, correct = self._sums
        chosen, labels = self._classes if (self._classes >= 0).all() else (None, None)
        of = (chosen, labels, self._clusters, self._answers, self._sources, self._rewards)
        return RowSums(loss, weight, correct, *of)


def score_of(
    sums: RowSums,
    split: str,
    objective: Objective,
    decide_by: str,
    preference: PreferenceSpec | None = None,
) -> Score:
    """Turn row sums into metrics with their errors. `decide_by` names the metric whose
    cost is kept a row.

    Args:
        preference: of the candidate, where its rows are pairs or judged answers.
    """
    told: dict[str, float] = {}
    if sums.answers is not None:
        told = preference_metrics(sums.answers, sums.clusters)
        sums = replace(sums, loss=preference_losses(sums.answers, preference or PreferenceSpec()))
    if sums.rewards is not None:
        told = reward_metrics(sums.rewards, sums.clusters)
    metrics = _with_error("loss", sums.loss, sums) | _with_error(objective.metric, sums.correct, sums)
    if objective.metric == "token_accuracy":
        metrics["perplexity"] = float(np.exp(min(metrics["loss"], 700.0)))
        metrics["perplexity_se"] = metrics["perplexity"] * metrics["loss_se"]
    if sums.chosen is not None and sums.labels is not None:
        metrics |= class_metrics(sums.chosen, sums.labels)
    metrics |= told
    for source in dict.fromkeys(sums.sources):
        own = sums.of_source(source)
        metrics |= _with_error(f"loss/{source}", own.loss, own)
        metrics |= _with_error(f"{objective.metric}/{source}", own.correct, own)
    per_row = np.maximum(sums.weight, 1)
    costs = sums.loss / per_row if decide_by.endswith("loss") else 1 - sums.correct / per_row
    return Score(split, metrics, tuple(costs.tolist()), tuple(sums.weight.tolist()), sums.clusters)


def fingerprint(examples: Sequence[Example]) -> str:
    """Short text that is equal for equal rows in the same order: scores of them can be
    compared in pairs."""
    digest = hashlib.blake2b(digest_size=12)
    for example in examples:
        if isinstance(example, Judged):
            digest.update(b"good" if example.good else b"bad")
        for ids in (ids for row in example.sides for ids in (row.input_ids, row.labels)):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(ids, dtype=np.int64).tobytes())
    return digest.hexdigest()


def _with_error(name: str, values: np.ndarray, sums: RowSums) -> dict[str, float]:
    found = ratio_of_sums(values, sums.weight, sums.clusters)
    # An error that is not known is nan in a metric, as everywhere else: not infinite.
    return {name: found.mean, f"{name}_se": found.se if math.isfinite(found.se) else math.nan}


def row_sums(
    packed: PackedModel,
    objective: Objective,
    rows: Sequence[Example],
    trials: Sequence[str],
    *,
    task: Task,
    pad_id: int,
    token_budget: int,
    workers: Workers | None = None,
) -> dict[str, RowSums]:
    """Score `trials` on `rows`; no trials is the bare base, under the key "".

    Each pass takes the same rows for every trial; rows go by length, so that little is padded. The
    result is in the order of `rows`.

    Args:
        token_budget: padded tokens, of all trials, that are scored at a time.
        workers: share the passes.
    """
    workers = workers or Workers(packed.device, 1)
    names = list(trials) or [""]
    tables = {name: RowTable(rows) for name in names}
    joined = objective.joined
    order = sorted(range(len(rows)), key=lambda i: padded_tokens(rows[i], joined=joined))

    @torch.no_grad()
    def score(chosen: Sequence[int]) -> tuple[RowLosses, Tensor]:
        batch = collate([rows[i] for i in chosen] * len(names), pad_id, task, joined=joined)
        batch = batch.to(packed.device)
        size = len(batch.input_ids) // len(names)
        segments = tuple(Segment(trial, k * size, (k + 1) * size) for k, trial in enumerate(trials))
        with packed.route(Routing(segments)) as model:
            return objective.rows(model, batch), batch.on_host.labels

    passes = in_passes(order, rows, len(names), token_budget // workers.count, joined=joined)
    for chosen, (result, labels) in zip(
        passes, workers.map(score, passes, together=objective.concurrent), strict=True
    ):
        result = on_host(result)
        for k, name in enumerate(names):
            own = slice(k * len(chosen), (k + 1) * len(chosen))
            tables[name].put(chosen, result.slice(own), labels[own])
    return {name: table.sums() for name, table in tables.items()}


def on_host(result: RowLosses) -> RowLosses:
    """Read whole, all at once: each copy makes the host wait for the device."""
    names = ("loss", "weight", "correct", "chosen", "answers", "rewards")
    parts = {name: part for name in names if (part := getattr(result, name)) is not None}
    return RowLosses(**dict(zip(parts, fetch(list(parts.values())), strict=True)))


def in_passes(
    order: Sequence[int],
    rows: Sequence[Example],
    names: int,
    token_budget: int,
    *,
    joined: bool = False,
) -> list[list[int]]:
    """Cut rows (shortest first) into batches of at most the budget, one row at least."""
    passes: list[list[int]] = []
    current: list[int] = []
    for i in order:
        tokens = padded_tokens(rows[i], joined=joined)
        if current and (len(current) + 1) * tokens * names > token_budget:
            passes.append(current)
            current = []
        current.append(i)
    return [*passes, current] if current else passes
