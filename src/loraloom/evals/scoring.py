"""Score candidates on a split: all of them in the same passes, one number a row kept for paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from loraloom.data.batches import collate
from loraloom.data.encode import Row
from loraloom.evals.objective import Objective
from loraloom.lora.packed import PackedModel, Routing, Segment
from loraloom.records import Score, Task


@dataclass(frozen=True)
class RowSums:
    """Per row of a split: sum of losses, supervised tokens, and right first choices; each [rows]."""

    loss: np.ndarray
    weight: np.ndarray
    correct: np.ndarray


def ratio_with_error(sums: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """sum(sums) / sum(weights) and its standard error over rows (ratio estimator, Cochran 1977, section 6.4).

    Rows, not tokens, are the independent draws: tokens of a row rise and fall together.
    """
    total = float(weights.sum())
    if total == 0:
        return float("nan"), float("nan")
    mean = float(sums.sum()) / total
    residuals = sums - mean * weights
    n = len(sums)
    error = float(np.sqrt(n / max(n - 1, 1) * np.square(residuals).sum())) / total
    return mean, error


def score_of(sums: RowSums, split: str, objective: Objective, decide_by: str) -> Score:
    """Turn row sums into metrics with their errors. `decide_by` names the metric whose cost is kept a row."""
    loss, loss_se = ratio_with_error(sums.loss, sums.weight)
    right, right_se = ratio_with_error(sums.correct, sums.weight)
    metrics = {"loss": loss, "loss_se": loss_se, objective.metric: right, f"{objective.metric}_se": right_se}
    if objective.metric == "token_accuracy":
        metrics["perplexity"] = float(np.exp(min(loss, 700.0)))
        metrics["perplexity_se"] = metrics["perplexity"] * loss_se
    per_row = np.maximum(sums.weight, 1)
    costs = sums.loss / per_row if decide_by.endswith("loss") else 1 - sums.correct / per_row
    return Score(split, metrics, tuple(costs.tolist()), tuple(sums.weight.tolist()))


@torch.no_grad()
def row_sums(
    packed: PackedModel,
    objective: Objective,
    rows: Sequence[Row],
    slots: Sequence[str],
    *,
    task: Task,
    pad_id: int,
    token_budget: int,
) -> dict[str, RowSums]:
    """Score `slots` on `rows`; no slots is the bare base, under the key "".

    Each pass takes the same rows for every slot, at most `token_budget` padded tokens in all; rows go by length,
    so that little is padded. The result is in the order of `rows`.
    """
    lanes = list(slots) or [""]
    out = {lane: np.zeros((3, len(rows))) for lane in lanes}
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    for chosen in _passes(order, rows, len(lanes), token_budget):
        size = len(chosen)
        batch = collate([rows[i] for i in chosen] * len(lanes), pad_id, task).to(packed.device)
        segments = tuple(Segment(slot, k * size, (k + 1) * size) for k, slot in enumerate(slots))
        with packed.route(Routing(segments)) as model:
            result = objective.rows(model, batch)
        stacked = torch.stack([result.loss, result.weight, result.correct]).double().cpu().numpy()
        for k, lane in enumerate(lanes):
            out[lane][:, chosen] = stacked[:, k * size : (k + 1) * size]
    return {lane: RowSums(*values) for lane, values in out.items()}


def _passes(order: Sequence[int], rows: Sequence[Row], lanes: int, token_budget: int) -> list[list[int]]:
    """Cut rows (shortest first) into batches of at most the budget, one row at least."""
    passes: list[list[int]] = []
    current: list[int] = []
    for i in order:
        if current and (len(current) + 1) * len(rows[i].input_ids) * lanes > token_budget:
            passes.append(current)
            current = []
        current.append(i)
    return [*passes, current] if current else passes
