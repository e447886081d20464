"""Keys of stored questions: which of them another question asks, and how far it lies from all of them.

A key is the base's hidden state after its middle block, averaged over the tokens, from which the mean of
everyday questions is taken: hidden states of all texts point the same way to a large part. Those of
stored questions lie in the memory's folder, so that each is encoded once.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from loraloom.data.batches import collate
from loraloom.data.rows import Row
from loraloom.recall.items import MemoryItem
from loraloom.recall.lexicon import EVERYDAY, Lexicon, named
from loraloom.recall.vectors import Vectors, normal
from loraloom.store.disk import write_whole

if TYPE_CHECKING:
    from loraloom.pipeline.recall.bench import MemoryBench

KEYS = "keys.safetensors"
ROWS = 64
"""Questions that are read together."""
NAMING = 0.5
"""Of a name's coordinate, beside hidden states of length 1."""


def vectors_of(bench: MemoryBench, questions: Sequence[str]) -> NDArray[np.float32]:
    """Hidden states of questions from the everyday ones' mean, [N, D]."""
    return bench.states.of(questions) - bench.states.of(EVERYDAY).mean(0)


def scope_vectors(bench: MemoryBench, questions: Sequence[str]) -> Vectors:
    """What the gate compares: hidden states, and whether a question names anything, which what is
    remembered mostly does and small talk does not, [N, D + 1]."""
    names_N1 = np.array([[NAMING if named(question) else -NAMING] for question in questions], np.float32)
    return normal(np.hstack([normal(vectors_of(bench, questions)), names_N1.reshape(-1, 1)]))


class States:
    """Hidden states of texts, each encoded once, those of stored questions once for all commands.

    The file says what its numbers were made of: the base's fingerprint, its number format, and each
    text. What does not fit is encoded anew, and so is all where the file is not there or damaged.
    """

    def __init__(self, bench: MemoryBench) -> None:
        self._bench = bench
        self._path = bench.memory.folder / KEYS
        self._made_of = f"{bench.memory.base.fingerprint} {bench.base.model.dtype}"
        self._kept = _read(self._path, self._made_of)
        self._known = dict(self._kept)

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Of these texts, [N, D]."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, hidden_states(self._bench, new), strict=True))
        width = self._bench.base.model.config.get_text_config().hidden_size
        return np.array([self._known[text] for text in texts], np.float32).reshape(len(texts), width)

    def keep(self) -> None:
        """Write those of everyday questions and of what the memory keeps now, as far as they are known.

        Whoever reads at the same time has the file of before or of after. Where the disk refuses, the
        next command encodes them again.
        """
        questions = [entry.item.question for entry in self._bench.memory.state.kept]
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


class Keys:
    """What is stored, to be found by other wordings: cosine of hidden states plus cosine of words."""

    def __init__(self, bench: MemoryBench, items: Sequence[MemoryItem]) -> None:
        self._bench = bench
        questions = [item.question for item in items]
        self._keys_ND = normal(vectors_of(bench, questions))
        self._lexicon = Lexicon(questions)

    def nearness(self, questions: Sequence[str]) -> Generator[NDArray[np.float64]]:
        """Of each question to each stored one, [N]; the higher the nearer, 2 for the same words."""
        vectors_QD = normal(vectors_of(self._bench, questions))
        for question, vector_D in zip(questions, vectors_QD, strict=True):
            yield self._keys_ND @ vector_D + self._lexicon.cosines(question)


@torch.no_grad()
def hidden_states(bench: MemoryBench, texts: Sequence[str]) -> NDArray[np.float32]:
    """The base's hidden states after its middle block, averaged over the tokens of each text, [N, D]."""
    width = bench.base.model.config.get_text_config().hidden_size
    found = np.zeros((len(texts), width), dtype=np.float32)
    tokenizer = bench.base.tokenizer
    rows = [
        Row(ids, ids)
        for text in texts
        for ids in [np.array(tokenizer([text], add_special_tokens=False)["input_ids"][0], np.int32)]
    ]
    order = sorted((i for i in range(len(rows)) if len(rows[i])), key=lambda i: len(rows[i]))
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        batch = collate([rows[i] for i in chosen], bench.base.pad_id, "causal_lm").to(
            bench.packed.device
        )
        with bench.packed.base_only() as model:
            states = model(input_ids=batch.input_ids, output_hidden_states=True, use_cache=False)
        hidden_BTD = states.hidden_states[len(states.hidden_states) // 2].float()
        mask_BT1 = batch.attention_mask[..., None]
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        found[chosen] = mean_BD.cpu().numpy()
    return found
