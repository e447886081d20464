"""Scoring answers with one number each: the loss of a reward model, and how well it tells answers apart.

A classifier with one output reads a prompt with its answer; r is what it says of it. What it learns is
that the chosen answer of a pair has the larger one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from loraloom.data.batches import Batch, collate
from loraloom.data.rows import IGNORED, Pair, Row
from loraloom.evals.choices import by_length
from loraloom.evals.cross_entropy import Positions
from loraloom.evals.objective import ClassificationObjective, RowLosses
from loraloom.evals.preference_scores import length_correlation, with_error
from loraloom.lora.transfer import send
from loraloom.search.compare import ratio_of_sums

Floats = NDArray[np.float64]


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    """-log sigmoid(r+ - r- - m) of each pair [N], in nats: minus the log-probability that the chosen
    answer is preferred (Ouyang et al., arXiv:2203.02155, equation 1); m is by how much better it is said
    to be, 0 where nothing is said (Touvron et al., arXiv:2307.09288, equation 2)."""
    return -F.logsigmoid(chosen - rejected - margin)


def centred(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(r+ + r-)^2 of each pair [N]. A difference leaves open where the rewards lie; times a small
    coefficient this keeps them around 0 (Eisenstein et al., arXiv:2312.09244, equation 2)."""
    return (chosen + rejected).square()


class RewardObjective(ClassificationObjective):
    """Losses of pairs of answers under a classifier with one output."""

    metric = "reward_accuracy"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        # Two answers, both as likely to be the better one.
        self.chance = math.log(2)

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        """One of each pair of the batch: its loss, 1 for its weight, whether the chosen answer has the
        larger reward, and in `rewards` what each side has. Rewards are centred where the batch says
        what is formed of its pairs: while they train. So held-out losses are of one kind for all."""
        rewards_B = self.logits(model, batch)[:, 0]
        chosen_N, rejected_N = rewards_B[0::2], rewards_B[1::2]
        margins = [one.margin for one in batch.examples if isinstance(one, Pair)]
        loss_N = bradley_terry(chosen_N, rejected_N, _like(rewards_B, margins))
        weights = [term.spec.center_rewards_coefficient for term in batch.terms]
        if any(weights):
            loss_N = loss_N + _like(rewards_B, weights) * centred(chosen_N, rejected_N)
        tokens_B = (batch.on_host.labels != IGNORED).sum(1).to(rewards_B.dtype)
        tokens_B = send(tokens_B, rewards_B.device)
        right_N = (1 + (chosen_N - rejected_N).detach().sign()) / 2
        rewards_N4 = torch.stack(
            [chosen_N.detach(), rejected_N.detach(), tokens_B[0::2], tokens_B[1::2]], 1
        )
        return RowLosses(loss_N, torch.ones_like(right_N), right_N, rewards=rewards_N4)


def _like(rewards: Tensor, numbers: Sequence[float]) -> Tensor:
    return send(torch.tensor(numbers, dtype=rewards.dtype), rewards.device)


@torch.no_grad()
def rewards_of(model: Any, rows: Sequence[Row], pad_id: int) -> Floats:
    """The reward of each row [rows], in their order.

    Args:
        model: a classifier with one output, in eval mode, plain or PEFT's.
    """
    objective = ClassificationObjective(model)
    found = np.zeros(len(rows))
    for chosen in by_length(rows):
        batch = collate([rows[i] for i in chosen], pad_id, "reward").to(model.device)
        found[chosen] = objective.logits(model, batch)[:, 0].double().cpu().numpy()
    return found


def reward_metrics(rewards: Floats, clusters: tuple[int, ...]) -> dict[str, float]:
    """`reward_margin`, the mean of r+ - r-, and `reward_mean`, that of all rewards, each with `NAME_se`;
    `chosen_tokens` and `rejected_tokens`, the means of an answer; `length_correlation` between a pair's
    margin and by how many tokens its chosen answer is longer.

    Args:
        rewards: [pairs, 4], as of `RowLosses`.
    """
    chosen, rejected, chosen_tokens, rejected_tokens = rewards.T
    each = np.ones(len(rewards))
    return {
        **with_error("reward_margin", ratio_of_sums(chosen - rejected, each, clusters)),
        **with_error("reward_mean", ratio_of_sums((chosen + rejected) / 2, each, clusters)),
        "chosen_tokens": float(chosen_tokens.mean()),
        "rejected_tokens": float(rejected_tokens.mean()),
        **length_correlation(chosen - rejected, chosen_tokens - rejected_tokens),
    }
