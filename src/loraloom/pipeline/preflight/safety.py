"""What makes a run's result worthless or its end impossible: leaks, a full disk, a
folder that belongs to another request."""

from __future__ import annotations

from pathlib import Path

from loraloom.config.decode import load_config
from loraloom.errors import RequestError
from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject
from loraloom.pipeline.resume import MAY_CHANGE, PLACE, differing
from loraloom.plan.numbers import bytes_text
from loraloom.store.disk import free_bytes
from loraloom.store.folder import RunFolder, nothing_in

NAME = "safety"
MAY_DIFFER = {*MAY_CHANGE, *PLACE}
"""Keys that may be asked otherwise when a run of that name goes on."""


def inspect(subject: Subject) -> CheckResult:
    """A disk that is too small fails, and a run of that name that was asked for
    otherwise; leaked rows warn.

    Unknown keys are refused where the request is read.
    """
    free = free_bytes(subject.config.output_dir)
    if free < subject.disk_bytes:
        return CheckResult(
            NAME,
            "fail",
            f"not enough free space for {subject.config.output_dir}",
            number=f"{bytes_text(free)} free, {bytes_text(subject.disk_bytes)} needed",
            cause="adapters, checkpoints and what is merged at the end have to go there",
            command="--output-dir FOLDER on another disk, or fewer --trials",
        )
    if (taken := _taken(subject)) is not None:
        return taken
    tables = subject.splits.tables
    splits = subject.splits
    repeated = subject.whole.repeated if subject.whole else splits.repeated
    if repeated:
        worst = max(repeated, key=lambda split: repeated[split])
        return CheckResult(
            NAME,
            "warn",
            "held-out rows are also trained on: scores on them are too good",
            number=", ".join(
                f"{rows:,} of {len(tables[split]):,} {split} rows" for split, rows in repeated.items()
            ),
            cause="the same content is in two files",
            command=(
                f"--{'test' if worst == 'test' else 'validation'} 0.1 draws rows that are in train alone"
            ),
        )
    if related := [each for each in splits.overlaps if each.kind != "content"]:
        return CheckResult(
            NAME,
            "warn",
            "held-out rows are related to rows that are trained on: scores on them are too good",
            number="; ".join(each.sentence for each in related),
            cause=(
                "rows asked the same or nearly the same are easier for a model that was trained on one"
                " of them"
            ),
            command=(
                None
                if not splits.given
                else "--test 0.1 and --validation 0.1 keep related rows on one side"
            ),
        )
    held_out = ", ".join(
        f"{len(table):,} {name}" for name, table in tables.items() if name != "train" and len(table)
    )
    what = (
        "no held-out row is trained on, the disk is large enough"
        if held_out
        else "the disk is large enough"
    )
    number = f"{held_out or 'no held-out'} rows, {bytes_text(subject.disk_bytes)} of {bytes_text(free)}"
    return CheckResult(NAME, "ok", what, number=number)


def _taken(subject: Subject) -> CheckResult | None:
    """A run of this name is there already."""
    config = subject.config
    if config.name is None:
        return None
    folder = RunFolder(Path(config.output_dir) / config.name)
    if not folder.path.exists() or nothing_in(folder.path):
        return None
    if not folder.config_path.is_file():
        return CheckResult(
            NAME,
            "fail",
            f"{folder.path} exists and is no run",
            cause="a run makes its own folder",
            command="--name another-name",
        )
    try:
        changed = sorted(differing(load_config(folder.config_path), config, MAY_DIFFER))
    except RequestError as error:
        return refused(NAME, error)
    if not changed and folder.result_path.is_file() and folder.result().status == "completed":
        return CheckResult(
            NAME,
            "fail",
            f"the run {config.name} exists and is finished",
            number=f"{len(folder.result().trials)} candidates",
            cause="a finished run is left as it is",
            command="--name another-name",
        )
    if not changed:
        return CheckResult(
            NAME,
            "ok",
            f"the run {config.name} exists and was asked for in the same way",
            command=f"--resume {folder.path}",
        )
    return CheckResult(
        NAME,
        "fail",
        f"the run {config.name} exists and was asked for otherwise",
        number=f"{len(changed)} keys differ: {', '.join(changed[:4])}",
        cause="what is in its folder does not belong to this request",
        command="--name another-name",
    )
