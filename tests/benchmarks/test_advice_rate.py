"""The score of the rate rule: curves and regrets are formed as said, nothing sees its
own model, and the result stands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.plan.rules.rate import CLIP

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "advice_rate"


bench: Any = load("advice_rate")


def bowl(model: str, rank: int, best: float, rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4, 1e-3)) -> Any:
    """A cell whose loss is 1 at `best` and grows with the square of the distance."""
    logs = tuple(map(math.log, rates))
    return bench.Cell(model, rank, logs, tuple(1 + 0.01 * (log - math.log(best)) ** 2 for log in logs))


def test_a_regret_is_the_loss_above_the_curve_s_lowest_point() -> None:
    cell = bowl("a/b", 16, 2e-4)
    assert cell.regret(2e-4) == pytest.approx(0, abs=1e-4)
    assert cell.regret(4e-4) == pytest.approx(100 * 0.01 * math.log(2) ** 2, rel=1e-3)
    assert cell.turns and not bowl("a/b", 16, 1e-3).turns


def test_a_rate_outside_what_was_measured_counts_as_the_nearest() -> None:
    cell = bowl("a/b", 16, 2e-4)
    assert cell.regret(1.0) == pytest.approx(cell.regret(1e-3))


def test_a_fit_does_not_see_the_model_that_it_is_scored_on() -> None:
    same = [bowl(f"maker/{number}", 16, 2e-4) for number in range(4)]
    odd = bowl("maker/odd", 16, 9e-4)
    rate = bench.left_out([*same, odd], bench.FIT_POWERS)
    assert rate(odd) == pytest.approx(2e-4, rel=0.1)
    assert (
        bench.left_out([*same, odd, bowl("maker/other", 16, 9e-4)], bench.FIT_POWERS)(odd)
        > rate(odd) * 0.99
    )


def test_repeated_rates_are_averaged_and_short_curves_left_out(tmp_path: Path) -> None:
    file = tmp_path / "sweep.csv"
    lines = [
        "model,lr,rank,test_nll,train_nll",
        "m/a,1e-4,8,2.0,0",
        "m/a,1e-4,8,4.0,0",
        "m/a,3e-4,8,1,0",
        "m/a,1e-3,8,2,0",
    ]
    file.write_text("\n".join([*lines, "m/b,1e-4,8,1,0", "m/b,3e-4,8,1,0"]))
    (cell,) = bench.read_cells(file)
    assert cell.losses == (3.0, 1.0, 2.0) and cell.model == "m/a"


def test_the_plan_s_rate_is_the_rule_of_the_planner() -> None:
    assert bench.ours(bowl("m/a", 16, 1e-4)) == pytest.approx(4e-4)
    assert bench.ours(bowl("m/a", 10**6, 1e-4)) == CLIP[1]
    assert bench.tinker(bowl("meta-llama/Llama-3.1-8B", 16, 1e-4)) == pytest.approx(
        5e-4 * (2000 / 4096) ** 0.781
    )


def test_without_the_sweep_it_says_so_and_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    assert bench.main(["--evidence", str(tmp_path / "none.csv"), "--output", str(out)]) == 0
    assert "skipped: there is no none.csv" in capsys.readouterr().err and not out.exists()


def test_the_committed_result_meets_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(bench.RESULT.read_text())
    assert {name: found["target"] for name, found in result["targets"].items()} == bench.TARGETS
    assert all(
        found["met"] and found["reached"] <= found["target"] for found in result["targets"].values()
    )
    plan = result["regret_percent"]["plan"]["mean"]
    for name in (
        "constant 0.0001",
        "constant 0.0002",
        "constant 0.0003",
        "best constant without the model",
    ):
        assert plan < result["regret_percent"][name]["mean"]
    assert bench.main(["--show"]) == 0
    assert "target p90 <= 0.8" in capsys.readouterr().out


@pytest.mark.skipif(
    not bench.EVIDENCE.is_file(), reason="needs the sweep (../shared/evidence/sft_lr_sweep.csv)"
)
def test_the_committed_result_is_what_the_sweep_gives_today() -> None:
    result = json.loads(bench.RESULT.read_text())
    cells = bench.read_cells(bench.EVIDENCE)
    assert (result["cells"], result["models"]) == (len(cells), len({cell.model for cell in cells}))
    for name, rate in (("plan", bench.ours), ("constant 0.0003", lambda cell: 3e-4)):
        assert bench.summary(cells, rate) == pytest.approx(result["regret_percent"][name], abs=2e-3)


encoders: Any = load("advice_rate", "encoders")


def test_the_rule_for_small_encoders_is_what_their_runs_say() -> None:
    """Whole runs do better at the planned rate than at twice that, short ones better
    than at half of it; no seed is lost."""
    result = json.loads((FOLDER / "encoders.json").read_text(encoding="utf-8"))
    assert set(result["runs"]) == {
        f"{task}, {part}" for task in encoders.TASKS for part in ("whole", "60 steps")
    }
    for name, run in result["runs"].items():
        mean = {float(rate): sum(errors) / len(errors) for rate, errors in run["errors"].items()}
        planned = run["planned_rate"]
        other = 2 * planned if name.endswith("whole") else planned / 2
        assert mean[planned] < mean[other], name
        if name.endswith("whole"):
            assert max(run["errors"][f"{planned:g}"]) < run["base"] - 0.1
    assert encoders.table(result).count("worst") == len(encoders.RATES) * len(result["runs"])


def test_splits_of_the_encoders_share_no_text(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "snips"
    folder.mkdir(parents=True)
    rows = [{"text": f"say {number} words", "label_text": "talk"} for number in range(900)]
    rows += [{"text": "Say 3 words", "label_text": "talk"}, {"text": "word " * 30, "label_text": "talk"}]
    (folder / "train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    flags = encoders.write_splits("intents", tmp_path / "data", tmp_path)
    texts = [
        [json.loads(line)["text"] for line in Path(file).read_text(encoding="utf-8").splitlines()]
        for file in flags.values()
    ]
    assert [len(part) for part in texts] == list(encoders.TASKS["intents"][2])
    assert len({text.lower() for part in texts for text in part}) == sum(len(part) for part in texts)
    assert all(len(text.split()) <= encoders.WORDS for part in texts for text in part)
