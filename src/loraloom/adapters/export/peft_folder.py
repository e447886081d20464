"""The adapter in PEFT's format and `normal` form, which every server computes alike; one server of it
a file beside this one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.artefacts import Artefact, peft_folder
from loraloom.adapters.export.target import Export, Written
from loraloom.adapters.form import normal
from loraloom.adapters.save import form_bytes, write_form
from loraloom.adapters.verify import task_of


@dataclass(frozen=True)
class PeftFolder(Export):
    """Attributes:
    rank: what all of its ranks are filled up to.
    serve: the commands that serve it from a folder.
    """

    rank: int
    serve: Callable[[Path], list[str]]

    @property
    def format(self) -> str:
        return "PEFT"

    @property
    def bytes(self) -> int:
        return form_bytes(normal(self.source.form, self.rank))

    def words(self) -> list[str]:
        form = self.source.form
        scaled = sum(factor.scale != 1 for factor in form.factors.values())
        wider = sum(factor.rank != self.rank for factor in form.factors.values())
        return [
            f"scale    B of {scaled} of {len(form.factors)} layers takes alpha / r on",
            f"pad      {wider} layers to rank {self.rank}",
            *([f"copy     {len(form.whole)} tensors trained whole"] if form.whole else []),
            f"write    {self.bytes / 2**20:,.1f} MiB in PEFT's format, alpha = r = {self.rank}",
        ]

    def write(self, out: Path) -> Written:
        return Written(write_form(self.source.form, out, self.rank))

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        return peft_folder(folder, self.source.files, task_of(self.source.files))

    def commands(self, out: Path) -> list[str]:
        return self.serve(out)
