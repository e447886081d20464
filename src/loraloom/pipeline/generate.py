"""`loraloom generate`: what adapters answer, side by side with the bare base."""

from __future__ import annotations

from typing import Any

from loraloom.data.chat import prompt_ids
from loraloom.errors import ConfigError, ModelError
from loraloom.evals.writing import continuations, position_limit
from loraloom.facts.device import device_facts
from loraloom.facts.model import model_facts, require_weights
from loraloom.lora.base import Base, load_base, load_tokenizer, share_copy
from loraloom.lora.foreign import adapter_folder, read_adapter_config
from loraloom.lora.state import load_peft


def generate(
    model: str | None,
    adapters: list[str],
    prompts: list[str],
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    base: bool = False,
) -> list[dict[str, Any]]:
    """Continue prompts. With a chat template, a prompt is a user's turn.

    Args:
        model: base model; may be left out with an adapter, which knows its base.
        adapters: adapter or run folders; all over one loaded base.
        temperature: 0 is greedy.
        base: answer with the bare base too; it has no adapter in it at all.

    Returns:
        One {prompt, source, text} for each prompt and source, source being "base" or the adapter's folder.

    Raises:
        RequestError: nothing to ask, a prompt that is too long, or an adapter of another task or base.
    """
    folders = [adapter_folder(place) for place in adapters]
    described = [read_adapter_config(folder) for folder in folders]
    for place, config in zip(adapters, described, strict=True):
        if config.get("task_type") not in ("CAUSAL_LM", "SEQ_2_SEQ_LM", None):
            raise ModelError(f"adapter `{place}` is for {config['task_type']}: it does not write text", next="loraloom evaluate")
    name = model or next((c["base_model_name_or_path"] for c in described if c.get("base_model_name_or_path")), None)
    if name is None:
        raise ConfigError("neither a model nor an adapter was given", next="--model NAME_OR_FOLDER or --adapter FOLDER")
    if not prompts:
        raise ConfigError("there is no prompt", next='put one at the end: loraloom generate --adapter FOLDER "Once upon a time"')
    facts = model_facts(name)
    require_weights(facts)
    task = "seq2seq_lm" if facts.kind == "encoder_decoder" else "causal_lm"
    loaded = load_base(name, task, device=device_facts().kind)
    tokenizer = load_tokenizer(str(folders[0])) if folders else loaded.tokenizer
    sources: list[tuple[str, Any]] = [("base", share_copy(loaded.model).eval())] if base or not folders else []
    sources += [(str(folder), load_peft(folder, share_copy(loaded.model, own_biases=True))) for folder in folders]
    return [
        {"prompt": prompt, "source": source, "text": _continue(net, tokenizer, loaded, prompt, max_new_tokens, temperature)}
        for prompt in prompts
        for source, net in sources
    ]


def _continue(model: Any, tokenizer: Any, base: Base, prompt: str, max_new_tokens: int, temperature: float) -> str:
    ids, limit = prompt_ids(prompt, tokenizer, continued=base.task == "causal_lm"), position_limit(base.model, base.task)
    if limit is not None and len(ids) >= limit:
        raise ConfigError(
            f"the prompt has {len(ids):,} tokens", need=f"fewer than the model's {limit:,} positions", next="shorten it"
        )
    (text,) = continuations(
        model, [ids], tokenizer, task=base.task, pad_id=base.pad_id, max_new_tokens=max_new_tokens, temperature=temperature
    )
    return text
