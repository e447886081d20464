"""What is in the files, how they are made of K-quants and by llama.cpp's script, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_families import LINEAR, LONGROPE, logits, save_family
from torch import Tensor

from loraloom.adapters import operations
from loraloom.adapters.gguf import runtime, writer
from loraloom.adapters.gguf.converter import KINDS, convert
from loraloom.adapters.gguf.runtime import available, open_gguf
from loraloom.errors import LoraloomError, ModelError, RequestError

needs_llama_cpp = pytest.mark.skipif(available() is not None, reason=f"no llama.cpp: {available()}")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model; nobody writes into its folder."""
    return save_family("Llama", tmp_path_factory.mktemp("base") / "llama")


def changed(folder: Path, to: Path, **config: Any) -> Path:
    """The same files with another config.json."""
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).symlink_to(path)
    (to / "config.json").unlink()
    whole = {**json.loads((folder / "config.json").read_text()), **config}
    (to / "config.json").write_text(json.dumps(whole))
    return to


# -- content -------------------------------------------------------------------------------------------


def blocks() -> Tensor:
    """Rows with every difficulty: zeros, ties between two integers, tiny and huge numbers."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 96, generator=random) * torch.logspace(-30, 3, 64)[:, None]
    rows[3] = 0
    rows[4] = torch.arange(96) % 32 * 0.5
    rows[4, ::32] = 127.0  # the scale is 1: halves lie between two integers
    rows[5, 40] = -1e-44  # a number that has no inverse in float32
    return rows


def test_q8_0_is_what_ggml_writes_bit_for_bit() -> None:
    gguf: Any = pytest.importorskip("gguf")
    rows = blocks()
    ours = writer.Q8_0.encode(rows)
    theirs = gguf.quants.quantize(rows.numpy(), gguf.GGMLQuantizationType.Q8_0)
    assert ours == theirs.tobytes()


@needs_llama_cpp
def test_q8_0_is_what_llama_cpp_makes_of_float32(llama: Path, tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf")
    convert(llama, tmp_path / "ours.gguf", "Q8_0")
    convert(llama, tmp_path / "whole.gguf", "F32")
    runtime.quantise(tmp_path / "whole.gguf", tmp_path / "theirs.gguf", "Q8_0")
    found = [gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors for name in ("ours", "theirs")]
    ours, theirs = ({one.name: one.data.tobytes() for one in tensors} for tensors in found)
    assert ours == theirs


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
def test_a_file_is_read_by_ggufs_own_reader(kind: str, llama: Path, tmp_path: Path) -> None:
    gguf: Any = pytest.importorskip("gguf")
    written = convert(llama, tmp_path / "a.gguf", kind)
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2
    assert written.bytes == (tmp_path / "a.gguf").stat().st_size
    types = {one.name: one.tensor_type.name for one in reader.tensors}
    assert types["blk.0.ffn_up.weight"] == kind and types["blk.0.attn_q.bias"] == "F32"
    embeddings = next(one for one in reader.tensors if one.name == "token_embd.weight")
    from safetensors.torch import load_file

    stored = load_file(llama / "model.safetensors")["model.embed_tokens.weight"]
    assert list(embeddings.shape) == list(stored.shape)[::-1]
    values = torch.tensor(gguf.quants.dequantize(embeddings.data, embeddings.tensor_type))
    assert torch.allclose(values.reshape(stored.shape), stored, atol=0.005)


def test_rows_that_are_no_blocks_are_kept_in_float16_and_said(llama: Path, tmp_path: Path) -> None:
    """96 numbers are three blocks of 32; a model of 80 has two and a half."""
    import transformers as tf
    from small_families import SIZES, save_tokenizer

    tokenizer = save_tokenizer("gpt2", tmp_path / "m")
    sizes = {**SIZES, "intermediate_size": 80, "vocab_size": len(tokenizer)}
    tf.LlamaForCausalLM(tf.LlamaConfig(**sizes)).save_pretrained(tmp_path / "m")
    written = convert(tmp_path / "m", tmp_path / "a.gguf", "Q8_0")
    assert any("2 tensors are F16" in note and "rows of 80" in note for note in written.notes)


def test_the_numbers_are_never_held_together(llama: Path, tmp_path: Path) -> None:
    """What the writer is given next is computed when the one before is on the disk."""
    held = {"now": 0, "most": 0}

    def pieces() -> Iterator[Tensor]:
        held["now"] += 1
        held["most"] = max(held["most"], held["now"])
        yield torch.ones(4, 32)
        held["now"] -= 1

    entries = [writer.Entry(f"t{number}", (4, 32), writer.F32, pieces) for number in range(9)]
    writer.write(tmp_path / "a.gguf", {"general.architecture": "none"}, entries)
    assert held == {"now": 0, "most": 1}


def test_a_large_tensor_is_converted_some_rows_at_a_time(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(llama, tmp_path / "a.gguf", "Q8_0")
    monkeypatch.setattr(operations, "PIECE", 200)  # three rows of 64
    convert(llama, tmp_path / "b.gguf", "Q8_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_neither_transformers_nor_peft_is_imported(llama: Path, tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from loraloom.adapters.gguf.converter import convert
        convert(Path(sys.argv[1]), Path(sys.argv[2]), "Q8_0")
        sys.exit(bool({"transformers", "peft", "gguf"} & set(sys.modules)))
    """
    words = [sys.executable, "-c", textwrap.dedent(script), str(llama), str(tmp_path / "a.gguf")]
    assert subprocess.run(words, check=False).returncode == 0


