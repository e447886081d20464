"""The exact commands of a page: do the run again, train its winner, load it, try it, serve it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from loraloom.config.servers import vllm_rank
from loraloom.report.words import QUANTISED
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

MODEL_CLASSES = {
    "causal_lm": "AutoModelForCausalLM",
    "seq_cls": "AutoModelForSequenceClassification",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
}
NAMED_CLASSES = 8
"""Classes that fit into a line; loraloom.json beside the adapter has the names of more."""


def reproduce_command(folder: RunFolder, result: RunResult) -> str:
    """The command that does the whole run again, under a new name, from where `runs/` lies."""
    where = folder.path.resolve()
    again = f"{where.name}-again"
    return _command(
        "loraloom",
        result.verb or "tune",
        f"{where.parent.name}/{where.name}/config.yaml",
        options=[("--name", again)],
    )


def resume_command(folder: RunFolder, result: RunResult) -> str | None:
    """The command that goes on with the run; None when it came to its end or goes on already."""
    if result.status not in ("interrupted", "failed"):
        return None
    where = folder.path.resolve()
    return _command(
        "loraloom", result.verb or "tune", "--resume", f"{where.parent.name}/{where.name}", options=()
    )


def train_command(folder: RunFolder, result: RunResult) -> str | None:
    """The command that trains the winner's setting alone; None when nothing won or
    nothing was searched, or it began with another one's weights."""
    best = result.trial(result.best)
    if best is None or not best.params or best.warm:
        return None
    where = folder.path.resolve()
    options = [
        ("--name", f"{where.name}-best"),
        *(("--set", f"{key}={_flag(value)}") for key, value in best.params.items()),
    ]
    return _command(
        "loraloom", "train", f"{where.parent.name}/{where.name}/config.yaml", options=options
    )


def load_snippet(folder: RunFolder, result: RunResult, adapter: str | None = None) -> str | None:
    """Python that loads the winner with PEFT and asks it, in the form of its training;
    None when nothing won.

    Args:
        adapter: how to call its folder; None calls it by its place beside `runs/`,
            wherever that is moved to.
    """
    if result.trial(result.best) is None:
        return None
    model_class = MODEL_CLASSES.get(_built(result), "AutoModelForCausalLM")
    where = folder.path.resolve()
    revision = folder.revision()
    options = (f", revision={revision!r}" if revision else "") + _head_options(result.labels)
    adapter = adapter or f"{where.parent.name}/{where.name}/best"
    call = f"{model_class}.from_pretrained({result.model!r}{options}"
    bits = _bits(_saved(folder, "loraloom.json").get("base"), result.base_quantization)
    imported = f"{model_class}, AutoTokenizer" + (", BitsAndBytesConfig" if bits else "")
    lines = [
        "from peft import PeftModel",
        f"from transformers import {imported}",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({adapter!r})",
        *([f"base = {call})"] if bits is None else _two_bases(call, bits, result)),
        f"model = PeftModel.from_pretrained(base, {adapter!r})",
        "",
        _ask(folder, result),
    ]
    return "\n".join(lines) + "\n"


def _built(result: RunResult) -> str:
    """The task that the model is built for."""
    return "seq_cls" if result.task == "reward" else result.task


def _bits(base: Any, quantization: str) -> str | None:
    """What makes transformers quantise the base as it was; None where it was as its files have it.

    Args:
        base: of the record beside the adapter.
    """
    if quantization not in QUANTISED or not isinstance(base, dict):
        return None
    found: dict[str, Any] = base
    dtype = found.get("dtype")
    kept = f"llm_int8_skip_modules={found.get('kept_layers')!r}"
    if quantization == "int8":
        return f", dtype={dtype!r}, quantization_config=BitsAndBytesConfig(load_in_8bit=True, {kept}))"
    four = "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True"
    config = f"BitsAndBytesConfig({four}, bnb_4bit_compute_dtype={dtype!r}, {kept})"
    return f", dtype={dtype!r}, quantization_config={config})"


def _two_bases(call: str, bits: str, result: RunResult) -> list[str]:
    """Lines for the base that the adapter was trained over, and for the full one."""
    return [
        f"# The base that it was trained over: {QUANTISED[result.base_quantization]}.",
        f"base = {call}{bits}",
        "# The full base, which it was not trained over:",
        f"# base = {call})",
    ]


