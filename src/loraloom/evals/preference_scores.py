"""How well a candidate tells answers apart, from the sides of each pair that a split was scored on.

None of it but the loss depends on beta: candidates of different betas can be compared. A log-ratio is
log pi(y) / ref(y) of an answer, in nats.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from loraloom.evals.preference_losses import Answers, Compared, kto, pair_loss
from loraloom.records import PreferenceSpec
from loraloom.search.compare import Difference, ratio_of_sums

Floats = NDArray[np.float64]
LEAST_PAIRS = 8
"""Of fewer a correlation says nothing."""
SIDES = (slice(0, 3), slice(3, 6))
"""Columns of the chosen and of the rejected side in `RowLosses.answers`."""


def preference_losses(answers: Floats, spec: PreferenceSpec) -> Floats:
    """What the losses of `spec` make of each pair or judged answer of a split, [rows].

    Beside how a candidate trains: `kto` is formed at a KL of 0, and `orpo`'s likelihood is that of the
    answer without the prompt.

    Args:
        answers: [rows, 6], as of `RowLosses`.
    """
    chosen, rejected = (Answers(*torch.from_numpy(answers[:, side]).unbind(1)) for side in SIDES)
    if "kto" in spec.loss_type:
        good = chosen.tokens > 0
        own = Answers(
            *(
                torch.where(good, *both)
                for both in zip(_columns(chosen), _columns(rejected), strict=True)
            )
        )
        return kto(own, good, 0.0, spec).numpy()
    per_token = len(answers) / max(1.0, float(chosen.tokens.sum()))
    return pair_loss(Compared(chosen, rejected, -chosen.logp * per_token), spec).numpy()


def preference_metrics(answers: Floats, clusters: tuple[int, ...]) -> dict[str, float]:
    """`chosen_logratio` and `rejected_logratio` in nats a token, `reward_margin` between them in nats a
    pair, each with `NAME_se`; `chosen_tokens` and `rejected_tokens`, the means of an answer;
    `length_correlation` between a pair's margin and by how many tokens its chosen answer is longer.

    The margin of answers that are judged one by one is that of the means of good and bad ones.
    """
    found: dict[str, float] = {}
    sums: list[Floats] = []
    counts: list[Floats] = []
    for name, side in zip(("chosen", "rejected"), SIDES, strict=True):
        logp, reference, tokens = answers[:, side].T
        ratio = logp - reference
        there = (tokens > 0).astype(np.float64)
        found |= with_error(f"{name}_logratio", ratio_of_sums(ratio, tokens, clusters))
        found[f"{name}_tokens"] = float(tokens.sum() / max(1.0, there.sum()))
        sums.append(ratio)
        counts.append(there)
    if (counts[0] * counts[1]).all():
        found |= with_error("reward_margin", ratio_of_sums(sums[0] - sums[1], counts[0], clusters))
        return found | length_correlation(sums[0] - sums[1], answers[:, 2] - answers[:, 5])
    sides = [ratio_of_sums(one, count, clusters) for one, count in zip(sums, counts, strict=True)]
    error = math.hypot(*(side.se for side in sides))
    found["reward_margin"] = sides[0].mean - sides[1].mean
    found["reward_margin_se"] = error if math.isfinite(error) else math.nan
    return found


def length_correlation(margins: Floats, longer: Floats) -> dict[str, float]:
    """Pearson's, with its standard error (1 - r^2) / sqrt(n - 1); none where either does not vary."""
    if len(margins) < LEAST_PAIRS or not (margins.std() and longer.std()):
        return {}
    found = float(np.corrcoef(margins, longer)[0, 1])
    return {
        "length_correlation": found,
        "length_correlation_se": (1 - found**2) / math.sqrt(len(margins) - 1),
    }


def _columns(side: Answers) -> tuple[torch.Tensor, ...]:
    return (side.logp, side.reference, side.tokens)


def with_error(name: str, found: Difference) -> dict[str, float]:
    """A mean and its standard error as metrics, nan where that is not known."""
    return {name: found.mean, f"{name}_se": found.se if math.isfinite(found.se) else math.nan}
