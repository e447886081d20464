"""What servers of adapters take, as numbers and names that several rooms need."""

from __future__ import annotations

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's --max-lora-rank takes (vllm-project/vllm, vllm/config/lora.py). An adapter is held and
computed at the smallest of them that it fits into."""
VLLM_HEADS = ("classifier", "score")
"""Last names of modules trained whole that vLLM takes (vllm/lora/peft_helper.py)."""


def vllm_rank(rank: int) -> int | None:
    """The rank that vLLM holds an adapter at; None where it takes none so large."""
    return next((size for size in VLLM_RANKS if rank <= size), None)
