"""How many steps a rehearsal takes, and what a probe times after it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import config_of, save_base, talk, write_rows

from loraloom.data.joined import padded_tokens
from loraloom.data.rows import causal_row
from loraloom.pipeline.preflight import rehearsal
from loraloom.pipeline.preflight.rehearsal import PASSES, Peak, rehearse, with_rows_beside
from loraloom.pipeline.prepare import Prepared, prepare
from loraloom.pipeline.probe import HELD_OUT, TICKS, Timing, timed, with_timing
from loraloom.plan.correction import by_probe


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    root = tmp_path_factory.mktemp("rehearsed")
    save_base(root / "base")
    write_rows(root / "rows.jsonl", [talk(number) for number in range(200)])
    settings = ("limits.max_packed=2", "training.per_device_train_batch_size=4", "data.validation=0.4")
    return prepare(
        config_of(str(root / "base"), str(root / "rows.jsonl"), *settings, output_dir=str(root / "runs"))
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done, in order."""
    done: list[str] = []
    step, evaluate = (
        rehearsal._step,
        rehearsal.PackTrainer.evaluate,
    )  # pyright: ignore[reportPrivateUsage]

    def counted(*given: Any) -> None:
        done.append("step")
        step(*given)

    def scored(self: Any, trials: Any) -> Any:
        done.append("evaluation")
        return evaluate(self, trials)

    monkeypatch.setattr(rehearsal, "_step", counted)
    monkeypatch.setattr(rehearsal.PackTrainer, "evaluate", scored)
    return done


def growing(monkeypatch: pytest.MonkeyPatch, steps: list[str], by_step: list[int]) -> None:
    """Have memory peak at `by_step` bytes in each step, and at the last of them from there on."""

    class Grown(Peak):
        def __getattribute__(self, name: str) -> Any:
            return (
                by_step[min(steps.count("step"), len(by_step) - 1)]
                if name == "bytes"
                else object.__getattribute__(self, name)
            )

    @contextmanager
    def peak(kind: str) -> Generator[Peak]:
        yield Grown()

    monkeypatch.setattr(rehearsal, "peak_memory", peak)


def test_a_check_takes_two_steps_and_scores(prepared: Prepared, steps: list[str]) -> None:
    found = rehearse(prepared.load_base, prepared.plan, prepared.data)
    assert steps == ["step"] * PASSES + ["evaluation"]
    assert found.tensors > 0 and found.silent == () and not found.unmoved and found.bad_layer is None


def test_rows_that_are_replayed_or_retained_may_be_the_longest(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    evaluate = rehearsal.PackTrainer.evaluate

    def longest(self: Any, trials: Any) -> Any:
        scored.append(max(map(len, self.validation)))
        return evaluate(self, trials)

    monkeypatch.setattr(rehearsal.PackTrainer, "evaluate", longest)
    long, longer = (causal_row([5] * tokens, np.ones(tokens, bool)) for tokens in (70, 80))
    rows = with_rows_beside(prepared.data, [long], [longer])
    found = rehearse(prepared.load_base, prepared.plan, rows)
    assert (found.length, scored) == (70, [80])


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([100], PASSES + 1),
        ([100, 200, 300, 400, 401], PASSES + 2),
        ([100, 200, 300, 400, 500, 600, 700, 800], 6),
    ],
    ids=["at rest", "growing for a while", "growing on"],
)
def test_a_probe_takes_steps_until_the_peak_has_settled(
    prepared: Prepared,
    steps: list[str],
    monkeypatch: pytest.MonkeyPatch,
    peaks: list[int],
    expected: int,
) -> None:
    growing(monkeypatch, steps, peaks)
    rehearse(prepared.load_base, prepared.plan, prepared.data, passes=6)
    assert steps.count("step") == expected and steps.index("evaluation") == PASSES


def test_what_is_timed_stands_for_all_rows(prepared: Prepared) -> None:
    """With a clock that goes on by one at each look: every tick takes one, and an
    evaluation one for the rows that it scored."""
    looks = iter(range(10**6))
    timing = timed(prepared, prepared.load_base(), clock=lambda: float(next(looks)))
    assert len(timing.ticks) == TICKS and {seconds for _, seconds in timing.ticks} == {1.0}
    held_out = len(prepared.data.validation)
    scored = -(-held_out // -(-held_out // HELD_OUT))
    assert held_out > HELD_OUT and timing.evaluation_seconds == held_out / scored
    mean = sum(len(row.input_ids) for row in prepared.data.train) / len(prepared.data.train)
    assert timing.usual_tokens == pytest.approx(2 * 4 * mean) and timing.tick_seconds == pytest.approx(
        1.0
    )


def test_steps_that_were_timed_beside_others_are_forecast_for_an_idle_machine(
    prepared: Prepared,
) -> None:
    timing = Timing(tuple((10, 0.8) for _ in range(TICKS)), 10.0, 4.0)
    memory = by_probe(prepared.plan.forecast["memory"], 1e9)
    alone = replace(timing, ticks=((10, 0.2),), evaluation_seconds=1.0)
    idle, busy = with_timing(prepared, memory, alone, 1.0), with_timing(prepared, memory, timing, 0.25)
    assert busy.plan.forecast["time"].value == pytest.approx(idle.plan.forecast["time"].value)
    assert busy.plan.facts.device.share == 0.25
    assert busy.plan.notes[-1].endswith(
        "while others had 75% of the cores: 0.2 when the machine is idle"
    )
    assert "others" not in idle.plan.notes[-1]


def test_the_longest_pair_is_that_of_passes_which_have_a_prompt_once(
    tmp_path: Path, prepared: Prepared
) -> None:
    """Most prompts are long: their two rows have the most tokens, but those of long answers in one."""
    many, some = (" ".join(f"w{number}" for number in range(count)) for count in (38, 25))
    sides = [(many, f"w{n}", "w0") for n in range(4, 40)]
    sides += [("w1", some, f"w{n} {some}") for n in range(8)]
    rows = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in sides]
    write_rows(tmp_path / "pairs.jsonl", rows)
    settings = ("training.per_device_train_batch_size=1", "data.validation=0.2", "limits.max_packed=1")
    base, file = prepared.config.model.name_or_path or "", str(tmp_path / "pairs.jsonl")
    pairs = prepare(config_of(base, file, *settings, output_dir=str(tmp_path / "runs")))
    apart, joined = (
        max(pairs.data.train, key=lambda one: padded_tokens(one, joined=way)) for way in (False, True)
    )
    assert len(apart.sides[0]) > len(joined.sides[0])
    found = rehearse(pairs.load_base, pairs.plan, pairs.data)
    assert found.rows == 1 and found.length == padded_tokens(joined, joined=True)
