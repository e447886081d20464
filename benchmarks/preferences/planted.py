"""Preference runs with a planted fault, and healthy ones: what each should be told, and is."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pairs
from runs import RATE, Values, train_one

TRAIN, HELD_OUT = 120, 60
LONG = 48, 30
"""Of solutions, which have fifteen times as many tokens."""
TINY = 16
"""Pairs that are few enough to be learnt by heart."""
PADDING = (
    "That is how it is.",
    "This is what I would say.",
    "I have looked at it with care.",
    "There is nothing more to add here.",
)
"""Said after an answer, to make it longer and no better."""


@dataclass(frozen=True)
class Planted:
    """One run.

    Attributes:
        expected: findings of which the first one has to be one; empty for a healthy run.
        data: of `Tables`.
        times: what the plan's own values of these keys are multiplied by.
    """

    name: str
    expected: tuple[str, ...]
    data: str = "intents"
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    times: Mapping[str, float] = field(default_factory=dict[str, float])


BETA, EPOCHS = "preference.beta", "training.num_train_epochs"
NOT_LEARNT, FALLING = "preference-not-learnt", "chosen-falling"
SMALL_BETA, LONGER = "beta-too-small", "length-hacking"
IPO = {"preference.loss_type": ["ipo"]}
HINGE = {"preference.loss_type": ["hinge"]}
ROBUST = {"preference.loss_type": ["robust"], "preference.label_smoothing": 0.1}
CASES = (
    Planted("training sides swapped", (NOT_LEARNT,), "intents swapped in training", {EPOCHS: 2}),
    Planted("held-out sides swapped", (NOT_LEARNT,), "intents swapped in validation", {EPOCHS: 2}),
    Planted("sides at random", (NOT_LEARNT,), "at random"),
    Planted("few pairs by heart", (NOT_LEARNT,), "few at random", {EPOCHS: 30}),
    Planted("rate / 100", (NOT_LEARNT, "rate-too-low"), times={RATE: 0.01}),
    Planted(
        "rate / 30, beta 0.3", (NOT_LEARNT, "rate-too-low"), values={BETA: 0.3}, times={RATE: 1 / 30}
    ),
    Planted("rate x 30", (FALLING, "rate-too-high", "diverged"), times={RATE: 30}),
    Planted("rate x 6, solutions", (FALLING, "rate-too-high"), "solutions", times={RATE: 6}),
    Planted("beta 0.001", (SMALL_BETA,), values={BETA: 0.001, EPOCHS: 3}),
    Planted("chosen padded", (LONGER,), "padded", {EPOCHS: 2}),
    Planted("healthy", ()),
    Planted("healthy, seed 1", (), values={"training.seed": 1}),
    Planted("healthy, beta 0.3", (), values={BETA: 0.3}),
    Planted("healthy, ipo", (), values={"preference.loss_type": ["ipo"]}),
    Planted("healthy, solutions", (), "solutions", times={RATE: 0.5}),
)
FRESH = (
    Planted("stories, training sides swapped", (NOT_LEARNT,), "stories swapped in training"),
    Planted("stories, held-out sides swapped", (NOT_LEARNT,), "stories swapped in validation"),
    Planted("solutions, sides at random", (NOT_LEARNT,), "solutions at random"),
    Planted("stories, few by heart", (NOT_LEARNT,), "few stories at random", {EPOCHS: 40}),
    Planted("rate / 300", (NOT_LEARNT, "rate-too-low"), "other intents", times={RATE: 1 / 300}),
    Planted("rate / 50, hinge", (NOT_LEARNT, "rate-too-low"), "other intents", HINGE, {RATE: 0.02}),
    Planted("stories, rate x 20", (FALLING, "rate-too-high", "diverged"), "stories", times={RATE: 20}),
    Planted("rate x 8, ipo", (FALLING, "rate-too-high", "diverged"), "other intents", IPO, {RATE: 8}),
    Planted("stories, beta 0.002", (SMALL_BETA,), "stories", {BETA: 0.002, EPOCHS: 3}),
    Planted("solutions, chosen padded", (LONGER,), "padded solutions", {EPOCHS: 2}),
    Planted("healthy, stories", (), "stories"),
    Planted("healthy, other intents", (), "other intents", {"training.seed": 7}),
    Planted("healthy, hinge", (), "other intents", HINGE),
    Planted("healthy, solutions, beta 0.3", (), "other solutions", {BETA: 0.3}, {RATE: 0.5}),
    Planted("healthy, robust", (), "other intents", ROBUST),
)
"""What none of the rules' thresholds was set by: other data, seeds and sizes of the fault than in
`CASES`, which were looked at."""


def tables(shared: Path, work: Path) -> dict[str, Values]:
    """Files of each data set, by name, as keys of a request."""
    intents = pairs.intents(shared, "train", TRAIN, 0), pairs.intents(shared, "validate", HELD_OUT, 1)
    whole = pairs.solutions(shared, sum(LONG), 0)
    others = pairs.intents(shared, "train", TRAIN, 5), pairs.intents(shared, "validate", HELD_OUT, 6)
    told = pairs.stories(shared, TRAIN + HELD_OUT, 0)
    stories = told[:TRAIN], told[TRAIN:]
    more = pairs.solutions(shared, sum(LONG), 3)
    solutions = more[: LONG[0]], more[LONG[0] :]
    found = {
        "other intents": others,
        "other solutions": solutions,
        "solutions at random": tuple(at_random(rows, number) for number, rows in enumerate(solutions)),
        "padded solutions": tuple(padded(rows, number) for number, rows in enumerate(solutions)),
        "stories": stories,
        "stories swapped in training": (pairs.swapped(stories[0]), stories[1]),
        "stories swapped in validation": (stories[0], pairs.swapped(stories[1])),
        "few stories at random": (at_random(stories[0][:TINY], 2), at_random(stories[1], 3)),
        "intents": intents,
        "solutions": (whole[: LONG[0]], whole[LONG[0] :]),
        "intents swapped in training": (pairs.swapped(intents[0]), intents[1]),
        "intents swapped in validation": (intents[0], pairs.swapped(intents[1])),
        "at random": tuple(at_random(rows, number) for number, rows in enumerate(intents)),
        "few at random": (at_random(intents[0][:TINY], 0), at_random(intents[1], 1)),
        "padded": tuple(padded(rows, number) for number, rows in enumerate(intents)),
    }
    return {
        name: {
            f"data.{split}": pairs.write(work / f"{name.replace(' ', '-')}-{split}.jsonl", rows)
            for split, rows in zip(("train", "validation"), both, strict=True)
        }
        for name, both in found.items()
    }


def at_random(rows: Sequence[pairs.Pair], seed: int) -> list[pairs.Pair]:
    """Pairs of which every second one or so is swapped: nothing tells the sides apart."""
    draw = random.Random(seed)
    return [draw.choice([row, *pairs.swapped([row])]) for row in rows]


def padded(rows: Sequence[pairs.Pair], seed: int) -> list[pairs.Pair]:
    """Two right answers, one of them with more words after it: it is chosen, or, in a fifth of the
    pairs, it is the other one that is."""
    draw = random.Random(seed)
    made: list[pairs.Pair] = []
    for row in rows:
        more = " ".join(draw.sample(PADDING, draw.randint(1, len(PADDING))))
        longer, shorter = f"{row['chosen']}. {more}", row["chosen"]
        sides = (longer, shorter) if draw.random() > 0.2 else (shorter, longer)
        made.append(pairs.pair(row["prompt"], *sides))
    return made


def run_all(
    shared: Path, work: Path, only: str = "", cases: Sequence[Planted] = CASES
) -> list[dict[str, Any]]:
    """Train every case, and say of each what it was told."""
    files = tables(shared, work)
    outcomes: list[dict[str, Any]] = []
    for case in cases:
        if only not in case.name:
            continue
        done = train_one(shared, work, case.name, {**files[case.data], **case.values}, case.times)
        told = [finding for finding in done.findings if finding["level"] != "note"]
        first = told[0]["name"] if told else None
        right = first in case.expected if case.expected else first is None
        outcomes.append(
            {
                "name": case.name,
                "expected": list(case.expected),
                "right": right,
                "found": done.findings,
                "metrics": done.metrics,
                "cpu_seconds": done.cpu_seconds,
            }
        )
        print(f"{'ok  ' if right else 'MISS'} {case.name}: {first}", flush=True)
    return outcomes
