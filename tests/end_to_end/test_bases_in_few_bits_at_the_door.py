"""A base in 4 or 8 bits through the command line: tuned, shown, resumed, scored, and
loaded as its page says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import save_llama
from doorway import Answer, Door, Run, World, write_rows
from safetensors.torch import load_file

from few_bits import save_gptq
from loraloom.lora.base import load_base
from loraloom.lora.state import load_peft
from loraloom.report.commands import load_snippet
from loraloom.store.folder import RunFolder

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")

TASKS = {"causal_lm": ("llama", "text"), "seq_cls": ("bert", "labels"), "seq2seq_lm": ("t5", "pairs")}
HELD = {"nf4": "in NF4", "int8": "in 8 bits"}


def asked(verb: str, model: str, data: str, runs: Path, kind: str) -> list[object]:
    return [
        verb,
        "--model",
        model,
        "--data",
        data,
        "--output-dir",
        runs,
        "--max-steps",
        "6",
        "--learning-rate",
        "0.01",
        "--set",
        f"model.quantization={kind}",
        "--json",
    ]


def done(answer: Answer, folder: Path) -> Run:
    assert answer.code == 0, answer.err
    return Run(answer, folder)


@pytest.mark.parametrize("kind", HELD)
@pytest.mark.parametrize("task", TASKS)
def test_train_says_over_which_base_and_evaluate_takes_the_same(
    loraloom: Door, world: World, tmp_path: Path, task: str, kind: str
) -> None:
    model, data = (getattr(world, name) for name in TASKS[task])
    run = done(loraloom(*asked("train", model, data, tmp_path, kind), "--name", "one"), tmp_path / "one")
    assert run.result["base_quantization"] == kind
    assert HELD[kind] in (run.folder / "report.html").read_text()
    record = json.loads((run.folder / "best" / "loraloom.json").read_text())
    assert record["base"]["quantization"] == kind
    same, full = (
        loraloom(
            "evaluate",
            run.folder / "config.yaml",
            "--adapter",
            run.folder,
            "--split",
            "train",
            "--json",
            "--set",
            f"model.quantization={held}",
        )
        for held in ("auto", "none")
    )
    assert (same.code, full.code) == (0, 0), same.err + full.err
    assert (same.json()["quantization"], full.json()["quantization"]) == (kind, "none")
    assert same.json()["metrics"]["train_loss"] != full.json()["metrics"]["train_loss"]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A base whose rows are whole blocks, as bitsandbytes' own layers want them on some
    processors, and its rows."""
    root = tmp_path_factory.mktemp("wide")
    sentences = [
        f"the {who} {does} {where}"
        for who in ("cat", "dog", "bird")
        for does in ("sleeps", "waits", "falls")
        for where in ("here", "there", "at home", "by the door")
    ]
    folder = save_llama(root / "llama", sentences, hidden_size=64, intermediate_size=128)
    return str(folder), write_rows(root / "text.jsonl", [{"text": sentence} for sentence in sentences])


