"""Pairs of random answers to random prompts, as rows of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tiny

from loraloom.data.rows import Example, Pair, Row


def answer(draw: np.random.Generator, prompt: list[int]) -> Row:
    ids = np.array([*prompt, *draw.integers(1, tiny.VOCAB, draw.integers(2, 7))], np.int32)
    labels = ids.copy()
    labels[: len(prompt)] = -100
    return Row(ids, labels)


def pairs(count: int, margins: Sequence[float] = (0.0,)) -> list[Example]:
    """So many pairs, with these margins in turn."""
    draw = np.random.default_rng(3)
    prompts = [draw.integers(1, tiny.VOCAB, draw.integers(2, 6)).tolist() for _ in range(count)]
    return [
        Pair(answer(draw, prompt), answer(draw, prompt), margin=margins[number % len(margins)])
        for number, prompt in enumerate(prompts)
    ]
