"""`loraloom generate`: what adapters answer, side by side with the bare base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loraloom.config.asked import Config, ModelConfig
from loraloom.errors import ConfigError
from loraloom.evals.writing import continuations, position_limit
from loraloom.lora.base import Base
from loraloom.lora.state import require_embeddings
from loraloom.pipeline.device_errors import device_errors
from loraloom.pipeline.predictor import COLUMN, PROBABILITY, labeller
from loraloom.pipeline.sources import Named, Source, load_sources, named_sources

Turns = str | Sequence[dict[str, str]]
"""A prompt: a text, or messages of which the last is to be answered."""


@device_errors()
def generate(
    model: str | None,
    adapters: list[str],
    prompts: Sequence[Turns],
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
    named = named_sources(model, adapters)
    if not prompts:
        raise ConfigError(
            "there is no prompt",
            next='put one at the end: loraloom generate --adapter FOLDER "Once upon a time"',
        )
    if named.task == "seq_cls":
        return _labelled(named, prompts, system, base=base)
    loaded, sources = load_sources(named, base=base)
    answers: list[dict[str, Any]] = []
    for prompt in prompts:
        asked = with_system(prompt, system)
        for source in sources:
            text = _continue(source, loaded, asked, (max_new_tokens, temperature))
            answers.append({"prompt": prompt, "source": source.name, "form": source.form, "text": text})
    return answers


def config_of(named: Named) -> Config:
    """The request to read this base as a classifier."""
    return Config(model=ModelConfig(name_or_path=named.model, revision=named.revision))


def refuse_system(system: str | None) -> None:
    """Raises ConfigError where a classifier is given a system text."""
    if system is not None:
        raise ConfigError(
            "a classifier reads the text alone, and no system text", next="leave --system out"
        )


def _labelled(
    named: Named, prompts: Sequence[Turns], system: str | None, *, base: bool
) -> list[dict[str, Any]]:
    """What classifiers choose for texts, and how probable each class is to them."""
    refuse_system(system)
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) < len(prompts):
        raise ConfigError("a classifier reads texts, and no messages", next="give each text on a line")
    chosen = [
        (adapter or "base", labeller(config_of(named), adapter).labels_of(texts))
        for adapter in named.classifiers(base=base)
    ]
    return [
        {
            "prompt": prompt,
            "source": source,
            "form": None,
            "text": rows[i][COLUMN],
            "probabilities": rows[i][PROBABILITY],
        }
        for i, prompt in enumerate(texts)
        for source, rows in chosen
    ]


def with_system(prompt: Turns, system: str | None) -> Turns:
    """A prompt behind a system message.

    Raises:
        ConfigError: it has one of its own.
    """
    if system is None:
        return prompt
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if turns[0]["role"] == "system":
        raise ConfigError("a prompt has a system message of its own", next="leave --system out")
    return [{"role": "system", "content": system}, *turns]


def _continue(source: Source, base: Base, prompt: Turns, limits: tuple[int, float]) -> str:
    if not source.tokenizer.chat_template and not isinstance(prompt, str):
        raise ConfigError(
            f"{source.name} has no chat template that says where a system text or a turn stands",
            next="write it into the prompt itself",
        )
    ids = source.ids(prompt, base.task)
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
