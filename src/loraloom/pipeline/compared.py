"""Who is compared: settings of a run with all their seeds, or the winners of several
runs, read back from run folders."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from loraloom.config import names
from loraloom.errors import RequestError
from loraloom.records import PRUNED_BY_HAND, Score, Trial
from loraloom.search.compare import average, standard_error
from loraloom.store.find import find_run
from loraloom.store.folder import RunFolder
from loraloom.store.result import RACED, RunResult
from loraloom.store.scores import RowCosts, read_scores

SPLITS = ("test", "confirm", "validation")
"""From the split that the search knew least to the one that it chose on."""


@dataclass(frozen=True)
class TrialGroup:
    """One setting: its trials differ in their seed only."""

    name: str
    folder: RunFolder
    result: RunResult
    trials: tuple[Trial, ...]
    kept: Mapping[str, Mapping[str, RowCosts]] = field(repr=False)
    """Row costs on disk, by trial and split."""

    @property
    def parameters(self) -> int:
        return self.trials[0].trainable_parameters

    @property
    def peak_bytes(self) -> int:
        return max(trial.peak_bytes for trial in self.trials)

    @property
    def seconds(self) -> float:
        """Mean over the seeds."""
        return sum(trial.seconds for trial in self.trials) / len(self.trials)

    def metric(self, split: str) -> str:
        """The deciding measure on a split: "test_accuracy"."""
        return f"{split}_{self.result.metric.partition('_')[2]}"

    def scored(self, split: str) -> list[Trial]:
        """Trials that were measured on a split, by seed."""
        known = [
            trial
            for trial in self.trials
            if math.isfinite(trial.metrics.get(self.metric(split), math.nan))
        ]
        return sorted(known, key=lambda trial: (_seed(trial), trial.id))

    def rows(self, split: str) -> set[str]:
        """Fingerprints of the rows that the scores of a split were taken on; "" where
        row costs were not kept."""
        return {
            self.kept[trial.id][split].rows if split in self.kept[trial.id] else ""
            for trial in self.scored(split)
        }

    def seeds(self, split: str, *, raced: bool = False) -> set[int]:
        """Seeds of the trials that were measured on a split; with `raced`, of those
        that were trained anew for the race."""
        return {_seed(trial) for trial in self.scored(split) if not raced or RACED.fullmatch(trial.id)}

    def scores(self, split: str, seeds: set[int] | None = None, *, paired: bool) -> tuple[Score, ...]:
        """Scores by seed, of these seeds only, as costs (less is better); row by row when `paired`."""
        chosen = [trial for trial in self.scored(split) if seeds is None or _seed(trial) in seeds]
        return tuple(self._score(trial, split, paired) for trial in chosen)

    def searched(self) -> tuple[Score, ...]:
        """Validation scores of its runs in the search, row by row; none where the rows were not kept."""
        own = [trial for trial in self.scored("validation") if not RACED.fullmatch(trial.id)]
        if any("validation" not in self.kept[trial.id] for trial in own):
            return ()
        return tuple(self._score(trial, "validation", True) for trial in own)

    def value(self, split: str) -> tuple[float, float]:
        """The deciding metric on a split, and its standard error over rows and, with
        several of them, seeds."""
        scores = self.scores(split, paired=False)
        if not scores:
            return math.nan, math.nan
        costs = [score.metrics["cost"] for score in scores]
        mean = sum(costs) / len(costs)
        over_seeds = sum((cost - mean) ** 2 for cost in costs) / max(1, len(costs) - 1) / len(costs)
        return self._value(mean), math.hypot(standard_error(average(scores)), math.sqrt(over_seeds))

    def _score(self, trial: Trial, split: str, paired: bool) -> Score:
        metric = self.metric(split)
        metrics = {
            "cost": self._value(trial.metrics[metric]),
            "cost_se": trial.metrics.get(f"{metric}_se", math.nan),
        }
        if not paired:
            return Score(split, metrics)
        return self.kept[trial.id][split].score(split, metrics)

    def _value(self, cost: float) -> float:
        """A cost out of a metric, or the other way round: a share that is right costs what is wrong."""
        return cost if self.result.direction == "minimize" else 1 - cost


def read_groups(places: Sequence[str], output_dir: str) -> list[TrialGroup]:
    """The groups that `places` name: RUN or RUN:TRIAL, a run being its folder or its
    name in `output_dir`.

    A single run means all its settings that were trained to the end, or until the run's time was up,
    best first and the plan's own among them; of several runs each means its winner's setting.

    Raises:
        RequestError: no such run or trial, nothing to compare in it, or measures that
            cannot be held against each other.
    """
    if len(places) == 1 and not _trial_part(places[0], output_dir):
        groups = _settings(find_run(places[0], output_dir))
    else:
        groups = [_named(place, output_dir, many=len(places) > 1) for place in dict.fromkeys(places)]
    _check_measures(groups)
    if len({group.name for group in groups}) < len(groups):
        # Runs of one name in two output folders.
        return [replace(group, name=f"{group.folder.path.parent}/{group.name}") for group in groups]
    return groups


def _trial_part(place: str, output_dir: str) -> str:
    """ ":TRIAL" of a place, empty where it is a run's folder or name as it stands."""
    if any(path.exists() for path in (Path(place), Path(output_dir, place))):
        return ""
    _, colon, trial = place.rpartition(":")
    return colon + trial if colon else ""


