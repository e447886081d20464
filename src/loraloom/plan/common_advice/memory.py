"""How to need less memory."""

from __future__ import annotations

from loraloom.plan.common_advice.item import (
    BATCH,
    CHECKPOINTING,
    OPTIMISER,
    QUANTIZATION,
    TUNE,
    Subject,
    followed,
    overruled,
)

SUBJECT = Subject(
    "Memory and precision",
    (
        followed(
            "Memory depends on model, rank, precision, moments, batch, length, checkpointing and "
            "offloading.",
            "All are itemised in the forecast.",
            "command plan",
        ),
        followed(
            "Mixed precision, bf16 or fp16.",
            "bf16 for the base where the device has it, fp32 for the adapter.",
            "rule training.precision",
        ),
        followed(
            "Gradient checkpointing trades time for memory, above all for long rows.",
            "On where the step does not fit without it.",
            CHECKPOINTING,
        ),
        overruled(
            "One vendor's checkpointing saves 30% more.",
            "It is code for that vendor's own trainer; the forecast here is held to measured peaks.",
            "derived here (another engine)",
            CHECKPOINTING,
        ),
        overruled(
            "A quantised base saves a third of the memory at 39% more time.",
            "The times in its own source give 50% more, and litgpt measured 56%. In the engine here it"
            " is 14% for one candidate and 6% for each of eight (benchmarks/spec_table).",
            "arXiv:2305.14314; litgpt",
            QUANTIZATION,
        ),
        followed(
            "Out of memory: a base of 4 bits.",
            "NF4, where device and engine have it.",
            QUANTIZATION,
        ),
        overruled(
            "Quantise to Q4_K_M.",
            "That is a format of GGUF files, to ship with, as ship does; bases are trained in NF4.",
            "arXiv:2305.14314; ggml-org/llama.cpp",
            QUANTIZATION,
            "command ship",
        ),
        followed(
            "Quantised bases: use libraries made for them, and paged optimisers.",
            "NF4 by bitsandbytes where the engine has it; AdamW's moments are too small to page.",
            QUANTIZATION,
            OPTIMISER,
        ),
        followed(
            "Check that a quantised run is stable.",
            "Candidates are scored on validation while they run.",
            TUNE,
        ),
        followed(
            "Out of memory: mixed precision.",
            "Goal memory takes bf16 wherever it runs in hardware.",
            "rule training.precision",
            "goal memory",
        ),
        overruled(
            "Out of memory: a smaller rank comes first.",
            "The adapter is the smallest part of the peak: batch, checkpointing and fewer bits "
            "come first, the rank last.",
            "arXiv:2305.14314",
            BATCH,
            "goal memory",
        ),
        overruled(
            "Out of memory: move frozen weights to the CPU.",
            "Each step would wait for the bus; candidates share one base on the device instead.",
            "arXiv:2508.02932",
            "rule limits.max_packed",
        ),
        followed(
            "LoRA runs leave hardware idle.",
            "Candidates are packed on one frozen base.",
            "rule limits.max_packed",
        ),
        followed(
            "A length that suits the data.",
            "The longest row, measured.",
            "rule data.max_length",
        ),
    ),
)
