"""`loraloom compare`: settings or runs side by side, what is more than noise, what is
worth its price, what mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loraloom.errors import RequestError
from loraloom.pipeline.compared import SPLITS, TrialGroup, read_groups
from loraloom.records import Score
from loraloom.report.importance import importance_of
from loraloom.search.compare import CONFIDENCE, average, paired_difference
from loraloom.search.front import pareto_front
from loraloom.search.importance import Importance
from loraloom.search.verdict import Contender, Winner, half_width, pick_winner, seed_chance

NAMED = 4
"""Trial groups that a note lists by name."""
PRICES = ("trainable_parameters", "peak_bytes", "seconds")


@dataclass(frozen=True)
class Gain:
    """How much better a trial group is than the reference, in the unit of the metric: above 0 is better,
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
    """One group as the table shows it; `values` holds (mean, standard error) by split."""

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
        """Splits that any group was measured on, as columns: first the one that it was chosen on."""
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
    groups = read_groups(places, output_dir)
    runs = {str(group.folder.path.resolve()): group.result for group in groups}
    order = SPLITS[1:] if len(runs) == 1 else SPLITS
    common = _common_split(groups, order)
    reference = _reference(groups, searched=len(places) == 1)
    groups = sorted(groups, key=lambda group: _cost(group, common))
    fronts = {
        price: pareto_front(
            {group.name: (_price(group, price), _cost(group, common)) for group in groups}
        )
        for price in PRICES
    }
    gains = {
        group.name: _gain(group, reference, groups, order) for group in groups if group is not reference
    }
    winner, verdict = _judge(groups, reference, order, one_run=len(runs) == 1)
    return Comparison(
        metric=groups[0].metric("").lstrip("_"),
        direction=groups[0].result.direction,
        reference=reference.name,
        lines=tuple(_line(group, gains.get(group.name), fronts) for group in groups),
        keep=winner and winner.id,
        significant=bool(winner and winner.significant),
        ties=winner.ties if winner else (),
        verdict=verdict,
        importance=importance_of(*runs.values()),
        notes=_notes(gains),
    )


def _common_split(groups: Sequence[TrialGroup], order: Sequence[str]) -> str:
    """The split by which all can be ordered.

    Raises:
        RequestError: there is none.
    """
    for split in order:
        if all(group.scored(split) for group in groups):
            return split
    unscored = next((group for group in groups if not group.scored("validation")), groups[0])
    raise RequestError(
        f"`{unscored.name}` was not measured on a split that the others were measured on",
        next="leave it out, or train it again with data.validation",
    )


def _reference(groups: Sequence[TrialGroup], *, searched: bool) -> TrialGroup:
    """The plan's own setting where a single run is looked at, else what was named first."""
    default = groups[0].result.default
    if not searched:
        return groups[0]
    return next((one for one in groups if default in {trial.id for trial in one.trials}), groups[0])


def _cost(group: TrialGroup, split: str) -> float:
    value = group.value(split)[0]
    return value if group.result.direction == "minimize" else -value


def _price(group: TrialGroup, price: str) -> float:
    """What a trial group takes of a price; nan where it was not measured."""
    taken = {
        "trainable_parameters": group.parameters,
        "peak_bytes": group.peak_bytes,
        "seconds": group.seconds,
    }[price]
    return taken or math.nan


def _aligned(groups: Sequence[TrialGroup], split: str) -> dict[str, tuple[Score, ...]]:
    """Scores of a split with the same seeds for each (as many of each, where they share none), row by
    row where all were taken on the same rows. Where all have raced, the race alone counts, as for
    `tune`: the search chose by its own runs.
    """
    raced = all(group.seeds(split, raced=True) for group in groups)
    shared = set[int].intersection(*(group.seeds(split, raced=raced) for group in groups))
    least = min(len(group.scored(split)) for group in groups)
    rows = set[str].union(*(group.rows(split) for group in groups))
    paired = len(rows) == 1 and "" not in rows
    return {group.name: group.scores(split, shared or None, paired=paired)[:least] for group in groups}


def _gain(
    group: TrialGroup, reference: TrialGroup, groups: Sequence[TrialGroup], order: Sequence[str]
) -> Gain | None:
    """The gain as it was measured, with an interval that rows and seeds together allow;
    what a seed does is pooled over all."""
    for split in order:
        if group.scored(split) and reference.scored(split):
            scores = _aligned((group, reference), split)
            ours = scores[group.name]
            theirs = scores[reference.name]
            found = paired_difference(average(theirs), average(ours))
            pair = [Contender(name, finals) for name, finals in scores.items()]
            chance = seed_chance(pair, [_searched(one) for one in groups])
            width = half_width(found, chance, len(ours))
            over_seeds = 2 * chance.variance / len(ours)
            paired_rows = found.rows if ours[0].costs else 0
            error = math.sqrt(found.se**2 + over_seeds)
            return Gain(
                split, found.mean, error, found.mean - width, found.mean + width, len(ours), paired_rows
            )
    return None


def _searched(group: TrialGroup, finals: tuple[Score, ...] = ()) -> Contender:
    """A trial group with what the search itself measured of it."""
    return Contender(group.name, finals, group.searched(), float(group.parameters))


def _judge(
    groups: Sequence[TrialGroup], reference: TrialGroup, order: Sequence[str], *, one_run: bool
) -> tuple[Winner | None, str]:
    """Which of the groups that were measured where the reference was should be kept, and why."""
    for split in order:
        others = [len(group.scored(split)) for group in groups if group is not reference]
        seeds = min(len(reference.scored(split)), max(others, default=0))
        if seeds:
            # Those with fewer seeds were not raced: held against them, one seed would
            # have to speak for all.
            measured = [group for group in groups if len(group.scored(split)) >= seeds]
            finals = _aligned(measured, split)
            default = reference.result.default in {trial.id for trial in reference.trials}
            called = "the plan's setting" if default else "the reference"
            if one_run:
                contenders = [_searched(group, finals.get(group.name, ())) for group in groups]
                fresh = split == "confirm" and all(group.seeds(split, raced=True) for group in measured)
            else:
                contenders = [
                    Contender(one.name, finals[one.name], price=float(one.parameters))
                    for one in measured
                ]
                fresh = split != "validation"
            winner = pick_winner(
                contenders, reference.name, fresh=fresh, rows_seen=split == "validation", called=called
            )
            measure = "loss" if reference.result.direction == "minimize" else "error rate"
            return winner, f"By {measure} on the {split} split: {winner.sentence}."
    return None, "There is nothing to compare."


def _line(group: TrialGroup, gain: Gain | None, fronts: Mapping[str, Sequence[str]]) -> Line:
    return Line(
        name=group.name,
        run=str(group.folder.path),
        trials=tuple(trial.id for trial in group.trials),
        params=dict(group.trials[0].params),
        values={s: group.value(s) for s in SPLITS if group.scored(s)},
        gain=gain,
        trainable_parameters=group.parameters,
        peak_bytes=group.peak_bytes,
        seconds=group.seconds,
        front=tuple(price for price, names in fronts.items() if group.name in names),
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
