"""Hidden states of texts under the bare base; those of stored questions lie in the memory's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from loraloom.data.batches import collate
from loraloom.data.rows import Row
from loraloom.lora.base import Base
from loraloom.lora.packed import PackedModel
from loraloom.recall.lexicon import EVERYDAY
from loraloom.recall.memory import Memory
from loraloom.store.disk import write_whole

KEYS = "keys.safetensors"
ROWS = 64
"""Texts that are read together."""


class States:
    """Hidden states of texts, each encoded once, those of stored questions once for all commands.

    The file says what its numbers were made of: the base's fingerprint, its number format, and each
    text. What does not fit is encoded anew, and so is all where the file is not there or damaged.
    """

    def __init__(self, memory: Memory, base: Base, packed: PackedModel) -> None:
        self._memory, self._base, self._packed = memory, base, packed
        self._path = memory.folder / KEYS
        self._made_of = f"{memory.base.fingerprint} {base.model.dtype}"
        self._kept = _read(self._path, self._made_of)
        self._known = dict(self._kept)

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of these texts, [N, D]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, hidden_states(self._base, self._packed, new), strict=True))
        width = self._base.model.config.get_text_config().hidden_size
        return np.array([self._known[text] for text in texts], np.float32).reshape(len(texts), width)

    def keep(self) -> None:
        """Write those of everyday questions and of what the memory keeps now, as far as they are known.

        Whoever reads at the same time has the file of before or of after. Where the disk refuses, the
        next command encodes them again.
        """
        questions = [entry.item.question for entry in self._memory.state.kept]
        wanted = dict.fromkeys(text for text in (*EVERYDAY, *questions) if text in self._known)
        if wanted.keys() == self._kept.keys():
            return
        self._kept = {text: self._known[text] for text in wanted}
        about = {"made_of": self._made_of, "texts": json.dumps(list(wanted))}
        with suppress(OSError):
            write_whole(self._path, save({"states": np.stack(list(self._kept.values()))}, about))


def _read(path: Path, made_of: str) -> Mapping[str, NDArray[np.float32]]:
    """What the file has, where it was made of this; nothing where it cannot be read."""
    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata()
            if about["made_of"] != made_of:
                return {}
            return dict(zip(json.loads(about["texts"]), file.get_tensor("states"), strict=True))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}


@torch.no_grad()
def hidden_states(base: Base, packed: PackedModel, texts: Sequence[str]) -> NDArray[np.float32]:
    """The base's hidden states after its middle block, averaged over the tokens of each text, [N, D]."""
    width = base.model.config.get_text_config().hidden_size
    found = np.zeros((len(texts), width), dtype=np.float32)
    tokenizer = base.tokenizer
    rows = [
        Row(ids, ids)
        for text in texts
        for ids in [np.array(tokenizer([text], add_special_tokens=False)["input_ids"][0], np.int32)]
    ]
    order = sorted((i for i in range(len(rows)) if len(rows[i])), key=lambda i: len(rows[i]))
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        batch = collate([rows[i] for i in chosen], base.pad_id, "causal_lm").to(packed.device)
        with packed.base_only() as model:
            states = model(input_ids=batch.input_ids, output_hidden_states=True, use_cache=False)
        hidden_BTD = states.hidden_states[len(states.hidden_states) // 2].float()
        mask_BT1 = batch.attention_mask[..., None]
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        found[chosen] = mean_BD.cpu().numpy()
    return found
