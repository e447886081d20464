"""What the packed trainer of this release does and keeps: a plan promises nothing else.

A run is given what stands here. Numbers that are the trainer's own stand where they are
used, and are imported by forecasts.
"""

from __future__ import annotations

GRADIENT_CHECKPOINTING = True
"""Whether activations can be recomputed in the backward pass."""
OFFLOAD = ("cuda",)
"""Kinds of device whose memory is apart from the host's, so that inputs of blocks can wait there."""
STREAMING = ("cpu", "cuda")
"""Kinds of device that can train over a base which does not fit into their memory."""
QUANTIZATION: tuple[str, ...] = ("nf4", "int8")
"""Quantised bases that can be loaded."""
QUANTISING = ("cpu", "cuda")
"""Kinds of device that can spread weights from such codes."""
EIGHT_BIT_ADAMW = ("cuda",)
"""Kinds of device on which moments in 8 bits are worth their time: on a processor's core a step of 2
million numbers took 35 ms, and 1.0 in float32."""
TOKEN_BUDGET = {"cpu": 512, "mps": 4096, "cuda": 4096}
"""Padded tokens of one training pass over all candidates; one candidate's micro-batch may exceed it. A
processor is as fast with few tokens as with many, at a fraction of the memory; an accelerator has to be
kept busy."""
MOST_TOKENS = {"cpu": 512, "mps": 4096, "cuda": 16384}
"""What a pass may grow to where memory allows, so that the whole pack fits into one: on CUDA each
further pass asks for as many kernels again, and with so many tokens products take longer than that by
far."""
