"""The class that reads a tokenizer, told from two files, held against what AutoTokenizer ends at."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from loraloom.lora.base import load_tokenizer
from loraloom.lora.tokenizer import FILES, READERS, reader_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from bases import save_llama

SENTENCES = ["one small step", "the other way round", "a step the other way"]
TEXT = "  another small step,\nround the Way é"


def declared(folder: Path, family: str, named: str | None, **more: str) -> str:
    """A folder with a model of this family whose tokenizer's config names this class."""
    save_llama(folder, SENTENCES)
    for name, values in (
        ("config.json", {"model_type": family}),
        ("tokenizer_config.json", {"tokenizer_class": named, **more}),
    ):
        path = folder / name
        path.write_text(
            json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8"
        )
    return str(folder)


@pytest.mark.parametrize(("family", "named"), READERS)
def test_the_reader_is_the_one_that_transformers_finds(tmp_path: Path, family: str, named: str) -> None:
    folder = declared(tmp_path, family, named)
    assert reader_of(folder) is not None
    found, expected = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert type(found) is type(expected)
    assert found.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert found.special_tokens_map == expected.special_tokens_map
    assert found(TEXT) == expected(TEXT)


@pytest.mark.parametrize(
    ("family", "named", "more"),
    [
        ("mistral", "LlamaTokenizer", {}),
        ("llama", None, {}),
        ("gemma", "TokenizersBackend", {}),
        ("llama", "TokenizersBackend", {"auto_map": "made.Tokenizer"}),
    ],
)
def test_what_the_files_do_not_say_plainly_is_left_to_transformers(
    tmp_path: Path, family: str, named: str | None, more: dict[str, str]
) -> None:
    assert reader_of(declared(tmp_path, family, named, **more)) is None


def test_a_byte_level_file_under_the_name_of_llama_s_class_is_left_to_transformers(
    tmp_path: Path,
) -> None:
    folder = declared(tmp_path, "llama", "LlamaTokenizer")
    path = tmp_path / "tokenizer.json"
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"decoder": decoder}), encoding="utf-8"
    )
    assert reader_of(folder) is None
    assert type(load_tokenizer(folder)) is type(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_left_to_transformers(tmp_path: Path, name: str) -> None:
    folder = declared(tmp_path, "llama", "TokenizersBackend")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert reader_of(folder) is None


@pytest.mark.parametrize("folder", ["nowhere", "~no-such-user/model", "n" * 5_000, "a\0b"])
def test_no_folder_is_left_to_transformers(folder: str) -> None:
    assert reader_of(folder) is None
