"""From a language model's inputs to the losses of chosen positions, without the logits
of all the others.

How a model gets from hidden states to logits is found by asking it once: a frozen linear head over the
last hidden state (most decoders, BART), over something scaled (T5), or with a soft cap on the logits
(Gemma 2). Any other model's own logits are taken, at their full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from loraloom.evals.cross_entropy import chunk_rows, token_losses
from loraloom.evals.shift import IGNORE
from loraloom.lora.packed_layer import PackedLayer
from loraloom.lora.transfer import send


@dataclass(frozen=True)
class HeadForm:
    """logits = cap * tanh(head(hidden) / cap), or head(hidden) without a cap.

    `hidden` is the inner model's last hidden state ("inner"), what the head is given ("given"), or not
    to be had ("logits": only the model knows).
    """

    hidden: Literal["inner", "given", "logits"]
    cap: float | None = None


def head_form(model: Any, inputs: Mapping[str, Tensor]) -> HeadForm:
    """The form that gives exactly the model's logits for `inputs`. To be asked before
    any layer is wrapped."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return HeadForm("logits")
    caps = (None, getattr(model.config.get_text_config(), "final_logit_softcapping", None))
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        for form in [
            HeadForm(hidden, cap) for cap in dict.fromkeys(caps) for hidden in ("inner", "given")
        ]:
            hidden = hidden_states(model, form, inputs)
            if hidden is None or hidden.dtype != head.weight.dtype:
                continue  # a head that is kept in float32 is given what the model widens for it
            if torch.equal(_capped(head(hidden), form.cap), logits):
                return form
    return HeadForm("logits")


def hidden_states(model: Any, form: HeadForm, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """What goes into the head [B, T, D]; None when an inner model is asked for and there is none."""
    if form.hidden == "given":
        return _given_to_head(model, inputs)
    if model.base_model is model:
        return None
    return model.base_model(**inputs, use_cache=False).last_hidden_state


@dataclass(frozen=True)
class Positions:
    """Where something is supervised, rows ascending, and what should be chosen there;
    each [N] on the model's device.

    Found on the host: how many there are shapes what the device does, and it is not to be waited for.
    """

    rows_N: Tensor
    columns_N: Tensor
    targets_N: Tensor
    host_rows_N: Tensor
    counted_N: Tensor | None = None
    """bool: false where a position only fills up a number of them; None where all count."""

    @staticmethod
    def of(targets_BT: Tensor, device: torch.device) -> Positions:
        """The positions whose target, on the host, is not -100."""
        table_3N = Positions.table(targets_BT)
        return Positions(*send(table_3N, device), host_rows_N=table_3N[0])

    @staticmethod
    def table(targets_BT: Tensor) -> Tensor:
        """The same on the host: rows, columns and targets, [3, N]."""
        rows_N, columns_N = (targets_BT != IGNORE).nonzero(as_tuple=True)
        return torch.stack([rows_N, columns_N, targets_BT[rows_N, columns_N]])


def losses_at(
    model: Any, form: HeadForm, inputs: Mapping[str, Tensor], at: Positions
) -> tuple[Tensor, Tensor]:
    """Losses [N] in nats and first choices that are right [N] (NaN where they would
    cost), at chosen positions.
    """
    head = model.get_output_embeddings()
    rows_N = at.rows_N
    columns_N = at.columns_N
    targets_N = at.targets_N
    owners = (
        head.owners(at.host_rows_N) if isinstance(head, PackedLayer) else [(slice(0, len(rows_N)), head)]
    )
    if form.hidden == "logits" or owners is None:
        logits_NV = model(**inputs, use_cache=False).logits[rows_N, columns_N]
        return _cross_entropy(logits_NV, targets_N)
    hidden = hidden_states(model, form, inputs)
    assert hidden is not None
    hidden_ND = hidden[rows_N, columns_N]
    parts = [
        _under_head(hidden_ND[place], module, form.cap, targets_N[place]) for place, module in owners
    ]
    return torch.cat([losses for losses, _ in parts]), torch.cat([right for _, right in parts])


def _under_head(
    hidden_ND: Tensor, head: nn.Module, cap: float | None, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    if type(head) is nn.Linear and cap is None and not head.weight.requires_grad:
        return token_losses(hidden_ND, head, targets_N)

    def losses_of(part_ND: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _cross_entropy(_capped(head(part_ND), cap), targets)

    chunk = chunk_rows(vocabulary_of(head), hidden_ND.device)
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(targets_N), chunk):
        piece = hidden_ND[start : start + chunk], targets_N[start : start + chunk]
        # The logits of a piece are made again in the backward pass, so that only one
        # piece's are ever kept.
        parts.append(checkpoint(losses_of, *piece, use_reentrant=False, preserve_rng_state=False))  # type: ignore[arg-type]
    if not parts:
        return losses_of(hidden_ND, targets_N)
    return torch.cat([losses for losses, _ in parts]), torch.cat([right for _, right in parts])


def vocabulary_of(head: nn.Module) -> int:
    """Number of logits that a head gives."""
    return next(parameter.shape[0] for parameter in head.parameters())


def _cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    wide = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    right = (wide.detach().argmax(-1) == targets_N).to(wide.dtype)
    return F.cross_entropy(wide, targets_N, reduction="none"), right


def _capped(logits: Tensor, cap: float | None) -> Tensor:
    return logits if cap is None else torch.tanh(logits / cap) * cap


class _Listener(nn.Module):
    """Stands in for a head: keeps what it is given, and answers with something narrow."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.weight = next(head.parameters())
        self.heard: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.heard = x
        return x[..., :1]


def _given_to_head(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    head = model.get_output_embeddings()
    listener = _Listener(head)
    path = next(name for name, module in model.named_modules() if module is head)
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, name, listener)
    try:
        model(**inputs, use_cache=False)
    finally:
        setattr(owner, name, head)
    assert listener.heard is not None
    return listener.heard
