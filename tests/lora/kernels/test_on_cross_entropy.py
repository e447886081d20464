"""The cross-entropy kernel against its twin in plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loraloom.evals.cross_entropy import token_losses
from loraloom.lora.kernels import selftest


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str
)
@pytest.mark.parametrize("vocabulary", [61, 5000])
def test_losses_and_gradients_are_those_of_plain_torch(
    vocabulary: int,
    dtype: torch.dtype,
    tolerance: float,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, vocabulary, bias=False).to(device, dtype).requires_grad_(False)
    targets = torch.randint(vocabulary, (7,)).to(device)
    targets[0], targets[1] = 0, vocabulary - 1
    found: dict[bool, list[torch.Tensor]] = {}
    for used in (True, False):
        monkeypatch.setattr(selftest, "used", lambda *_, used=used: used)
        torch.manual_seed(1)
        hidden = (3 * torch.randn(7, 16)).to(device, dtype).requires_grad_()
        losses, _ = token_losses(hidden, head, targets)
        (losses * torch.arange(7).to(losses)).sum().backward()
        assert hidden.grad is not None
        scored, right = token_losses(hidden.detach(), head, targets)
        found[used] = [losses.detach(), hidden.grad, scored, right]
    for ours, theirs in zip(found[True], found[False], strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max().clamp(min=1.0))


def test_one_choice_among_many_is_right(device: torch.device) -> None:
    from loraloom.lora.kernels.softmax import losses_in_place

    logits = torch.zeros(3, 2500, device=device)
    logits[0, 2400], logits[1, 7], logits[1, 2400] = 5.0, 5.0, 5.0
    right = torch.full((3,), torch.nan, device=device)
    losses_in_place(logits, torch.tensor([2400, 2400, 0], device=device), right)
    assert right.tolist() == [1.0, 0.0, 1.0]


def test_a_row_that_is_not_finite_leaves_the_others(device: torch.device) -> None:
    from loraloom.lora.kernels.softmax import losses_in_place

    logits = torch.randn(3, 40).to(device)
    logits[1, 3] = torch.nan
    losses = losses_in_place(logits, torch.tensor([1, 2, 3], device=device), None)
    assert losses.isfinite().tolist() == [True, False, True]
    assert logits[0].isfinite().all() and logits[2].isfinite().all()
