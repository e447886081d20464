"""The adapter that every candidate of a run begins with (`adapter.init_from`): found, held against the
base, copied into the run."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

from loraloom.config import names
from loraloom.config.asked import Config
from loraloom.errors import ConfigError, ModelError
from loraloom.facts.initial_adapter import InitialAdapter, initial_adapter
from loraloom.facts.model import ModelFacts
from loraloom.facts.source import model_folder
from loraloom.facts.weights import weights_fingerprint
from loraloom.lora.state import PEFT_TASKS
from loraloom.lora.untrusted_adapter import CONFIG, WEIGHTS, adapter_folder, read_adapter_config
from loraloom.pipeline.beside import run_around
from loraloom.plan.initial_adapter import FOLDER
from loraloom.plan.planner import Plan, candidate
from loraloom.records import Candidate, Task
from loraloom.store.disk import disk
from loraloom.store.folder import RunFolder

TRIAL = "initial"
"""What it is called where it is scored beside candidates."""


def initial_folder(config: Config) -> Path | None:
    """Where the adapter lies that the run is to begin with; None where it begins with fresh weights.

    Raises:
        ModelError: there is none at that place.
    """
    place = config.adapter.init_from
    return None if place is None else adapter_folder(place)


def read_initial(config: Config, model: ModelFacts, task: Task) -> InitialAdapter | None:
    """The adapter that the run begins with.

    Args:
        model: the run's base, described for its task.

    Raises:
        ModelError: it cannot be read, or was trained over another base.
        ConfigError: it was trained for another task.
    """
    folder = initial_folder(config)
    if folder is None:
        return None
    place = config.adapter.init_from or ""
    _require_base(place, folder, model)
    found = initial_adapter(place, folder, model)
    if found.task_type not in (None, PEFT_TASKS[task]):
        raise ConfigError(
            f"{place} was trained for {found.task_type}, and this run is for {PEFT_TASKS[task]}",
            where=names.INIT_FROM,
            next="give rows of the adapter's task, or leave `adapter.init_from` out",
        )
    return found


def _require_base(place: str, folder: Path, model: ModelFacts) -> None:
    """Raises ModelError where the adapter was trained over other weights: by their fingerprint where
    its run kept one, else by the name."""
    trained = read_adapter_config(folder).get("base_model_name_or_path")
    run = run_around(folder)
    before = run.result().base_fingerprint if run is not None else ""
    here = model_folder(model.name_or_path, model.revision)
    if before and here is not None and model.has_weights:
        same = weights_fingerprint(here) == before
    else:
        same = trained is None or _last(trained) == _last(model.name_or_path)
    if not same:
        raise ModelError(
            f"{place} was trained over another base",
            got=f"{trained}, and this run's base is {model.name_or_path}"
            + (" with other weights" if before else ""),
            need="the base that the adapter belongs to",
            next=f"--model {trained}, or leave `adapter.init_from` out",
        )


def _last(name: str) -> str:
    return Path(name).expanduser().name.lower()


def fingerprint_of(folder: Path) -> str:
    """A few characters that tell this adapter from any other."""
    found = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def keep_copy(initial: InitialAdapter, folder: RunFolder) -> None:
    """Copy the initial adapter into the run: what becomes of the other one while it goes on is of no
    account.

    Raises:
        StoreError: the disk refused.
    """
    target = folder.path / FOLDER
    with disk(target):
        target.mkdir(exist_ok=True)
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(initial.folder / name, target / name)


def as_saved(plan: Plan, folder: Path) -> list[tuple[Candidate, Path]]:
    """The initial adapter of a run as one that was saved, to be scored as it is; empty where there is
    none.

    Args:
        folder: of the run.
    """
    if plan.facts.initial is None:
        return []
    made = candidate(plan, TRIAL, {})
    return [(replace(made, start=None), folder / FOLDER)]
