"""One LoRA adapter on one frozen layer, written to be read. `packed.py` must compute exactly this.

Shapes: B rows, T tokens, D features in, O features out, R rank. Names follow PEFT: `lora_A` is [R, D]
and starts random, `lora_B` is [O, R] and starts at zero, so that a new adapter changes nothing. Hu et
al. 2021, arXiv:2106.09685, section 4.1; rank-stabilised scale: Kalajdzievski 2023, arXiv:2312.03732.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def lora_scale(lora_alpha: float, r: int, use_rslora: bool = False) -> float:
    """The factor on B A x: alpha / r, or alpha / sqrt(r) when rank-stabilised."""
    return lora_alpha / math.sqrt(r) if use_rslora else lora_alpha / r


class LoRALinear(nn.Module):
    """y = base(x) + scale * B A drop(x).

    Args:
        base: the frozen layer, [.., D] -> [.., O]; its parameters are set not to require gradients.
        r: rank, at least 1.
        lora_alpha: numerator of the scale.
        lora_dropout: probability that a feature of x is zeroed on the adapter's way
            (the frozen way sees all of x).
        use_rslora: divide the scale by the root of the rank instead of the rank.
    """

    def __init__(
        self,
        base: nn.Module,
        in_features: int,
        out_features: int,
        r: int,
        lora_alpha: float,
        lora_dropout: float = 0.0,
        *,
        use_rslora: bool = False,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = lora_scale(lora_alpha, r, use_rslora)
        self.lora_dropout = lora_dropout
        reference = next(base.parameters())
        self.lora_A = nn.Parameter(
            torch.empty(r, in_features, dtype=reference.dtype, device=reference.device)
        )
        self.lora_B = nn.Parameter(
            torch.zeros(out_features, r, dtype=reference.dtype, device=reference.device)
        )
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x_BTD: Tensor, keep_BTD: Tensor | None = None) -> Tensor:
        """`keep_BTD` is the dropout mask (True is kept); without one, it is drawn from
        torch's generator."""
        dropped_BTD = x_BTD
        if self.training and self.lora_dropout > 0:
            if keep_BTD is None:
                keep_BTD = torch.rand_like(x_BTD) >= self.lora_dropout
            dropped_BTD = x_BTD * keep_BTD / (1 - self.lora_dropout)
        h_BTR = dropped_BTD @ self.lora_A.T
        return self.base(x_BTD) + self.scale * (h_BTR @ self.lora_B.T)
