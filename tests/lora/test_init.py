"""How adapters start: PEFT's distributions and decompositions, from the seed and the path alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from loraloom.lora.init import named_seed, start_of

OUT, D, R = 12, 8, 4


def weight(o: int = OUT, d: int = D) -> torch.Tensor:
    return torch.randn(o, d, generator=torch.Generator().manual_seed(0))


def start(how: Any, seed: int = 0, r: int = R, scale: float = 2.0) -> Any:
    return start_of(how, r, scale, (D, OUT), weight, seed, weight)


@pytest.mark.parametrize("how", ["pissa", "olora"])
@pytest.mark.parametrize("rslora", [False, True])
def test_a_start_from_the_weight_is_pefts_and_leaves_the_base_alone(how: str, rslora: bool) -> None:
    alpha, before = 6.0, weight()
    layer = nn.Linear(D, OUT, bias=False)
    layer.weight = nn.Parameter(before.clone())
    config = LoraConfig(
        r=R, lora_alpha=alpha, use_rslora=rslora, init_lora_weights=how, target_modules=["0"]
    )  # type: ignore[arg-type]
    theirs = get_peft_model(nn.Sequential(layer), config).base_model.model[0]  # type: ignore[arg-type]
    scale = alpha / (math.sqrt(R) if rslora else R)
    given = weight()
    ours = start_of(how, R, scale, (D, OUT), lambda: given, 3, weight)
    assert torch.allclose(ours.a_RD, theirs.lora_A["default"].weight, atol=1e-6)
    assert torch.allclose(ours.b_OR, theirs.lora_B["default"].weight, atol=1e-6)
    assert torch.allclose(before - scale * ours.b_OR @ ours.a_RD, theirs.base_layer.weight, atol=1e-5)
    assert ours.moves_base and torch.equal(given, before)


@pytest.mark.parametrize("how", [True, "gaussian", False, "orthogonal", "pissa_niter_3"])
def test_a_start_depends_on_its_seed_alone(how: Any) -> None:
    first = start(how, seed=1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again, other = start(how, seed=1), start(how, seed=2)
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator is left as it was"
    assert torch.equal(first.a_RD, again.a_RD) and torch.equal(first.b_OR, again.b_OR)
    assert not torch.equal(first.a_RD, other.a_RD)


def test_drawn_starts_have_the_sizes_that_peft_documents() -> None:
    r, d = 64, 512
    uniform, gaussian, both = (
        start_of(how, r, 1.0, (d, 256), weight, 0, weight) for how in (True, "gaussian", False)
    )
    bound = 1 / math.sqrt(d)
    assert bound * 0.99 < float(uniform.a_RD.abs().max()) <= bound and not uniform.b_OR.any()
    assert float(gaussian.a_RD.std()) == pytest.approx(1 / r, rel=0.02) and not gaussian.b_OR.any()
    assert float(both.b_OR.std()) == pytest.approx(1 / math.sqrt(3 * r), rel=0.02)


def test_an_orthogonal_start_changes_nothing_yet() -> None:
    made = start("orthogonal")
    assert made.a_RD.abs().max() > 0 and made.b_OR.abs().max() > 0
    assert float((made.b_OR @ made.a_RD).abs().max()) < 1e-6


def test_seeds_differ_by_trial_and_by_module() -> None:
    seeds = {named_seed(seed, path) for seed in range(50) for path in ("a.q", "a.k", "b.q")}
    assert len(seeds) == 150 and all(0 <= seed < 2**63 for seed in seeds)
