"""The tokenizer of a model in llama.cpp's metadata: tokens with their types, merges, rules, template.

llama.cpp knows two kinds that matter here. "gpt2" is byte-level BPE with its merges and one of its own
pre-tokenizers. "llama" is SentencePiece: text with spaces as ▁, merged by the score of the token that
comes out; it has no merges, so a tokenizer is only written so where its merges say nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloom.adapters.gguf.pre_tokenizers import is_byte_level, name_of, parts
from loraloom.adapters.gguf.writer import Unsigned, Value
from loraloom.errors import ModelError

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
"""`enum llama_token_type`."""
_SPACE = "▁"
_A_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_GENERATION = re.compile(r"{%(-?)\s*(end)?generation\s*(-?)%}")
_KEEPS_SPACES = ("<unk>", "<s>", "<|endoftext|>")
"""Tokens after which llama.cpp keeps spaces in models that it takes for Phi-3."""


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens.

    Attributes:
        metadata: under llama.cpp's keys.
        notes: what llama.cpp does otherwise.
        drops_spaces: whether spaces after special tokens are dropped, which llama.cpp does for models
            with "phi-3" in their name.
    """

    metadata: Mapping[str, Value]
    notes: tuple[str, ...]
    drops_spaces: bool


def read_vocabulary(
    files: Mapping[str, Path], config: Mapping[str, Any], rows: int, ends: Sequence[str] = ()
) -> Vocabulary:
    """The vocabulary of a model.

    Args:
        files: tokenizer.json and its companions, by name.
        config: config.json, which names the special tokens that the tokenizer does not.
        rows: of the embeddings; each is a token.
        ends: texts of further tokens that end an answer.

    Raises:
        ModelError: there is no tokenizer, or one that llama.cpp does not compute.
    """
    return _Reader(files, config, rows).read(ends)


