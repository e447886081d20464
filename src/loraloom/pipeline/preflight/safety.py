"""What makes a run's result worthless or its end impossible: leaks, a full disk, a folder that belongs to another request."""

from __future__ import annotations

import shutil
from pathlib import Path

from loraloom.config.decode import to_plain
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.preflight.subject import Subject
from loraloom.pipeline.resume import MAY_CHANGE, PLACE
from loraloom.plan.basis import bytes_text
from loraloom.store.folder import RunFolder

NAME = "safety"
MAY_DIFFER = {*MAY_CHANGE, *PLACE}
"""Keys that may be asked otherwise when a run of that name goes on."""


def inspect(subject: Subject) -> CheckResult:
    """A disk that is too small fails, and a run of that name that was asked for otherwise; leaked rows warn.

    Unknown keys are refused where the request is read.
    """
    free = shutil.disk_usage(_existing(Path(subject.config.output_dir))).free
    if free < subject.disk_bytes:
        return CheckResult(
            NAME, "fail", f"not enough free space for {subject.config.output_dir}",
            number=f"{bytes_text(free)} free, {bytes_text(subject.disk_bytes)} needed",
            cause="adapters, checkpoints and what is merged at the end have to go there",
            command="--output-dir FOLDER on another disk, or fewer --trials",
        )  # fmt: skip
    if (taken := _taken(subject)) is not None:
        return taken
    tables, repeated = subject.splits.tables, {split: rows for split, rows in subject.splits.repeated.items() if rows}
    if repeated:
        worst = max(repeated, key=lambda split: repeated[split])
        return CheckResult(
            NAME, "warn", "held-out rows are also trained on: scores on them flatter",
            number=", ".join(f"{rows:,} of {len(tables[split]):,} {split} rows" for split, rows in repeated.items()),
            cause="the same content stands in two files",
            command=f"--{'test' if worst == 'test' else 'validation'} 0.1 draws rows that are in train alone",
        )  # fmt: skip
    held_out = sum(len(table) for name, table in tables.items() if name != "train")
    what = "no held-out row is trained on, the disk is large enough" if held_out else "the disk is large enough"
    return CheckResult(
        NAME, "ok", what, number=f"{held_out:,} held-out rows, {bytes_text(subject.disk_bytes)} of {bytes_text(free)}"
    )


def _taken(subject: Subject) -> CheckResult | None:
    """A run of this name is there already."""
    config = subject.config
    if config.name is None:
        return None
    folder = RunFolder(Path(config.output_dir) / config.name)
    if not folder.path.exists():
        return None
    if not folder.config_path.is_file():
        return CheckResult(
            NAME, "fail", f"{folder.path} exists and is no run", number=None, cause="a run makes its own folder",
            command="--name another-name",
        )  # fmt: skip
    before, now = _flat(folder.config()), _flat(to_plain(config))
    differing = sorted(key for key in (before.keys() | now.keys()) - MAY_DIFFER if before.get(key) != now.get(key))
    if not differing and folder.result_path.is_file() and folder.result().status == "completed":
        return CheckResult(
            NAME, "fail", f"the run {config.name} exists and is finished", number=f"{len(folder.result().trials)} candidates",
            cause="a finished run is left as it is", command="--name another-name",
        )  # fmt: skip
    if not differing:
        return CheckResult(
            NAME, "ok", f"the run {config.name} exists and was asked for in the same way", command=f"--resume {folder.path}"
        )
    return CheckResult(
        NAME, "fail", f"the run {config.name} exists and was asked for otherwise",
        number=f"{len(differing)} keys differ: {', '.join(differing[:4])}",
        cause="what is in its folder does not belong to this request",
        command="--name another-name",
    )  # fmt: skip


def _flat(plain: object, prefix: str = "") -> dict[str, object]:
    """Every value by its dotted key."""
    if not isinstance(plain, dict) or not plain:
        return {prefix: plain}
    return {
        name: value
        for key, inner in plain.items()  # pyright: ignore[reportUnknownVariableType]
        for name, value in _flat(inner, f"{prefix}.{key}" if prefix else str(key)).items()  # pyright: ignore[reportUnknownArgumentType]
    }


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
