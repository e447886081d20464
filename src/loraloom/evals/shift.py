"""What a decoder reads while it learns a target: the target one place to the right,
after a start of the model's own.

Families differ in that start: an id of the config under one of several names (T5, BART, T5Gemma), or the
target's own last token, a language's code (mBART). So the model is asked once, by giving it labels and
listening at its decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loraloom.errors import ModelError, first_line

IGNORE = -100


@dataclass(frozen=True)
class Shift:
    """How labels become the decoder's inputs.

    Attributes:
        start: the first id of every row; None for the row's own last label.
        filler: stands where there is nothing to learn; no supervised token sees it.
    """

    start: int | None
    filler: int

    def __call__(self, labels_BU: Tensor) -> Tensor:
        """[B, U], -100 where nothing is supervised -> ids [B, U]."""
        decoder_BU = labels_BU.roll(1, -1)
        if self.start is None:
            last_B = (labels_BU != IGNORE).sum(-1).clamp(min=1) - 1
            decoder_BU[:, 0] = labels_BU.gather(1, last_B[:, None]).squeeze(1)
        else:
            decoder_BU[:, 0] = self.start
        return decoder_BU.masked_fill(decoder_BU == IGNORE, self.filler)


@torch.no_grad()
def shift_of(model: Any) -> Shift:
    """The shift that a model itself makes of labels. To be asked before any layer is wrapped.

    Raises:
        ModelError: it makes none, or one of another kind.
    """
    ids = _plain_ids(model, 5)
    short = [*ids[:3], IGNORE, IGNORE]
    long = [*ids[1:], ids[0]]
    labels_BU = torch.tensor([short, long], device=next(model.parameters()).device)
    try:
        made_BU = _heard_by_decoder(model, labels_BU)
    except Exception as error:  # each family checks its config in a way of its own
        raise _unknown(model, first_line(error)) from error
    if made_BU is not None and made_BU.shape == labels_BU.shape:
        starts = made_BU[:, 0].tolist()
        for start in (starts[0], None):
            shift = Shift(start, int(made_BU[0, -1]))
            if torch.equal(shift(labels_BU), made_BU):
                return shift
    raise _unknown(model, "labels do not come to its decoder one place to the right")


def _unknown(model: Any, got: str) -> ModelError:
    return ModelError(
        f"what the decoder of {type(model).__name__} starts a target with is not known",
        got=got,
        need="the id that its targets begin after",
        next=(
            "set decoder_start_token_id in config.json (T5: the pad token, BART: </s>, mBART: a"
            " language's code)"
        ),
    )


def _heard_by_decoder(model: Any, labels_BU: Tensor) -> Tensor | None:
    heard: list[Tensor] = []

    def listen(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(ids, Tensor):
            heard.append(ids)

    handle = model.get_decoder().register_forward_pre_hook(listen, with_kwargs=True)
    try:
        model(input_ids=labels_BU.clamp(min=0), labels=labels_BU)
    finally:
        handle.remove()
    return heard[0].clone() if heard else None


def _plain_ids(model: Any, count: int) -> list[int]:
    """Ids without a meaning of their own to the model."""
    config = model.config.get_text_config(decoder=True)
    special = {
        value
        for part in (config, model.config)
        for name, value in vars(part).items()
        if name.endswith("token_id") and isinstance(value, int)
    }
    return [number for number in range(config.vocab_size) if number not in special][:count]
