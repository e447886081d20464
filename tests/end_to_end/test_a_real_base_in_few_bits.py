"""The whole job over a real base in NF4: tuned, stopped and resumed, reported, and its winner loaded by
PEFT over the quantised and over the full base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doorway import Door, Run
from safetensors.torch import load_file

from loraloom.lora.base import load_base
from loraloom.lora.state import load_peft
from loraloom.report.commands import load_snippet
from loraloom.store.folder import RunFolder

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
ROWS = 24


def tuning(shared: Path, place: Path) -> list[object]:
    """Words that tune tinychat-5M in NF4 on the shortest rows of GSM8K's test set."""
    data = place / "rows.jsonl"
    lines = (shared / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()
    data.write_text("\n".join(sorted(lines, key=len)[:ROWS]) + "\n")
    return [
        "tune",
        "--model",
        shared / "models" / "tinychat-5M",
        "--data",
        data,
        "--output-dir",
        place,
        "--validation",
        "0.25",
        "--trials",
        "2",
        "--max-steps",
        "4",
        "--json",
        *("--set", "model.quantization=nf4"),
        *("--set", "model.dtype=float32"),
        *("--set", "search.seeds_for_finalists=1"),
    ]


def test_the_whole_job_over_a_real_base_in_nf4(
    loraloom: Door, shared: Path, tmp_path: Path, stopping: Callable[[int | None], None]
) -> None:
    words = tuning(shared, tmp_path)
    whole = loraloom(*words, "--name", "whole")
    assert whole.code == 0, whole.err
    run = Run(whole, tmp_path / "whole")
    assert run.result["base_quantization"] == "nf4"
    page = (run.folder / "report.html").read_text()
    assert "in NF4" in page
    record = json.loads((run.folder / "best" / "loraloom.json").read_text())
    assert record["base"]["quantization"] == "nf4"

    stopping(2)
    assert loraloom(*words, "--name", "cut").code == 130
    stopping(None)
    again = loraloom("tune", "--resume", tmp_path / "cut", "--json")
    assert again.code == 0, again.err
    left, right = (
        load_file(tmp_path / name / "best" / "adapter_model.safetensors") for name in ("whole", "cut")
    )
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)

    shown = loraloom("report", run.folder)
    assert shown.code == 0, shown.err
    over_few_bits, over_full = loaded_by_its_page(run.folder)
    ids = torch.tensor([[5, 80, 400, 1200, 33, 9, 701]])
    model = str(shared / "models" / "tinychat-5M")

    def logits(adapted: Any) -> torch.Tensor:
        # In train(), without dropout: in eval bitsandbytes repacks its layers on some processors.
        return adapted.train()(input_ids=ids.clone()).logits.detach().float()

    for quantization, theirs in (("nf4", over_few_bits), ("none", over_full)):
        ours = load_base(model, "causal_lm", dtype="float32", quantization=quantization).model
        expected = logits(load_peft(run.folder / "best", ours))
        assert torch.allclose(logits(theirs), expected, atol=1e-3), quantization
    assert not torch.allclose(logits(over_few_bits), logits(over_full), atol=1e-2)


def loaded_by_its_page(folder: Path) -> tuple[Any, Any]:
    """The winner over the base that it was trained over, and over the full one, as its page has it."""
    place = RunFolder.open(folder)
    lines = str(load_snippet(place, place.result(), str(folder / "best"))).partition("asked =")[0]
    over_few_bits: dict[str, Any] = {}
    over_full: dict[str, Any] = {}
    exec(lines, over_few_bits)
    exec(lines.replace("\nbase =", "\n#").replace("# base =", "base ="), over_full)
    return over_few_bits["model"], over_full["model"].float()
