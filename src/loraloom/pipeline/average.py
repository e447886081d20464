"""`loraloom adapter average`: one adapter of several seeds of one setting.

The updates are averaged, so the mean of k adapters of rank r has a rank of up to k r and is cut to the
best one of r; A and B apart are not averaged, for the directions of one seed have nothing to do with
those of another. Whether the mean is better than the seeds is measured on the run's validation rows,
where they are still there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.combine.adapters import combine
from loraloom.adapters.combine.conflicts import conflicts
from loraloom.adapters.folder import refuse_taken
from loraloom.adapters.form import read_form
from loraloom.config import names
from loraloom.config.decode import load_config
from loraloom.errors import LoraloomError, RequestError
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.beside import run_around
from loraloom.pipeline.compared import read_groups
from loraloom.pipeline.evaluate import evaluate
from loraloom.pipeline.reshape import Made, proof_of_sum, written
from loraloom.store.folder import RunFolder

DECIDED = (names.VALIDATION, names.TEST, names.SEED)
"""Settings that say which rows validation has."""


@dataclass(frozen=True)
class Scored:
    """A metric of each seed's adapter, in their order, and of their mean, on the same rows."""

    metric: str
    seeds: tuple[float, ...]
    average: float
    lower_is_better: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "seeds": list(self.seeds),
            "average": self.average,
            "better_seeds": self.better_seeds,
        }

    @property
    def better_seeds(self) -> list[int]:
        """Numbers of the seeds that are better than the mean, the best first."""
        sign = 1 if self.lower_is_better else -1
        order = sorted(range(len(self.seeds)), key=lambda number: sign * self.seeds[number])
        return [number for number in order if sign * self.seeds[number] < sign * self.average]


def average(
    places: Sequence[str],
    out: Path,
    rank: int | None = None,
    *,
    dry_run: bool = False,
) -> Made:
    """The mean of adapters that differ in their seed.

    Args:
        places: one run, whose winner's seeds are taken; or the adapters themselves.
        rank: of the result; that of the adapters when None.

    Raises:
        RequestError: there is nothing to average, or it cannot be; nothing was written.
        VerificationError: what was written is not the mean.
    """
    refuse_taken(out)
    folders = [adapter_folder(place) for place in places]
    run = run_around(folders[0])
    if len(folders) == 1:
        folders = _seeds(places[0], folders[0], run)
    forms = [read_form(folder) for folder in folders]
    weights = [1.0] * len(forms)
    found = combine(forms, weights, "soup", rank=rank)
    more: dict[str, Any] = {"adapters": [str(folder) for folder in folders]}
    if dry_run:
        return Made(found, None, None, conflicts(forms), more)
    prove = proof_of_sum("average", forms, weights, found, None)
    where, proof = written(found.form, out, prove)
    scores, note = (None, "no run lies around them") if run is None else _scores(run, folders, where)
    more |= {"scores": None if scores is None else scores.to_json(), "note": note}
    return Made(found, where, proof, conflicts(forms), more)


def _seeds(place: str, folder: Path, run: RunFolder | None) -> list[Path]:
    """Adapters of the trials that differ from a run's winner in their seed only.

    Raises:
        RequestError: it is no run, or one with a single seed of that setting.
    """
    found: list[Path] = []
    if run is not None and folder.resolve() == run.best.resolve():
        result = run.result()
        groups = read_groups([str(run.path)], str(run.path.parent))
        group = next(one for one in groups if result.best in {trial.id for trial in one.trials})
        kept = [run.path / trial.adapter for trial in group.trials if trial.adapter]
        found = [folder for folder in kept if folder.is_dir()]
    if len(found) > 1:
        return found
    raise RequestError(
        f"{place} is one adapter, or a run with one seed of its best setting, and a mean needs two",
        got=str(found[0] if found else folder),
        next="loraloom tune --set search.seeds_for_finalists=3, or name several adapters",
    )


def _scores(run: RunFolder, folders: Sequence[Path], mean: Path) -> tuple[Scored | None, str | None]:
    """Scores on the run's validation rows; None, and why, where these are not there any more."""
    settings = run.resolved()
    flags: Mapping[str, Any] = {key: settings[key].value for key in DECIDED if key in settings}
    try:
        config = load_config(run.config_path, flags)
        metric, direction = run.result().metric, run.result().direction
        values = [
            float(evaluate(config, str(folder), "validation")["metrics"][metric])
            for folder in [*folders, mean]
        ]
    except (LoraloomError, KeyError) as error:
        what = error.what if isinstance(error, LoraloomError) else f"no {error}"
        return None, f"not scored: {what}"
    return Scored(metric, tuple(values[:-1]), values[-1], direction == "minimize"), None
