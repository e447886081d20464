"""Those who answer side by side: adapters over one loaded base, and the bare base beside them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.data.chat import prompt_ids
from loraloom.data.form_template import form_of, stands_in
from loraloom.errors import ModelError
from loraloom.facts.device import device_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import Base, load_base, share_copy
from loraloom.lora.state import PEFT_TASKS, embedding_rows, load_peft
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import base_of, quantization_of, revision_of, tokenizer_beside
from loraloom.records import Task


@dataclass(frozen=True)
class Source:
    """Someone who answers: the base or an adapter over it, and the tokenizer that writes the prompts."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def form(self) -> str | None:
        """How a prompt reaches the model: the format whose plain form is written around it,
        "chat_template", or None: bare."""
        return form_of(self.tokenizer.chat_template) or (
            "chat_template" if self.tokenizer.chat_template else None
        )

    def ids(self, prompt: str | Sequence[dict[str, str]], task: Task) -> list[int]:
        """What the model reads before it answers a text, or the last of these turns.

        A text that stands in the form of training already is not written into it again.
        """
        tokenizer, form = self.tokenizer, self.form
        if form not in (None, "chat_template") and isinstance(prompt, str) and stands_in(form, prompt):
            tokenizer = copy.copy(tokenizer)
            tokenizer.chat_template = None
        return prompt_ids(prompt, tokenizer, continued=task == "causal_lm")


@dataclass(frozen=True)
class Named:
    """A base and adapters as they were named, before anything is loaded."""

    model: str
    revision: str | None
    folders: tuple[Path, ...]
    task: Task

    def classifiers(self, *, base: bool) -> list[str | None]:
        """Those who label: the adapters, and None for the base with the head that it has."""
        return [*([None] if base or not self.folders else []), *map(str, self.folders)]


def named_sources(model: str | None, adapters: Sequence[str]) -> Named:
    """What these names mean.

    Args:
        model: base model; may be left out with an adapter, which knows its base.
        adapters: adapter or run folders.

    Raises:
        ModelError: there is no such thing, or the adapters are of several tasks or revisions.
    """
    folders = tuple(adapter_folder(place) for place in adapters)
    described = [read_adapter_config(folder) for folder in folders]
    kinds = _kinds(described)
    name = base_of(model, described)
    revision = revision_of(None, name, folders)
    facts = require_weights(model_facts(name, revision=revision))
    if kinds == {PEFT_TASKS["seq_cls"]} or (not kinds and facts.task == "seq_cls"):
        return Named(name, revision, folders, "seq_cls")
    return Named(
        name, revision, folders, "seq2seq_lm" if facts.kind == "encoder_decoder" else "causal_lm"
    )


def _kinds(described: Sequence[Mapping[str, Any]]) -> set[str | None]:
    """The tasks of these adapters, as PEFT calls them; None for one that does not say.

    Raises:
        ModelError: a task that cannot be asked, or classifiers beside others.
    """
    kinds = {config.get("task_type") for config in described}
    strange = kinds - {*PEFT_TASKS.values(), None}
    if strange or (PEFT_TASKS["seq_cls"] in kinds and len(kinds) > 1):
        raise ModelError(
            "these adapters cannot answer side by side",
            got=f"adapters for {', '.join(sorted(map(str, kinds)))}",
            need="adapters of one task: CAUSAL_LM, SEQ_2_SEQ_LM or SEQ_CLS",
            next="ask them one by one",
        )
    return kinds


def load_sources(named: Named, *, base: bool) -> tuple[Base, list[Source]]:
    """The loaded base of language models, and everyone who answers: the bare base first, if it is to.

    Raises:
        ModelError: the base or an adapter cannot be loaded, or the adapters need the base held in
            different ways.
    """
    loaded = load_base(
        named.model,
        named.task,
        device=device_facts().kind,
        revision=named.revision,
        quantization=_shared_quantization(named.folders),
    )
    own = loaded.tokenizer
    sources = [
        Source(
            str(folder),
            load_peft(folder, share_copy(loaded.model, own_biases=True)),
            tokenizer_beside(folder, own),
        )
        for folder in named.folders
    ]
    if base or not sources:
        # Shown what the first adapter is shown, so that the two can be compared.
        fits = bool(sources) and len(sources[0].tokenizer) <= embedding_rows(loaded.model)
        shown = sources[0].tokenizer if fits else own
        sources.insert(0, Source("base", share_copy(loaded.model).eval(), shown))
    return loaded, sources


def _shared_quantization(folders: Sequence[Path]) -> str:
    """How the base was held when these adapters were trained over it.

    Raises:
        ModelError: not alike for all.
    """
    held = {quantization_of("auto", folder) for folder in folders} or {"none"}
    if len(held) > 1:
        raise ModelError(
            "these adapters cannot answer side by side",
            got=f"adapters over the same base, held otherwise: {', '.join(sorted(held))}",
            need="adapters over one base, quantised or not",
            next="ask them one by one",
        )
    return held.pop()
