"""The packed benchmark: both sides do the same training, ratios are formed as said, and
a run writes what it should."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import pytest
import torch
from arms import Arm, Pace, Sample, Stopwatch, build_base, make_rows, measure, targets_of
from rounds import Bench, Profile, read_profile
from scripts import load
from verdict import Claim, Measured, claims, summaries, table_of_arms, table_of_claims

QUICK = read_profile("quick")
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "packed" / "run.py"
COMMITTED = SCRIPT.with_name("result.json")


def sample(arm: Arm, *steps: float, peak: int | None = 100) -> Sample:
    return Sample(arm, steps or (1.0,), peak, trainable_parameters=10, matmul_parameters=1000)


def trainer_arm(precision: Any = "bfloat16", dropout: float = 0.0) -> Arm:
    return Arm("peft_trainer", precision, 1, 8, dropout)


def packed_arm(adapters: int = 2, dropout: float = 0.0) -> Arm:
    return Arm("loraloom", "bfloat16", adapters, 8, dropout)


# -- arms
# -------------------------------------------------------------------------------------------------------


def test_both_sides_train_the_same_weights_on_the_same_base() -> None:
    pace = Pace(1, 2, 0.0)
    ours = measure(packed_arm(2), QUICK.model, pace, "cpu")
    theirs = measure(trainer_arm(), QUICK.model, pace, "cpu")
    assert ours.trainable_parameters == theirs.trainable_parameters > 0
    assert ours.matmul_parameters == theirs.matmul_parameters
    for each in (ours, theirs):
        assert len(each.step_seconds) == 2
        assert all(seconds > 0 for seconds in each.step_seconds)


def test_matmul_parameters_are_the_linear_layers_with_the_head_and_without_embeddings() -> None:
    model = QUICK.model
    d, o, layers = model["hidden_size"], model["intermediate_size"], model["num_hidden_layers"]
    attention = d * d * (2 + 2 / model["num_attention_heads"])
    expected = layers * (attention + 3 * d * o) + d * model["vocab_size"]
    assert measure(packed_arm(1), model, Pace(1, 1, 0.0), "cpu").matmul_parameters == expected


def test_dropout_reaches_both_sides() -> None:
    for arm in (packed_arm(1, 0.5), trainer_arm(dropout=0.5)):
        assert measure(arm, QUICK.model, Pace(1, 1, 0.0), "cpu").tokens_per_second > 0


def test_a_base_is_made_in_its_own_precision_and_is_always_the_same() -> None:
    left, right = (build_base(QUICK.model, "bfloat16", "cpu") for _ in range(2))
    assert {weight.dtype for weight in left.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_targets_are_all_linear_layers_but_the_head() -> None:
    targets = targets_of(build_base(QUICK.model, "float32", "cpu"))
    assert len(targets) == 7 * QUICK.model["num_hidden_layers"]
    assert "lm_head" not in targets


def test_rows_have_the_asked_length_and_stay_in_the_vocabulary() -> None:
    rows = make_rows(8, 32)
    assert {len(row) for row in rows} == {8}
    assert all(row.input_ids.max() < 32 for row in rows)
    assert all(row.supervised == 7 for row in rows)


def test_the_stopwatch_leaves_warmup_out_and_goes_on_for_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = iter([0.0, 10.0, 11.0, 12.0, 13.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch(Pace(warmup_steps=2, least_steps=2, seconds=3.0), "cpu")
    assert [watch.lap() for _ in range(5)] == [False, False, False, False, True]
    assert watch.laps == (1.0, 1.0, 1.0)


def test_speed_counts_every_adapter_by_the_median_step() -> None:
    assert sample(packed_arm(4), 1.0, 2.0, 90.0).tokens_per_second == 4 * 8 / 2.0


@pytest.mark.gpu
@pytest.mark.parametrize("arm", [packed_arm(2), trainer_arm()])
def test_arms_run_on_a_gpu(arm: Arm) -> None:
    found = measure(arm, QUICK.model, Pace(1, 2, 0.0), "cuda")
    assert found.tokens_per_second > 0
    assert found.peak_bytes


# -- machine
# -----------------------------------------------------------------------------------------------------


def test_the_meter_sees_what_was_held_and_given_back() -> None:
    meter = machine.MemoryMeter("cpu")
    if meter.mark() is None:
        pytest.skip("this system does not tell the peak of a process")
    # gone at once, and larger than what a process that has trained keeps (lora/freed_memory.py)
    torch.ones(32_000_000)  # 128 MB
    peak = meter.peak()
    assert peak is not None
    assert 120e6 < peak < 170e6
    meter.mark()
    again = meter.peak()
    assert again is not None
    assert again < 30e6


def test_a_meter_that_was_not_marked_knows_nothing() -> None:
    assert machine.MemoryMeter("cpu").peak() is None


def test_the_matmul_rate_is_the_best_of_all_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 1.0, 0.0, 0.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    assert machine.matmul_rate([8, 16], "cpu", repeats=1) == 2 * 16**3 / 0.5


def test_the_machine_is_described_without_its_name() -> None:
    found = machine.describe("cpu")
    assert found["processor"]
    assert found["cores"]
    assert machine.versions()["torch"] == torch.__version__


# -- verdict
# -----------------------------------------------------------------------------------------------------

ROUNDS = [
    Measured(0, 1e5, sample(trainer_arm("float32"), 2.0)),
    Measured(0, 1e5, sample(packed_arm(), 1.0)),
    Measured(1, 4e5, sample(trainer_arm("float32"), 8.0)),
    Measured(1, 4e5, sample(packed_arm(), 2.0)),
]
"""In round 1 the machine is slower by a neighbour's work; packed is 4 and 8 times as fast."""


