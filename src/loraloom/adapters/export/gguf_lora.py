"""The adapter alone as a GGUF file, which llama.cpp adds to a GGUF file of its base."""

from __future__ import annotations

import shlex
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from loraloom.adapters.artefacts import Artefact
from loraloom.adapters.export.gguf import gguf_promise, llama_missing, opened_base
from loraloom.adapters.export.target import Export, Source, Written, refuse_classes
from loraloom.adapters.folder import refuse_taken, unfinished
from loraloom.adapters.gguf.families import Layout
from loraloom.adapters.gguf.lora import convert_lora, refuse_more_than_factors
from loraloom.adapters.proof import Promise


@dataclass(frozen=True)
class GgufLora(Export):
    """In float32, with the true scale of every layer in B."""

    @property
    def format(self) -> str:
        return "GGUF LoRA"

    @property
    def promise(self) -> Promise:
        return gguf_promise(self.source.files, self.format)

    @property
    def file(self) -> str:
        return f"{self.source.name}-lora.gguf"

    @property
    def bytes(self) -> int:
        factors = self.source.form.factors.values()
        return sum(factor.a_RD.nbytes + factor.b_OR.nbytes for factor in factors)

    def words(self) -> list[str]:
        layers = len(self.source.form.factors)
        return [
            f"scale    B of {layers} layers, alpha 0",
            f"write    {self.file}, {self.bytes / 2**20:,.1f} MiB",
        ]

    def write(self, out: Path) -> Written:
        refuse_taken(out)
        with unfinished(out) as partial:
            found = convert_lora(self.source.form, self.source.files, partial / self.file)
        return Written(partial, found.notes)

    def missing(self) -> str | None:
        return llama_missing()

    def opened(self, folder: Path) -> AbstractContextManager[Artefact]:
        return opened_base(self.source.files.folder, "F32", folder / self.file)

    def commands(self, out: Path) -> list[str]:
        words = shlex.join(["llama-server", "-m", "BASE.gguf", "--lora", str(out / self.file)])
        return [f"{words}    # BASE.gguf: a GGUF file of {self.source.base}"]


def plan(source: Source, kind: str | None = None) -> GgufLora:
    """Raises RequestError where a GGUF LoRA has no place for it."""
    refuse_classes(source, "llama.cpp")
    Layout(source.files.config, str(source.files.folder))
    refuse_more_than_factors(source.form, source.files)
    return GgufLora(source)
