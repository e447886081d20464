"""Each rule on a case made for it, on one that it must leave alone, and all of them on a healthy run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sick import STEPS, case, falling, healthy, modules, readings, trace

from loraloom.config.keys import keys
from loraloom.diagnose.case import Case
from loraloom.diagnose.rank import LEVELS, ORDER, diagnose, ranked
from loraloom.diagnose.rules import RULES
from loraloom.records import Finding

FLAT = [2.0 + 0.01 * (-1) ** n for n in range(STEPS)]
BY_HEART = [falling(n) - 0.9 for n in range(STEPS)]
SICK: dict[str, Case] = {
    "broken-injection": case(signals={"first_norms": (0.2, 0.3)}),
    "adapter-not-trained": case(signals={"modules": modules(dead=10)}),
    "diverged": case({"training.learning_rate": 0.1}, status="diverged", reason="loss not finite at step 9"),
    "noisy-steps": case(
        {"training.per_device_train_batch_size": 1, "training.learning_rate": 1e-2},
        {"trace": trace([0.1 if n % 3 else 6.0 for n in range(STEPS)], norm=9.0, clipped=True)},
    ),
    "rate-too-high": case({"training.learning_rate": 0.02}, {"readings": readings([2.4, 2.5, 2.6])}),
    "rate-too-low": case({"training.learning_rate": 1e-5}, {"trace": trace(FLAT), "readings": readings([2.19, 2.19, 2.19])}),
    "nothing-to-learn": case(
        signals={"readings": readings([1.96, 1.95, 1.95])}, task="seq_cls", guess_cost=1.95, guess_loss=1.95, base_cost=1.95
    ),
    "forgetting": case(signals={"retain_change": (0.4, 0.05)}),
    "overfit": case(
        signals={"trace": trace(BY_HEART), "readings": readings([1.5, 1.3, 1.5, 1.8, 2.0], train=[1.2, 0.9, 0.5, 0.2, 0.1])}
    ),
    "no-warm-up": case({"training.warmup_ratio": 0.0}, {"trace": trace([2.0, 2.5, 3.5, 3.6, 3.4, *map(falling, range(75))])}),
    "narrow-targets": case(adapted=1, adaptable=30),
    "rank-bound": case(
        {"adapter.r": 1, "adapter.lora_alpha": 2},
        {"modules": modules(r=1, effective=1.0)},
        advised={"adapter.r": 16, "training.learning_rate": 1e-3},
    ),
    "undertrained": case(signals={"readings": readings([2.1, 1.9, 1.7, 1.5, 1.3])}),
    "rank-surplus": case({"adapter.r": 64, "adapter.lora_alpha": 128}, {"modules": modules(r=64, effective=6.0)}),
    "memorised": case(signals={"trace": trace([0.1] * STEPS), "train_exact": 0.9, "held_out_exact": 0.0}),
    "calibration-drift": case(
        signals={"readings": readings([1.5, 1.3, 1.6, 1.8, 2.0], metrics=[0.5, 0.6, 0.6, 0.6, 0.7])},
    ),
}


def test_every_rule_has_its_case() -> None:
    assert SICK.keys() == RULES.keys()


@pytest.mark.parametrize("name", SICK)
def test_a_rule_names_its_fault_first(name: str) -> None:
    found = diagnose(SICK[name])
    assert found and found[0].name == name, [finding.name for finding in found]


@pytest.mark.parametrize("name", SICK)
def test_a_finding_says_what_was_seen_and_what_to_do(name: str) -> None:
    found = RULES[name](SICK[name])
    assert found is not None
    assert found.level in LEVELS and found.symptom and found.next
    assert any(letter.isdigit() for letter in found.evidence), found.evidence


@pytest.mark.parametrize("name", SICK)
def test_a_patch_names_keys_of_the_config(name: str) -> None:
    found = RULES[name](SICK[name])
    assert found is not None and set(found.patch) <= set(keys())


@pytest.mark.parametrize("name", SICK)
def test_a_healthy_run_has_no_fault(name: str) -> None:
    assert RULES[name](healthy()) is None


@pytest.mark.parametrize("name", SICK)
def test_signals_survive_json_with_the_same_findings(name: str) -> None:
    import json

    from loraloom.diagnose.signals import Signals

    sick = SICK[name]
    again = Signals.from_plain(json.loads(json.dumps(sick.signals.to_plain())))
    assert again == sick.signals
    assert diagnose(replace(sick, signals=again)) == diagnose(sick)


def test_a_candidate_that_saw_nothing_has_no_findings() -> None:
    from loraloom.diagnose.signals import Signals

    assert diagnose(replace(healthy(), signals=Signals())) == ()


def test_divergence_falls_back_to_the_advised_rate() -> None:
    found = diagnose(SICK["diverged"])[0]
    assert found.patch == {"training.learning_rate": 1e-3, "training.warmup_ratio": 0.2}
    near = case({"training.learning_rate": 1.5e-3}, status="diverged", reason="loss not finite")
    assert diagnose(near)[0].patch["training.learning_rate"] == pytest.approx(5e-4), "a third, where that is below the advice"
    assert "loss not finite at step 9" in found.evidence


def test_an_exit_that_was_only_seen_counts_like_one_that_was_taken() -> None:
    seen = case({"training.learning_rate": 0.1}, {"seen_exit": ("diverged", "loss 3 times its best")})
    assert diagnose(seen)[0].name == "diverged"


def test_an_overfit_run_is_shortened_to_its_best_step() -> None:
    assert SICK["overfit"].signals.readings[1].step == 32
    found = diagnose(SICK["overfit"])[0]
    assert found.patch == {"training.num_train_epochs": 2.0, "adapter.lora_dropout": 0.05}
    limited = case({"training.max_steps": STEPS}, {"readings": SICK["overfit"].signals.readings})
    assert diagnose(limited)[0].patch["training.max_steps"] == 40


def test_longer_means_more_steps_where_steps_were_asked_for() -> None:
    slow = {"readings": SICK["undertrained"].signals.readings}
    assert diagnose(case({"training.max_steps": 80}, slow))[0].patch == {"training.max_steps": 160}
    assert diagnose(case(signals=slow))[0].patch == {"training.num_train_epochs": 8.0}


def test_rank_changes_keep_the_scale() -> None:
    for name in ("rank-bound", "rank-surplus"):
        before, patch = SICK[name].values, diagnose(SICK[name])[0].patch
        assert patch["adapter.lora_alpha"] / patch["adapter.r"] == before["adapter.lora_alpha"] / before["adapter.r"]


def test_a_full_adapter_at_the_advised_rank_is_a_note() -> None:
    full = case(signals={"modules": modules(effective=7.0)})
    assert [(found.name, found.level) for found in diagnose(full)] == [("rank-bound", "note")]


def test_a_large_rank_that_the_advice_asked_for_is_a_note() -> None:
    large = replace(SICK["rank-surplus"], advised={"adapter.r": 64, "training.learning_rate": 1e-3})
    assert [(found.name, found.level) for found in diagnose(large)] == [("rank-surplus", "note")]


def test_a_low_rate_is_not_blamed_where_the_loss_is_clipped_and_no_advice_is_known() -> None:
    clipped = case(signals={"trace": trace(FLAT, norm=9.0, clipped=True)}, advised={})
    assert RULES["rate-too-low"](clipped) is None


def test_a_rise_of_a_standard_error_is_no_overfit() -> None:
    mild = case(signals={"trace": trace(BY_HEART), "readings": readings([1.5, 1.3, 1.31, 1.32, 1.33], se=0.02)})
    assert RULES["overfit"](mild) is None


@pytest.mark.parametrize("change", [(0.01, 0.0), (0.4, 0.3), (-0.4, 0.01)])
def test_small_or_uncertain_losses_on_retained_rows_are_no_forgetting(change: tuple[float, float]) -> None:
    assert RULES["forgetting"](case(signals={"retain_change": change})) is None


@given(st.permutations([(name, level) for name, level in zip(ORDER, LEVELS * len(ORDER), strict=False)]))
def test_findings_stand_in_order_whatever_order_they_come_in(found: list[tuple[str, str]]) -> None:
    made = ranked(Finding(name, level, "s", "e", "n") for name, level in found)  # type: ignore[arg-type]
    places = [(LEVELS.index(one.level), ORDER.index(one.name)) for one in made]
    assert places == sorted(places)
