"""A model folder for transformers, with the adapter in its weights: `adapter merge` as a target."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.artefacts import Artefact, model_folder
from loraloom.adapters.export.target import Export, Source, Written
from loraloom.adapters.merge import describe, plan_merge
from loraloom.adapters.operations import Plan, apply, check
from loraloom.adapters.verify import task_of


@dataclass(frozen=True)
class Merged(Export):
    """Weights in the types that the base has."""

    plan: Plan

    @property
    def format(self) -> str:
        counts: dict[str, int] = {}
        for operation in self.plan.operations:
            entry = self.plan.entry(operation)
            counts[entry.code] = counts.get(entry.code, 0) + entry.bytes
        return max(counts, key=lambda code: counts[code])

    @property
    def bytes(self) -> int:
        return self.plan.bytes

    def words(self) -> list[str]:
        return describe(self.plan)

    def write(self, out: Path) -> Written:
        check(self.plan, out)
        return Written(apply(self.plan, out))

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        return model_folder(folder, task_of(self.source.files))

    def commands(self, out: Path) -> list[str]:
        if task_of(self.source.files) == "causal_lm":
            return [f'loraloom generate --model {out} "..."', f"vllm serve {out}"]
        return [f"transformers: from_pretrained({str(out)!r})"]


def plan(source: Source, kind: str | None = None) -> Merged:
    """Raises ModelError where the adapter does not belong to this base."""
    return Merged(source, plan_merge(source.form, source.files))