def _settings(folder: RunFolder) -> list[TrialGroup]:
    result = folder.result()
    by_setting: dict[str, list[Trial]] = {}
    for trial in result.ranked():
        # Those that ran out of time were kept as well, and one of them may have won.
        kept = trial.adapter and (trial.reason != PRUNED_BY_HAND or trial.id == result.best)
        if trial.status == "completed" or kept:
            begun = trial.parent if trial.warm else ""
            by_setting.setdefault(repr((sorted(trial.params.items()), begun)), []).append(trial)
    if not by_setting:
        raise RequestError(
            f"run `{folder.name}` has no candidate that was trained to the end",
            got=f"status {result.status}, {len(result.trials)} candidates",
            next="loraloom report shows how far each came",
        )
    return [_group(_first(trials).id, folder, result, trials) for trials in by_setting.values()]


def _named(place: str, output_dir: str, *, many: bool) -> TrialGroup:
    part = _trial_part(place, output_dir)
    folder = find_run(place.removesuffix(part), output_dir)
    if not part:
        winner = folder.result().best
        for group in _settings(folder):
            if winner in {trial.id for trial in group.trials}:
                return _group(f"{folder.name}:{group.name}", folder, group.result, group.trials)
        raise RequestError(
            f"run `{folder.name}` has no winner",
            need="a run that ended, or one of its trials",
            next=f"{folder.name}:TRIAL",
        )
    result = folder.result()
    wanted = part[1:]
    trial = result.trial(wanted)
    if trial is None:
        known = ", ".join(one.id for one in result.ranked()[:12]) or "none"
        raise RequestError(
            f"run `{folder.name}` has no trial `{wanted}`",
            got=f"trials: {known}",
            next=f"loraloom compare {folder.path}",
        )
    return _group(f"{folder.name}:{wanted}" if many else wanted, folder, result, [trial])


def _group(name: str, folder: RunFolder, result: RunResult, trials: Sequence[Trial]) -> TrialGroup:
    kept = {trial.id: read_scores(folder.trial_folder(trial.id)) for trial in trials}
    return TrialGroup(name, folder, result, tuple(trials), kept)


def _first(trials: Sequence[Trial]) -> Trial:
    """The trial that gives a setting its name: the first that was asked for, before any race."""
    return min(trials, key=lambda trial: (len(trial.id), trial.id))


def _check_measures(groups: Sequence[TrialGroup]) -> None:
    first = groups[0]
    for group in groups[1:]:
        if group.result.metric != first.result.metric:
            raise RequestError(
                "runs that were judged by different metrics cannot be compared",
                got=(
                    f"{first.result.metric} of {first.result.name}, {group.result.metric} of"
                    f" {group.result.name}"
                ),
                next="run one of them again with --set search.metric=... of the other",
            )


def _seed(trial: Trial) -> int:
    seed = trial.settings.get(names.SEED)
    return seed if isinstance(seed, int) else 0
