"""What a person should know of pairs of answers before a run learns from them, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loraloom.data.rows import IGNORED, Pair

LONGER_SHARE = 0.6
"""Share of pairs whose chosen answer is the longer one, from which that is worth telling: preference
losses take length for quality where the data do (Park et al., arXiv:2403.19159)."""
SIGMAS = 2.0


def pair_notes(pairs: Sequence[Pair]) -> list[str]:
    """Sentences on the pairs that a run trains on."""
    usable = [pair for pair in pairs if pair.supervised]
    if not usable:
        return []
    return [*_one_prompt(usable), *_both_ways(usable), *_longer(usable)]


def _one_prompt(pairs: Sequence[Pair]) -> list[str]:
    prompts = {_prompt(pair) for pair in pairs}
    if len(prompts) > 1 or len(pairs) < 2:
        return []
    return [
        f"all {len(pairs):,} pairs answer one prompt: what is learnt is how to answer that one, and no"
        " held-out rows can tell more"
    ]


def _both_ways(pairs: Sequence[Pair]) -> list[str]:
    """Pairs that say the opposite of another one."""
    sides = [tuple(bytes(side.input_ids) for side in pair.sides) for pair in pairs]
    known = set(sides)
    count = sum((rejected, chosen) in known for chosen, rejected in sides)
    if not count:
        return []
    return [
        f"{count:,} of {len(pairs):,} pairs contradict another one: the same two answers, the other way"
        " round"
    ]


def _longer(pairs: Sequence[Pair]) -> list[str]:
    """Whether the chosen answers are the longer ones, by more than chance."""
    chosen, rejected = (
        np.array([pair.sides[side].supervised for pair in pairs], dtype=np.int64) for side in (0, 1)
    )
    differ = int((chosen != rejected).sum())
    share = float((chosen > rejected).sum()) / max(1, differ)
    if share < LONGER_SHARE or share - 0.5 < SIGMAS * 0.5 / max(1, differ) ** 0.5:
        return []
    return [
        f"the chosen answer is the longer one in {share:.0%} of {differ:,} pairs"
        f" ({_mean(chosen)} tokens on average, the rejected {_mean(rejected)}): length may be learnt in"
        " place of what makes an answer better (arXiv:2403.19159)"
    ]


def _mean(lengths: NDArray[np.int64]) -> str:
    return f"{float(lengths.mean()):,.0f}"


def _prompt(pair: Pair) -> bytes:
    given = int(np.argmax(pair.chosen.labels != IGNORED))
    return bytes(pair.chosen.input_ids[:given])
