"""What cannot be exported is refused in one message, and leaves nothing that looks finished."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from small_bases import SIZES, called, save_adapter, save_base

from loraloom.facts.device import device_facts

Bases = Callable[[str], Path]


@dataclass(frozen=True)
class Place:
    """What a case may spoil before it is exported."""

    adapter: Path
    base: Path
    out: Path


def cut_shard(place: Place) -> None:
    content = (place.base / "model.safetensors").read_bytes()
    (place.base / "model.safetensors").write_bytes(content[: len(content) // 2])


def cut_adapter(place: Place) -> None:
    content = (place.adapter / "adapter_model.safetensors").read_bytes()
    (place.adapter / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])


def narrower_base(place: Place) -> None:
    config = tf.LlamaConfig(**{**SIZES, "hidden_size": 16, "head_dim": 4})
    tf.LlamaForCausalLM(config).save_pretrained(place.base)


def another_family(place: Place) -> None:
    save_base("gpt2", place.base)


def quantised(place: Place) -> None:
    config = json.loads((place.base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (place.base / "config.json").write_text(json.dumps(config))


def unequal_halves(place: Place) -> None:
    config = json.loads((place.adapter / "adapter_config.json").read_text())
    config["rank_pattern"] = {"q_proj": 3}
    (place.adapter / "adapter_config.json").write_text(json.dumps(config))


def taken(place: Place) -> None:
    place.out.mkdir()
    (place.out / "mine").touch()


CASES: dict[str, tuple[tuple[str, ...], Callable[[Place], None], str]] = {
    "a shard that was cut": (("merged", "vllm"), cut_shard, "is cut off"),
    "an adapter that was cut": (("vllm",), cut_adapter, "no safetensors file, or a part of one"),
    "a base of another size": (("merged", "vllm", "mlx"), narrower_base, "the base has one of"),
    "a base of another family": (("sglang", "gguf:F16"), another_family, "the base has no layer"),
    "a quantised base": (("merged",), quantised, "quantised by gptq"),
    "halves of other ranks": (("mlx",), unequal_halves, "do not fit"),
    "a place that is taken": (("vllm",), taken, "is there already"),
    "a tokenizer that llama.cpp does not have": (("gguf:F16", "ollama"), lambda _: None, "tokenizer"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_before_anything_is_written(case: str, tmp_path: Path) -> None:
    targets, spoil, said = CASES[case]
    place = Place(tmp_path / "a", save_base("llama", tmp_path / "base"), tmp_path / "out")
    save_adapter(place.base, place.adapter)
    spoil(place)
    before = sorted(path for path in tmp_path.rglob("*"))
    for target in targets:
        words = ("--to", target, "--model", place.base, "--out", place.out)
        code, out, err = called("adapter", "export", place.adapter, *words)
        assert code == 2 and out == "" and said in err, (target, err)
        assert err.count("error: ") == 1 and "next: " in err
        assert sorted(path for path in tmp_path.rglob("*")) == before


@contextmanager
def small_files(size: int) -> Generator[None]:
    """The system refuses files of more bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("target", ["merged", "vllm", "mlx"])
def test_a_disk_that_fills_up_leaves_nothing(target: str, bases: Bases, tmp_path: Path) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    words = ("--to", target, "--model", base, "--out", tmp_path / "out")
    with small_files(2000):
        code, _, err = called("adapter", "export", adapter, *words)
    assert code == 2 and "the disk is full" in err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("free", "code", "said"),
    [(1000, 2, "not enough memory"), (30_000, 0, "not proved: the live adapter takes")],
)
def test_memory_is_looked_at_before(
    free: int, code: int, said: str, bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def little(kind: Any = None) -> Any:
        return replace(device_facts(kind), free_bytes=free)

    monkeypatch.setattr("loraloom.pipeline.export.device_facts", little)
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    words = ("--to", "vllm", "--model", base, "--out", tmp_path / "out")
    got, out, err = called("adapter", "export", adapter, *words)
    assert got == code and said in out + err
    assert (tmp_path / "out").exists() is (code == 0)


KILLED = """
import os, sys
import loraloom.adapters.shards as shards
shards.os.fsync = lambda handle: os.kill(os.getpid(), 9)
from loraloom.cli.main import main
main(sys.argv[1:])
"""


def test_an_export_that_was_killed_leaves_nothing_that_looks_finished(
    bases: Bases, tmp_path: Path
) -> None:
    base = bases("llama")
    adapter = save_adapter(base, tmp_path / "a")
    words = ["adapter", "export", adapter, "--to", "vllm", "--model", base, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words)], check=False, env=dict(os.environ)
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    code, _, err = called(*words)
    assert code == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]