def claim(key: str, target: float, measured: list[Measured]) -> Claim:
    (found,) = claims(measured, {key: {8: target}}, packed=2)
    return found


def test_ratios_are_formed_inside_a_round() -> None:
    found = claim("over_defaults", 6.0, ROUNDS)
    assert found.values == (4.0, 8.0)
    assert found.reached == 6.0
    assert found.met is True
    assert claim("over_defaults", 6.1, ROUNDS).met is False


def test_the_precision_of_the_other_side_is_kept_apart() -> None:
    found = claim("over_same_precision", 1.0, ROUNDS)
    assert found.values == ()
    assert found.met is None
    assert "not measured" in table_of_claims([found])


def test_the_matmul_fraction_counts_four_operations_a_weight_and_token() -> None:
    assert claim("matmul_fraction", 0.4, ROUNDS).values == (4 * 1000 * 16 / 1e5, 4 * 1000 * 8 / 4e5)


def test_memory_is_shared_out_over_the_adapters_and_less_is_better() -> None:
    measured = [
        Measured(0, 1.0, sample(trainer_arm(dropout=0.05), peak=100)),
        Measured(0, 1.0, sample(packed_arm(2, dropout=0.05), peak=80)),
    ]
    found = claim("memory_share", 0.5, measured)
    assert found.reached == 0.4
    assert found.met is True
    assert claim("memory_share", 0.3, measured).met is False


def test_memory_that_nobody_knows_is_not_measured() -> None:
    measured = [
        Measured(0, 1.0, sample(arm, peak=None))
        for arm in (trainer_arm(dropout=0.05), packed_arm(2, 0.05))
    ]
    assert claim("memory_share", 0.5, measured).met is None
    assert table_of_arms(summaries(measured)).splitlines()[1].split()[-2:] == ["-", "-"]


def test_arms_are_summed_up_by_their_medians() -> None:
    measured = [
        Measured(n, 1e5, sample(packed_arm(), seconds, peak=peak))
        for n, (seconds, peak) in enumerate([(1, 2), (2, 4), (9, 60)])
    ]
    (row,) = summaries(measured)
    assert row.tokens_per_second == 8.0
    assert row.peak_bytes_per_adapter == 2.0


def test_the_table_says_target_reached_and_verdict() -> None:
    lines = table_of_claims(
        [claim("over_defaults", 6.5, ROUNDS), claim("matmul_fraction", 0.3, ROUNDS)]
    ).splitlines()
    assert "packed K=2 over PEFT + Trainer at its defaults" in lines[1]
    assert lines[1].split()[-5:] == [">=", "6.50", "6.00", "4.00-8.00", "missed"]
    assert lines[2].endswith("met")


