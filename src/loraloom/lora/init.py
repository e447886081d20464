"""How a new adapter starts: A, B, heads, each from the candidate's seed and the module's path alone.

The default and "gaussian" are drawn here, on the CPU in float32, so that every device and dtype starts
alike. Starts that look at the frozen weight are PEFT's own, run on a throwaway layer over a copy of that
weight. PiSSA (Meng et al. 2024, arXiv:2404.02948) and OLoRA (Büyükakyüz 2024, arXiv:2406.01775) take
their first product out of the base. Here the base is shared and stays: the same is had by a frozen
second term, -scale * B0 A0, in the candidate's own layers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError

DRAWN: tuple[bool | str, ...] = (True, "gaussian")
FROM_WEIGHT = ("pissa", "olora", "orthogonal")
"""Names, or the part before "_niter_", that PEFT computes from the layer's weight alone."""
MOVES_BASE = ("pissa", "olora")
LOFTQ = "loftq"
REFUSED = {
    "loftq": "more steps of LoftQ than one need a quantised base for each candidate",
    "eva": "EVA looks at activations of the training data before the adapter exists",
    "corda": "CorDA looks at activations of the training data before the adapter exists",
    "lora_ga": "LoRA-GA looks at gradients of the training data before the adapter exists",
    "mica": "MiCA freezes B, which the packed layers train",
}


@dataclass(frozen=True)
class Start:
    """First values of one layer: A [R, D], B [O, R], in float32; `moves_base`: their
    product comes out of the base."""

    a_RD: Tensor
    b_OR: Tensor
    moves_base: bool = False


def named_seed(seed: int, path: str) -> int:
    """A seed for one module of one candidate."""
    return (seed * 0x1_0000_0001 + zlib.crc32(path.encode())) & 0x7FFF_FFFF_FFFF_FFFF


def family_of(how: bool | str) -> bool | str:
    """ "pissa" for "pissa_niter_16"; anything else as it is, in lower case."""
    return how.lower().partition("_niter_")[0] if isinstance(how, str) else how


def moves_base(how: bool | str) -> bool:
    return family_of(how) in MOVES_BASE


def nothing_was_quantised(got: str) -> ModelError:
    """The refusal of LoftQ where its base has lost nothing, or what it lost is not known."""
    return ModelError(
        "`adapter.init_lora_weights: loftq` makes up for what quantising took from the base",
        got=got,
        need="a base that is quantised as it is read: model.quantization: nf4 or int8",
        next="set that over the full base, or leave `adapter.init_lora_weights` out",
    )


def check_init(how: bool | str, *, quantised: bool = True) -> None:
    """Refuse a start that a shared base cannot give.

    Args:
        quantised: whether the base is quantised as it is read.

    Raises:
        ModelError: with the reason.
    """
    family = family_of(how)
    if how == LOFTQ and not quantised:
        raise nothing_was_quantised("a base that is held as it is stored")
    if family in (*DRAWN, False, *FROM_WEIGHT) or how == LOFTQ:
        return
    raise ModelError(
        f"`adapter.init_lora_weights: {how}` cannot be packed",
        got=REFUSED.get(str(family), "no start of that name is known here"),
        need="true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora or loftq",
        next="leave it true: nine variants land within 1-2% once the rate is tuned (arXiv:2602.04998)",
    )


