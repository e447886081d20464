"""A model, or a base with an adapter in it, as a GGUF file of any format.

Three ways lead there: families that are proved here are written here, K-quants are made of such a file
by llama.cpp's library, other families go through llama.cpp's own converter where its folder is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loraloom.adapters.gguf.families import FAMILIES
from loraloom.adapters.gguf.llama_cpp_script import script_folder, write_by_script
from loraloom.adapters.gguf.model_file import ENCODINGS, source_of, write_model
from loraloom.adapters.gguf.quantise import quantised
from loraloom.adapters.gguf.runtime import FILE_TYPES
from loraloom.adapters.gguf.whole_files import Written
from loraloom.adapters.operations import Plan
from loraloom.errors import RequestError

KINDS = tuple(dict.fromkeys([*ENCODINGS, *FILE_TYPES]))
"""Every format that can be asked for; those that are not in ENCODINGS need the extra `llama`."""
K_BLOCK = 256
"""Numbers of a block of a K-quant."""


def convert(source: Path | Plan, out: Path, kind: str, *, ends: Sequence[str] = ()) -> Written:
    """Write a GGUF file; nothing is left of it where that fails.

    Args:
        source: a model folder, or the plan of a merge, which goes straight from float32 to the format.
        kind: one of `KINDS`.
        ends: texts of tokens that end an answer, beside those that tokenizer and config name.

    Raises:
        RequestError: the format or the family is none of those known here, the extra for it is missing,
            or the disk refuses.
        ModelError: the model has a part that llama.cpp does not compute.
        RunError: llama.cpp fails.
    """
    if kind not in KINDS:
        raise RequestError(f"there is no GGUF format {kind}", need=f"one of {', '.join(KINDS)}")
    if kind not in ENCODINGS:
        written = quantised(lambda whole: convert(source, whole, "F32", ends=ends), out, kind)
        return replace(written, notes=(*written.notes, *fallbacks(source, kind)))
    name = str((source_of(source).config.get("architectures") or [""])[0])
    llama_cpp = script_folder()
    if name not in FAMILIES and llama_cpp is not None:
        return write_by_script(llama_cpp, source, out, kind)
    return write_model(source, out, kind, ends)


def fallbacks(source: Path | Plan, kind: str) -> list[str]:
    """What becomes of rows that are no whole blocks."""
    config = source_of(source).config
    sizes = {int(config.get(key) or 0) for key in ("hidden_size", "intermediate_size")}
    odd = sorted(size for size in sizes if size % K_BLOCK)
    if not odd:
        return []
    return [
        f"llama.cpp keeps rows that are no multiples of {K_BLOCK} in larger formats than {kind}: here"
        f" those of {' and '.join(map(str, odd))}"
    ]
