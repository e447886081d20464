"""The optimiser of one candidate: torch's own, over a few slices of the candidate's flat arena."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from loraloom.lora.arena import Arena
from loraloom.records import TrainingSpec

OPTIMISERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.0, momentum=0.9, fused=True),
}
"""By the name in the config. One that works element by element may be added here; one that looks at a tensor's
shape (Adafactor, Muon) may not, since an arena slice holds many tensors."""


def gradient_norms(arenas: Sequence[Arena]) -> list[Tensor]:
    """The norm of each adapter's whole gradient, 0-d tensors."""
    return list(torch._foreach_norm([arena.grads for arena in arenas])) if arenas else []  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]


class FlatOptimizer:
    """Clip, schedule and step a whole adapter at once; a step with a non-finite gradient is skipped.

    Each group of the arena (A, B, modules, vectors) is one flat parameter, so that LoRA+ (Hayou et al. 2024,
    arXiv:2402.12354: B learns `lora_plus_ratio` times faster) and weight decay (never on vectors) are per-slice values.
    Slices with the same values are stepped by one call.
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
        self.optimizer = OPTIMISERS[spec.optim]([{"params": own, "weight_decay": decay} for (decay, _), own in alike.items()])

    def step(self, rate: float, norm: Tensor | None = None) -> Tensor:
        """One step at `rate`; gradients are zeroed. Returns the gradient norm before clipping, a 0-d tensor on the host.

        A norm that is not finite means that nothing was changed. `norm` spares computing it, and waiting for it, when it is
        known.
        """
        norm = (gradient_norms([self.arena])[0] if norm is None else norm).cpu()
        if bool(torch.isfinite(norm)):
            if self.spec.max_grad_norm > 0:
                self.arena.grads.mul_(torch.clamp(self.spec.max_grad_norm / (norm + 1e-6), max=1.0))
            for group, speed in zip(self.optimizer.param_groups, self._speed, strict=True):
                group["lr"] = rate * speed
            self.optimizer.step()
        self.arena.grads.zero_()
        return norm

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
