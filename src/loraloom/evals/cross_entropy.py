"""Cross entropy of a language model at chosen positions, without the logits of all the others: those of
a batch (tokens x vocabulary) never exist at once.

How a model gets from hidden states to logits is found by asking it once: a frozen linear head over the
last hidden state (most decoders, BART), over something scaled (T5), or with a soft cap on the logits
(Gemma 2). A model that does anything else is believed: its own logits are taken, at their full size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from loraloom.evals.shift import IGNORE
from loraloom.lora.frozen import Frozen, filled_up, frozen_kernel
from loraloom.lora.kernels import selftest
from loraloom.lora.packed_layer import PackedLayer
from loraloom.lora.transfer import send

CHUNK_BYTES = 24 * 2**20
"""Logits of one chunk take about this much: few enough bytes for a shared cache, rows enough for a fast
product, which reads the whole head for each chunk."""
CUDA_ROWS = 1024
"""Rows of a chunk on CUDA, at least: each chunk reads the head from memory twice, and with fewer rows
than this that takes longer than the products."""
BLOCK_BYTES = 3 * 2**20
"""A CPU widens so much of a chunk at once and makes gradients of it: the passes over it then stay in a
core's own cache."""

_rooms = threading.local()
"""Of each thread, the table that `_room` keeps."""


@dataclass(frozen=True)
class Positions:
    """Where something is supervised, rows ascending, and what should be chosen there; each [N] on the
    model's device.

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


@dataclass(frozen=True)
class HeadForm:
    """logits = cap * tanh(head(hidden) / cap), or head(hidden) without a cap.

    `hidden` is the inner model's last hidden state ("inner"), what the head is given ("given"), or not
    to be had ("logits": only the model knows).
    """

    hidden: Literal["inner", "given", "logits"]
    cap: float | None = None


def losses_at(
    model: Any, form: HeadForm, inputs: Mapping[str, Tensor], at: Positions
) -> tuple[Tensor, Tensor]:
    """Losses [N] in nats and first choices that are right [N] (NaN where they would cost), at chosen
    positions.
    """
    head = model.get_output_embeddings()
    # A candidate may have trained a head of its own: its positions go through that one.
    owners = [(slice(0, len(at.rows_N)), head)]
    if isinstance(head, PackedLayer):
        owners = head.owners(at.host_rows_N)
    if form.hidden == "logits" or owners is None:
        logits_NV = model(**inputs, use_cache=False).logits[at.rows_N, at.columns_N]
        return _cross_entropy(logits_NV, at.targets_N)
    hidden = hidden_states(model, form, inputs)
    assert hidden is not None
    hidden_ND = hidden[at.rows_N, at.columns_N]
    losses: list[Tensor] = []
    right: list[Tensor] = []
    for place, module in owners:
        found = losses_under_head(hidden_ND[place], module, form.cap, at.targets_N[place])
        losses.append(found[0])
        right.append(found[1])
    return torch.cat(losses), torch.cat(right)


def losses_under_head(
    hidden_ND: Tensor, head: nn.Module, cap: float | None, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses [N] and right [N] of hidden states under a head."""
    if type(head) is nn.Linear and cap is None and not head.weight.requires_grad:
        return token_losses(hidden_ND, head, targets_N)
    return _recomputed(hidden_ND, head, cap, targets_N)


