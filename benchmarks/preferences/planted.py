"""Preference runs with a planted fault, and healthy ones: what each should be told, and is."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pairs
from runs import RATE, Values, tested, train_one

Rows = list[pairs.Pair]
Split = tuple[Rows, Rows]
"""Rows to learn from, and rows held out."""

TINY = 16
"""Pairs that are few enough to be learnt by heart."""
PADDING = (
    "That is how it is.",
    "This is what I would say.",
    "I have looked at it with care.",
    "There is nothing more to add here.",
)
"""Said after an answer, to make it longer and no better."""
DRIFTS = -0.1
"""Log-ratio of chosen answers in nats a token, below which a run is not healthy."""


@dataclass(frozen=True)
class Source:
    """Pairs that are made from one data set, and how many of them there are."""

    name: str
    train: int
    held_out: int
    seed: int = 0

    def rows(self, shared: Path, beyond: int = 0) -> tuple[Rows, Rows, Rows]:
        """Pairs to learn from, held out, and `beyond` others."""
        if self.name == "intents":
            held = pairs.intents(shared, "validate", self.held_out + beyond, self.seed + 1)
            train = pairs.intents(shared, "train", self.train, self.seed)
            return train, held[: self.held_out], held[self.held_out :]
        make = {"solutions": pairs.solutions, "stories": pairs.stories}[self.name]
        whole = make(shared, self.train + self.held_out + beyond, self.seed)
        end = self.train + self.held_out
        return whole[: self.train], whole[self.train : end], whole[end:]


def swapped_in_training(both: Split) -> Split:
    return pairs.swapped(both[0]), both[1]


def swapped_held_out(both: Split) -> Split:
    return both[0], pairs.swapped(both[1])


def at_random(both: Split) -> Split:
    """Every second pair or so is swapped: nothing tells the sides apart."""
    draw = random.Random(0)
    learnt, held_out = ([draw.choice([row, *pairs.swapped([row])]) for row in rows] for rows in both)
    return learnt, held_out


def few_at_random(both: Split) -> Split:
    return at_random((both[0][:TINY], both[1]))


def padded(both: Split) -> Split:
    """Two right answers, one of them with more words after it: it is chosen, or, in a fifth of the
    pairs, it is the other one that is."""
    learnt, held_out = (_padded(rows, number) for number, rows in enumerate(both))
    return learnt, held_out


def _padded(rows: Rows, seed: int) -> Rows:
    draw = random.Random(seed)
    made: Rows = []
    for row in rows:
        more = " ".join(draw.sample(PADDING, draw.randint(1, len(PADDING))))
        longer, shorter = f"{row['chosen']}. {more}", row["chosen"]
        sides = (longer, shorter) if draw.random() > 0.2 else (shorter, longer)
        made.append(pairs.pair(row["prompt"], *sides))
    return made


@dataclass(frozen=True)
class Planted:
    """One run.

    Attributes:
        expected: findings of which the first one has to be one; empty for a healthy run.
        fault: what is done to its rows.
        times: what the plan's own values of these keys are multiplied by.
        beyond: other rows, on which a run that is to be healthy has to show that it is.
    """

    name: str
    expected: tuple[str, ...]
    source: Source
    fault: Callable[[Split], Split] | None = None
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    times: Mapping[str, float] = field(default_factory=dict[str, float])
    beyond: int = 0


BETA, EPOCHS, SEED = "preference.beta", "training.num_train_epochs", "training.seed"
NOT_LEARNT = ("preference-not-learnt",)
NEVER_LEFT = ("preference-not-learnt", "rate-too-low")
TOO_FAR = ("chosen-falling", "rate-too-high", "diverged")
SMALL_BETA = ("beta-too-small",)
LONGER = ("length-hacking",)
IPO = {"preference.loss_type": ["ipo"]}
HINGE = {"preference.loss_type": ["hinge"]}
ROBUST = {"preference.loss_type": ["robust"], "preference.label_smoothing": 0.1}

INTENTS, SOLUTIONS = Source("intents", 120, 60), Source("solutions", 48, 30)
FIRST = (
    Planted("training sides swapped", NOT_LEARNT, INTENTS, swapped_in_training, {EPOCHS: 2}),
    Planted("held-out sides swapped", NOT_LEARNT, INTENTS, swapped_held_out, {EPOCHS: 2}),
    Planted("sides at random", NOT_LEARNT, INTENTS, at_random),
    Planted("few pairs by heart", NOT_LEARNT, INTENTS, few_at_random, {EPOCHS: 30}),
    Planted("rate / 100", NEVER_LEFT, INTENTS, times={RATE: 0.01}),
    Planted("rate / 30, beta 0.3", NEVER_LEFT, INTENTS, None, {BETA: 0.3}, {RATE: 1 / 30}),
    Planted("rate x 30", TOO_FAR, INTENTS, times={RATE: 30}),
    Planted("rate x 6, solutions", TOO_FAR[:2], SOLUTIONS, times={RATE: 6}),
    Planted("beta 0.001", SMALL_BETA, INTENTS, None, {BETA: 0.001, EPOCHS: 3}),
    Planted("chosen padded", LONGER, INTENTS, padded, {EPOCHS: 2}),
    Planted("healthy", (), INTENTS),
    Planted("healthy, seed 1", (), INTENTS, values={SEED: 1}),
    Planted("healthy, beta 0.3", (), INTENTS, values={BETA: 0.3}),
    Planted("healthy, ipo", (), INTENTS, values=IPO),
    Planted("healthy, solutions", (), SOLUTIONS, times={RATE: 0.5}),
)
"""Two rules were mended on what these had shown."""

OTHERS, STORIES = Source("intents", 120, 60, seed=5), Source("stories", 120, 60)
MORE = Source("solutions", 48, 30, seed=3)
SECOND = (
    Planted("stories, training sides swapped", NOT_LEARNT, STORIES, swapped_in_training),
    Planted("stories, held-out sides swapped", NOT_LEARNT, STORIES, swapped_held_out),
    Planted("solutions, sides at random", NOT_LEARNT, MORE, at_random),
    Planted("stories, few by heart", NOT_LEARNT, STORIES, few_at_random, {EPOCHS: 40}),
    Planted("rate / 300", NEVER_LEFT, OTHERS, times={RATE: 1 / 300}),
    Planted("rate / 50, hinge", NEVER_LEFT, OTHERS, None, HINGE, {RATE: 0.02}),
    Planted("stories, rate x 20", TOO_FAR, STORIES, times={RATE: 20}),
    Planted("rate x 8, ipo", TOO_FAR, OTHERS, None, IPO, {RATE: 8}),
    Planted("stories, beta 0.002", SMALL_BETA, STORIES, None, {BETA: 0.002, EPOCHS: 3}),
    Planted("solutions, chosen padded", LONGER, MORE, padded, {EPOCHS: 2}),
    Planted("healthy, stories", (), STORIES),
    Planted("healthy, other intents", (), OTHERS, None, {SEED: 7}),
    Planted("healthy, hinge", (), OTHERS, None, HINGE),
    Planted("healthy, solutions, beta 0.3", (), MORE, None, {BETA: 0.3}, {RATE: 0.5}),
    Planted("healthy, robust", (), OTHERS, None, ROBUST),
)
"""Of other data, seeds and sizes of the fault. Two rules were mended on these as well."""

LOSSES = ({}, HINGE, ROBUST, IPO)
BEYOND = 300


def drawn(seed: int) -> tuple[Planted, ...]:
    """Ten runs with a fault and five without, whose data, losses and sizes are drawn."""
    draw = random.Random(seed)

    def between(low: float, high: float) -> float:
        """Even in its logarithm, to two digits."""
        return float(f"{low * (high / low) ** draw.random():.2g}")

    def source() -> Source:
        name, train, held_out = draw.choice(
            (("intents", 240, 200), ("stories", 130, 90), ("solutions", 96, 80))
        )
        return Source(name, train, held_out, 100 + draw.randrange(900))

    def values(*losses: Mapping[str, Any], **more: Any) -> Values:
        return {**draw.choice(losses or LOSSES), **more, SEED: draw.randrange(1000)}

    slow, fast = [between(1e-3, 1 / 30) for _ in range(2)], [between(8, 40) for _ in range(2)]
    beta = between(5e-4, 3e-3)
    held = {**values({}, HINGE, ROBUST), BETA: beta, EPOCHS: 3}
    healthy = (("intents", 240, 200), ("solutions", 96, 80))
    return (
        Planted("training sides swapped", NOT_LEARNT, source(), swapped_in_training, values()),
        Planted("held-out sides swapped", NOT_LEARNT, source(), swapped_held_out, values()),
        Planted("sides at random", NOT_LEARNT, source(), at_random, values()),
        Planted("few by heart", NOT_LEARNT, source(), few_at_random, {**values(), EPOCHS: 40}),
        *(Planted(f"rate x {one:g}", NEVER_LEFT, source(), None, values(), {RATE: one}) for one in slow),
        *(Planted(f"rate x {one:g}", TOO_FAR, source(), None, values(), {RATE: one}) for one in fast),
        Planted(f"beta {beta:g}", SMALL_BETA, source(), None, held),
        Planted("chosen padded", LONGER, source(), padded, {**values({}, HINGE), EPOCHS: 2}),
        *(
            Planted(
                f"healthy {number}",
                (),
                Source(*draw.choice(healthy), 100 + draw.randrange(900)),
                None,
                values(),
                {RATE: draw.choice((0.3, 0.5, 1.0))},
                BEYOND,
            )
            for number in range(5)
        ),
    )


def run_all(shared: Path, work: Path, cases: Sequence[Planted], only: str = "") -> list[dict[str, Any]]:
    """Train every case, and say of each what it was told."""
    outcomes: list[dict[str, Any]] = []
    for case in cases:
        if only not in case.name:
            continue
        train, held_out, beyond = case.source.rows(shared, case.beyond)
        both = case.fault((train, held_out)) if case.fault else (train, held_out)
        place = work / case.name.replace(" ", "-").replace("/", "per")
        files = {
            f"data.{split}": pairs.write(place / f"{split}.jsonl", rows)
            for split, rows in zip(("train", "validation"), both, strict=True)
        }
        done = train_one(shared, work, case.name, {**files, **case.values}, case.times)
        told = [finding for finding in done.findings if finding["level"] != "note"]
        first = told[0]["name"] if told else None
        outcome = {
            "name": case.name,
            "source": case.source.name,
            "values": dict(case.values),
            "times": dict(case.times),
            "expected": list(case.expected),
            "right": first in case.expected if case.expected else first is None,
            "found": done.findings,
            "metrics": done.metrics,
            "cpu_seconds": done.cpu_seconds,
        }
        if beyond:
            outcome |= healthy_on(tested(done.folder, pairs.write(place / "beyond.jsonl", beyond)))
        outcomes.append(outcome)
        is_right = "ok  " if outcome["right"] else "MISS"
        print(
            f"{is_right} {case.name}, {case.source.name}: {first}",
            outcome.get("healthy", ""),
            flush=True,
        )
    return outcomes


def healthy_on(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Whether a run has learnt what holds on other rows, and has not drifted away from its chosen
    answers."""
    accuracy, error = metrics["test_reward_accuracy"], metrics["test_reward_accuracy_se"]
    learnt = accuracy - 2 * error > 0.5
    return {"healthy": learnt and metrics["test_chosen_logratio"] > DRIFTS, "beyond": dict(metrics)}
