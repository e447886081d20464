"""The optimiser of one candidate: torch's own, over a few slices of the candidate's flat arena."""

from __future__ import annotations

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


class FlatOptimizer:
    """Clip, schedule and step a whole adapter at once; a step with a non-finite gradient is skipped.

    Each group of the arena (A, B, modules, vectors) is one flat parameter, so that LoRA+ (Hayou et al. 2024,
    arXiv:2402.12354: B learns `lora_plus_ratio` times faster) and weight decay (never on vectors) are per-slice values.
    """

    def __init__(self, arena: Arena, spec: TrainingSpec) -> None:
        self.arena, self.spec = arena, spec
        groups = []
        self._speed: list[float] = []
        for group, piece in arena.slices():
            parameter = nn.Parameter(arena.weights[piece])
            parameter.grad = arena.grads[piece]
            groups.append({"params": [parameter], "weight_decay": 0.0 if group == "vector" else spec.weight_decay})
            self._speed.append((spec.lora_plus_ratio or 1.0) if group == "lora_B" else 1.0)
        self.optimizer = OPTIMISERS[spec.optim](groups)

    def step(self, rate: float) -> Tensor:
        """One step at `rate`; gradients are zeroed. Returns the gradient norm before clipping, a 0-d tensor.

        A norm that is not finite means that nothing was changed.
        """
        grads = self.arena.grads
        norm = torch.linalg.vector_norm(grads)
        if bool(torch.isfinite(norm)):
            if self.spec.max_grad_norm > 0:
                grads.mul_(torch.clamp(self.spec.max_grad_norm / (norm + 1e-6), max=1.0))
            for group, speed in zip(self.optimizer.param_groups, self._speed, strict=True):
                group["lr"] = rate * speed
            self.optimizer.step()
        grads.zero_()
        return norm

    def state_dict(self) -> dict[str, object]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.optimizer.load_state_dict(state)
