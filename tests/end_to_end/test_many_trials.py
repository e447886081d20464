"""A long search ends with the memory that it had in the middle: what a candidate was, but for a few
numbers, goes with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
from doorway import World, write_rows

from loraloom.config.decode import load_config
from loraloom.pipeline.tune import tune
from loraloom.records import Event

ENDS = ("completed", "pruned", "diverged", "failed")
MOST_PER_TRIAL = 2**20
ROWS = 400
"""Of validation. What a search keeps of them is held small in tests/search/test_little_memory.py."""


def used_bytes() -> int:
    """What this process has in memory, or had there before it was moved out."""
    used = psutil.Process().memory_full_info()
    return int(used.rss + getattr(used, "swap", 0))


def growth(used: list[int]) -> float:
    """Bytes a trial over the second half, as the slope of the line through it."""
    second = used[len(used) // 2 :]
    return float(np.polyfit(range(len(second)), second, 1)[0])


@pytest.mark.long
def test_memory_does_not_grow_with_the_trials(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two hundred tiny candidates, eight at a time, each scored three times. Prints
    what was measured."""
    subjects = Path(world.text).read_text().splitlines()
    held_out = tmp_path / "held-out.jsonl"
    write_rows(held_out, [{"text": f"{subjects[i % len(subjects)][10:-2]} {i}"} for i in range(ROWS)])
    config = load_config(
        flags={
            "model.name_or_path": world.llama,
            "data.train": world.text,
            "output_dir": str(tmp_path / "runs"),
        },
        sets=[
            "name=many",
            f"data.validation={held_out}",
            "search.trials=200",
            "limits.max_packed=8",
            "training.max_steps=3",
            "search.seeds_for_finalists=1",
            "search.sampler=random",
            "search.pruner=none",
            (
                "search.space={training.learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true},"
                " adapter.r: [2, 4, 8]}"
            ),
        ],
    )
    used: list[int] = []

    def watch(event: Event) -> None:
        if event.kind in ENDS:
            used.append(used_bytes())

    tune(config, watch)
    with capsys.disabled():
        print(
            f"\n{len(used)} trials: {growth(used) / 1024:.0f} KiB a trial,"
            f" {(used[-1] - used[len(used) // 2]) / 2**20:.1f} MiB"
        )
    assert len(used) >= 200
    assert growth(used) < MOST_PER_TRIAL


def test_growth_is_the_slope_of_the_second_half() -> None:
    assert growth([900, 0, 10, 20, 30, 40]) == pytest.approx(10)
