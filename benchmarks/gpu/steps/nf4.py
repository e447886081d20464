"""A base in NF4: what spreading it costs, beside products of the same size and in a pack, what keeping
inputs of blocks on the host costs, and four candidates of an 8B at 2,048 tokens."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM

from loraloom.lora.quantised_loading import take_over
from steps.bench import Bench, NotMeasuredError, tidy_up
from steps.packs import DTYPE
from steps.training import (
    Pace,
    build,
    config_of,
    engine,
    forget_peak,
    make_rows,
    pack_of,
    peak_bytes,
    timed,
)

DT = torch.bfloat16
TOKENS = (16, 128, 512, 2048, 8192)
LARGE_TOKENS, LARGE_PACK, LARGE_RANK = 2048, 4, 16
LARGE_PACE = Pace(warmup=1, least=2, seconds=0.0)


def measure(bench: Bench) -> None:
    shape, tokens, packs = ("small", 8, (1, 2)) if bench.small else ("1B", 256, (1, 16))
    bench.part("spread", lambda: spread(bench))
    for packed in packs:
        bench.part(f"K={packed}", lambda packed=packed: overhead(bench, shape, tokens, packed))
    bench.part("offload", lambda: offload(bench, shape, tokens))
    bench.part("8B, K=4", lambda: large(bench))


def need_bitsandbytes() -> Any:
    """Raises:
    NotMeasuredError: it is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise NotMeasuredError("bitsandbytes is not installed")
    import bitsandbytes

    return bitsandbytes


def coded(weight_OD: torch.Tensor, device: str) -> nn.Module:
    """bitsandbytes' layer over the NF4 codes of a weight, on the device; it is not to be run."""
    bnb = need_bitsandbytes()
    layer = bnb.nn.Linear4bit(weight_OD.shape[1], weight_OD.shape[0], False, DT, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(
        weight_OD.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(device)
    return layer


def in_nf4(shape: str, device: str) -> Any:
    """A LLaMA of random weights, drawn layer by layer, its blocks in NF4."""
    need_bitsandbytes()
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(shape)).to(DT)
    draw = torch.Generator(device).manual_seed(0)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and path != "lm_head":
            weight = torch.empty(layer.weight.shape, dtype=DT, device=device)
            model.set_submodule(path, coded(weight.normal_(0, 0.02, generator=draw), device))
    for path, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            made = torch.empty(parameter.shape, dtype=DT, device=device)
            made = made.fill_(1.0) if parameter.ndim == 1 else made.normal_(0, 0.02, generator=draw)
            owner, _, name = path.rpartition(".")
            setattr(model.get_submodule(owner), name, nn.Parameter(made, requires_grad=False))
    with torch.device(device):
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    model.tie_weights()
    take_over(model, DT)
    return model.eval().requires_grad_(False)


def spread(bench: Bench) -> dict[str, Any]:
    """Milliseconds to spread a weight, and of both products with it, dense and spread for each; how far
    bitsandbytes' own product over codes is from that, and how a row's result depends on its neighbours.
    """
    bnb, side = need_bitsandbytes(), 512 if bench.small else 4096
    w = torch.randn(side, side, dtype=DT, device=bench.device) * 0.02
    held: Any = coded(w, bench.device).weight

    def dense() -> torch.Tensor:
        return bnb.functional.dequantize_4bit(held.data, held.quant_state)

    found: dict[str, Any] = {"spread_ms": timed(bench, dense)["run_ms"]}
    for tokens in TOKENS[:2] if bench.small else TOKENS:
        x = torch.randn(tokens, side, dtype=DT, device=bench.device)
        y, plain = bnb.matmul_4bit(x, held, held.quant_state), x @ dense().T
        few = bnb.matmul_4bit(x[:8], held, held.quant_state)
        found[f"{tokens} tokens"] = {
            "dense_ms": timed(bench, lambda x=x: (x @ w.T, x @ w))["run_ms"],
            "spread_ms": timed(bench, lambda x=x: (x @ dense().T, x @ dense()))["run_ms"],
            "distance": float((y - plain).norm() / plain.norm()),
            "beside_others": float((y[:8] - few).norm() / few.norm()),
        }
    return found


def overhead(bench: Bench, shape: str, tokens: int, packed: int) -> dict[str, Any]:
    """Ticks of K candidates over NF4 and over the dense base, and the ratio of their times."""
    found: dict[str, Any] = {"tokens_of_all": packed * tokens}
    for key, make in (
        ("dense", lambda: build(shape, DTYPE, bench.device)),
        ("nf4", lambda: in_nf4(shape, bench.device)),
    ):
        model = make()
        forget_peak(bench)
        trainer = engine(model, make_rows(tokens, model.config.vocab_size))
        pack_of(model, trainer, packed)
        found[f"{key}_ms"] = timed(bench, trainer.tick)["run_ms"]
        found[f"{key}_peak_bytes"] = peak_bytes(bench)
        del model, trainer
        tidy_up()
    return found | {"ratio": found["nf4_ms"] / found["dense_ms"]}


def offload(bench: Bench, shape: str, tokens: int) -> dict[str, Any]:
    """Ticks with checkpointing, inputs of blocks on the device and on the host: the same losses, time,
    peaks."""
    bench.only_on_cuda()
    model, found = build(shape, DTYPE, bench.device), dict[str, Any]()
    trained: dict[str, list[torch.Tensor]] = {}
    for key, how in (("kept", True), ("offload", "offload")):
        forget_peak(bench)
        trainer = engine(model, make_rows(tokens, model.config.vocab_size), checkpointing=how)
        names = pack_of(model, trainer, 16)
        for _ in range(3):
            trainer.tick()
        # Before anything is timed: how many ticks are is not the same twice.
        trained[key] = [trainer.seats[name].adapter.arena.weights.clone() for name in names]
        found[f"{key}_ms"] = timed(bench, trainer.tick)["run_ms"]
        found[f"{key}_peak_bytes"] = peak_bytes(bench)
        del trainer
        tidy_up()
    same = all(torch.equal(*pair) for pair in zip(*trained.values(), strict=True))
    return found | {"same": float(same), "ratio": found["offload_ms"] / found["kept_ms"]}


def large(bench: Bench) -> dict[str, Any]:
    """Four candidates of r 16 over an 8B in NF4, rows of 2,048 tokens, checkpointed."""
    shape, tokens = ("small", 8) if bench.small else ("8B", LARGE_TOKENS)
    model = in_nf4(shape, bench.device)
    forget_peak(bench)
    trainer = engine(
        model,
        make_rows(tokens, model.config.vocab_size, 8),
        token_budget=tokens,
        checkpointing="offload" if bench.on_cuda else True,
    )
    pack_of(model, trainer, LARGE_PACK, lambda n: {"r": LARGE_RANK, "lora_alpha": 2 * LARGE_RANK})
    times = timed(bench, trainer.tick, None if bench.small else LARGE_PACE)
    peak = peak_bytes(bench)
    return {**times, "peak_bytes": peak, "peak_gb": None if peak is None else peak / 1e9}