@pytest.mark.parametrize("kind", HELD)
def test_the_lines_of_the_page_load_the_base_that_it_was_trained_over_and_the_full_one(
    loraloom: Door, wide: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    run = done(loraloom(*asked("train", *wide, tmp_path, kind), "--name", "one"), tmp_path / "one")
    place = RunFolder.open(run.folder)
    lines = str(load_snippet(place, place.result(), str(run.folder / "best")))
    lines = lines.partition("asked =")[0]
    over_few_bits, over_full = {}, {}
    exec(lines, over_few_bits)
    exec(lines.replace("\nbase =", "\n#").replace("# base =", "base ="), over_full)
    ids = torch.tensor([[2, 9, 14, 20, 11, 3]])

    def logits(model: Any) -> torch.Tensor:
        # In train(), without dropout: in eval bitsandbytes computes in bfloat16 on some processors.
        return model.train()(input_ids=ids.clone()).logits.detach()

    ours = load_base(wide[0], "causal_lm", quantization=kind).model
    expected = logits(load_peft(run.folder / "best", ours))
    assert torch.allclose(logits(over_few_bits["model"]), expected, atol=1e-4)
    assert not torch.allclose(logits(over_full["model"]), expected, atol=1e-3)
    plain = logits(load_peft(run.folder / "best", load_base(wide[0], "causal_lm").model))
    assert torch.allclose(logits(over_full["model"]), plain, atol=1e-5)


def test_a_tune_that_was_stopped_goes_on_to_the_same_adapters(
    loraloom: Door, world: World, tmp_path: Path, stopping: Callable[[int | None], None]
) -> None:
    tune = asked("tune", world.llama, world.text, tmp_path, "nf4")
    tune += ["--trials", 3, "--max-packed", 2, "--set", "search.seeds_for_finalists=1"]
    whole = done(loraloom(*tune, "--name", "whole"), tmp_path / "whole")
    stopping(3)
    assert loraloom(*tune, "--name", "cut").code == 130
    stopping(None)
    cut = done(loraloom("tune", "--resume", tmp_path / "cut", "--json"), tmp_path / "cut")
    left, right = (load_file(run.folder / "best" / "adapter_model.safetensors") for run in (whole, cut))
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    assert cut.result["base_quantization"] == "nf4" and cut.result["best"] == whole.result["best"]


def test_generate_answers_over_the_base_that_the_adapter_was_trained_over(
    loraloom: Door, wide: tuple[str, str], tmp_path: Path
) -> None:
    for kind in ("nf4", "none"):
        done(loraloom(*asked("train", *wide, tmp_path, kind), "--name", kind), tmp_path / kind)
    alone = loraloom("generate", "--adapter", tmp_path / "nf4", "--max-new-tokens", "3", "the cat")
    assert alone.code == 0, alone.err
    both = loraloom("generate", "--adapter", tmp_path / "nf4", "--adapter", tmp_path / "none", "the cat")
    assert both.code == 2 and "held otherwise" in both.err


def test_without_bitsandbytes_nothing_starts_and_the_extra_is_named(
    loraloom: Door, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    answer = loraloom(*asked("tune", world.llama, world.text, tmp_path, "nf4"))
    assert answer.code == 2 and "loraloom[quant]" in answer.err and not list(tmp_path.glob("*/run.json"))


def test_check_and_plan_take_a_base_in_few_bits(loraloom: Door, world: World, tmp_path: Path) -> None:
    for verb in ("check", "plan"):
        answer = loraloom(
            verb,
            "--model",
            world.llama,
            "--data",
            world.text,
            "--set",
            "model.quantization=nf4",
            "--json",
        )
        assert answer.code == 0, answer.err


def test_a_folder_that_is_quantised_already_is_trained_over_as_it_is(
    loraloom: Door, world: World, wide: tuple[str, str], tmp_path: Path
) -> None:
    """GPTQ, which transformers reads with packages for a GPU alone."""
    sentences = [json.loads(line)["text"] for line in Path(wide[1]).read_text().splitlines()]
    save_gptq(tmp_path / "base", sentences, 4)
    train = asked("train", str(tmp_path / "base"), wide[1], tmp_path / "runs", "auto")
    run = done(loraloom(*train, "--name", "one"), tmp_path / "runs" / "one")
    assert run.result["base_quantization"] == "gptq int4"
    assert "in the codes of its own files, gptq int4" in (run.folder / "report.html").read_text()
    refused = loraloom(*asked("train", str(tmp_path / "base"), wide[1], tmp_path / "runs", "nf4"))
    assert refused.code == 2 and "quantised by gptq already" in refused.err, refused.err
    config = run.folder / "config.yaml"
    scored = loraloom("evaluate", config, "--adapter", run.folder, "--split", "train", "--json")
    assert scored.code == 0, scored.err


def test_an_adapter_that_loftq_started_is_kept_and_proved(
    loraloom: Door, wide: tuple[str, str], tmp_path: Path
) -> None:
    words = [*asked("train", *wide, tmp_path, "nf4"), "--set", "adapter.init_lora_weights=loftq"]
    run = done(loraloom(*words, "--name", "one"), tmp_path / "one")
    saved = json.loads((run.folder / "best" / "adapter_config.json").read_text())
    assert saved["init_lora_weights"] is True
