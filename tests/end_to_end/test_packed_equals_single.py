"""Candidates of different shapes come out the same whether they share a pack or are
trained one after another."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from doorway import Door, Run, World
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = 1e-4
SPACE = "{adapter.r: [2, 5], adapter.target_modules: [attention, all-linear]}"


def adapters(run: Run) -> dict[str, dict[str, Tensor]]:
    """Saved tensors by the searched values that they were trained with."""
    return {
        json.dumps(trial["params"], sort_keys=True): load_file(
            run.folder / trial["adapter"] / "adapter_model.safetensors"
        )
        for trial in run.result["trials"]
    }


def most_at_once(run: Run) -> int:
    """How many candidates were in training at the same time."""
    living, most = 0, 0
    for event in run.events:
        living += {"trial_started": 1, "completed": -1}.get(event["kind"], 0)
        most = max(most, living)
    return most


def test_four_shapes_packed_and_one_by_one(world: World, loraloom: Door, tmp_path: Path) -> None:
    runs: dict[str, Run] = {}
    for name, packed in (("packed", 4), ("alone", 1)):
        answer = loraloom(
            "tune",
            "--model",
            world.llama,
            "--data",
            world.text,
            "--output-dir",
            tmp_path,
            "--name",
            name,
            "--trials",
            4,
            "--max-packed",
            packed,
            "--max-steps",
            10,
            "--dropout",
            0.1,
            "--set",
            f"search.space={SPACE}",
            "--set",
            "search.sampler=grid",
            "--set",
            "search.pruner=none",
            "--set",
            "search.seeds_for_finalists=1",
        )
        assert answer.code == 0, answer.err
        runs[name] = Run(answer, tmp_path / name)
    assert (most_at_once(runs["packed"]), most_at_once(runs["alone"])) == (4, 1)
    packed, alone = adapters(runs["packed"]), adapters(runs["alone"])
    assert packed.keys() == alone.keys()
    assert len(packed) == 4, "four settings, none of them twice"
    assert (
        len(
            {
                tuple(sorted((name, tuple(t.shape)) for name, t in state.items()))
                for state in packed.values()
            }
        )
        == 4
    )
    for params, state in packed.items():
        assert state.keys() == alone[params].keys()
        for name, tensor in state.items():
            other = alone[params][name]
            assert float((tensor - other).norm() / other.norm()) <= TOLERANCE, f"{params} {name}"


def test_the_tolerance_would_see_one_step_more(world: World, loraloom: Door, tmp_path: Path) -> None:
    """The comparison above could fail: a single step more moves every trained tensor by
    far more than it allows."""
    states: list[dict[str, Tensor]] = []
    for steps in (10, 11):
        name = f"steps-{steps}"
        answer = loraloom(
            "train",
            "--model",
            world.llama,
            "--data",
            world.text,
            "--output-dir",
            tmp_path,
            "--name",
            name,
            "--max-steps",
            steps,
        )
        assert answer.code == 0, answer.err
        states.append(load_file(tmp_path / name / "best" / "adapter_model.safetensors"))
    moved = [
        float((a - b).norm() / b.norm())
        for a, b in zip(*(s.values() for s in states), strict=True)
        if torch.any(b != 0)
    ]
    assert min(moved) > 10 * TOLERANCE
