"""Which of transformers' classes reads the tokenizer of a folder, where the files say so plainly.

AutoTokenizer makes the model's config first and for that imports much of torch and of transformers, for
which someone who only asks for a plan waits for nothing. It ends at these classes; tests hold both
against each other. What is not listed here is left to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

READERS = {
    ("llama", "PreTrainedTokenizerFast"): "TokenizersBackend",
    ("llama", "TokenizersBackend"): "TokenizersBackend",
    ("llama", "LlamaTokenizer"): "LlamaTokenizer",
    ("llama", "LlamaTokenizerFast"): "LlamaTokenizer",
    ("qwen2", "Qwen2Tokenizer"): "Qwen2Tokenizer",
    ("qwen2", "Qwen2TokenizerFast"): "Qwen2Tokenizer",
    ("qwen3", "Qwen2Tokenizer"): "Qwen2Tokenizer",
    ("qwen3", "Qwen2TokenizerFast"): "Qwen2Tokenizer",
}
"""By the model's family and the class that the tokenizer's config names."""
FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")
OTHER_CLASS = b'"ByteLevel"'
"""A tokenizer.json with this word is read by another class than the `LlamaTokenizer`
that its config names."""


def reader_of(folder: str) -> str | None:
    """The name of the class in transformers; None where only AutoTokenizer can tell."""
    try:
        root = Path(folder).expanduser()
        if not all((root / name).is_file() for name in FILES):  # a pipe would never end
            return None
        family, tokenizer = (
            _object(root / "config.json").get("model_type"),
            _object(root / "tokenizer_config.json"),
        )
        stored = (root / "tokenizer.json").read_bytes()
    except (OSError, RuntimeError, ValueError):  # no folder, "~someone" who is no user here, no JSON
        return None
    named = tokenizer.get("tokenizer_class")
    if not isinstance(family, str) or not isinstance(named, str) or "auto_map" in tokenizer:
        return None
    reader = READERS.get((family, named))
    return None if reader == "LlamaTokenizer" and OTHER_CLASS in stored else reader


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}
