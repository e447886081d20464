"""AdamW with moments of 8 bits (Dettmers et al. 2022, arXiv:2110.02861), by bitsandbytes' kernel.

A moment is a code of 8 bits a number, into a table that is fine near zero, and for each block of 256
numbers their largest size: both moments take 2.03 bytes a number in place of 8. Every number is held so:
a piece of an arena is one long vector, of which no tensor is too small for blocks of its own, whereas
bitsandbytes' optimisers keep those below 4,096 numbers in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.config import names
from loraloom.errors import RequestError, first_line
from loraloom.lora.device_faults import is_of_device
from loraloom.lora.quantised import installed

BLOCK = 256
"""Numbers that share a scale: the kernel's own."""
WITHOUT = f"{names.OPTIM}: adamw"


class EightBitAdamW(torch.optim.Optimizer):
    """AdamW over flat float32 parameters.

    The state of a parameter of n numbers, made at once: for both moments `codes` [n] uint8 and `scales`
    [n / 256] float32, and `step`, which stays on the host: the kernel is told it as a number.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.betas, self.eps = betas, eps
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = _at_zero(parameter)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of every parameter, in place."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                self._step(parameter, group["lr"], group["weight_decay"])
        return loss

    def _step(self, parameter: Tensor, rate: float, decay: float) -> None:
        state = self.state[parameter]
        state["step"] = state["step"].cpu() + 1  # one that was restored may lie on the device
        signed, unsigned = tables(parameter.device)
        torch.ops.bitsandbytes.optimizer_update_8bit_blockwise(
            "adam",
            parameter.grad,
            parameter.data,
            state["first_codes"],
            state["second_codes"],
            *self.betas,
            0.0,  # beta3 and alpha are another optimiser's
            0.0,
            self.eps,
            int(state["step"]),
            rate,
            signed,
            unsigned,
            state["first_scales"],
            state["second_scales"],
            decay,
            1.0,  # gradients are clipped already
        )


def _at_zero(parameter: Tensor) -> dict[str, Tensor]:
    """A scale of zero makes zero of any code."""
    codes = torch.zeros_like(parameter.data, dtype=torch.uint8)
    scales = torch.zeros(-(-codes.numel() // BLOCK), dtype=torch.float32, device=codes.device)
    state = {"step": torch.zeros((), dtype=torch.float32)}
    for moment in ("first", "second"):
        state |= {f"{moment}_codes": codes.clone(), f"{moment}_scales": scales.clone()}
    return state


def require(device: str) -> None:
    """Take a step with one block of numbers.

    Raises:
        RequestError: bitsandbytes is not installed, or has no kernel for this device.
    """
    package = library()
    ones = torch.ones(BLOCK, device=device)
    one = nn.Parameter(ones.clone())
    one.grad = ones.clone()
    group = {"params": [one], "lr": 0.5, "weight_decay": 0.0}
    try:
        EightBitAdamW([group], (0.9, 0.999), 1e-8).step()
        got = "" if torch.allclose(one, ones / 2, atol=0.01) else "another step than AdamW's"
    except (RuntimeError, NotImplementedError, AttributeError) as fault:
        if is_of_device(fault):
            raise
        got = first_line(fault)
    if got:
        raise RequestError(
            f"bitsandbytes {package.__version__} cannot step moments of 8 bits on this device",
            got=f"{device}: {got}",
            need="a build of bitsandbytes for this device and this version of torch",
            next=f"python -m bitsandbytes says what it found; or {WITHOUT}",
        )


def library() -> Any:
    """What has the kernel.

    Raises:
        RequestError: it is not installed.
    """
    return installed("AdamW with moments of 8 bits", WITHOUT)


@cache
def tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """What the codes stand for, [256] float32 each: between -1 and 1 for the first moment, between 0 and
    1 for the second."""
    make = library().functional.create_dynamic_map
    return make(signed=True).to(device), make(signed=False).to(device)
