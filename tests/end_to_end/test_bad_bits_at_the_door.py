"""Requests for bases in few bits that cannot be: refused with what, got, need and next, before anything
is started and with no folder left."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World

from few_bits import save_gptq

bnb: Any = pytest.importorskip(
    "bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'"
)
SENTENCES = ["one small step", "the other way round", "a step the other way"]
LOFTQ = "adapter.init_lora_weights=loftq"


def refused(answer: Answer, runs: Path, *said: str) -> None:
    assert answer.code == 2, answer.err
    text = " ".join(answer.err.split())
    assert all(part in text for part in (*said, "got: ", "need: ", "next: ")), answer.err
    assert "Traceback" not in answer.err and not runs.exists()


def asked(verb: str, model: object, data: str, runs: Path, *sets: str) -> list[object]:
    words = [verb, "--model", model, "--data", data, "--output-dir", runs, "--max-steps", 2]
    return [*words, *(word for one in sets for word in ("--set", one))]


@pytest.fixture(scope="module")
def gptq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gptq")
    save_gptq(folder, SENTENCES, 4)
    return folder


FULL = {
    "8 bits under float16": (
        ("model.quantization=int8", "model.dtype=float16"),
        ("over a float16 base", "model.dtype: float16"),
    ),
}
STORED = {
    "codes of codes": (("model.quantization=nf4",), ("needs the full weights", "by gptq already")),
}


@pytest.mark.parametrize("verb", ["train", "tune", "plan", "check"])
@pytest.mark.parametrize(("sets", "said"), FULL.values(), ids=FULL)
def test_what_a_full_base_cannot_be(
    loraloom: Door, world: World, tmp_path: Path, verb: str, sets: tuple[str, ...], said: tuple[str, ...]
) -> None:
    runs = tmp_path / "runs"
    refused(loraloom(*asked(verb, world.llama, world.text, runs, *sets)), runs, *said)


@pytest.mark.parametrize("verb", ["train", "tune", "plan", "check"])
@pytest.mark.parametrize(("sets", "said"), STORED.values(), ids=STORED)
def test_what_a_base_in_codes_cannot_be(
    loraloom: Door,
    world: World,
    gptq: Path,
    tmp_path: Path,
    verb: str,
    sets: tuple[str, ...],
    said: tuple[str, ...],
) -> None:
    runs = tmp_path / "runs"
    refused(loraloom(*asked(verb, gptq, world.text, runs, *sets)), runs, *said)


@pytest.mark.parametrize("verb", ["tune", "plan"])
def test_loftq_where_nothing_is_quantised(
    loraloom: Door, world: World, gptq: Path, tmp_path: Path, verb: str
) -> None:
    runs, said = tmp_path / "runs", "makes up for what quantising took"
    words = asked(verb, world.llama, world.text, runs, LOFTQ)
    refused(loraloom(*words), runs, said, "a base that is held as it is stored")
    refused(loraloom(*asked(verb, gptq, world.text, runs, LOFTQ)), runs, said, "by gptq already")


@pytest.mark.parametrize("verb", ["train", "tune", "plan", "check"])
@pytest.mark.parametrize(
    "stated", [{"quant_method": "awq", "bits": 4}, {"bits": 3, "quant_method": "gptq"}]
)
def test_codes_that_nothing_here_reads(
    loraloom: Door, world: World, gptq: Path, tmp_path: Path, verb: str, stated: dict[str, Any]
) -> None:
    folder, runs = tmp_path / "base", tmp_path / "runs"
    folder.mkdir()
    for file in gptq.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = stated
    (folder / "config.json").write_text(json.dumps(config))
    words = asked(verb, folder, world.text, runs)
    refused(loraloom(*words), runs, "cannot be read here", f"{stated['bits']} bits", "torchao in 8 bits")


@pytest.mark.parametrize("verb", ["train", "tune"])
@pytest.mark.parametrize("model", ["full", "stored"])
def test_without_bitsandbytes(
    loraloom: Door,
    world: World,
    gptq: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    model: str,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    folder, runs, sets = Path(world.llama), tmp_path / "runs", ["model.quantization=nf4"]
    if model == "stored":
        folder, sets = tmp_path / "base", []
        folder.mkdir()
        for file in gptq.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config))
    words = asked(verb, folder, world.text, runs, *sets)
    refused(loraloom(*words), runs, "needs the package bitsandbytes", "loraloom[quant]")


@pytest.mark.parametrize("verb", ["train", "tune"])
def test_on_a_processor_without_kernels(
    loraloom: Door, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no kernels for this backend")

    monkeypatch.setattr(bnb.functional, "quantize_4bit", absent)
    runs = tmp_path / "runs"
    words = asked(verb, world.llama, world.text, runs, "model.quantization=nf4")
    refused(loraloom(*words), runs, "cannot make and spread 4-bit codes", "no kernels for this backend")


def test_what_others_call_it_says_our_name(loraloom: Door, world: World, tmp_path: Path) -> None:
    """`--qlora` is NF4, as a flag, in a file and by --set."""
    words = ["plan", "--model", world.llama, "--data", world.text, "--json"]
    for said in (["--qlora"], ["--set", "model.quantization=4bit"], ["--load-in-4bit"]):
        answer = loraloom(*words, *said)
        assert answer.code == 0, answer.err
        assert answer.json()["settings"]["model.quantization"]["value"] == "nf4"


def test_the_setting_at_length_fits_80_columns(
    loraloom: Door, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["plan", "--model", world.llama, "--data", world.text, "--explain", "quantization"]
    for more in ([], ["--qlora"]):
        answer = loraloom(*words, *more)
        assert answer.code == 0 and all(len(line) <= 80 for line in answer.out.splitlines()), answer.out
        assert "NF4" in answer.out and "the extra `quant`" in " ".join(answer.out.split())
