"""`loraloom generate`: what adapters answer, side by side with the bare base."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.config.asked import Config, ModelConfig
from loraloom.data.chat import prompt_ids
from loraloom.data.form_template import form_of, stands_in
from loraloom.errors import ConfigError, ModelError
from loraloom.evals.writing import continuations, position_limit
from loraloom.facts.device import device_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import Base, load_base, share_copy
from loraloom.lora.state import PEFT_TASKS, embedding_rows, load_peft, require_embeddings
from loraloom.lora.untrusted_adapter import adapter_folder, read_adapter_config
from loraloom.pipeline.beside import base_of, quantization_of, tokenizer_beside
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.predictor import COLUMN, PROBABILITY, labeller


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


@device_errors()
def generate(
    model: str | None,
    adapters: list[str],
    prompts: list[str],
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    base: bool = False,
    system: str | None = None,
) -> list[dict[str, Any]]:
    """Continue prompts. With a chat template, a prompt is a user's turn; of a
    classifier it is the text to be judged.

    Args:
        model: base model; may be left out with an adapter, which knows its base.
        adapters: adapter or run folders; all over one loaded base.
        temperature: 0 is greedy.
        base: answer with the bare base too; it has no adapter in it at all, and is shown what the first
            adapter is shown, unless that has tokens that the base has no embeddings for.
        system: a system message before each prompt.

    Returns:
        One {prompt, source, form, text} for each prompt and source, source being "base" or the adapter's
        folder. Of classifiers `text` is the label, and `probabilities` has that of each class.

    Raises:
        RequestError: nothing to ask, a prompt that is too long, or an adapter of another task or base.
    """
    folders = [adapter_folder(place) for place in adapters]
    described = [read_adapter_config(folder) for folder in folders]
    kinds = _kinds(described)
    name = base_of(model, described)
    if not prompts:
        raise ConfigError(
            "there is no prompt",
            next='put one at the end: loraloom generate --adapter FOLDER "Once upon a time"',
        )
    facts = require_weights(model_facts(name))
    if kinds == {PEFT_TASKS["seq_cls"]} or (not kinds and facts.task == "seq_cls"):
        if system is not None:
            raise ConfigError(
                "a classifier reads the text alone, and no system text", next="leave --system out"
            )
        return _labelled(name, [*([None] if base or not folders else []), *map(str, folders)], prompts)
    task = "seq2seq_lm" if facts.kind == "encoder_decoder" else "causal_lm"
    loaded = load_base(
        name, task, device=device_facts().kind, quantization=_shared_quantization(folders)
    )
    sources = _sources(folders, loaded, base=base or not folders)
    answers: list[dict[str, Any]] = []
    for prompt in prompts:
        asked = _turns(prompt, system)
        for source in sources:
            text = _continue(source, loaded, asked, (max_new_tokens, temperature))
            answers.append({"prompt": prompt, "source": source.name, "form": source.form, "text": text})
    return answers


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


def _sources(folders: Sequence[Path], loaded: Base, *, base: bool) -> list[Source]:
    """Everyone who answers, over one base in memory: the bare base first, if it is to answer too."""
    own = loaded.tokenizer
    sources = [
        Source(
            str(folder),
            load_peft(folder, share_copy(loaded.model, own_biases=True)),
            tokenizer_beside(folder, own),
        )
        for folder in folders
    ]
    if base:
        # Shown what the first adapter is shown, so that the two can be compared.
        fits = bool(sources) and len(sources[0].tokenizer) <= embedding_rows(loaded.model)
        shown = sources[0].tokenizer if fits else own
        sources.insert(0, Source("base", share_copy(loaded.model).eval(), shown))
    return sources


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


def _labelled(
    model: str, adapters: Sequence[str | None], prompts: Sequence[str]
) -> list[dict[str, Any]]:
    """What classifiers choose for texts, and how probable each class is to them."""
    config = Config(model=ModelConfig(name_or_path=model))
    chosen = [(adapter or "base", labeller(config, adapter).labels_of(prompts)) for adapter in adapters]
    return [
        {
            "prompt": prompt,
            "source": source,
            "form": None,
            "text": rows[i][COLUMN],
            "probabilities": rows[i][PROBABILITY],
        }
        for i, prompt in enumerate(prompts)
        for source, rows in chosen
    ]


def _turns(prompt: str, system: str | None) -> str | list[dict[str, str]]:
    if system is None:
        return prompt
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def _continue(
    source: Source, base: Base, prompt: str | Sequence[dict[str, str]], limits: tuple[int, float]
) -> str:
    if not source.tokenizer.chat_template and not isinstance(prompt, str):
        raise ConfigError(
            f"{source.name} has no chat template that says where a system text stands",
            next="write it into the prompt itself",
        )
    tokenizer = source.tokenizer
    form = form_of(source.tokenizer.chat_template)
    if form is not None and isinstance(prompt, str) and stands_in(form, prompt):
        tokenizer = copy.copy(tokenizer)
        tokenizer.chat_template = None
    ids = prompt_ids(prompt, tokenizer, continued=base.task == "causal_lm")
    limit = position_limit(base.model, base.task)
    if limit is not None and len(ids) >= limit:
        raise ConfigError(
            f"the prompt has {len(ids):,} tokens",
            need=f"fewer than the model's {limit:,} positions",
            next="shorten it",
        )
    require_embeddings(source.model, ids)
    (text,) = continuations(
        source.model,
        [ids],
        source.tokenizer,
        task=base.task,
        pad_id=base.pad_id,
        max_new_tokens=limits[0],
        temperature=limits[1],
    )
    return text
