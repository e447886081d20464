"""Does a row's score depend on the rows beside it? Found by running the model once,
before anything is trained.

Rows of a batch are padded to its longest. A model that reads the padding, or looks ahead where it should
only look back, would give each row another loss in other company: neither a pack nor a plain batch would
then be the training that it seems to be.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from loraloom.data.batches import collate
from loraloom.data.rows import Row
from loraloom.errors import ModelError
from loraloom.evals.objective import Objective
from loraloom.lora.probe import vocabulary_of
from loraloom.records import Task

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 0.01, torch.bfloat16: 0.05}
"""Of a classifier's largest logit: the noise of sums in another order, and less than a
token that is read by mistake."""
LOOSER = 5
"""A language model in half precision may differ so much more: a token near the border
of two experts takes the other one."""
SHORT = 4
LONG = 7


@torch.no_grad()
def refuse_seen_neighbours(objective: Objective, model: Any, task: Task, pad_id: int) -> None:
    """Score a short row alone and padded for a longer neighbour.

    Raises:
        ModelError: the scores differ.
    """
    tolerance = TOLERANCE[next(model.parameters()).dtype]
    if task == "seq_cls":
        _refuse_seen_padding(model, pad_id, tolerance)
        return
    vocabulary = vocabulary_of(model)
    short, long = (
        Row(ids, ids)
        for ids in (np.arange(1, 1 + n, dtype=np.int32) % vocabulary for n in (SHORT, LONG))
    )
    device = next(model.parameters()).device
    alone = objective.rows(model, collate([short], pad_id, task).to(device))
    beside = objective.rows(model, collate([short, long], pad_id, task).to(device))
    loss = float(alone.loss[0])
    other = float(beside.loss[0])
    _refuse_not_finite(model, loss, other)
    if tolerance > TOLERANCE[torch.float32]:
        tolerance *= LOOSER
    if abs(loss - other) > tolerance * max(abs(loss), float(alone.weight[0])):
        raise ModelError(
            f"{type(model).__name__} gives a row another loss beside a longer one: {loss:.4g} differs by"
            f" {abs(loss - other):.2g}",
            got="a model that reads what stands after a token, or padding",
            need="a decoder that only looks back, and an encoder that keeps to its attention mask",
            next="is_decoder in config.json, where the family is an encoder; else another model",
        )


def _refuse_not_finite(model: Any, alone: float, padded: float) -> None:
    """What is not finite without any neighbour is none of this test's: the check of gradients names the
    layer where it begins."""
    if math.isfinite(alone) and not math.isfinite(padded):
        raise ModelError(
            f"{type(model).__name__} answers a padded row with numbers that are not finite: {padded}",
            got="a layer that cannot handle padding; without padding the same row is answered",
            need="finite logits of a row beside a longer one",
            next="take another model, or train with PEFT and one row a batch",
        )


def _refuse_seen_padding(model: Any, pad_id: int, tolerance: float) -> None:
    """Decoders take the last token that is not the padding of their config; rows padded with anything
    else would be judged by their padding, and so by their neighbours' length. Encoders may read padding
    in spite of their mask.
    """
    text = model.config.get_text_config()
    bare = (
        torch.arange(SHORT, device=next(model.parameters()).device)[None] % vocabulary_of(model)
    ).clamp(min=1)
    mask = torch.ones_like(bare)
    padded = F.pad(bare, (0, LONG - SHORT), value=pad_id)
    # To the host first: an Apple GPU has no float64.
    short = model(input_ids=bare, attention_mask=mask).logits.cpu().double()
    long = model(input_ids=padded, attention_mask=F.pad(mask, (0, LONG - SHORT))).logits.cpu().double()
    _refuse_not_finite(model, float(short.abs().max()), float(long.abs().max()))
    difference = float((short - long).abs().max()) / max(float(short.abs().max()), 1e-12)
    if not difference > tolerance:  # NaN included
        return
    known = text.pad_token_id
    if known != pad_id:
        raise ModelError(
            f"{type(model).__name__} does not recognise the padding of its rows",
            got=f"rows padded with token {pad_id}, and pad_token_id {known} in the model's config",
            need="the same token in both",
            next="set pad_token_id in config.json to the tokenizer's",
        )
    raise ModelError(
        f"{type(model).__name__} reads the padding of its rows: a logit changes by {difference:.2g} of"
        " the largest",
        got="a layer that mixes neighbouring tokens without the attention mask",
        need=f"an answer that does not depend on how far a row is padded, to {tolerance:.2g}",
        next="take another encoder, or train with PEFT and one row a batch",
    )
