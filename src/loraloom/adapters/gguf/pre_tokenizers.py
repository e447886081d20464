"""How a byte-level tokenizer cuts text into words, and the name that llama.cpp has for that.

The name is chosen by the expressions that cut, which decide the tokens; neither the model's name nor a
hash of some text does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loraloom.errors import ModelError

_GPT_2 = "ByteLevel"
"""The expression that `ByteLevel` itself has."""
_DIGITS = "Digits"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CUTS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA_3 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_CUTS}"
_QWEN_2 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_CUTS}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SLASHED_CUTS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = rf"{_CASES[0]}|{_CASES[1]}|\p{{N}}{_SLASHED_CUTS}"
_GPT_4O = rf"{_CASES[0]}{_ENDINGS}?|{_CASES[1]}{_ENDINGS}?|\p{{N}}{{1,3}}{_SLASHED_CUTS}"
_NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_GPT_2,), False): "gpt-2",
    ((_DIGITS, _GPT_2), False): "smollm",
    ((_LLAMA_3,), False): "smaug-bpe",
    ((_LLAMA_3,), True): "llama-bpe",
    ((_QWEN_2,), False): "qwen2",
    ((_TEKKEN,), True): "tekken",
    ((_GPT_4O,), False): "gpt-4o",
}
"""By the expressions, and by whether a word that is a token as a whole is taken without merging."""


def name_of(tokenizer: Mapping[str, Any], where: str) -> str:
    """llama.cpp's name of a byte-level tokenizer's pre-tokenizer.

    Args:
        tokenizer: tokenizer.json.

    Raises:
        ModelError: llama.cpp has none that cuts so.
    """
    cuts = _cuts(tokenizer["pre_tokenizer"])
    ignores = bool(tokenizer["model"].get("ignore_merges"))
    found = _NAMES.get((cuts, ignores))
    if found is None:
        whole = ", words that are tokens taken whole" if ignores else ""
        raise ModelError(
            "llama.cpp has no pre-tokenizer, known here, that cuts text as this tokenizer does",
            where=where,
            got=f"{' then '.join(cuts) or 'no cuts at all'}{whole}",
            need=f"one that cuts as {', '.join(sorted(_NAMES.values()))} do",
            next="keep the merged safetensors: loraloom adapter merge",
        )
    return found


def is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether tokens are written in the 256 signs of GPT-2's bytes."""
    return any(part["type"] == "ByteLevel" for part in parts(tokenizer.get("pre_tokenizer")))


def parts(component: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer; none where there is none."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    inner = component.get("pretokenizers") or component.get("normalizers") or []
    return [part for one in inner for part in parts(one)]


def _cuts(component: Mapping[str, Any]) -> tuple[str, ...]:
    """Its expressions in their order; what is none of the known steps is named as it is."""
    found: list[str] = []
    for part in parts(component):
        kind = part["type"]
        if kind == "Split" and _isolates(part):
            found.append(str(part["pattern"].get("Regex") or part["pattern"]))
        elif kind == "Digits" and part.get("individual_digits"):
            found.append(_DIGITS)
        elif kind == "ByteLevel" and not part.get("add_prefix_space"):
            found += [_GPT_2] if part.get("use_regex", True) else []
        else:
            found.append(str(dict(part)))
    return tuple(found)


def _isolates(split: Mapping[str, Any]) -> bool:
    """Whether each match becomes a word. Expressions that leave nothing out may be written both ways."""
    asked = (split.get("behavior"), bool(split.get("invert")))
    return asked in (("Isolated", False), ("Removed", True))
