"""The optimiser of a candidate: torch's own or one like it, over a few slices of its flat arena. On a
GPU, one kernel steps all candidates that use AdamW in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.config import names
from loraloom.config.choices import OPTIMISERS, chosen
from loraloom.lora.adapter_weights import AdapterWeights
from loraloom.lora.arena import Arena
from loraloom.records import TrainingSpec

BETAS, EPS = (0.9, 0.999), 1e-8
"""Of AdamW: torch's defaults."""
MOMENTUM = 0.9
"""Of SGD."""
Groups = list[dict[str, Any]]


def adamw(groups: Groups) -> torch.optim.Optimizer:
    """Loshchilov and Hutter, arXiv:1711.05101."""
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS, fused=True)


def adamw_8bit(groups: Groups) -> torch.optim.Optimizer:
    """AdamW whose moments are held in 8 bits, on a GPU."""
    from loraloom.train.adamw_8bit import EightBitAdamW

    return EightBitAdamW(groups, BETAS, EPS)


def sgd(groups: Groups) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, fused=True)


def gradient_norms(arenas: Sequence[Arena]) -> list[Tensor]:
    """The norm of each adapter's whole gradient, 0-d tensors."""
    return list(torch._foreach_norm([arena.grads for arena in arenas])) if arenas else []  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


class FlatOptimizer:
    """Clip, schedule and step a whole adapter at once; a step with a non-finite gradient is skipped.

    Each group of the arena (A, B, modules, vectors) is one flat parameter, so that LoRA+ (Hayou et al.
    2024, arXiv:2402.12354: B learns `lora_plus_ratio` times faster) and weight decay (never on vectors)
    are per-slice values. Slices with the same values are stepped by one call.
    """

    def __init__(self, arena: Arena, spec: TrainingSpec) -> None:
        self.arena, self.spec = arena, spec
        self._parameters: list[nn.Parameter] = []
        alike: dict[tuple[float, float], list[nn.Parameter]] = {}
        for group, piece in arena.slices():
            parameter = nn.Parameter(arena.weights[piece])
            parameter.grad = arena.grads[piece]
            self._parameters.append(parameter)
            decay = 0.0 if group == "vector" else spec.weight_decay
            speed = (spec.lora_plus_ratio or 1.0) if group == "lora_B" else 1.0
            alike.setdefault((decay, speed), []).append(parameter)
        self._speed = [speed for _, speed in alike]
        self._count: int | None = 0
        self.optimizer = chosen(OPTIMISERS, spec.optim, names.OPTIM)(
            [{"params": own, "weight_decay": decay} for (decay, _), own in alike.items()]
        )

    def step(self, rate: float, norm: Tensor | None = None) -> Tensor:
        """One step at `rate`; gradients are zeroed. Returns the gradient norm before
        clipping, a 0-d tensor on the host.

        A norm that is not finite means that nothing was changed. `norm` spares computing it, and waiting
        for it, when it is known.
        """
        norm = (gradient_norms([self.arena])[0] if norm is None else norm).cpu()
        if bool(torch.isfinite(norm)):
            if self.spec.max_grad_norm > 0:
                self.arena.grads.mul_(torch.clamp(self.spec.max_grad_norm / (norm + 1e-6), max=1.0))
            for group, speed in zip(self.optimizer.param_groups, self._speed, strict=True):
                group["lr"] = rate * speed
            self.optimizer.step()
            self._count = None
        self.arena.grads.zero_()
        return norm

    def reserve(self) -> None:
        """Make the moments now: then memory runs out when a candidate joins, and not in
        the middle of its first step."""
        if self.spec.optim == "adamw":
            for parameter in self._parameters:
                self._state(parameter)

    @property
    def count(self) -> int:
        """Steps that AdamW has taken. The host keeps count while kernels step;
        otherwise the device has to be asked."""
        if self._count is None:
            steps = [state["step"] for state in self.optimizer.state.values()]
            self._count = int(steps[0]) if steps else 0
        return self._count

    def pieces(self, rate: float, norm: Tensor, copy: Tensor | None) -> list[Any]:
        """What the kernel of AdamW is told for one step, which is then counted as taken.

        Args:
            copy: all A and B in another dtype, to be kept up.
        """
        from loraloom.lora.kernels.adamw import Piece

        finite = bool(torch.isfinite(norm))
        clip = 1.0
        if self.spec.max_grad_norm > 0:
            clip = min(1.0, self.spec.max_grad_norm / (float(norm) + 1e-6))
        self._count = self.count + finite
        found: list[Any] = []
        for group, speed in zip(self.optimizer.param_groups, self._speed, strict=True):
            for parameter in group["params"]:
                state = self._state(parameter)
                place = parameter.storage_offset()
                own: Tensor | None = None
                # Only A and B, which come first in the arena, have a copy.
                if copy is not None and place < len(copy):
                    own = copy[place : place + parameter.numel()]
                moments = state["exp_avg"], state["exp_avg_sq"]
                values = rate * speed, group["weight_decay"], clip, self._count, finite
                found.append(Piece(parameter.data, parameter.grad, *moments, own, *values))
        return found

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Moments and counter, as torch makes them at its first step."""
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter.data)
            state["exp_avg_sq"] = torch.zeros_like(parameter.data)
        return state

    def counters(self) -> list[Tensor]:
        """Torch's own counters of steps, on the device."""
        return [self._state(parameter)["step"] for parameter in self._parameters]

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step counters, by number of the slice and torch's own name."""
        return {
            f"{number}.{key}": value
            for number, parameter in enumerate(self._parameters)
            for key, value in self.optimizer.state[parameter].items()
            if isinstance(value, Tensor)
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave; the tensors are copied."""
        for name, value in state.items():
            number, _, key = name.partition(".")
            parameter = self._parameters[int(number)]
            self.optimizer.state[parameter][key] = value.to(parameter.device, copy=True)
        self._count = None


@dataclass(frozen=True)
class Step:
    """A step to take: at which rate, and the norm of the gradient before clipping, a 0-d tensor on the
    host."""

    optimizer: FlatOptimizer
    adapter: AdapterWeights
    rate: float
    norm: Tensor


def step_all(steps: Sequence[Step], *, kernels: bool) -> None:
    """Step candidates, each at its own rate, and bring the copies that their layers see up to date.

    Args:
        kernels: all that use AdamW in one launch.
    """
    together: list[Step] = []
    for step in steps:
        if kernels and step.optimizer.spec.optim == "adamw":
            together.append(step)
        else:
            step.optimizer.step(step.rate, step.norm)
            step.adapter.refresh()
    if together:
        _step_together(together)


def _step_together(steps: Sequence[Step]) -> None:
    """AdamW of several candidates in one launch of its kernel."""
    from loraloom.lora.kernels.adamw import step_pieces

    pieces: list[Any] = []
    counters: list[Tensor] = []
    for step in steps:
        pieces += step.optimizer.pieces(step.rate, step.norm, step.adapter.copied)
        # What was not finite is no step.
        if bool(torch.isfinite(step.norm)):
            counters += step.optimizer.counters()
    step_pieces(pieces, BETAS, EPS)
    if counters:
        torch._foreach_add_(counters, 1.0)  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
    for step in steps:
        # The kernel has kept up the one copy; several, in several dtypes, it does not know.
        if step.adapter.copied is None:
            step.adapter.refresh()
