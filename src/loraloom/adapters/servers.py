"""What servers refuse of an adapter, or compute otherwise than it was trained.

The rules of vLLM 0.33 (`vllm/lora/peft_helper.py`), SGLang 0.5.23 (`srt/lora/lora.py`) and llama.cpp's
converter (`convert_lora_to_gguf.py`); none of them was run against an adapter of ours. What `adapter
export` writes has neither patterns nor another scale than 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from loraloom.adapters.form import Form
from loraloom.config.servers import VLLM_HEADS, VLLM_RANKS, vllm_rank


def refusals(form: Form) -> Mapping[str, tuple[str, ...]]:
    """By server: each reason why it does not take the adapter as it is; empty where it does."""
    return {
        "vllm": tuple(_vllm(form)),
        "sglang": tuple(_sglang(form)),
        "llama.cpp": tuple(_llama_cpp(form)),
    }


def _vllm(form: Form) -> Iterator[str]:
    yield from beside_factors(form, heads=VLLM_HEADS)
    largest = max(form.ranks, default=1)
    if vllm_rank(largest) is None:
        yield f"rank {largest}, more than {VLLM_RANKS[-1]}"


def _sglang(form: Form) -> Iterator[str]:
    yield from beside_factors(form)
    alpha, rank = form.config.get("lora_alpha") or 8, form.config.get("r") or 8
    if any(factor.scale != alpha / rank for factor in form.factors.values()):
        yield "rsLoRA or patterns, unless exported: it scales every layer by alpha / r of the config"


def _llama_cpp(form: Form) -> Iterator[str]:
    yield from beside_factors(form)
    alpha = form.config.get("lora_alpha") or 8
    if any(factor.scale != alpha / factor.rank for factor in form.factors.values()):
        yield "rsLoRA or alpha_pattern, unless exported: its converter passes over them silently"


def beside_factors(form: Form, heads: tuple[str, ...] = (), *, dora: bool = False) -> Iterator[str]:
    """What an adapter has beside A and B that a server does not take.

    Args:
        heads: last names of modules trained whole that it takes.
        dora: whether it takes DoRA's magnitudes.
    """
    if form.uses_dora and not dora:
        yield "DoRA's magnitudes"
    if form.biases:
        yield "trained biases"
    modules = {name.rpartition(".")[0] for name in form.whole if name not in form.biases}
    others = sorted(path for path in modules if path.rpartition(".")[2] not in heads)
    if others:
        yield f"modules trained whole ({', '.join(others[:3])})"
    if form.tokens:
        yield "tokens trained one by one"
