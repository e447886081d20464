"""The adapter that a run begins with, from its files: what its weights fix of every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.config import names
from loraloom.errors import ModelError
from loraloom.facts.model import ModelFacts
from loraloom.lora.record import Record, read_record
from loraloom.lora.targets import KEYWORDS, NO_TARGETS, resolve_pattern, short_label
from loraloom.lora.untrusted_adapter import WEIGHTS, adapter_shapes, read_adapter_config

PREFIX = "base_model.model."
ENDS = (".lora_A.weight", ".lora_B.weight")
MAGNITUDE = ".lora_magnitude_vector"
PEFT_RANK = PEFT_ALPHA = 8
"""What PEFT takes where a config does not say it."""


@dataclass(frozen=True)
class InitialAdapter:
    """An adapter whose weights every candidate of a run begins with.

    Attributes:
        place: as the user wrote it: a run, or a folder.
        folder: where its files are.
        task_type: its task as PEFT calls it; None where its config does not say it.
        settings: what its weights fix, by dotted key: rank, alpha, targets, ...
        record: what lies beside it of how its rows were made.
    """

    place: str
    folder: Path
    task_type: str | None
    settings: Mapping[str, Any]
    record: Record


def initial_adapter(place: str, folder: Path, model: ModelFacts) -> InitialAdapter:
    """Read an adapter that training is to go on with.

    Args:
        place: what the user calls it.
        folder: where it lies.
        model: the base of the run.

    Raises:
        ModelError: it cannot be read, does not fit this base, or holds what is not trained here.
    """
    config, shapes = read_adapter_config(folder), adapter_shapes(folder)
    targets = tuple(
        linear.path for linear in model.linears if f"{PREFIX}{linear.path}{ENDS[0]}" in shapes
    )
    whole = _whole_modules(config, shapes, model)
    _refuse_others(folder, shapes, targets, whole, config)
    rank = config.get("r") or PEFT_RANK
    ranks = {path: shapes[f"{PREFIX}{path}{ENDS[0]}"][0] for path in targets}
    _refuse_other_shapes(folder, shapes, ranks, model)
    alphas = resolve_pattern(targets, config.get("alpha_pattern") or {}, key=names.ALPHA_PATTERN)
    settings = {
        names.R: rank,
        names.LORA_ALPHA: config.get("lora_alpha") or PEFT_ALPHA,
        names.TARGET_MODULES: _as_written(targets, model),
        names.BIAS: config.get("bias") or "none",
        names.USE_RSLORA: bool(config.get("use_rslora")),
        names.USE_DORA: bool(config.get("use_dora")),
        # Nothing is drawn: whatever its weights once began with, they are plain A and B on disk.
        names.INIT_LORA_WEIGHTS: True,
        names.RANK_PATTERN: {path: own for path, own in ranks.items() if own != rank},
        names.ALPHA_PATTERN: alphas,
        names.MODULES_TO_SAVE: whole,
    }
    return InitialAdapter(place, folder, config.get("task_type"), settings, read_record(folder))


def _whole_modules(
    config: Mapping[str, Any], shapes: Mapping[str, Any], model: ModelFacts
) -> tuple[str, ...]:
    """Paths of the modules that it holds whole (`modules_to_save`)."""
    ends = tuple(config.get("modules_to_save") or ())
    return tuple(
        path
        for path in model.modules
        if path.endswith(ends) and any(key.startswith(f"{PREFIX}{path}.") for key in shapes)
    )


def _refuse_others(
    folder: Path,
    shapes: Mapping[str, Any],
    targets: Sequence[str],
    whole: Sequence[str],
    config: Mapping[str, Any],
) -> None:
    """Raises ModelError for a tensor that no candidate of a run would take over."""
    known = {f"{PREFIX}{path}{end}" for path in targets for end in ENDS}
    if config.get("use_dora"):
        known |= {f"{PREFIX}{path}{MAGNITUDE}" for path in targets}
    beginnings = tuple(f"{PREFIX}{path}." for path in whole)
    biased = config.get("bias") not in (None, "none")
    for key in shapes:
        if key in known or key.startswith(beginnings) or (biased and key.endswith(".bias")):
            continue
        raise ModelError(
            f"a run cannot begin with the adapter in {folder}",
            got=f"`{key}`, which has no place in this base or is not trained here",
            need="A and B of linear layers of this base, and modules that were saved whole",
            next="give an adapter that was trained over this base, or leave `adapter.init_from` out",
        )
    if not targets:
        raise ModelError(
            "there are no LoRA weights in it", where=str(folder / WEIGHTS), next="give another folder"
        )


def _refuse_other_shapes(
    folder: Path, shapes: Mapping[str, Sequence[int]], ranks: Mapping[str, int], model: ModelFacts
) -> None:
    """Raises ModelError where A or B are of a layer of another width, or of a layer that stays as it
    is in a run."""
    for linear in model.linears:
        rank = ranks.get(linear.path)
        if rank is None:
            continue
        found = tuple(tuple(shapes.get(f"{PREFIX}{linear.path}{end}", ())) for end in ENDS)
        wanted = ((rank, linear.in_features), (linear.out_features, rank))
        if found != wanted or linear.role in NO_TARGETS:
            raise ModelError(
                f"a run cannot begin with the adapter in {folder}: `{linear.path}`"
                f" {'does not fit this base' if found != wanted else 'takes no adapter here'}",
                got=f"A {found[0]}, B {found[1]}",
                need=f"A {wanted[0]}, B {wanted[1]}" if found != wanted else None,
                next="give an adapter that was trained over this base",
            )


def _as_written(targets: Sequence[str], model: ModelFacts) -> str | tuple[str, ...]:
    """The targets as one would write them: a keyword, the names of layers, else their paths."""
    label = short_label(targets, model.linears)
    if label in KEYWORDS:
        return label
    leaves = tuple(dict.fromkeys(path.rpartition(".")[2] for path in targets))
    reached = [linear.path for linear in model.linears if linear.name in leaves]
    return leaves if reached == list(targets) else tuple(targets)
