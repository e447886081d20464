"""On a GPU, norms and gates of the frozen base as one kernel each, where they then do what they did.

Nothing is known of families: a module is taken for what it looks like, tried on random numbers in the
model's own dtype and shapes, forwards and backwards, and left alone where the results differ by more
than rounding. Only this model's own modules change, by a class of their own: copies of one that a
candidate trains keep their weight, and then run as they came.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import first_line
from loraloom.lora.kernels import interpreted

ROUNDINGS = 4
"""Differences of so many last digits of the largest number are rounding."""
TOKENS = 5
"""Of each of two rows that a module is tried on."""

Change = Callable[[nn.Module], type[nn.Module]]


@dataclass
class Fused:
    """How many modules were changed, and why others were not, by the name of their class."""

    taken: Counter[str] = field(default_factory=Counter[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])


def fuse(model: nn.Module) -> Fused:
    """Change the modules of a frozen model that can be; in place."""
    found = Fused()
    decided: dict[Any, Change | None] = {}
    for module in list(model.modules()):
        ways = list(_ways(module))
        if not ways:
            continue
        name = type(module).__name__
        key = (
            type(module),
            *(tuple(p.shape) for p in module.parameters()),
            next(module.parameters()).dtype,
        )
        if key not in decided:
            decided[key] = _first_that_agrees(module, ways, found.refused)
        if (change := decided[key]) is not None:
            module.__class__ = change(module)
            found.taken[name] += 1
    for name in found.taken:
        found.refused.pop(name, None)
    return found


def _first_that_agrees(module: nn.Module, ways: list[Change], refused: dict[str, str]) -> Change | None:
    for way in ways:
        try:
            reason = _difference(module, way)
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # of the device, which would do no better without
        except Exception as error:  # Triton, a compiler or a driver that objects: there is the plain way
            reason = f"it could not be run here ({type(error).__name__}: {first_line(error)})"
        if reason is None:
            return way
        refused[type(module).__name__] = reason
    return None


def _ways(module: nn.Module) -> Iterator[Change]:
    """What a module may be, likelier first."""
    if len(inspect.signature(module.forward).parameters) != 1:
        return
    own = dict(module.named_parameters())
    weight, name = own.get("weight"), type(module).__name__
    if (
        name.endswith("RMSNorm")
        and list(own) == ["weight"]
        and weight is not None
        and weight.ndim == 1
        and _eps(module)
    ):
        yield lambda module: _norm(type(module), shifted=False)
        yield lambda module: _norm(type(module), shifted=True)
    parts = {part for part, _ in module.named_children()}
    if (
        name.endswith("MLP")
        and {"gate_proj", "up_proj", "down_proj"} <= parts
        and _opens_by_silu(module)
    ):
        yield lambda module: _gated(type(module))


def _difference(module: nn.Module, way: Change) -> str | None:
    """What a changed module does otherwise than the module; None if nothing but rounding."""
    changed = copy.copy(module)
    changed.__class__ = way(module)
    reference = next(module.parameters())
    gate = getattr(module, "gate_proj", None)
    width = reference.shape[0] if gate is None else int(gate.in_features)
    numbers = torch.Generator().manual_seed(0)
    x, gy = (
        torch.randn(2, TOKENS, width, generator=numbers).to(reference.device, reference.dtype)
        for _ in range(2)
    )
    names = ("outputs", "gradients of inputs")
    for name, here, there in zip(names, _both(changed, x, gy), _both(module, x, gy), strict=True):
        apart, size = float((here - there).abs().max()), float(there.abs().max())
        if not apart <= ROUNDINGS * torch.finfo(x.dtype).eps * size:
            return f"its {name} are not those of the plain one: {apart:.2g} apart, of {size:.2g}"
    return None


def _both(module: nn.Module, x: Tensor, gy: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = module(x)
        y.backward(gy)
    assert x.grad is not None
    return y.detach().float(), x.grad.float()


# -- what modules become --------------------------------------------------------------------------------


def _norm(plain: type[nn.Module], *, shifted: bool) -> type[nn.Module]:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.weight.requires_grad or x.dtype != self.weight.dtype or not _on_gpu(x):
            return plain.forward(self, x)
        from loraloom.lora.kernels.base import Norm

        return Norm.apply(x, self.weight, _eps(self), shifted)  # type: ignore[return-value]

    return _named_as(plain, forward)


def _gated(plain: type[nn.Module]) -> type[nn.Module]:
    def forward(self: Any, x: Tensor) -> Tensor:
        if not _on_gpu(x):
            return plain.forward(self, x)
        from loraloom.lora.kernels.base import Gated

        return self.down_proj(Gated.apply(self.gate_proj(x), self.up_proj(x)))

    return _named_as(plain, forward)


def _on_gpu(x: Tensor) -> bool:
    """A model may be moved after it was changed."""
    return x.is_cuda or interpreted()


def _named_as(plain: type[nn.Module], forward: Callable[..., Tensor]) -> type[nn.Module]:
    return type(plain.__name__, (plain,), {"forward": forward, "__module__": plain.__module__})


def _eps(module: nn.Module) -> float:
    """What keeps a norm from dividing by zero; 0 where the module has none by a name that is known."""
    found = getattr(module, "variance_epsilon", None) or getattr(module, "eps", None)
    return float(found) if isinstance(found, float) else 0.0


def _opens_by_silu(module: nn.Module) -> bool:
    act = getattr(module, "act_fn", None) or getattr(module, "activation_fn", None)
    return isinstance(act, nn.Module) and type(act).__name__ in ("SiLU", "SiLUActivation")
