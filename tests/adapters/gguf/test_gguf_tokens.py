"""Texts as llama.cpp and as transformers cut them into tokens, and what ends an answer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_families import BYTE_LEVEL, SENTENCE_PIECE, SIZES, corpus, save_tokenizer

from loraloom.adapters.gguf import vocabulary
from loraloom.adapters.gguf.converter import convert
from loraloom.adapters.gguf.runtime import Runtime, available, open_gguf
from loraloom.errors import ModelError

pytestmark = pytest.mark.skipif(available() is not None, reason=f"no llama.cpp: {available()}")
SPACES = ["", " x", "  a b", "a  b   c    d", "\t\n\nx", " \n \n  x", "\r\n\r\n x", "x\u00a0y\u3000z"]
MARKS = [
    "<s>hi",
    "x<|user|>  hi<|end|>\n",
    "</s> x",
    "<unk>",
    "zq  qz",
    "a<table> b",
    "<|endoftext|>  x",
]
SIGNS = [
    "日本 🙂",
    "ŽluťoučkÝ",
    "ß",
    "é",
    "𝔘𝔫𝔦",
    "'S don't CAN'T we'LL",
    "12345 678",
    "a_b__c foo/bar\n/",
]
ALPHABET = "abcXYZ 0189.,!?'\"\n\t\réß日🙂\u00a0-_/<|>"


@contextmanager
def both(kind: str, folder: Path) -> Generator[tuple[Runtime, Any]]:
    """A file with this tokenizer in llama.cpp, and the tokenizer in transformers."""
    save_model(kind, folder)
    convert(folder, folder / "a.gguf", "F16")
    with open_gguf(folder / "a.gguf") as runtime:
        yield runtime, tf.AutoTokenizer.from_pretrained(folder)


def save_model(kind: str, folder: Path) -> Path:
    """A model about which only the tokenizer matters."""
    tokenizer = save_tokenizer(kind, folder)
    config = tf.LlamaConfig(**{**SIZES, "num_hidden_layers": 1}, vocab_size=len(tokenizer))
    tf.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def lines() -> list[str]:
    """Lines of a manual, lines of random signs, and lines that are known to be hard."""
    chance = random.Random(0)
    made = ["".join(chance.choices(ALPHABET, k=chance.randint(1, 40))) for _ in range(500)]
    return [*SPACES, *MARKS, *SIGNS, *corpus().splitlines()[:1000], *made]


@pytest.mark.parametrize("kind", [*BYTE_LEVEL, *SENTENCE_PIECE])
def test_llama_cpp_cuts_text_as_transformers_does(kind: str, tmp_path: Path) -> None:
    slow = kind in ("tekken", "gpt4o")  # expressions that llama.cpp leaves to std::regex
    with both(kind, tmp_path) as (runtime, tokenizer):
        texts = lines()[:: 10 if slow else 1]
        assert [runtime.tokens(text) for text in texts] == tokenizer(texts).input_ids
        bare = tokenizer(texts[:300], add_special_tokens=False).input_ids
        assert [runtime.tokens(text, add_special=False) for text in texts[:300]] == bare


@pytest.mark.parametrize("kind", ["llama3", "spaces"])
def test_any_text_is_cut_the_same(kind: str, tmp_path: Path) -> None:
    with both(kind, tmp_path) as (runtime, tokenizer):
        # what no version of Unicode has named yet, the two may name differently
        @settings(max_examples=300, deadline=None)
        @given(st.text(st.characters(exclude_categories=("Cs", "Co", "Cn"), exclude_characters="\0▁")))
        def same(text: str) -> None:
            assert runtime.tokens(text) == tokenizer(text).input_ids

        same()


def test_what_llama_cpp_cannot_do_about_spaces_is_said(tmp_path: Path) -> None:
    """Metaspace puts no space before one that is there, and none behind special tokens."""
    with both("metaspace", tmp_path) as (runtime, tokenizer):
        texts = [text for text in corpus().splitlines()[:300] if not text.startswith(" ")]
        assert [runtime.tokens(text) for text in texts] == tokenizer(texts).input_ids
        assert runtime.tokens(" x") != tokenizer(" x").input_ids
    (note,) = convert(tmp_path, tmp_path / "b.gguf", "F16").notes
    assert "begins with one" in note and "special token" in note


def test_a_name_with_phi_3_in_it_drops_no_spaces(tmp_path: Path) -> None:
    """By which llama.cpp would drop those behind special tokens, whatever the tokenizer does."""
    with both("spaces", tmp_path / "my-Phi-3-llama") as (runtime, tokenizer):
        text = "x<|user|>  hi<|end|> y"
        assert runtime.tokens(text) == tokenizer(text).input_ids


def test_every_line_of_a_data_set_is_cut_the_same(shared: Path, tmp_path: Path) -> None:
    rows = (shared / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:1000]
    texts = [text for row in rows for text in json.loads(row).values()]
    for model in ("tinychat-5M", "stories260K"):
        folder = shared / "models" / model
        convert(folder, tmp_path / model, "F16")
        tokenizer: Any = tf.AutoTokenizer.from_pretrained(folder)
        with open_gguf(tmp_path / model) as runtime:
            assert [runtime.tokens(text) for text in texts] == tokenizer(texts).input_ids


@pytest.mark.parametrize(
    ("kind", "wrong"), [("llama3", "gpt-2"), ("llama3", "qwen2"), ("gpt2", "qwen2")]
)
def test_a_wrong_pre_tokenizer_is_seen(
    kind: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "name_of", lambda tokenizer, where: wrong)
    with both(kind, tmp_path) as (runtime, tokenizer):
        assert [runtime.tokens(text) for text in lines()] != tokenizer(lines()).input_ids


def test_template_and_turn_ends_go_along(tmp_path: Path) -> None:
    """Rendered, the stored template is the tokenizer's, in tokens too; BOS is there once."""
    from jinja2 import Environment

    save_model("spaces", tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    convert(tmp_path, tmp_path / "a.gguf", "F16", ends=["<|end|>"])
    tokenizer: Any = tf.AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "1 + 1"}]
    with open_gguf(tmp_path / "a.gguf") as runtime:
        assert runtime.chat_template and "generation" not in runtime.chat_template
        text = Environment().from_string(runtime.chat_template).render(messages=talk, bos_token="<s>")
        assert text == tokenizer.apply_chat_template(talk, tokenize=False)
        ids = runtime.tokens(text, add_special=False)
        assert ids == tokenizer.apply_chat_template(talk)["input_ids"] and ids.count(1) == 1
        ends = [number for number in range(len(tokenizer)) if runtime.ends_generation(number)]
        assert set(ends) == {2, 3, *tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])}


