"""Norms and gates of a frozen base as kernels: what the plain modules give, or the plain modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import tiny
import torch
from engine import candidate, causal_rows, largest_difference, linears, run, weights_of
from torch import nn

from loraloom.evals.objective import objective_for
from loraloom.lora import fused_base
from loraloom.lora.base import share_copy
from loraloom.lora.packed import PackedModel
from loraloom.train.pack import PackTrainer

LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")
FAMILIES = [
    (family, dtype)
    for family in LIKE_LLAMA
    if family in tiny.FAMILIES
    for dtype in (torch.float32, torch.bfloat16)
]
if "gemma2" in tiny.FAMILIES:
    # in bfloat16 this tiny one is a tenth away from itself in float32, fused or not
    FAMILIES.append(("gemma2", torch.float32))
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.08}
"""Some ten layers each round."""


def model_of(family: str, dtype: torch.dtype, device: torch.device) -> Any:
    """With weights that matter: norms come with ones or zeros."""
    model = tiny.model_of(family, dtype).requires_grad_(False)
    numbers = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.add_((0.3 * torch.randn(weight.shape, generator=numbers)).to(dtype))
    return model.to(device)


@pytest.mark.parametrize(("family", "dtype"), FAMILIES, ids=str)
def test_a_model_gives_what_it_gave(family: str, dtype: torch.dtype, device: torch.device) -> None:
    plain = model_of(family, dtype, device)
    model = copy.deepcopy(plain)
    norms = sum(type(part).__name__.endswith("RMSNorm") for part in model.modules())
    found = fused_base.fuse(model)
    assert not found.refused
    assert sum(count for name, count in found.taken.items() if name.endswith("RMSNorm")) == norms > 0
    assert sum(count for name, count in found.taken.items() if name.endswith("MLP")) == (
        0 if "gemma" in family else 2
    )
    ids = torch.arange(12, device=device).view(2, 6) % tiny.VOCAB
    results = []
    for one in (model, plain):
        x = one.get_input_embeddings()(ids).detach().requires_grad_()
        logits = one(inputs_embeds=x).logits
        (logits.float() ** 2).mean().backward()
        results.append((logits.detach().float(), x.grad.float()))
    for here, there in zip(*results, strict=True):
        assert float((here - there).abs().max()) <= TOLERANCES[dtype] * float(there.abs().max())


class OddRMSNorm(nn.Module):
    """As many are called, and does something else."""

    def __init__(self, width: int, power: float = 2.5) -> None:
        super().__init__()
        self.weight, self.eps, self.power = nn.Parameter(torch.ones(width)), 1e-6, power

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (
            self.weight
            * x
            / (x.abs().pow(self.power).mean(-1, keepdim=True) + self.eps).pow(1 / self.power)
        )


def test_what_differs_is_left_alone_and_told(device: torch.device) -> None:
    model = nn.Sequential(OddRMSNorm(24)).to(device).requires_grad_(False)
    found = fused_base.fuse(model)
    assert type(model[0]) is OddRMSNorm and not found.taken
    assert "not those of the plain one" in found.refused["OddRMSNorm"]


def test_a_kernel_that_cannot_run_leaves_the_module_alone(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loraloom.lora.kernels import base

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(base, "_launch", fails)
    model = model_of("llama", torch.float32, device)
    assert "no C compiler" in fused_base.fuse(model).refused["LlamaRMSNorm"]


def test_only_this_model_s_modules_change(device: torch.device) -> None:
    model, other = model_of("llama", torch.float32, device), model_of("llama", torch.float32, device)
    fused_base.fuse(model)
    assert type(model.model.norm) is not type(other.model.norm)
    assert (
        isinstance(model.model.norm, type(other.model.norm))
        and type(model.model.norm).__name__ == "LlamaRMSNorm"
    )


def test_a_model_that_leaves_the_gpu_runs_as_it_came(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("llama", torch.float32, device)
    fused_base.fuse(model)
    monkeypatch.setattr(fused_base, "interpreted", lambda: False)
    ids = torch.arange(6).view(1, 6)
    plain = model_of("llama", torch.float32, torch.device("cpu"))
    assert torch.equal(model.cpu()(ids).logits, plain(ids).logits)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "run again"])
def test_candidates_train_as_on_the_plain_base(checkpointing: bool, device: torch.device) -> None:
    """One of them trains a norm, which then runs as it came."""
    model = model_of("llama", torch.float32, device)
    chosen = [
        candidate("plain", model, max_steps=2),
        candidate(
            "norm",
            model,
            targets=linears(model)[:2],
            heads=("model.norm", "model.layers.0.input_layernorm"),
            max_steps=2,
        ),
    ]
    found = {}
    for fused in (True, False):
        packed = PackedModel(share_copy(model), fused=fused, kernels=False)
        assert bool(packed.fused.taken) == fused
        objective = objective_for("causal_lm", model)
        engine = PackTrainer(
            packed,
            causal_rows(12),
            objective,
            task="causal_lm",
            pad_id=tiny.PAD,
            workers=1,
            checkpointing=checkpointing,
        )
        found[fused] = run(engine, chosen)
    for name, seat in found[False].items():
        assert largest_difference(weights_of(found[True][name]), weights_of(seat)) < 1e-4
