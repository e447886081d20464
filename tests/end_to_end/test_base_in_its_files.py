"""A base that stays in its files gives the adapter that one in memory gives, to the bit."""

from __future__ import annotations

from pathlib import Path

from doorway import Door, World


def test_an_adapter_is_the_same_wherever_its_base_is(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    saved = []
    for streaming in ("true", "false"):
        runs = tmp_path / streaming
        words = ("--model", world.llama, "--data", world.text, "--max-steps", "2", "--json")
        named = ("--output-dir", runs, "--name", "one", "--set", f"model.streaming={streaming}")
        answer = loraloom("train", *words, *named)
        assert answer.code == 0, answer.err
        saved.append((runs / "one/best/adapter_model.safetensors").read_bytes())
    assert saved[0] == saved[1]


def test_a_plan_tells_what_stays_in_the_files_apart(world: World, loraloom: Door) -> None:
    words = ("--model", world.llama, "--data", world.text, "--set", "model.streaming=true")
    planned = loraloom("plan", *words, "--all")
    assert planned.code == 0, planned.err
    assert "of weights stay in their files, apart from this memory" in " ".join(planned.out.split())
    document = loraloom("plan", *words, "--json").json()
    assert document["forecast"]["streamed"]["total_bytes"] > 0
    explained = loraloom("plan", *words, "--explain", "streaming")
    assert explained.code == 0 and "to a CPU from its files" in " ".join(explained.out.split())
