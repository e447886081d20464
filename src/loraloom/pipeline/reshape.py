"""The verbs of `loraloom adapter` that make another adapter: combine, resize, extract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.combine.adapters import DENSITY, Combined, combine
from loraloom.adapters.combine.conflicts import Conflict, conflicts
from loraloom.adapters.extract import Extracted, extract
from loraloom.adapters.folder import refuse_taken
from loraloom.adapters.form import read_form
from loraloom.adapters.resize import Resized, resized
from loraloom.adapters.save import save_form
from loraloom.errors import RequestError
from loraloom.lora.untrusted_adapter import adapter_folder
from loraloom.pipeline.adapters import base_folder


@dataclass(frozen=True)
class Made:
    """What was made and where it lies; `out` is None after `--dry-run`."""

    found: Combined | Resized | Extracted
    out: Path | None
    conflicts: Sequence[Conflict] = ()

    def to_json(self) -> dict[str, Any]:
        """The document of the verb."""
        about = {"out": None if self.out is None else str(self.out), **self.found.to_json()}
        return about | (
            {"conflicts": [one.to_json() for one in self.conflicts]} if self.conflicts else {}
        )


def combine_adapters(
    adapters: Sequence[str],
    out: Path,
    weights: str | None,
    method: str,
    *,
    rank: int | None = None,
    density: float = DENSITY,
    seed: int = 0,
    dry_run: bool = False,
) -> Made:
    """One adapter of several.

    Args:
        weights: "0.5,0.5"; 1 for each when None.

    Raises:
        RequestError: they cannot be combined; nothing was written.
    """
    refuse_taken(out)
    forms = [read_form(adapter_folder(place)) for place in adapters]
    given = [1.0] * len(forms) if weights is None else _numbers(weights)
    found = combine(forms, given, method, rank=rank, density=density, seed=seed)
    where = None if dry_run else save_form(found.form, out)
    return Made(found, where, conflicts(forms))


def resize(
    adapter: str, out: Path, rank: int | None, energy: float | None, *, dry_run: bool = False
) -> Made:
    """An adapter of another rank.

    Raises:
        RequestError: it cannot be done; nothing was written.
    """
    refuse_taken(out)
    found = resized(read_form(adapter_folder(adapter)), rank, energy)
    return Made(found, None if dry_run else save_form(found.form, out))


def extract_adapter(base: str, tuned: str, rank: int, out: Path, *, dry_run: bool = False) -> Made:
    """An adapter out of a base and a model that was trained from it.

    Raises:
        RequestError: it cannot be done; nothing was written.
    """
    refuse_taken(out)
    found = extract(base_folder(base), base_folder(tuned), rank, base)
    return Made(found, None if dry_run else save_form(found.form, out))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(
            f"--weights is {text}", need="numbers with commas between them", next="--weights 0.5,0.5"
        ) from error
