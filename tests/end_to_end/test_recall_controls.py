"""Controls of a memory: what has to come out where nothing was learnt, or the wrong thing was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from doorway import call
from safetensors.torch import load_file, save_file
from small_memory import FACTS, WHO, asked, learn, lines, refusal, write_facts

from loraloom.lora.routing import BASE, Routing
from loraloom.lora.segment import Segment
from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.recall.memory import opened

pytestmark = pytest.mark.usefixtures("few_steps")


def adapters(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "generations").rglob("adapter_model.safetensors"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def logits(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one question, by the memory and by the bare base."""
    with opened(folder) as memory:
        bench = MemoryBench(memory, [], lambda sentence: None)
        input_ids = torch.tensor([bench.prompt(next(iter(FACTS)))])
        with torch.no_grad(), bench.seated({CURRENT: bench.total}) as trials:
            with bench.packed.route(Routing((Segment(trials[0], 0, 1),))) as model:
                by_memory = model(input_ids=input_ids, use_cache=False).logits
            with bench.packed.route(BASE) as model:
                by_base = model(input_ids=input_ids, use_cache=False).logits
    return by_memory, by_base


def test_an_adapter_of_zeros_is_the_base_to_the_bit(memory: Path) -> None:
    assert not torch.equal(*logits(memory))
    for path in (memory / "generations").rglob("adapter_model.safetensors"):
        tensors = load_file(path)
        zeros = {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in tensors.items()}
        save_file(zeros, path)
    assert torch.equal(*logits(memory))
    assert all(one["memory"] == one["base"] for one in asked(memory, *FACTS))


def test_with_shuffled_answers_no_true_one_is_recalled(memory_base: str, tmp_path: Path) -> None:
    questions, answers = list(FACTS), list(FACTS.values())
    shuffled = dict(zip(questions, [*answers[1:], answers[0]], strict=True))
    folder = tmp_path / "memory"
    write_facts(folder, memory_base, shuffled)
    assert learn(folder)["after"]["verbatim"] == 1.0
    told = {one["question"]: one for one in asked(folder, *questions)}
    by_base = sum(told[question]["base"] == FACTS[question] for question in questions)
    by_memory = sum(told[question]["memory"] == FACTS[question] for question in questions)
    assert by_memory == by_base == 0
    assert {question: one["memory"] for question, one in told.items()} == shuffled


def test_a_sleep_that_would_replay_nothing_fails(memory: Path, memory_base: str, tmp_path: Path) -> None:
    unlearnt = tmp_path / "unlearnt"
    wrote = call("recall", "write", unlearnt, "--model", memory_base, *WHO, "-q")
    assert wrote.code == 0, wrote.err
    assert "0 items would be replayed" in refusal(call("recall", "sleep", unlearnt))
    with opened(memory, writes=True) as one:
        for entry in one.state.known:
            gone = {"op": "forget", "id": entry.id, "rebuilt": False, "committed": True, "losses": {}}
            one.record({**gone, "generation": one.state.generation, "proof": None})
    assert "0 items would be replayed" in refusal(call("recall", "sleep", memory))


def test_a_sleep_with_nothing_to_do_changes_no_answer_and_no_byte(memory: Path) -> None:
    assert call("recall", "sleep", memory, "--quiet").code == 0
    questions = [*FACTS, "Who is grey?", "Which flag does Norland have?"]
    said, kept, journal = asked(memory, *questions), adapters(memory), lines(memory)
    again = call("recall", "sleep", memory, "--json", "--quiet")
    assert again.code == 0 and again.json() == {"op": "sleep", "done": False}
    assert asked(memory, *questions) == said
    assert adapters(memory) == kept and lines(memory) == journal
