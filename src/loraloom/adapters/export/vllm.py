"""An adapter for vLLM: PEFT's format at one of its ranks."""

from __future__ import annotations

import shlex
from pathlib import Path

from loraloom.adapters.export.peft_folder import PeftFolder
from loraloom.adapters.export.target import Source, refuse_beyond
from loraloom.config.servers import VLLM_HEADS, VLLM_RANKS, vllm_rank
from loraloom.errors import ModelError


def plan(source: Source, kind: str | None = None) -> PeftFolder:
    """Raises ModelError where vLLM does not take the adapter."""
    refuse_beyond(source.form, "vLLM", VLLM_HEADS)
    largest = max([1, *source.form.ranks])
    rank = vllm_rank(largest)
    if rank is None:
        raise ModelError(
            f"vLLM has no rank {largest}",
            where=str(source.form.folder),
            need=f"at most {VLLM_RANKS[-1]}",
            next=f"loraloom adapter resize --rank {VLLM_RANKS[-1]}, or --to merged",
        )

    def serve(out: Path) -> list[str]:
        classes = source.form.config.get("task_type") == "SEQ_CLS"
        words = ["vllm", "serve", source.base]
        words += ["--runner", "pooling", "--convert", "classify"] if classes else []
        words += ["--enable-lora", "--max-lora-rank", str(rank)]
        return [shlex.join([*words, "--lora-modules", f"{source.name}={out}"])]

    return PeftFolder(source, rank, serve)
