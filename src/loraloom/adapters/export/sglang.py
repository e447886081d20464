"""An adapter for SGLang, which scales every layer by alpha / r of the config: that is 1 here."""

from __future__ import annotations

import shlex
from pathlib import Path

from loraloom.adapters.export.peft_folder import PeftFolder
from loraloom.adapters.export.target import Source, refuse_beyond, refuse_classes


def plan(source: Source, kind: str | None = None) -> PeftFolder:
    """Raises ModelError where SGLang does not take the adapter."""
    refuse_classes(source, "SGLang")
    refuse_beyond(source.form, "SGLang")
    rank = max([1, *source.form.ranks])

    def serve(out: Path) -> list[str]:
        words = ["python", "-m", "sglang.launch_server", "--model-path", source.base, "--enable-lora"]
        return [
            shlex.join([*words, "--max-lora-rank", str(rank), "--lora-paths", f"{source.name}={out}"])
        ]

    return PeftFolder(source, rank, serve)
