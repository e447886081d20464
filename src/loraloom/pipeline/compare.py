"""`loraloom compare`: settings or runs side by side, what is more than noise, what is
worth its price, what mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loraloom.errors import RequestError
from loraloom.pipeline.compared import SPLITS, Entrant, entrants_of
from loraloom.records import Score
from loraloom.report.importance import importance_of
from loraloom.search.compare import CONFIDENCE, average, paired_difference
from loraloom.search.front import pareto_front
from loraloom.search.importance import Importance
from loraloom.search.verdict import Contender, Winner, half_width, pick_winner, seed_chance

NAMED = 4
"""Entrants that a note lists by name."""
PRICES = ("trainable_parameters", "peak_bytes", "seconds")


@dataclass(frozen=True)
class Gain:
    """How much better an entrant is than the reference, in the unit of the metric: above 0 is better,
    whatever its direction."""

    split: str
    mean: float
    se: float
    low: float
    high: float
    seeds: int
    paired_rows: int
    """Rows that were compared one by one; 0: standard errors added as if independent,
    wider than the truth."""

    @property
    def certain(self) -> bool:
        """Whether the 95% interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Line:
    """One entrant as the table shows it; `values` holds (mean, standard error) by split."""

    name: str
    run: str
    trials: tuple[str, ...]
    params: dict[str, Any]
    values: dict[str, tuple[float, float]]
    gain: Gain | None
    """None for the reference itself, and where no split is known of both."""
    trainable_parameters: int
    peak_bytes: int
    seconds: float
    front: tuple[str, ...]
    """Of the prices, those at which nothing is better and no dearer."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. `lines` are best first, by the split that is known of all."""

    metric: str
    direction: str
    reference: str
    lines: tuple[Line, ...]
    keep: str | None
    significant: bool
    ties: tuple[str, ...]
    verdict: str
    importance: Importance
    notes: tuple[str, ...]

    @property
    def splits(self) -> list[str]:
        """Splits that any entrant was measured on, as columns: first the one that it was chosen on."""
        return [split for split in reversed(SPLITS) if any(split in line.values for line in self.lines)]

    def to_json(self) -> dict[str, Any]:
        """The document of `compare --json`."""
        document = asdict(self)
        for line, plain in zip(self.lines, document["lines"], strict=True):
            plain["values"] = {
                split: {
                    "mean": mean,
                    "se": se,
                    "low": mean - CONFIDENCE * se,
                    "high": mean + CONFIDENCE * se,
                }
                for split, (mean, se) in line.values.items()
            }
        return document


def compare(places: Sequence[str], output_dir: str = "runs") -> Comparison:
    """Compare the settings of one run, or several runs and trials.

    Args:
        places: RUN or RUN:TRIAL, a run being its folder or its name in `output_dir`. The reference is
            the plan's own setting of a single run, else the first that is named.

    Raises:
        RequestError: no such run or trial, or nothing that can be compared.
    """
    if not places:
        raise RequestError(
            "no run was named", need="one run or more, or RUN:TRIAL", next="loraloom runs lists them"
        )
    entrants = entrants_of(places, output_dir)
    runs = {str(entrant.folder.path.resolve()): entrant.result for entrant in entrants}
    order = SPLITS[1:] if len(runs) == 1 else SPLITS
    common = _common_split(entrants, order)
    reference = _reference(entrants, searched=len(places) == 1)
    entrants = sorted(entrants, key=lambda entrant: _cost(entrant, common))
    fronts = {
        price: pareto_front(
            {entrant.name: (_price(entrant, price), _cost(entrant, common)) for entrant in entrants}
        )
        for price in PRICES
    }
    gains = {
        entrant.name: _gain(entrant, reference, entrants, order)
        for entrant in entrants
        if entrant is not reference
    }
    winner, verdict = _judge(entrants, reference, order, one_run=len(runs) == 1)
    return Comparison(
        metric=entrants[0].metric("").lstrip("_"),
        direction=entrants[0].result.direction,
        reference=reference.name,
        lines=tuple(_line(entrant, gains.get(entrant.name), fronts) for entrant in entrants),
        keep=winner and winner.id,
        significant=bool(winner and winner.significant),
        ties=winner.ties if winner else (),
        verdict=verdict,
        importance=importance_of(*runs.values()),
        notes=_notes(gains),
    )


def _common_split(entrants: Sequence[Entrant], order: Sequence[str]) -> str:
    """The split by which all can be ordered.

    Raises:
        RequestError: there is none.
    """
    for split in order:
        if all(entrant.scored(split) for entrant in entrants):
            return split
    unscored = next((entrant for entrant in entrants if not entrant.scored("validation")), entrants[0])
    raise RequestError(
        f"`{unscored.name}` was not measured on a split that the others were measured on",
        next="leave it out, or train it again with data.validation",
    )


def _reference(entrants: Sequence[Entrant], *, searched: bool) -> Entrant:
    """The plan's own setting where a single run is looked at, else what was named first."""
    default = entrants[0].result.default
    if not searched:
        return entrants[0]
    return next((one for one in entrants if default in {trial.id for trial in one.trials}), entrants[0])