def _ask(folder: RunFolder, result: RunResult) -> str:
    """Python that asks a loaded model, through the template beside it where there is one."""
    rewards = result.task == "reward"
    if _has_template(folder):
        answer = ', {"role": "assistant", "content": "..."}' if rewards else ""
        prompted = "" if rewards else " add_generation_prompt=True,"
        asked = (
            f'turns = [{{"role": "user", "content": "..."}}{answer}]\nasked ='
            f' tokenizer.apply_chat_template(turns,{prompted} return_tensors="pt", return_dict=True)'
        )
    else:
        asked = 'asked = tokenizer("...", return_tensors="pt")'
    if _built(result) == "seq_cls":
        return f"{asked}\nprint(model(**asked).logits)"
    return f"{asked}\nprint(tokenizer.decode(model.generate(**asked, max_new_tokens=64)[0]))"


def _head_options(labels: Sequence[str]) -> str:
    """What makes room for the trained head, which comes with the adapter, and tells a
    decoder where a padded row ends.

    The base may have a head of another size, and often has no pad token.
    """
    if not labels:
        return ""
    classes = (
        f"num_labels={len(labels)}"
        if len(labels) > NAMED_CLASSES
        else f"id2label={dict(enumerate(labels))}"
    )
    return f", {classes}, ignore_mismatched_sizes=True, pad_token_id=tokenizer.pad_token_id"


def try_command(folder: RunFolder, result: RunResult) -> str | None:
    """The command that asks the winner, beside the bare base unless that has no head
    for classes; None when nothing won."""
    if result.trial(result.best) is None:
        return None
    where = folder.path.resolve()
    run = f"{where.parent.name}/{where.name}"
    if result.task == "reward":
        return _command("loraloom", "predict", "--adapter", run, options=[("--data", "FILE")])
    if result.task == "seq_cls":
        return _command("loraloom", "generate", "--adapter", run, options=[("...",)])
    return _command("loraloom", "generate", "--base", "--adapter", run, options=[("...",)])


def serve_command(folder: RunFolder, result: RunResult) -> str | None:
    """The command that serves the winner over the base with vLLM; None for a task or an
    adapter that vLLM does not take.

    The adapter is judged by its config in best/: some are saved with another rank than
    they were trained with.
    """
    saved = _saved_config(folder)
    if (
        result.trial(result.best) is None
        or result.task not in ("causal_lm", "preference")
        or any(saved.get(name) for name in ("use_dora", "modules_to_save"))
    ):
        return None
    patterns: Any = saved.get("rank_pattern") or {}
    ranks = [saved.get("r"), *(patterns.values() if isinstance(patterns, dict) else ())]
    known = [rank for rank in ranks if isinstance(rank, int)]
    most = vllm_rank(max(known)) if known else None
    if most is None or saved.get("bias", "none") != "none":
        return None
    where = folder.path.resolve()
    revision = folder.revision()
    options = [
        *([("--revision", revision)] if revision else []),
        ("--enable-lora",),
        ("--max-lora-rank", str(most)),
        ("--lora-modules", f"{where.name}={where.parent.name}/{where.name}/best"),
    ]
    return _command("vllm", "serve", result.model, options=options)


def _has_template(folder: RunFolder) -> bool:
    """Whether the tokenizer in best/ has a chat template; transformers writes it to a
    file of its own, and did not always."""
    return (folder.best / "chat_template.jinja").is_file() or "chat_template" in _saved(
        folder, "tokenizer_config.json"
    )


def _saved_config(folder: RunFolder) -> Mapping[str, Any]:
    """The adapter config in best/; empty where there is none that can be read."""
    return _saved(folder, "adapter_config.json")


def _saved(folder: RunFolder, name: str) -> Mapping[str, Any]:
    try:
        found: Any = json.loads((folder.best / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _flag(value: Any) -> str:
    """A value as `--set` reads it: JSON is YAML, except that a float needs its point."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return (  # pyright: ignore[reportUnknownVariableType]
            f"[{', '.join(_flag(item) for item in value)}]"
        )
    return str(value)


def _command(*words: str, options: Iterable[tuple[str, ...]]) -> str:
    """A command as a shell reads it; a long one has every option on a line of its own."""
    parts = [shlex.join(words), *(shlex.join(option) for option in options)]
    on_one_line = " ".join(parts)
    return on_one_line if len(on_one_line) <= 100 else " \\\n  ".join(parts)
