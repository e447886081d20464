"""What a preflight says of a base in 4 or 8 bits: whether its codes can be made and read here, and what
becomes of an adapter that goes over another base than the one it was trained over."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from planted import config_of, save_base, talk, write_rows

from few_bits import save_gptq
from loraloom.config.asked import Config
from loraloom.errors import ModelError, RequestError
from loraloom.lora import quantised
from loraloom.pipeline.check import Checked, check
from loraloom.pipeline.preflight.result import CheckResult
from loraloom.pipeline.prepare import prepare

bnb: Any = pytest.importorskip(
    "bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'"
)
NF4, INT8 = "model.quantization=nf4", "model.quantization=int8"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bits")
    save_base(root / "full")
    write_rows(root / "rows.jsonl", [talk(number) for number in range(120)])
    return root


def asked(here: Path, *sets: str, model: str = "full") -> Config:
    return config_of(str(here / model), str(here / "rows.jsonl"), *sets, output_dir=str(here / "runs"))


def of(checked: Checked, name: str) -> CheckResult:
    return next(result for result in checked.results if result.name == name)


@pytest.mark.parametrize("kind", [NF4, INT8])
def test_a_base_in_few_bits_is_rehearsed_and_said_to_be_one(here: Path, kind: str) -> None:
    checked = check(asked(here, kind))
    result = of(checked, "bits")
    assert checked.ok and result.level == "ok" and result.number is not None
    assert result.number.startswith("14 layers in codes")
    assert of(checked, "memory").what.endswith("measured")
    assert of(check(asked(here), quick=True), "bits").level == "skipped"


def refused_alike(config: Config, *said: str) -> None:
    """By `check` as a failed check, and by what trains before it begins."""
    checked = check(config)
    result = of(checked, "bits")
    told = " ".join(filter(None, (result.what, result.number, result.cause, result.command)))
    assert result.level == "fail" and all(part in told for part in said), told
    assert "skipped" in {of(checked, name).level for name in ("gradients", "memory")}
    with pytest.raises(RequestError) as caught:
        prepare(config)
    assert caught.value.exit_code == 2 and all(part in str(caught.value) for part in said)


def test_without_bitsandbytes_the_extra_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    refused_alike(asked(here, NF4), "needs the package bitsandbytes", "loraloom[quant]")


def test_a_processor_without_its_kernels_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel image is available\nand much more that nobody reads")

    monkeypatch.setattr(bnb.functional, "quantize_4bit", absent)
    refused_alike(asked(here, NF4), "cannot make and spread 4-bit codes", "no kernel image")


def test_kernels_that_compute_something_else_are_named(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = bnb.functional.dequantize_4bit
    monkeypatch.setattr(
        bnb.functional, "dequantize_4bit", lambda *args, **named: 2 * spread(*args, **named)
    )
    with pytest.raises(RequestError, match="other numbers than were put in"):
        quantised.bitsandbytes()


def test_memory_that_ran_out_is_not_taken_for_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(bnb.functional, "quantize_4bit", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        quantised.bitsandbytes()


def test_codes_that_nothing_here_reads_are_refused_before_any_check(here: Path) -> None:
    folder = here / "unknown"
    save_base(folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    for look in (check, prepare, lambda config: prepare(config, weights=False)):
        with pytest.raises(ModelError, match="quantised by awq, which cannot be read here"):
            look(asked(here, model="unknown"))


def test_codes_in_the_files_need_no_package_where_ours_reads_them(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    save_gptq(here / "gptq", ["w1 w2 w3", "w4 w5 w6"], 4)
    write_rows(here / "gptq.jsonl", [{"text": f"w{number} w{number + 1}"} for number in range(60)])
    config = config_of(str(here / "gptq"), str(here / "gptq.jsonl"), "data.max_length=32")
    result = of(check(config), "bits")
    assert result.level == "ok" and "codes of gptq" in result.what


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("merged", "merged into the full ones"),
        ("vllm", "served over the full ones"),
        ("sglang", "served over the full ones"),
        ("mlx", "used over the full ones"),
        ("llama.cpp", "served over a GGUF file made of the full ones"),
        ("ollama", "served over a GGUF file made of the full ones"),
    ],
)
def test_use_over_another_base_is_said(here: Path, target: str, where: str) -> None:
    sets = (f"deploy.target={target}", "adapter.r=8")
    result = of(check(asked(here, NF4, *sets), quick=True), "deployment")
    assert (
        result.level == "warn" and result.what == f"the adapter is trained over nf4 weights and {where}"
    )
    assert "rounding" in (result.cause or "") and "quantization=none" in (result.command or "")
    assert of(check(asked(here, *sets), quick=True), "deployment").level == "ok"


@pytest.mark.parametrize("target", ["merged", "vllm", "llama.cpp", "ollama"])
def test_loftq_is_right_over_its_own_base_alone(here: Path, target: str) -> None:
    config = asked(
        here, NF4, f"deploy.target={target}", "adapter.r=8", "adapter.init_lora_weights=loftq"
    )
    result = of(check(config, quick=True), "deployment")
    assert result.level == "fail" and "that part comes twice" in result.what
    assert result.command == "--set adapter.init_lora_weights=true"
    with pytest.raises(RequestError, match="that part comes twice"):
        prepare(config)


def test_an_adapter_over_stored_codes_is_not_merged_into_them(here: Path) -> None:
    save_gptq(here / "stored", ["w1 w2 w3", "w4 w5 w6"], 4)
    write_rows(here / "text.jsonl", [{"text": f"w{number} w{number + 1}"} for number in range(60)])
    config = config_of(str(here / "stored"), str(here / "text.jsonl"), "deploy.target=merged")
    result = of(check(config, quick=True), "deployment")
    assert result.level == "fail" and "cannot be merged into it without loss" in result.what
    assert "THE_ORIGINAL" in (result.command or "")
