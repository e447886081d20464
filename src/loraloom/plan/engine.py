"""What the packed trainer of this release does and keeps: a plan promises nothing else.

The numbers are the trainer's own defaults, written here because a forecast may not import the trainer.
"""

from __future__ import annotations

GRADIENT_CHECKPOINTING = False
"""Whether activations can be recomputed in the backward pass."""
QUANTIZATION: tuple[str, ...] = ()
"""Quantised bases that can be loaded."""
TOKEN_BUDGET = 4096
"""Padded tokens of one pass over all candidates; one candidate's micro-batch may exceed it."""
EVALUATION_TOKENS = 2 * TOKEN_BUDGET
HEAD_CHUNK_BYTES = 24 * 2**20
"""float32 logits that the chunked loss of a language model forms at once."""
