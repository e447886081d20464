"""Whole commands on a device: what a person runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import save_bert, save_llama
from doorway import call, write_rows
from stand_in import StandIn

from loraloom.lora import base, kernels
from loraloom.pipeline import samples

SENTENCES = [
    f"the {animal} {verb} {place}"
    for animal in ("cat", "dog", "bird")
    for verb in ("sleeps", "waits", "turns")
    for place in ("here", "there", "in the house", "by the door")
]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Devices that bases were loaded onto."""
    devices: list[str] = []
    load = base.load_base

    def noted(*args: Any, **kwargs: Any) -> Any:
        devices.append(str(kwargs.get("device")))
        return load(*args, **kwargs)

    monkeypatch.setattr("loraloom.pipeline.prepare.load_base", noted)
    return devices


@pytest.mark.usefixtures("without_triton")
def test_a_classifier_is_checked_and_tuned(cuda: StandIn, loaded: list[str], tmp_path: Path) -> None:
    model = save_bert(tmp_path / "bert", SENTENCES)
    rows = [{"text": text, "label": text.split()[1]} for text in SENTENCES * 2]
    words = [
        "--model",
        model,
        "--data",
        write_rows(tmp_path / "rows.jsonl", rows),
        "--validation",
        "0.2",
        "--test",
        "0.2",
    ]
    words += ["--trials", "2", "--max-steps", "2", "--set", "search.seeds_for_finalists=1"]
    checked = call("check", *words)
    assert checked.code == 0, checked.err
    tuned = call("tune", *words, "--output-dir", tmp_path, "--name", "run")
    assert tuned.code == 0, tuned.err
    result = json.loads((tmp_path / "run" / "run.json").read_text())
    assert result["status"] == "completed" and result["environment"]["device"]["kind"] == "cuda"
    assert (tmp_path / "run" / "best" / "adapter_model.safetensors").is_file()
    # check, tune, and the proof of best/, for which a GPU may have no room
    assert loaded == ["cuda", "cuda", "cpu"]


def test_a_decoder_is_trained_and_evaluated(
    cuda: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernels, where Triton is there."""
    # enough to see it write, and the interpreter is slow
    monkeypatch.setattr(samples, "MAX_NEW_TOKENS", 4)
    model = save_llama(tmp_path / "llama", SENTENCES)
    data = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in SENTENCES[::2]])
    words = [
        "--model",
        model,
        "--data",
        data,
        "--validation",
        "0.2",
        "--max-steps",
        "2",
        "--set",
        "model.dtype=bfloat16",
    ]
    trained = call("train", *words, "--output-dir", tmp_path, "--name", "run")
    assert trained.code == 0, trained.err
    result = json.loads((tmp_path / "run" / "run.json").read_text())
    assert result["status"] == "completed"
    scored = call("evaluate", "--adapter", tmp_path / "run", "--data", data)
    assert scored.code == 0, scored.err
    assert any("kernels" in line for line in cuda.launches) == (
        kernels.refusal("cuda", torch.bfloat16) is None
    )


def test_a_plan_says_what_the_gpu_is_used_with(
    cuda: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_llama(tmp_path / "llama", SENTENCES)
    words = [
        "plan",
        "--model",
        model,
        "--data",
        write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in SENTENCES]),
    ]
    monkeypatch.setattr(kernels, "refusal", lambda device, dtype: "Triton cannot be imported")
    told, document = call(*words), call(*words, "--json").json()
    assert (
        told.out.count(
            "Triton kernels, CUDA graphs and fused norms are not used: Triton cannot be imported"
        )
        == 1
    )
    assert "gpu: stand-in: a float32 base, plain torch\n" in told.out
    assert document["device"]["gpu"]["kernels"] == {"used": False, "reason": "Triton cannot be imported"}
    monkeypatch.setattr(kernels, "refusal", lambda device, dtype: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = call(*words)
    assert "kernels: yes\n" in call("env").out
    assert (
        "gpu: stand-in: a float32 base, Triton kernels, CUDA graphs, fused norms\n" in told.out
        and "not used" not in told.out
    )
    assert "of 2 GPUs the first is used, stand-in: CUDA_VISIBLE_DEVICES=1 takes the" in told.out