# -- K-quants ------------------------------------------------------------------------------------------


@needs_llama_cpp
@pytest.mark.parametrize("kind", ["Q4_K_M", "Q6_K"])
def test_k_quants_are_made_of_float32_and_only_they_are_left(
    kind: str, llama: Path, tmp_path: Path
) -> None:
    written = convert(llama, tmp_path / "a.gguf", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
    assert written.kind == kind and any("multiples of 256" in note for note in written.notes)
    row = torch.arange(3, 40)
    with open_gguf(tmp_path / "a.gguf") as model:
        got = model.logits(row.tolist())
    expected = logits(llama, [row])[0]
    assert 0 < float((got - expected).abs().max()) < float(expected.abs().max())


@needs_llama_cpp
def test_of_a_k_quant_that_fails_nothing_is_left(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(runtime.FILE_TYPES, "Q4_K_M", 9999)
    with pytest.raises(LoraloomError, match="could not write Q4_K_M"):
        convert(llama, tmp_path / "a.gguf", "Q4_K_M")
    assert not list(tmp_path.iterdir())


def test_without_llama_cpp_k_quants_name_the_extra(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)  # importing it fails
    with pytest.raises(RequestError, match=r"loraloom\[llama\]"):
        convert(llama, tmp_path / "a.gguf", "Q4_K_M")
    with pytest.raises(RequestError, match=r"loraloom\[llama\]"), open_gguf(tmp_path / "a.gguf"):
        pass
    assert not list(tmp_path.iterdir())


# -- what is refused -----------------------------------------------------------------------------------


@needs_llama_cpp
def test_a_file_that_llama_cpp_cannot_load_is_one_message(
    llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    convert(llama, tmp_path / "a.gguf", "F16")
    content = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "half.gguf").write_bytes(content[: len(content) // 2])
    cases = [("half.gguf", None), ("none.gguf", None), ("a.gguf", llama / "config.json")]
    for name, adapter in cases:
        with pytest.raises(ModelError, match="cannot load"), open_gguf(tmp_path / name, adapter):
            pass
    assert capfd.readouterr() == ("", "")  # llama.cpp's own log stays out of sight


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "another family": ({"architectures": ["BloomForCausalLM"]}, "LLAMA_CPP"),
    "a classifier": ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForCausalLM"),
    "an activation": ({"hidden_act": "relu"}, "hidden_act"),
    "dynamic rope": ({"rope_parameters": {**LINEAR, "rope_type": "dynamic"}}, "rope_type"),
    "longrope": ({"rope_parameters": LONGROPE}, "rope_type"),
    "more layers": ({"num_hidden_layers": 3}, "tensors of a LlamaForCausalLM are missing"),
    "fewer layers": ({"num_hidden_layers": 1}, "no place for `model.layers.1."),
    "other heads": ({"num_attention_heads": 24}, "no 24 heads"),
    "no size": ({"hidden_size": None}, "config.json lacks something"),
    "a word for a size": ({"intermediate_size": "many"}, "config.json lacks something"),
    "quantised": ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_model_that_would_answer_otherwise_is_refused(case: str, llama: Path, tmp_path: Path) -> None:
    config, said = REFUSALS[case]
    folder = changed(llama, tmp_path / "m", **config)
    with pytest.raises(LoraloomError) as refusal:
        convert(folder, tmp_path / "a.gguf", "F16")
    assert said in str(refusal.value) and refusal.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_window_that_llama_cpp_does_not_have_is_said(llama: Path, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "m", architectures=["MistralForCausalLM"], sliding_window=64)
    assert "the last 64" in " ".join(convert(folder, tmp_path / "a.gguf", "F16").notes)


def test_a_format_that_does_not_exist_lists_those_that_do(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Q4_K_M") as refusal:
        convert(llama, tmp_path / "a.gguf", "Q4")
    assert all(kind in str(refusal.value) for kind in KINDS)


def test_numbers_that_are_none_are_refused(llama: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = changed(llama, tmp_path / "m")
    tensors = load_file(llama / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.norm\.weight"):
        convert(folder, tmp_path / "a.gguf", "F16")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_file_that_is_there_is_kept(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("mine")
    with pytest.raises(RequestError, match="is there already"):
        convert(llama, tmp_path / "a.gguf", "F16")
    assert (tmp_path / "a.gguf").read_text() == "mine"


def test_a_full_disk_is_seen_before_and_while_it_is_written(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.adapters.folder.free_bytes", lambda path: 1000)
    with pytest.raises(RequestError, match="no room"):
        convert(llama, tmp_path / "a.gguf", "F16")
    monkeypatch.undo()

    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RequestError, match="disk is full"):
        convert(llama, tmp_path / "a.gguf", "F16")
    assert not list(tmp_path.iterdir())


def test_killed_midway_nothing_looks_finished(llama: Path, tmp_path: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from loraloom.adapters.gguf import writer
        from loraloom.adapters.gguf.converter import convert
        kept, calls = writer.Encoding, []
        def killed(values):
            calls.append(values)
            if len(calls) == 5:
                os.kill(os.getpid(), 9)
            return values.numpy().tobytes()
        object.__setattr__(writer.F32, "encode", killed)
        convert(Path(sys.argv[1]), Path(sys.argv[2]), "F32")
    """
    words = [sys.executable, "-c", textwrap.dedent(script), str(llama), str(tmp_path / "a.gguf")]
    assert subprocess.run(words, check=False).returncode == -9
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    convert(llama, tmp_path / "a.gguf", "F32")  # and what is left is in nobody's way
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


# -- llama.cpp's own script ----------------------------------------------------------------------------

SCRIPT = """
import json, sys
class TextModel:
    def get_vocab_base_pre(self, tokenizer):
        raise NotImplementedError("BPE pre-tokenizer was not recognized")
def main():
    words = sys.argv[1:]
    config = json.load(open(words[0] + "/config.json"))
    found = {"pre": TextModel().get_vocab_base_pre(None), "type": words[4], "dtype": config.get("dtype")}
    json.dump(found, open(words[2], "w"))
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a script in the form of llama.cpp's, which writes down what it was asked."""
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(SCRIPT)
    monkeypatch.setenv("LLAMA_CPP", str(folder))
    return folder


def test_another_family_goes_through_llama_cpps_script_with_our_pre_tokenizer(
    checkout: Path, llama: Path, tmp_path: Path
) -> None:
    folder = save_family("Llama, linear", tmp_path / "byte-level")
    folder = changed(folder, tmp_path / "m", architectures=["OlmoForCausalLM"])
    written = convert(folder, tmp_path / "a.gguf", "Q8_0")
    asked = json.loads((tmp_path / "a.gguf").read_text())
    assert asked == {"pre": "gpt-2", "type": "q8_0", "dtype": "float32"}
    assert any("not proved" in note for note in written.notes)
    convert(llama, tmp_path / "own.gguf", "F16")  # a proved family does not go there
    assert (tmp_path / "own.gguf").read_bytes()[:4] == b"GGUF"


def test_a_script_that_fails_says_why_and_leaves_nothing(
    checkout: Path, llama: Path, tmp_path: Path
) -> None:
    folder = changed(llama, tmp_path / "m", architectures=["OlmoForCausalLM"])
    with pytest.raises(LoraloomError, match="was not recognized"):  # SentencePiece: no name of ours
        convert(folder, tmp_path / "a.gguf", "F16")
    assert {path.name for path in tmp_path.iterdir()} == {"llama.cpp", "m"}
    (checkout / "convert_hf_to_gguf.py").unlink()
    with pytest.raises(RequestError, match="LLAMA_CPP names a folder without"):
        convert(folder, tmp_path / "a.gguf", "F16")