# -- run
# -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cpu", "cuda", "quick"])
def test_every_target_is_measured(name: str) -> None:
    """Nothing is promised that no arm could show."""
    profile = read_profile(name)
    measured = [
        Measured(0, 1.0, sample(arm))
        for tokens in profile.tokens
        for arm in (*profile.arms(tokens), *profile.memory_arms(tokens))
    ]
    found = claims(measured, profile.targets, profile.headline)
    assert found
    assert all(each.met is not None for each in found)


def test_the_profile_of_the_gpu_runs_its_whole_way_on_a_tiny_model() -> None:
    profile = replace(
        read_profile("cuda"), model=QUICK.model, tokens=[8], packed=[1, 16], pace=QUICK.pace
    )
    found = [measure(arm, profile.model, Pace(**profile.pace), "cpu") for arm in profile.arms(8)]
    assert [each.arm.adapters for each in found] == [1, 1, 16]
    assert not any(each.arm.precision == "float32" for each in found)


def test_every_other_round_runs_the_arms_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(self: Bench, work: Callable[..., Any], *args: Any) -> Any:
        return 1.0 if work.__name__ == "measure_matmul" else sample(args[0])

    monkeypatch.setattr(Bench, "_alone", pretend)
    bench = Bench(replace(QUICK, rounds=2), "cpu", lambda _: None)
    bench.run()
    first, second = (
        [
            each.sample.arm
            for each in bench.measured
            if each.round == number and not each.sample.arm.dropout
        ]
        for number in (0, 1)
    )
    assert second == first[::-1]
    assert {each.round for each in bench.measured if each.sample.arm.dropout} == {0}


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("bench") / "new" / "result.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_quick_run_measures_every_arm(quick_run: tuple[Path, str]) -> None:
    samples = json.loads(quick_run[0].read_text())["samples"]
    arms = [Arm(**each["sample"]["arm"]) for each in samples]
    assert arms == [*QUICK.arms(8), *QUICK.memory_arms(8)]
    assert all(
        math.isfinite(each["tokens_per_second"]) and each["tokens_per_second"] > 0 for each in samples
    )


def test_a_result_says_how_it_came_about_and_names_no_folder(quick_run: tuple[Path, str]) -> None:
    result = json.loads(quick_run[0].read_text())
    assert result["command"] == "python benchmarks/packed/run.py --quick"
    assert {"date", "seconds", "machine", "versions", "config"} <= set(result)
    assert [target["key"] for target in result["targets"]] == list(QUICK.targets)
    assert str(quick_run[0].parent) not in quick_run[0].read_text()


@pytest.fixture(scope="module")
def script() -> Any:
    """run.py as a module, under a name that no other benchmark's script has."""
    return load("packed")


def test_a_written_result_shows_the_same_tables_as_its_run(
    script: Any, quick_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, printed = quick_run
    assert script.main(["--show", "--out", str(out)]) == 0
    tables = capsys.readouterr().out.partition("\n\n")[2].strip()
    assert "packed K=2 over PEFT + Trainer at its defaults" in tables
    assert printed.startswith(tables)


def test_showing_a_result_that_is_not_there_says_what_to_do(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--show", "--out", str(tmp_path / "none.json")]) == 2
    said = capsys.readouterr().err
    assert "no result at" in said
    assert "next: run without --show first" in said


def test_a_result_that_was_committed_is_complete(script: Any) -> None:
    """Every target of its configuration was measured, by the samples that stand beside it."""
    if not COMMITTED.is_file():
        pytest.skip("no result.json beside the benchmark yet: run it")
    result = json.loads(COMMITTED.read_text())
    assert result["command"] == "python benchmarks/packed/run.py"
    profile = Profile(**json.loads(COMMITTED.read_text(), object_hook=_numbers_as_keys)["config"])
    again = claims(script.read_measured(result), profile.targets, profile.headline)
    assert [(each.key, each.tokens, each.met) for each in again] == [
        (t["key"], t["tokens"], t["met"]) for t in result["targets"]
    ]
    assert all(target["met"] is not None for target in result["targets"])


def _numbers_as_keys(mapping: dict[str, Any]) -> dict[Any, Any]:
    """JSON writes every key as text; tokens are numbers."""
    return {int(key) if key.isdigit() else key: value for key, value in mapping.items()}
