"""From a padded batch to one loss a row: what every training step and every evaluation stands on.

The model's own `labels=` is never used: its mean runs over the whole batch and would couple the candidates.
Here each row gives the sum of its token losses and the number of its supervised tokens; whoever calls divides.
For language models the head is applied to supervised positions only and in chunks, so that the logits of a
batch (tokens x vocabulary) never exist at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.data.batches import Batch

IGNORE = -100
CHUNK_BYTES = 32 * 2**20
"""Logits of one chunk take about this much: large enough for a fast matmul, small beside the model."""


@dataclass
class RowLosses:
    """Per row of a batch: `loss` [B], the sum over its supervised tokens, in nats (differentiable); `weight` [B],
    their number; `correct` [B], how many of them the model's first choice got right."""

    loss: Tensor
    weight: Tensor
    correct: Tensor


class Objective(Protocol):
    """How a task's rows are scored. Call it inside `PackedModel.route`."""

    metric: str
    """Name of the share that is right: accuracy, or token_accuracy."""

    def rows(self, model: Any, batch: Batch) -> RowLosses: ...


class ChunkedCrossEntropy(torch.autograd.Function):
    """Cross entropy of a frozen linear head without the full logits.

    hidden [N, D], weight [V, D], bias [V] or None, targets [N] -> losses [N] and right [N]. The gradient of each
    loss with respect to its own hidden row is formed while the chunk's logits are there and kept as [N, D]
    (the idea of Liger kernel, arXiv:2410.10989, at a per-row upstream gradient).
    The eager expression is the contract: F.cross_entropy(hidden @ weight.T + bias, targets, reduction="none").
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden_ND.shape[0], dtype=wide, device=hidden_ND.device)
        right = torch.empty(hidden_ND.shape[0], dtype=torch.bool, device=hidden_ND.device)
        keep_grad = ctx.needs_input_grad[0]
        grads_ND = torch.empty_like(hidden_ND) if keep_grad else None
        for start in range(0, hidden_ND.shape[0], chunk):
            part = slice(start, min(start + chunk, hidden_ND.shape[0]))
            targets = targets_N[part, None]
            logits = F.linear(hidden_ND[part], weight_VD, bias_V).to(wide)
            right[part] = logits.argmax(-1, keepdim=True).eq(targets).squeeze(-1)
            log_norm = torch.logsumexp(logits, -1, keepdim=True)
            losses[part] = (log_norm - logits.gather(-1, targets)).squeeze(-1)
            if grads_ND is not None:
                soft = logits.sub_(log_norm).exp_()
                soft.scatter_add_(-1, targets, soft.new_full((1, 1), -1.0).expand_as(targets))
                torch.mm(soft.to(hidden_ND.dtype), weight_VD, out=grads_ND[part])
        if grads_ND is not None:
            ctx.save_for_backward(grads_ND)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grads_ND,) = ctx.saved_tensors
        return grads_ND * grads[0][:, None].to(grads_ND.dtype), None, None, None, None


def token_losses(hidden_ND: Tensor, head: nn.Module, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [N] and first choices that are right [N], of hidden states under a linear head, in chunks."""
    weight = head.weight
    assert isinstance(weight, Tensor)
    chunk = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
    return ChunkedCrossEntropy.apply(hidden_ND, weight, getattr(head, "bias", None), targets_N, chunk)  # type: ignore[return-value]


def _per_row(rows_N: Tensor, size: int, losses_N: Tensor, right_N: Tensor) -> RowLosses:
    loss = losses_N.new_zeros(size).index_add(0, rows_N, losses_N)
    weight = losses_N.new_zeros(size).index_add(0, rows_N, torch.ones_like(losses_N.detach()))
    correct = losses_N.new_zeros(size).index_add(0, rows_N, right_N.to(losses_N.dtype))
    return RowLosses(loss, weight, correct)


class CausalObjective:
    """Next-token loss of a decoder. Rows are padded on the right and need no mask: a token never looks ahead.

    `plain_head` says that logits are exactly `lm_head(hidden)`, found by asking the model once; models that cap or
    scale their logits, or whose head is trained, take the path through the model's own logits.
    """

    metric = "token_accuracy"

    def __init__(self, model: Any) -> None:
        self.plain_head = _head_is_plain(model)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        targets_BT = batch.labels[:, 1:]
        rows_N, columns_N = (targets_BT != IGNORE).nonzero(as_tuple=True)
        targets_N = targets_BT[rows_N, columns_N]
        head = model.get_output_embeddings()
        if self.plain_head and type(head) is nn.Linear:
            hidden_BTD = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            losses_N, right_N = token_losses(hidden_BTD[rows_N, columns_N], head, targets_N)
        else:
            logits_BTV = model(input_ids=batch.input_ids, use_cache=False).logits
            logits_NV = _wide(logits_BTV[rows_N, columns_N])
            losses_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
            right_N = logits_NV.detach().argmax(-1) == targets_N
        return _per_row(rows_N, len(targets_BT), losses_N, right_N)


class ClassificationObjective:
    """Cross entropy of a class for each row."""

    metric = "accuracy"

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        logits_BC = _wide(model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits)
        loss = F.cross_entropy(logits_BC, batch.labels, reduction="none")
        right = (logits_BC.detach().argmax(-1) == batch.labels).to(loss.dtype)
        return RowLosses(loss, torch.ones_like(right), right)


class Seq2SeqObjective:
    """Loss of the target's tokens given the source."""

    metric = "token_accuracy"

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        labels_BU = batch.labels
        start = model.config.decoder_start_token_id
        decoder_BU = labels_BU.roll(1, -1)
        decoder_BU[:, 0] = start
        decoder_BU = decoder_BU.masked_fill(decoder_BU == IGNORE, model.config.pad_token_id)
        logits_BUV = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), decoder_input_ids=decoder_BU, use_cache=False
        ).logits
        rows_N, columns_N = (labels_BU != IGNORE).nonzero(as_tuple=True)
        targets_N, logits_NV = labels_BU[rows_N, columns_N], _wide(logits_BUV[rows_N, columns_N])
        losses_N = F.cross_entropy(logits_NV, targets_N, reduction="none")
        return _per_row(rows_N, len(labels_BU), losses_N, logits_NV.detach().argmax(-1) == targets_N)


def objective_for(task: str, model: Any) -> Objective:
    """The objective of a task; asks the model (outside any wrapping) what its head is like."""
    if task == "causal_lm":
        return CausalObjective(model)
    if task == "seq_cls":
        return ClassificationObjective()
    return Seq2SeqObjective()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


@torch.no_grad()
def _head_is_plain(model: Any) -> bool:
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return False
    ids = torch.arange(4, device=head.weight.device)[None] % model.config.get_text_config().vocab_size
    logits = model(input_ids=ids, use_cache=False).logits
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return torch.equal(head(hidden), logits)
