"""What the packed trainer of this release does and keeps: a plan promises nothing else.

A run is given what stands here and can be given; the rest are the trainer's own numbers, written here because a forecast
may not import the trainer.
"""

from __future__ import annotations

GRADIENT_CHECKPOINTING = True
"""Whether activations can be recomputed in the backward pass."""
QUANTIZATION: tuple[str, ...] = ()
"""Quantised bases that can be loaded."""
TOKEN_BUDGET = {"cpu": 512, "mps": 4096, "cuda": 4096}
"""Padded tokens of one training pass over all candidates; one candidate's micro-batch may exceed it. A processor is as fast
with few tokens as with many, at a fraction of the memory; an accelerator has to be kept busy."""
EVALUATION_FACTOR = 2
"""A pass that only scores holds this many times the tokens of a training pass, and one row of each candidate at least."""
HEAD_CHUNK_BYTES = 24 * 2**20
"""Float32 logits that the chunked loss of a language model would form at once."""
HEAD_CUDA_ROWS = 1024
"""Tokens whose logits it forms at once on CUDA, at least."""
HEAD_BLOCK_BYTES = 3 * 2**20
"""Of the chunk, what it widens at once on a CPU."""
STACK_BYTES = 64 * 2**20
"""Most that A and B of a pass's candidates may take side by side, with their gradients."""