def start_of(
    how: bool | str,
    r: int,
    scale: float,
    shape: tuple[int, int],
    weight: Callable[[], Tensor],
    seed: int,
    residual: Callable[[], Tensor],
) -> Start:
    """First A and B of one layer, as `peft.LoraConfig.init_lora_weights` names them.

    Args:
        how: True is Kaiming-uniform A with a = sqrt(5) and zero B, "gaussian" normal A of deviation 1 /
            r; False draws both as nn.Linear does.
        scale: the factor on B A.
        shape: (features in D, features out O) of the layer.
        weight: gives the frozen weight [O, D]; asked only for starts that look at it.
        residual: gives what quantising took from the weight, [O, D]; asked only for LoftQ.

    Raises:
        ModelError: PEFT cannot start this layer so (an odd rank for "orthogonal").
    """
    d, o = shape
    if family_of(how) in FROM_WEIGHT:
        return _from_weight(str(how), r, scale, weight(), seed)
    if how == LOFTQ:
        return _loftq(r, scale, residual())
    generator = torch.Generator().manual_seed(seed)
    a_RD, b_OR = torch.empty(r, d), torch.zeros(o, r)
    if how == "gaussian":
        a_RD.normal_(0.0, 1.0 / r, generator=generator)
    else:
        a_RD.uniform_(-math.sqrt(1 / d), math.sqrt(1 / d), generator=generator)
    if how is False:
        b_OR.uniform_(-math.sqrt(1 / r), math.sqrt(1 / r), generator=generator)
    return Start(a_RD, b_OR)


def _loftq(r: int, scale: float, residual_OD: Tensor) -> Start:
    """The B A that is nearest to what quantising took: its r largest singular values.

    One step of LoftQ (Li et al. 2023, arXiv:2310.08659); more would quantise what is left, a base of its
    own for each candidate. `scale` is divided out, or the adapter would give back too much.
    """
    u_OR, s_R, v_RD = torch.linalg.svd(residual_OD, full_matrices=False)
    if len(s_R) < r:
        raise _too_few(LOFTQ, len(s_R), r, residual_OD)
    root_R = (s_R[:r] / scale).sqrt()
    return Start(root_R[:, None] * v_RD[:r], u_OR[:, :r] * root_R)


def _too_few(how: str, directions: int, r: int, weight_OD: Tensor) -> ModelError:
    return ModelError(
        f"`adapter.init_lora_weights: {how}` has only {directions} directions in a layer of"
        f" {tuple(weight_OD.shape)}",
        need=f"r at most {directions}; it is {r}",
        next=f"--r {directions}, or leave `adapter.init_lora_weights` out",
    )


def _from_weight(how: str, r: int, scale: float, weight_OD: Tensor, seed: int) -> Start:
    from peft import LoraConfig
    from peft.tuners.lora.layer import Linear

    layer = nn.Linear(weight_OD.shape[1], weight_OD.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight_OD.detach().to("cpu", torch.float32).clone(), requires_grad=False)
    # PEFT multiplies by alpha / r: alpha = scale * r gives our scale, rank-stabilised or not.
    alpha = scale * r
    config = LoraConfig(r=r, lora_alpha=alpha, init_lora_weights=how)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            made: Any = Linear(layer, "default", config, r=r, lora_alpha=alpha)  # pyright: ignore[reportArgumentType]
        except ValueError as fault:
            raise ModelError(
                f"`adapter.init_lora_weights: {how}` does not go with r = {r}",
                got=str(fault),
                next="choose another rank, or leave `adapter.init_lora_weights` out",
            ) from fault
    a_RD, b_OR = (part["default"].weight.detach().float() for part in (made.lora_A, made.lora_B))
    if a_RD.shape[0] != r:
        raise _too_few(how, a_RD.shape[0], r, weight_OD)
    return Start(a_RD, b_OR, moves_base=moves_base(how))


def reinitialised(model: nn.Module, module: nn.Module, seed: int) -> nn.Module:
    """A head started anew, as the model's own class starts it, from `seed`: `module`
    itself, on the CPU from now on.

    Drawn there, because each device has a generator of its own and gives other numbers
    for the same seed.
    """
    init = getattr(model, "_init_weights", None)
    module = module.to("cpu")
    if init is None:
        return module
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that seeds the generators of all devices, and only the
        # CPU's is put back.
        torch.default_generator.manual_seed(seed)
        for part in module.modules():
            for parameter in part.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]
            init(part)
    return module