def test_a_setting_that_transformers_does_not_ask_is_not_asked_here(tmp_path: Path) -> None:
    save_model("gpt2", tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_bos_token": True}))
    convert(tmp_path, tmp_path / "a.gguf", "F16")
    tokenizer: Any = tf.AutoTokenizer.from_pretrained(tmp_path)
    with open_gguf(tmp_path / "a.gguf") as runtime:
        assert runtime.tokens("a b") == tokenizer("a b").input_ids


def _change(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        found = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        change(found)
        (folder / "tokenizer.json").write_text(json.dumps(found), encoding="utf-8")

    return changed


def _broken(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


DIGITS = {"type": "Split", "pattern": {"Regex": r"\d"}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
CUTS = {"type": "Sequence", "pretokenizers": [DIGITS, BYTES]}
AROUND = {
    "type": "TemplateProcessing",
    "special_tokens": {},
    "pair": [],
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}],
}
REFUSALS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a cut that is not known": ("gpt2", _change(lambda t: t.update(pre_tokenizer=CUTS)), r"\d"),
    "merges ignored": ("gpt2", _change(lambda t: t["model"].update(ignore_merges=True)), "taken whole"),
    "lower case": ("llama3", _change(lambda t: t.update(normalizer={"type": "Lowercase"})), "Lowercase"),
    "a prefix": ("gpt2", _change(lambda t: t["pre_tokenizer"].update(add_prefix_space=True)), "prefix"),
    "BOS behind": ("gpt2", _change(lambda t: t.update(post_processor=AROUND)), "... <s>"),
    "no bytes": ("spaces", _change(lambda t: t["model"].update(byte_fallback=False)), "of 256 bytes"),
    "half the merges": (
        "spaces",
        _change(lambda t: t["model"]["merges"].__delitem__(slice(2))),
        "halves",
    ),
    "no rule": ("spaces", _change(lambda t: t.update(normalizer=None)), "no rule for spaces"),
    "no tokenizer": ("gpt2", lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
    "broken": ("gpt2", _broken, "cannot be read"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_tokenizer_that_llama_cpp_does_not_compute_is_refused(case: str, tmp_path: Path) -> None:
    kind, change, said = REFUSALS[case]
    change(save_model(kind, tmp_path))
    with pytest.raises(ModelError) as refusal:
        convert(tmp_path, tmp_path / "a.gguf", "F16")
    assert said in str(refusal.value)
    assert not [path.name for path in tmp_path.iterdir() if "gguf" in path.name]


def test_spare_rows_are_tokens_that_no_text_has(tmp_path: Path) -> None:
    tokenizer = save_tokenizer("gpt2", tmp_path)
    config = tf.LlamaConfig(**{**SIZES, "num_hidden_layers": 1}, vocab_size=len(tokenizer) + 7)
    tf.LlamaForCausalLM(config).save_pretrained(tmp_path)
    convert(tmp_path, tmp_path / "a.gguf", "F16")
    with open_gguf(tmp_path / "a.gguf") as runtime:
        assert runtime.vocabulary_size == len(tokenizer) + 7
        assert max(runtime.tokens(f"[PAD{len(tokenizer)}] x")) < len(tokenizer)
        assert torch.isfinite(runtime.logits([1, len(tokenizer) + 6])).all()
