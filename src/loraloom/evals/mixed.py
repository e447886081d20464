"""Rows of several kinds in one pass: what is to be said, what is not to be said any more, and what is
to stay as the frozen base has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from loraloom.data.batches import Batch
from loraloom.evals.cross_entropy import (
    Positions,
    capped,
    chunk_rows,
    hidden_states,
    losses_under_head,
    vocabulary_of,
)
from loraloom.evals.objective import CausalObjective, RowLosses, per_row
from loraloom.lora.packed import PackedModel
from loraloom.lora.packed_layer import PackedLayer
from loraloom.lora.transfer import send

LEAST_DOUBT = 1e-6
"""Of a token that is not to be said: where the model is surer than this, the loss grows no further."""


class MixedObjective(CausalObjective):
    """The next-token loss of a decoder whose rows say what is formed of them (`Row.loss`).

    Rows of the kind "kl" cost one more pass through the frozen base, without gradients. The head is the
    base's own for all rows.

    Args:
        model: the base, before any layer is wrapped.
        packed: the same base with its adapters.
    """

    def __init__(self, model: Any, packed: PackedModel) -> None:
        super().__init__(model)
        self.packed = packed

    def rows(self, model: Any, batch: Batch, at: Positions | None = None) -> RowLosses:
        if not batch.losses:
            return super().rows(model, batch, at)
        device = batch.labels.device
        at = Positions.of(self.targets(batch.on_host), device) if at is None else at
        head = _head(model)
        hidden_ND = self._hidden(model, batch.input_ids)[at.rows_N, at.columns_N]
        kinds = [batch.losses[row] for row in at.host_rows_N.tolist()]
        losses_N = hidden_ND.new_zeros(len(kinds), dtype=_wide(hidden_ND.dtype))
        right_N = torch.full_like(losses_N, torch.nan)
        said = _places(kinds, ("nll", "unlikelihood"), device)
        if len(said):
            found, right = self._said(hidden_ND[said], head, at.targets_N[said])
            unsaid_N = send(torch.tensor([kind == "unlikelihood" for kind in kinds]), device)[said]
            losses_N = losses_N.index_add(0, said, torch.where(unsaid_N, unlikelihood(found), found))
            right_N = right_N.index_copy(0, said, right.to(right_N.dtype))
        kept = _places(kinds, ("kl",), device)
        if len(kept):
            base_ND = self._of_base(batch)[at.rows_N[kept], at.columns_N[kept]]
            losses_N = losses_N.index_add(0, kept, self._moved(hidden_ND[kept], base_ND, head))
        return per_row(at, len(batch.labels), losses_N, right_N)

    def _hidden(self, model: Any, input_ids_BT: Tensor) -> Tensor:
        """What the head is given [B, T, D]; logits where only the model knows how it makes them."""
        inputs = {"input_ids": input_ids_BT}
        if self.form.hidden == "logits":
            return model(**inputs, use_cache=False).logits
        hidden = hidden_states(model, self.form, inputs)
        assert hidden is not None
        return hidden

    @torch.no_grad()
    def _of_base(self, batch: Batch) -> Tensor:
        """The same of the frozen base [B, T, D], zero for the rows that need it not."""
        rows = _places(batch.losses, ("kl",), batch.labels.device)
        with self.packed.base_only() as base:
            own = self._hidden(base, batch.input_ids[rows])
        return own.new_zeros(len(batch.labels), *own.shape[1:]).index_copy(0, rows, own)

    def _said(self, hidden_ND: Tensor, head: nn.Module, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [N] and right first choices [N]."""
        if self.form.hidden != "logits":
            return losses_under_head(hidden_ND, head, self.form.cap, targets_N)
        right_N = hidden_ND.detach().argmax(-1) == targets_N
        return F.cross_entropy(hidden_ND.float(), targets_N, reduction="none"), right_N

    def _moved(self, hidden_ND: Tensor, base_ND: Tensor, head: nn.Module) -> Tensor:
        """KL(base || model) [N] in nats. The logits of a piece are made again on the way back, so that
        only one piece's are ever kept."""
        if self.form.hidden == "logits":
            return divergence(hidden_ND, base_ND)

        def piece(own_ND: Tensor, frozen_ND: Tensor) -> Tensor:
            cap = self.form.cap
            return divergence(capped(head(own_ND), cap), capped(head(frozen_ND), cap))

        size = chunk_rows(vocabulary_of(head), hidden_ND.device, torch.float32)
        pairs = zip(hidden_ND.split(size), base_ND.split(size), strict=True)
        found: list[Any] = [
            checkpoint(piece, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs
        ]
        return torch.cat(found)


def unlikelihood(losses_N: Tensor) -> Tensor:
    """-log(1 - p) of tokens whose loss is -log p (Welleck et al., arXiv:1908.04319)."""
    return -torch.log1p(-torch.exp(-losses_N).clamp(max=1 - LEAST_DOUBT))


def divergence(logits_NV: Tensor, base_NV: Tensor) -> Tensor:
    """KL(base || model) [N] of logits [N, V], in nats."""
    wide = _wide(logits_NV.dtype)
    base_NV = F.log_softmax(base_NV.to(wide), -1)
    return (base_NV.exp() * (base_NV - F.log_softmax(logits_NV.to(wide), -1))).sum(-1)


def _head(model: Any) -> nn.Module:
    head = model.get_output_embeddings()
    return head.base if isinstance(head, PackedLayer) else head


def _places(kinds: Any, wanted: tuple[str, ...], device: torch.device) -> Tensor:
    found = [place for place, kind in enumerate(kinds) if kind in wanted]
    return send(torch.tensor(found, dtype=torch.int64), device)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