def _cost(entrant: Entrant, split: str) -> float:
    value = entrant.value(split)[0]
    return value if entrant.result.direction == "minimize" else -value


def _price(entrant: Entrant, price: str) -> float:
    """What an entrant takes of a price; nan where it was not measured."""
    taken = {
        "trainable_parameters": entrant.parameters,
        "peak_bytes": entrant.peak_bytes,
        "seconds": entrant.seconds,
    }[price]
    return taken or math.nan


def _aligned(entrants: Sequence[Entrant], split: str) -> dict[str, tuple[Score, ...]]:
    """Scores of a split with the same seeds for each (as many of each, where they share none), row by
    row where all were taken on the same rows. Where all have raced, the race alone counts, as for
    `tune`: the search chose by its own runs.
    """
    raced = all(entrant.seeds(split, raced=True) for entrant in entrants)
    shared = set[int].intersection(*(entrant.seeds(split, raced=raced) for entrant in entrants))
    least = min(len(entrant.scored(split)) for entrant in entrants)
    rows = set[str].union(*(entrant.rows(split) for entrant in entrants))
    paired = len(rows) == 1 and "" not in rows
    return {
        entrant.name: entrant.scores(split, shared or None, paired=paired)[:least]
        for entrant in entrants
    }


def _gain(
    entrant: Entrant, reference: Entrant, entrants: Sequence[Entrant], order: Sequence[str]
) -> Gain | None:
    """The gain as it was measured, with an interval that rows and seeds together allow;
    what a seed does is pooled over all."""
    for split in order:
        if entrant.scored(split) and reference.scored(split):
            scores = _aligned((entrant, reference), split)
            ours, theirs = scores[entrant.name], scores[reference.name]
            found = paired_difference(average(theirs), average(ours))
            pair = [Contender(name, finals) for name, finals in scores.items()]
            chance = seed_chance(pair, [_searched(one) for one in entrants])
            width, over_seeds = half_width(found, chance, len(ours)), 2 * chance.variance / len(ours)
            paired_rows = found.rows if ours[0].costs else 0
            error = math.sqrt(found.se**2 + over_seeds)
            return Gain(
                split, found.mean, error, found.mean - width, found.mean + width, len(ours), paired_rows
            )
    return None


def _searched(entrant: Entrant, finals: tuple[Score, ...] = ()) -> Contender:
    """An entrant with what the search itself measured of it."""
    return Contender(entrant.name, finals, entrant.searched(), float(entrant.parameters))


def _judge(
    entrants: Sequence[Entrant], reference: Entrant, order: Sequence[str], *, one_run: bool
) -> tuple[Winner | None, str]:
    """Which of the entrants that were measured where the reference was should be kept, and why."""
    for split in order:
        others = [len(entrant.scored(split)) for entrant in entrants if entrant is not reference]
        seeds = min(len(reference.scored(split)), max(others, default=0))
        if seeds:
            # Those with fewer seeds were not raced: held against them, one seed would
            # have to speak for all.
            group = [entrant for entrant in entrants if len(entrant.scored(split)) >= seeds]
            finals = _aligned(group, split)
            default = reference.result.default in {trial.id for trial in reference.trials}
            called = "the plan's setting" if default else "the reference"
            if one_run:
                contenders = [_searched(entrant, finals.get(entrant.name, ())) for entrant in entrants]
                fresh = split == "confirm" and all(entrant.seeds(split, raced=True) for entrant in group)
            else:
                contenders = [
                    Contender(one.name, finals[one.name], price=float(one.parameters)) for one in group
                ]
                fresh = split != "validation"
            winner = pick_winner(
                contenders, reference.name, fresh=fresh, rows_seen=split == "validation", called=called
            )
            measure = "loss" if reference.result.direction == "minimize" else "error rate"
            return winner, f"By {measure} on the {split} split: {winner.sentence}."
    return None, "There is nothing to compare."


def _line(entrant: Entrant, gain: Gain | None, fronts: Mapping[str, Sequence[str]]) -> Line:
    return Line(
        name=entrant.name,
        run=str(entrant.folder.path),
        trials=tuple(trial.id for trial in entrant.trials),
        params=dict(entrant.trials[0].params),
        values={s: entrant.value(s) for s in SPLITS if entrant.scored(s)},
        gain=gain,
        trainable_parameters=entrant.parameters,
        peak_bytes=entrant.peak_bytes,
        seconds=entrant.seconds,
        front=tuple(price for price, names in fronts.items() if entrant.name in names),
    )


def _notes(gains: Mapping[str, Gain | None]) -> tuple[str, ...]:
    loose = [name for name, gain in gains.items() if gain and not gain.paired_rows]
    if not loose:
        return ()
    named = (
        ", ".join(loose)
        if len(loose) <= NAMED
        else f"{', '.join(loose[:NAMED])} and {len(loose) - NAMED} more"
    )
    return (
        (
            f"{named}: not compared row by row, as row scores were not kept or belong to other rows; "
            "those intervals are wider than they need be"
        ),
    )