class _Reader:
    """One tokenizer, read once."""

    def __init__(self, files: Mapping[str, Path], config: Mapping[str, Any], rows: int) -> None:
        self._config, self._rows = config, rows
        if "tokenizer.json" not in files:
            raise ModelError(
                "there is no tokenizer.json, from which the vocabulary is taken",
                got=", ".join(name for name in files if "token" in name) or "no tokenizer at all",
                next="save the tokenizer again with transformers: tokenizer.save_pretrained(FOLDER)",
            )
        self._where = str(files["tokenizer.json"])
        self._json = _read(files["tokenizer.json"])
        self._settings = (
            _read(files["tokenizer_config.json"]) if "tokenizer_config.json" in files else {}
        )
        self._generation = (
            _read(files["generation_config.json"]) if "generation_config.json" in files else {}
        )
        self._template = self._chat_template(files.get("chat_template.jinja"))
        self._notes: list[str] = []
        model = self._json["model"]
        if model.get("type") != "BPE":
            raise self._unknown(f"a {model.get('type')} model", "a BPE model")
        self._ids: dict[str, int] = dict(model["vocab"])
        self._added: list[dict[str, Any]] = self._json.get("added_tokens") or []
        self._ids |= {one["content"]: int(one["id"]) for one in self._added}

    def read(self, ends: Sequence[str]) -> Vocabulary:
        byte_level = is_byte_level(self._json)
        kind = self._byte_level() if byte_level else self._sentence_piece()
        tokens, types = self._tokens(byte_level)
        found: dict[str, Value] = {
            **kind,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            **self._special(ends),
        }
        if not byte_level:
            found["tokenizer.ggml.scores"] = self._scores(tokens)
        if self._template is not None:
            found["tokenizer.chat_template"] = self._template
        drops_spaces = self._drops_spaces(tokens)
        return Vocabulary(found, tuple(self._notes), drops_spaces)

    # -- kinds -----------------------------------------------------------------------------------------

    def _byte_level(self) -> dict[str, Value]:
        steps = [one["type"] for one in parts(self._json.get("normalizer"))]
        if steps not in ([], ["NFC"]):
            raise self._unknown(f"the normalizer {' then '.join(steps)}", "none, or NFC")
        if steps:
            self._notes.append("the tokenizer composes letters and accents (NFC), llama.cpp does not")
        merges = self._json["model"].get("merges") or []
        return {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": name_of(self._json, self._where),
            "tokenizer.ggml.merges": [one if isinstance(one, str) else " ".join(one) for one in merges],
        }

    def _sentence_piece(self) -> dict[str, Value]:
        missing = [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in self._ids]
        if missing or not self._json["model"].get("byte_fallback"):
            raise self._unknown(
                f"no token for {len(missing)} of 256 bytes", "byte fallback, or byte-level BPE"
            )
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.add_space_prefix": self._space_prefix(),
        }

    def _space_prefix(self) -> bool:
        """Whether a space is put before the text. Raises ModelError for another normalizer."""
        normal = [dict(one) for one in parts(self._json.get("normalizer"))]
        cuts = [dict(one) for one in parts(self._json.get("pre_tokenizer"))]
        replaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        if normal == [{"type": "Prepend", "prepend": _SPACE}, replaces] and not cuts:
            if any(one.get("normalized") and not one.get("special") for one in self._added):
                self._notes.append(
                    "tokens added with `normalized` are found by llama.cpp within words too"
                )
            return True
        if normal == [replaces] and [one["type"] for one in cuts] in ([], ["Split"]):
            return False  # the spaces that the Split would cut at are gone by then
        if not normal and [one["type"] for one in cuts] == ["Metaspace"]:
            return self._meta_space(cuts[0])
        names = [one["type"] for one in (*normal, *cuts)]
        raise self._unknown(" then ".join(names) or "no rule for spaces", "one of SentencePiece's rules")

    def _meta_space(self, rule: Mapping[str, Any]) -> bool:
        scheme = rule.get("prepend_scheme")
        if rule.get("replacement") != _SPACE or rule.get("split", True):
            raise self._unknown(f"Metaspace {dict(rule)}", f"spaces as {_SPACE}, no split")
        if scheme != "never":
            after = " and to text behind a special token" if scheme == "first" else ""
            self._notes.append(
                f"llama.cpp puts a space before the text, also where it begins with one{after}; this"
                " tokenizer does not"
            )
        return scheme != "never"

    def _scores(self, tokens: Sequence[str]) -> list[float]:
        """Minus the place of a token's first merge: the earlier, the higher.

        Raises:
            ModelError: merging by score would merge what the merges do not.
        """
        own = self._json["model"]["vocab"]
        added = {one["content"] for one in self._added}
        places: dict[str, int] = {}
        pairs: set[tuple[str, str]] = set()
        last = ""
        for place, one in enumerate(self._json["model"].get("merges") or []):
            left, right = one.split(" ") if isinstance(one, str) else one
            whole = left + right
            if whole in places and whole != last:
                raise self._unmergeable(whole)
            places.setdefault(whole, place)
            pairs.add((left, right))
            last = whole
        for token in own:
            if token in added or _A_BYTE.fullmatch(token):
                continue
            for cut in range(1, len(token)):
                pair = token[:cut], token[cut:]
                if pair not in pairs and pair[0] in own and pair[1] in own:
                    raise self._unmergeable(token)
        return [-float(places.get(token, 0)) for token in tokens]

    def _unmergeable(self, token: str) -> ModelError:
        return self._unknown(
            f"merges that make `{token}` of some of its halves only",
            "the merges of SentencePiece: every pair of tokens that makes a token, best token first",
        )

    # -- tokens ----------------------------------------------------------------------------------------

    def _tokens(self, byte_level: bool) -> tuple[list[str], list[int]]:
        """Text and type of each row of the embeddings."""
        last = max(self._ids.values(), default=-1)
        if last >= self._rows:
            self._notes.append(
                f"{sum(number >= self._rows for number in self._ids.values())} tokens have no row in the"
                " embeddings and are left out"
            )
        tokens = [f"[PAD{number}]" for number in range(self._rows)]
        types = [_UNUSED] * self._rows
        for text, number in self._ids.items():
            if number < self._rows:
                is_byte = not byte_level and _A_BYTE.fullmatch(text)
                tokens[number], types[number] = text, _BYTE if is_byte else _NORMAL
        unknown = self._json["model"].get("unk_token")
        for one in self._added:
            if (number := int(one["id"])) < self._rows:
                types[number] = _CONTROL if one.get("special") else _USER_DEFINED
                if not one.get("special"):  # such a token is looked for in the text as it is
                    tokens[number] = one["content"].replace(_SPACE, " ")
        if not byte_level and unknown in self._ids and self._ids[unknown] < self._rows:
            types[self._ids[unknown]] = _UNKNOWN
        return tokens, types

    def _special(self, ends: Sequence[str]) -> dict[str, Value]:
        """Numbers of special tokens, and which of them are put around a text."""
        bos, eos = self._number("bos_token"), self._number("eos_token")
        endings = _numbers(self._generation.get("eos_token_id"), self._config.get("eos_token_id"))
        eos = eos if eos is not None else next(iter(endings), None)
        if eos is None:
            raise self._unknown("no token that ends a text", "an eos_token")
        first, last = self._around(bos, eos)
        further = [self._ids[text] for text in ends if text in self._ids]
        found: dict[str, Value] = {
            # a file without one gets some token for it: 11 where the kind is "gpt2"
            "tokenizer.ggml.bos_token_id": Unsigned(eos if bos is None else bos),
            "tokenizer.ggml.eos_token_id": Unsigned(eos),
            "tokenizer.ggml.add_bos_token": first,
            "tokenizer.ggml.add_eos_token": last,
        }
        for key, name in (("unknown", "unk_token"), ("padding", "pad_token")):
            if (number := self._number(name)) is not None:
                found[f"tokenizer.ggml.{key}_token_id"] = Unsigned(number)
        others = [one for one in dict.fromkeys([*endings, *further]) if one not in (eos, bos)]
        for key, number in zip(("eot", "eom"), others, strict=False):
            found[f"tokenizer.ggml.{key}_token_id"] = Unsigned(number)
        if len(others) > 2:
            self._notes.append(f"tokens {others[2:]} end an answer, and the file names three at most")
        return found

    def _around(self, bos: int | None, eos: int) -> tuple[bool, bool]:
        """Whether BOS is put before a text and EOS after it. Raises ModelError for other tokens there.

        transformers asks the post-processor, not `add_bos_token` in tokenizer_config.json.
        """
        before, after = _around(self._json.get("post_processor"))
        for texts, meant in ((before, bos), (after, eos)):
            if texts and [self._ids.get(text) for text in texts] != [meant]:
                raise self._unknown(
                    f"a text between {' '.join([*before, '...', *after])}",
                    "BOS before and EOS after it at most",
                )
        return bool(before), bool(after)

    def _number(self, name: str) -> int | None:
        """The token that is called so by tokenizer_config.json, else by config.json."""
        given = self._settings.get(name)
        text = given.get("content") if isinstance(given, dict) else given
        if text is not None:
            return self._ids.get(text)
        known = _numbers(self._config.get(f"{name}_id"))
        return known[0] if known and known[0] < self._rows else None

    def _drops_spaces(self, tokens: Sequence[str]) -> bool:
        """Whether special tokens swallow the spaces behind them as they do in Phi-3."""
        swallow = {one["content"] for one in self._added if one.get("rstrip")}
        if not swallow and not any(one.get("lstrip") for one in self._added):
            return False
        every = {one["content"] for one in self._added}
        as_phi_3 = every - set(_KEEPS_SPACES) == swallow and {"</s>", *_KEEPS_SPACES} <= set(tokens)
        if not as_phi_3 or any(one.get("lstrip") for one in self._added):
            self._notes.append(
                "spaces beside special tokens are dropped by this tokenizer, not by llama.cpp"
            )
        return as_phi_3

    def _chat_template(self, path: Path | None) -> str | None:
        """The template, with tags that only training reads made into ones that every engine knows."""
        found = path.read_text(encoding="utf-8") if path else self._settings.get("chat_template")
        if isinstance(found, list):
            found = next((one["template"] for one in found if one.get("name") == "default"), None)
        if found is None:
            return None
        return _GENERATION.sub(
            lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", found
        )

    def _unknown(self, got: str, need: str) -> ModelError:
        return ModelError(
            "llama.cpp does not compute this tokenizer",
            where=self._where,
            got=got,
            need=need,
            next="keep the merged safetensors: loraloom adapter merge",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "a file of the tokenizer cannot be read", where=str(path), got=str(error)
        ) from error
    return found  # pyright: ignore[reportUnknownVariableType]


def _numbers(*given: Any) -> list[int]:
    """Each number once, of numbers, lists of them and Nones."""
    flat = [one for part in given for one in (part if isinstance(part, list) else [part])]
    return list(dict.fromkeys(int(one) for one in flat if one is not None))


def _around(processor: Mapping[str, Any] | None) -> tuple[list[str], list[str]]:
    """Special tokens before and after one text."""
    if processor is None:
        return [], []
    if processor["type"] == "Sequence":
        found = [_around(one) for one in processor["processors"]]
        return [text for one in found for text in one[0]], [text for one in found for text in one[1]]
    steps: list[Mapping[str, Any]] = processor.get("single") or []
    before: list[str] = []
    after: list[str] = []
    side = before
    for step in steps:
        if "SpecialToken" in step:
            side.append(str(step["SpecialToken"]["id"]))
        else:
            side = after
    return before, after