def hidden_states(model: Any, form: HeadForm, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """What goes into the head [B, T, D]; None when an inner model is asked for and there is none."""
    if form.hidden == "given":
        return _given_to_head(model, inputs)
    if model.base_model is model:
        return None
    return model.base_model(**inputs, use_cache=False).last_hidden_state


# -- a frozen linear head -------------------------------------------------------------------------------


def token_losses(hidden_ND: Tensor, head: nn.Linear, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [N] in nats and first choices that are right [N], of hidden states [N, D] under a frozen
    head."""
    kernel = frozen_kernel(head)
    assert kernel is not None
    chunk = chunk_rows(head.weight.shape[0], hidden_ND.device, hidden_ND.dtype)
    return ChunkedCrossEntropy.apply(hidden_ND, kernel, targets_N, chunk)  # type: ignore[return-value]


class ChunkedCrossEntropy(torch.autograd.Function):
    """hidden [N, D], targets [N] -> losses [N] and right [N], the first choices that are right (1 or 0).

    The gradient of each loss with respect to its own hidden row is formed while the chunk's logits are
    there and kept as [N, D] (the idea of Liger kernel, arXiv:2410.10989, at a per-row upstream
    gradient). While training, `right` is not worth another pass over the logits and is NaN. The eager
    expression is the contract: F.cross_entropy(head(hidden), targets, reduction="none").
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, head: Frozen, targets_N: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        losses = torch.empty(hidden_ND.shape[0], dtype=wide, device=hidden_ND.device)
        right = torch.full_like(losses, torch.nan)
        training = ctx.needs_input_grad[0]
        grads_ND = torch.empty_like(hidden_ND) if training else None
        for part in _parts(hidden_ND.shape[0], chunk):
            targets = targets_N[part, None]
            # Filled up while it is narrow: the logits would be, as a copy, on the way back.
            logits = head.forward(filled_up(hidden_ND[part]))
            for block in _parts(len(targets), _block(logits, wide)):
                counted = None if training else right[part][block]
                losses[part][block] = _losses(logits[block], targets[block], wide, counted)
            if grads_ND is not None:
                # What were logits is by now their gradient.
                grads_ND[part] = head.backward(logits)[: len(targets)]
            del logits  # before the next chunk's are made
        if grads_ND is not None:
            ctx.save_for_backward(grads_ND)
        ctx.mark_non_differentiable(right)
        return losses, right

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grads_ND,) = ctx.saved_tensors
        return grads_ND * grads[0][:, None].to(grads_ND.dtype), None, None, None


def _losses(logits_NV: Tensor, targets_N1: Tensor, wide: torch.dtype, right_N: Tensor | None) -> Tensor:
    """Losses [N] of logits [N, V]. Fills `right_N` where there is one, else turns the logits into their
    gradient.

    The largest probability is never small, so its logarithm is exact, and the largest logit minus it is
    the log of the sum of all: log_softmax and an exp of it would pass over the table twice where softmax
    does once.
    """
    if selftest.used(logits_NV.device, logits_NV.dtype):
        from loraloom.lora.kernels.softmax import losses_in_place

        return losses_in_place(logits_NV, targets_N1, right_N)
    wide_NV = logits_NV
    if logits_NV.dtype != wide:
        # Widened first: softmax(dtype=...) takes a slow way on a CPU.
        table = _room(_block(logits_NV, wide), logits_NV.shape[1], wide, logits_NV.device)
        wide_NV = table[: len(logits_NV)].copy_(logits_NV)
    if right_N is not None:
        right_N.copy_(wide_NV.argmax(-1, keepdim=True).eq(targets_N1).squeeze(-1))
    top_N1 = wide_NV.amax(-1, keepdim=True)
    own_N1 = wide_NV.gather(-1, targets_N1)
    torch.softmax(wide_NV, -1, out=wide_NV)
    losses_N1 = top_N1 - wide_NV.amax(-1, keepdim=True).log() - own_N1
    if right_N is None:
        # The gradient of a loss with respect to its logits: the probabilities, minus 1 at the target.
        minus_one_N1 = wide_NV.new_full((1, 1), -1.0).expand_as(targets_N1)
        logits_NV.copy_(wide_NV.scatter_add_(-1, targets_N1, minus_one_N1))
    return losses_N1.squeeze(-1)


def chunk_rows(vocabulary: int, device: torch.device, dtype: torch.dtype) -> int:
    """Rows of a chunk of logits in this dtype."""
    least = CUDA_ROWS if device.type == "cuda" else 1
    return max(least, CHUNK_BYTES // (dtype.itemsize * vocabulary))


def _parts(rows: int, most: int) -> Iterator[slice]:
    """All rows in order, `most` at a time."""
    return (slice(start, min(start + most, rows)) for start in range(0, rows, most))


def _block(logits_NV: Tensor, wide: torch.dtype) -> int:
    """Rows of a chunk that are taken at once."""
    if logits_NV.device.type != "cpu":
        return len(logits_NV)
    return max(1, BLOCK_BYTES // (wide.itemsize * logits_NV.shape[1]))


def _room(rows: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A table for logits that are widened, [rows, vocabulary]. Each thread's own, and kept from call to
    call: one of this size would come from the system anew each time, page by page, which takes as long
    as filling it does."""
    wanted = (rows, vocabulary, dtype, device)
    if getattr(_rooms, "made", None) != wanted:
        _rooms.table = torch.empty((rows, vocabulary), dtype=dtype, device=device)
        _rooms.made = wanted
    return _rooms.table


# -- any other head -------------------------------------------------------------------------------------


def _recomputed(
    hidden_ND: Tensor, head: nn.Module, cap: float | None, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """The same for a head that is trained, or capped. The logits of a piece are made again in the
    backward pass, so that only one piece's are ever kept."""

    def losses_of(part_ND: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _cross_entropy(capped(head(part_ND), cap), targets)

    if not len(targets_N):
        return losses_of(hidden_ND, targets_N)
    losses: list[Tensor] = []
    right: list[Tensor] = []
    chunk = chunk_rows(vocabulary_of(head), hidden_ND.device, torch.float32)
    for part in _parts(len(targets_N), chunk):
        piece = hidden_ND[part], targets_N[part]
        found: Any = checkpoint(losses_of, *piece, use_reentrant=False, preserve_rng_state=False)
        losses.append(found[0])
        right.append(found[1])
    return torch.cat(losses), torch.cat(right)


def _cross_entropy(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    wide = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    right = (wide.detach().argmax(-1) == targets_N).to(wide.dtype)
    return F.cross_entropy(wide, targets_N, reduction="none"), right


def capped(logits: Tensor, cap: float | None) -> Tensor:
    return logits if cap is None else torch.tanh(logits / cap) * cap


def vocabulary_of(head: nn.Module) -> int:
    """Number of logits that a head gives."""
    return next(parameter.shape[0] for parameter in head.parameters())


# -- which form a model has -----------------------------------------------------------------------------


def head_form(model: Any, inputs: Mapping[str, Tensor]) -> HeadForm:
    """The form that gives exactly the model's logits for `inputs`. To be asked before any layer is
    wrapped."""
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        return HeadForm("logits")
    caps = (None, getattr(model.config.get_text_config(), "final_logit_softcapping", None))
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits
        forms = [HeadForm(place, cap) for cap in dict.fromkeys(caps) for place in ("inner", "given")]
        for form in forms:
            hidden = hidden_states(model, form, inputs)
            if hidden is None or hidden.dtype != head.weight.dtype:
                continue  # a head that is kept in float32 is given what the model widens for it
            if torch.equal(capped(head(hidden), form.cap), logits):
                return form
    return HeadForm("logits")


def _given_to_head(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the head is called with [B, T, D]: for once, something that listens stands in its place."""
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


class _Listener(nn.Module):
    """Stands in for a head: keeps what it is given, and answers with something narrow."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.weight = next(head.parameters())
        self.heard: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.heard = x
        return x[..., :1]
