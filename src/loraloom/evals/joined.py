"""Pairs whose sides are joined to one row (`data.joined`): what a model is given for them, and whether
it reads them as it reads two rows.

The rejected side's own tokens see what both sides begin with and one another, at the positions that they
have in a row of their own. So attention gives them what it would give them there, as long as the model
takes mask and positions as they are given. One whose layers mix neighbouring tokens by themselves
(state spaces, convolutions), or that counts positions by itself, does not. That is found by asking it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from loraloom.data.batches import Batch, collate
from loraloom.data.joined import padded_tokens, row_lengths
from loraloom.data.rows import IGNORED, Example, Pair
from loraloom.evals.cross_entropy import HeadForm, Positions, losses_at
from loraloom.lora.transfer import send

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 0.002, torch.bfloat16: 0.005}
"""How far an answer's log-probability may be off, as a share of itself or of 1 nat a token: sums in
another order."""
ASKED = 4
"""Pairs that are scored both ways, the longest among them."""
WORTH = 0.9
"""Pairs are joined where that takes at most this share of the work."""


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """What a decoder is given for a batch: tokens, and for joined rows who sees whom [B, 1, T, T] and
    where each token stands [B, T]."""
    if batch.forks is None:
        return {"input_ids": batch.input_ids}
    common_B1, second_B1 = batch.forks[:, :1], batch.forks[:, 1:]
    places_T = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
    is_second_BT = places_T >= second_B1
    is_first_BT = (places_T >= common_B1) & ~is_second_BT
    is_earlier_TT = places_T[:, None] >= places_T
    seen_BTT = is_earlier_TT & ~(is_second_BT[:, :, None] & is_first_BT[:, None, :])
    positions_BT = places_T - is_second_BT * (second_B1 - common_B1)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": seen_BTT[:, None],
        # Padding could stand further on than the model has positions.
        "position_ids": positions_BT * batch.attention_mask,
    }


def side_losses(model: Any, form: HeadForm, batch: Batch, targets_SU: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of each side's token losses in nats [S], differentiable: over its labels, and over all its
    targets.

    Args:
        batch: rows, or pairs joined or not.
        targets_SU: what should be chosen after each token of each side, on the host; -100 where nothing
            is.
    """
    table_5N = _places(targets_SU, batch.on_host)
    rows_N, columns_N, targets_N, sides_N, is_label_N = send(table_5N, batch.labels.device)
    at = Positions(rows_N, columns_N, targets_N, host_rows_N=table_5N[0])
    losses_N, _ = losses_at(model, form, inputs_of(batch), at)
    nothing_S = losses_N.new_zeros(len(batch.labels))
    of_labels_S = nothing_S.index_add(0, sides_N, losses_N * is_label_N)
    return of_labels_S, nothing_S.index_add(0, sides_N, losses_N)


def _places(targets_SU: Tensor, batch: Batch) -> Tensor:
    """Rows (ascending), columns, targets and sides of all that has a target, and whether it is a label,
    [5, N]. The token after which sides part has a target for each of them."""
    sides_N, places_N = (targets_SU != IGNORED).nonzero(as_tuple=True)
    targets_N = targets_SU[sides_N, places_N]
    is_label_N = batch.labels[:, 1:][sides_N, places_N] != IGNORED
    rows_N, columns_N = sides_N, places_N
    if batch.forks is not None:
        rows_N = sides_N // 2
        common_N, second_N = batch.forks[rows_N].T
        is_second_N = (sides_N % 2 == 1) & (places_N >= common_N)
        columns_N = places_N + is_second_N * (second_N - common_N)
    return torch.stack([rows_N, columns_N, targets_N, sides_N, is_label_N])


def worth_joining(examples: Sequence[Example], config: Any) -> bool:
    """Whether these are pairs whose sides are less work in one row each.

    Args:
        config: of the decoder.
    """
    pairs = [one for one in examples if isinstance(one, Pair)]
    if not pairs or len(pairs) < len(examples):
        return False
    longest = max(len(side) for pair in pairs for side in pair.sides)
    # A mask that is given stands in for the model's own, and would let it look back further.
    back = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    if any(size is not None and size < longest for size in back):
        return False
    return _work(pairs, config.hidden_size, joined=True) <= WORTH * _work(pairs, config.hidden_size)


def _work(pairs: Sequence[Pair], width: int, *, joined: bool = False) -> float:
    """Products of a pass, in those of one token with the weights of a layer (about 12 width^2).
    Attention's are 2 width for each token that is looked at; with a mask of their own, kernels do not
    leave out those to come."""
    looked_at = 1.0 if joined else 0.5
    lengths = [length for pair in pairs for length in row_lengths(pair, joined=joined)]
    return sum(length + looked_at * length**2 / (6 * width) for length in lengths)


@torch.no_grad()
def reads_joined(model: Any, form: HeadForm, examples: Sequence[Example], pad_id: int) -> bool:
    """Whether a model gives the sides of a few of these pairs the same log-probabilities in one row as
    in two."""
    by_length = sorted(examples, key=padded_tokens, reverse=True)
    asked = by_length[:: max(1, len(by_length) // ASKED)][:ASKED]
    return all(_agree(model, form, one, pad_id) for one in asked)


def _agree(model: Any, form: HeadForm, pair: Example, pad_id: int) -> bool:
    device = next(model.parameters()).device
    apart, joined = (
        collate([pair], pad_id, "causal_lm", joined=way).to(device) for way in (False, True)
    )
    targets_SU = apart.on_host.labels[:, 1:]
    try:
        wanted_S, found_S = (side_losses(model, form, batch, targets_SU)[0] for batch in (apart, joined))
    except Exception:  # whatever it has against such rows; against any rows, training will say so
        return False
    tokens_S = (targets_SU != IGNORED).sum(1).to(wanted_S)
    off_S = (found_S - wanted_S).abs()
    return bool((off_S <= TOLERANCE[model.dtype] * torch.maximum(wanted_S, tokens_S)).all())
