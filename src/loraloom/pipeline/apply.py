"""`loraloom train --apply RUN_FOLDER[:FINDING]`: what an earlier run asked for, with
the change that a finding proposes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loraloom.diagnose.order import rank
from loraloom.errors import RequestError
from loraloom.records import Finding, Trial
from loraloom.store.folder import RunFolder
from loraloom.store.names import free_name
from loraloom.store.result import RunResult


def applied(place: str) -> tuple[Path, dict[str, Any]]:
    """The config file to read and the values to put over it, by dotted key.

    The values are what the run searched, as the finding's trial had it (the best one, of a finding about
    the whole run), the finding's patch, and a name that is free: the run's own with a number.

    Args:
        place: a run folder, or RUN_FOLDER:FINDING. Without a finding, the first that proposes a change.

    Raises:
        RequestError: no such run, no such finding, or one that no change of the config can cure.
    """
    folder, name = _folder_of(place)
    if not folder.config_path.is_file():
        raise RequestError(
            f"run `{folder.name}` kept no config.yaml",
            next="name the config file, and --set what to change",
        )
    result = folder.result()
    found = findings_of(result)
    if name is not None:
        found = [(trial, finding) for trial, finding in found if finding.name == name]
        if not found:
            raise RequestError(
                f"run `{folder.name}` has no finding `{name}`",
                need=_names(result),
                next=f"--apply {folder.path}",
            )
    for trial, finding in found:
        if finding.patch:
            trial = trial or result.trial(result.best)
            params = {} if trial is None else dict(trial.params)
            return folder.config_path, {
                **params,
                **finding.patch,
                "name": free_name(folder.path.parent, folder.name),
            }
    raise RequestError(
        f"no finding of run `{folder.name}` proposes a change of the config",
        got=_names(result),
        next=found[0][1].next if found else "loraloom tune searches for better settings",
    )


def findings_of(result: RunResult) -> list[tuple[Trial | None, Finding]]:
    """Findings with the trial that they are about, or None for the run: the run's and the best trial's
    as they are shown at the end of a run, then those of the other trials."""
    best = result.trial(result.best)
    found: list[tuple[Trial | None, Finding]] = [(None, finding) for finding in result.findings]
    found += [(trial, finding) for trial in result.trials for finding in trial.findings]
    return sorted(
        found,
        key=lambda pair: (
            pair[0] is not None and best is not None and pair[0] is not best,
            rank(pair[1]),
        ),
    )


def _folder_of(place: str) -> tuple[RunFolder, str | None]:
    if Path(place).is_dir():
        return RunFolder.open(place), None
    path, colon, name = place.rpartition(":")
    return (RunFolder.open(path), name) if colon else (RunFolder.open(place), None)


def _names(result: RunResult) -> str:
    return ", ".join(dict.fromkeys(finding.name for _, finding in findings_of(result))) or "no findings"
