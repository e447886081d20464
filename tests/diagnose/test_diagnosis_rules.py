"""Each rule on a case made for it, on one that it must leave alone, and all of them on a healthy run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sick import STEPS, case, falling, healthy, modules, preferring, readings, trace

from loraloom.config.keys import keys
from loraloom.diagnose.case import Case
from loraloom.diagnose.order import LEVELS, ORDER, diagnose, ranked
from loraloom.diagnose.rules import RULES
from loraloom.diagnose.rules.length_hacking import longer_than_base
from loraloom.records import Finding

FLAT = [2.0 + 0.01 * (-1) ** n for n in range(STEPS)]
BY_HEART = [falling(n) - 0.9 for n in range(STEPS)]
SICK: dict[str, Case] = {
    "broken-injection": case(signals={"first_norms": (0.2, 0.3)}),
    "adapter-not-trained": case(signals={"modules": modules(dead=10)}),
    "diverged": case(
        {"training.learning_rate": 0.1}, status="diverged", reason="loss not finite at step 9"
    ),
    "noisy-steps": case(
        {"training.per_device_train_batch_size": 1, "training.learning_rate": 1e-2},
        {"trace": trace([0.1 if n % 3 else 6.0 for n in range(STEPS)], norm=9.0, clipped=True)},
    ),
    "rate-too-high": case({"training.learning_rate": 0.02}, {"readings": readings([2.4, 2.5, 2.6])}),
    "rate-too-low": case(
        {"training.learning_rate": 1e-5},
        {"trace": trace(FLAT), "readings": readings([2.19, 2.19, 2.19])},
    ),
    "nothing-to-learn": case(
        signals={"readings": readings([1.96, 1.95, 1.95])},
        task="seq_cls",
        guess_cost=1.95,
        guess_loss=1.95,
        base_cost=1.95,
    ),
    "forgetting": case(signals={"retain_change": (0.4, 0.05)}),
    "overfit": case(
        signals={
            "trace": trace(BY_HEART),
            "readings": readings([1.5, 1.3, 1.5, 1.8, 2.0], train=[1.2, 0.9, 0.5, 0.2, 0.1]),
        }
    ),
    "no-warm-up": case(
        {"training.warmup_ratio": 0.0},
        {"trace": trace([2.0, 2.5, 3.5, 3.6, 3.4, *map(falling, range(75))])},
    ),
    "narrow-targets": case(adapted=1, adaptable=30),
    "rank-bound": case(
        {"adapter.r": 1, "adapter.lora_alpha": 2},
        {"modules": modules(r=1, effective=1.0)},
        advised={"adapter.r": 16, "training.learning_rate": 1e-3},
    ),
    "undertrained": case(signals={"readings": readings([2.1, 1.9, 1.7, 1.5, 1.3])}),
    "rank-surplus": case(
        {"adapter.r": 64, "adapter.lora_alpha": 128}, {"modules": modules(r=64, effective=6.0)}
    ),
    "memorised": case(
        signals={"trace": trace([0.1] * STEPS), "train_exact": 0.9, "held_out_exact": 0.0}
    ),
    "calibration-drift": case(
        signals={
            "readings": readings(
                [1.5, 1.3, 1.6, 1.8, 2.0], metrics=[0.5, 0.6, 0.6, 0.6, 0.7], decides="accuracy"
            )
        },
        decides="accuracy",
        base_cost=0.9,
    ),
}
SICK |= {
    "preference-not-learnt": preferring(
        accuracy=[0.5, 0.52, 0.5, 0.49, 0.51, 0.5, 0.5, 0.51],
        losses=[math.log(2)] * STEPS,
        train_exact=0.6,
    ),
    "beta-too-small": preferring(
        {"preference.beta": 0.005},
        chosen=[0.0, 0.0, -0.01, -0.02, -0.03, -0.04, -0.05, -0.06],
        rejected=[0.0, -0.1, -0.2, -0.4, -0.6, -0.8, -0.9, -1.0],
        accuracy=[0.7, 0.78, 0.8, 0.8, 0.8, 0.79, 0.79, 0.79],
        margin=40.0,
    ),
    "chosen-falling": preferring(chosen=[0.0, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.7]),
    "length-hacking": preferring(correlation=0.7),
}
OF_PREFERENCES = ("preference-not-learnt", "beta-too-small", "chosen-falling", "length-hacking")


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


def test_few_rows_do_not_show_that_there_is_nothing_to_learn() -> None:
    sick = SICK["nothing-to-learn"]
    loose = [replace(reading, loss_se=0.5, cost_se=0.5) for reading in sick.signals.readings]
    assert (
        RULES["nothing-to-learn"](replace(sick, signals=replace(sick.signals, readings=loose))) is None
    )


def test_divergence_falls_back_to_the_advised_rate() -> None:
    found = diagnose(SICK["diverged"])[0]
    assert found.patch == {"training.learning_rate": 1e-3, "training.warmup_ratio": 0.2}
    near = case({"training.learning_rate": 1.5e-3}, status="diverged", reason="loss not finite")
    assert diagnose(near)[0].patch["training.learning_rate"] == pytest.approx(5e-4), (
        "a third, where that is below the advice"
    )
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
        assert (
            patch["adapter.lora_alpha"] / patch["adapter.r"]
            == before["adapter.lora_alpha"] / before["adapter.r"]
        )


def test_a_full_adapter_at_the_advised_rank_is_a_note() -> None:
    full = case(signals={"modules": modules(effective=7.0)})
    assert [(found.name, found.level) for found in diagnose(full)] == [("rank-bound", "note")]


def test_a_large_rank_that_the_advice_asked_for_is_a_note() -> None:
    large = replace(SICK["rank-surplus"], advised={"adapter.r": 64, "training.learning_rate": 1e-3})
    assert [(found.name, found.level) for found in diagnose(large)] == [("rank-surplus", "note")]


def test_a_rank_far_above_the_advice_is_a_surplus_unless_it_is_in_full_use() -> None:
    values = {"adapter.r": 64, "adapter.lora_alpha": 128}
    spread = case(values, {"modules": modules(64, 40.0)})
    assert RULES["rank-surplus"](spread) is not None
    assert RULES["rank-surplus"](replace(spread, advised={"adapter.r": 32})) is None, (
        "noise may fill it: nothing to be sure of"
    )
    assert RULES["rank-surplus"](case(values, {"modules": modules(64, 60.0)})) is None


def test_an_adapter_that_gets_no_gradient_is_found_before_its_twentieth_step() -> None:
    early = trace([2.0] * 8)
    assert (
        diagnose(case(signals={"modules": modules(dead=10), "trace": early}))[0].name
        == "adapter-not-trained"
    )
    assert (
        RULES["adapter-not-trained"](case(signals={"modules": modules(dead=3), "trace": early})) is None
    ), "a part may wait"
    assert RULES["adapter-not-trained"](case(signals={"modules": modules(dead=3)})) is not None


def test_a_curve_that_has_bent_is_not_called_short() -> None:
    bent = readings([1.5, 1.4, 1.35, 1.32, 1.31], se=0.001)
    assert RULES["undertrained"](case(signals={"readings": bent})) is None, (
        "late gains are sure, and small beside the first"
    )
    worse = readings([4.0, 3.5, 3.0, 2.7, 2.5])
    assert RULES["undertrained"](case(signals={"readings": worse})) is None, (
        "still worse than the base: no want of steps"
    )


def test_undertraining_foretells_what_twice_the_steps_gain() -> None:
    found = RULES["undertrained"](case(signals={"readings": readings([2.0, 1.8, 1.6, 1.5, 1.4])}))
    # Half of the rate's sum is spent at step 24, between 2.0 at 16 and 1.8 at 32: 0.3
    # gained before it, 0.5 after it.
    assert found is not None and "1.9 at best by step 24" in found.evidence
    assert found.evidence.endswith("2 times the steps gain 0.8 more"), "a straight line at most"


def test_what_was_lost_on_the_way_and_won_back_is_no_progress() -> None:
    straight = [2.0, 1.9, 1.8, 1.7, 1.6]
    won_back = [1.7, 1.9, 1.8, 1.7, 1.6]
    assert (
        RULES["undertrained"](case(signals={"readings": readings(straight, gain_se=0.01)})) is not None
    )
    assert RULES["undertrained"](case(signals={"readings": readings(won_back, gain_se=0.01)})) is None
    beyond = [1.7, 1.9, 1.6, 1.4, 1.2]
    found = RULES["undertrained"](case(signals={"readings": readings(beyond, gain_se=0.01)}))
    # The best until step 24, half way between 1.7 at 16 and at 32: 0.5 gained before it, 0.5 after it.
    assert found is not None and "1.7 at best by step 24" in found.evidence
    assert found.evidence.endswith("2 times the steps gain 1 more")


@pytest.mark.parametrize(("gain_se", "found"), [(0.01, True), (0.05, False)])
def test_a_promise_counts_for_what_is_sure_of_it(gain_se: float, found: bool) -> None:
    """0.475 gained until step 24 and 0.425 after it, in three and a half evaluations: at the larger
    noise 0.075 of it is sure. How far rows differ from one another does not come into it."""
    seen = readings([1.8, 1.65, 1.55, 1.42, 1.3], se=0.2, gain_se=gain_se)
    assert (RULES["undertrained"](case(signals={"readings": seen})) is not None) == found


@pytest.mark.parametrize(("gain_se", "found"), [(0.01, True), (0.05, False)])
def test_evaluations_worse_than_the_base_have_their_noise_as_well(gain_se: float, found: bool) -> None:
    """All of the 0.3 that is gained over the base at 2.2 is late; the last two steps
    alone have a noise of 0.1 at most."""
    seen = readings([2.6, 2.5, 2.3, 2.15, 1.9], gain_se=gain_se)
    assert (RULES["undertrained"](case(signals={"readings": seen})) is not None) == found


def test_of_a_classifier_what_is_late_has_to_exceed_how_far_rows_differ() -> None:
    def ends(se: float) -> Case:
        return case(
            signals={"readings": readings([1.9, 1.8, 1.6, 1.4, 1.2], se=se, decides="accuracy")},
            decides="accuracy",
        )

    assert RULES["undertrained"](ends(0.05)) is not None
    assert RULES["undertrained"](ends(0.3)) is None


def test_a_loss_still_falling_far_below_the_advised_rate_wants_the_rate_and_not_the_steps() -> None:
    falls = {"readings": SICK["undertrained"].signals.readings}
    assert diagnose(case({"training.learning_rate": 3e-4}, falls))[0].name == "undertrained"
    found = diagnose(case({"training.learning_rate": 2e-4}, falls))[0]
    assert (found.name, found.patch) == ("rate-too-low", {"training.learning_rate": 1e-3})
    assert "still falling" in found.symptom


def test_a_run_far_shorter_than_advised_needs_to_promise_less() -> None:
    bending = {"readings": readings([1.4, 1.25, 1.18, 1.15, 1.12])}
    known = {"training.learning_rate": 1e-3, "adapter.r": 8}
    assert RULES["undertrained"](case(signals=bending, advised=known)) is None
    assert (
        RULES["undertrained"](
            case(signals=bending, advised={**known, "training.num_train_epochs": 16.0})
        )
        is None
    )
    found = RULES["undertrained"](
        case(signals=bending, advised={**known, "training.num_train_epochs": 17.0})
    )
    assert found is not None and "340 steps are advised" in found.evidence
    assert found.patch == {"training.num_train_epochs": 17.0}, "it is trained as long as advised"


def test_a_short_run_that_learnt_nothing_yet_is_no_trained_one() -> None:
    known = {"training.learning_rate": 1e-3, "adapter.r": 8, "training.num_train_epochs": 40.0}
    plateau = case(signals={"readings": readings([2.21, 2.2, 2.19, 2.2], se=0.05)}, advised=known)
    found = RULES["undertrained"](plateau)
    assert found is not None and "nothing was learnt yet" in found.symptom
    assert (
        RULES["undertrained"](replace(plateau, advised={**known, "training.num_train_epochs": 4.0}))
        is None
    ), "long enough"
    lost = replace(plateau.signals, readings=readings([2.4, 2.6, 2.8, 2.9], se=0.05))
    assert RULES["undertrained"](replace(plateau, signals=lost)) is None, (
        "worse than the base: more of that does not help"
    )
    flat = replace(plateau.signals, readings=readings([1.2, 1.12, 1.12, 1.12], se=0.05))
    assert RULES["undertrained"](replace(plateau, signals=flat)) is None, "done, however short"


def test_a_best_that_was_lost_is_the_rate_s_fault_only_where_the_training_loss_is_lost_too() -> None:
    lost = {"readings": readings([1.3, 0.9, 1.2, 1.5, 1.6], train=[1.0] * 5)}
    high = {"training.learning_rate": 8e-3}
    thrown = trace([0.2 if n % 3 else 4.0 for n in range(STEPS)], norm=9.0, clipped=True)
    assert RULES["rate-too-high"](case(high, {**lost, "trace": thrown})) is not None
    assert RULES["rate-too-high"](case(high, lost)) is None, "it settled: that is overfitting"
    assert (
        RULES["rate-too-high"](case({"training.learning_rate": 2e-3}, {**lost, "trace": thrown})) is None
    )


def test_a_low_rate_is_not_blamed_where_the_loss_is_clipped_and_no_advice_is_known() -> None:
    clipped = case(signals={"trace": trace(FLAT, norm=9.0, clipped=True)}, advised={})
    assert RULES["rate-too-low"](clipped) is None


RISING, BY_ROTE = [1.5, 1.3, 1.6, 1.8, 2.0, 2.1], [1.2, 0.9, 0.5, 0.2, 0.1, 0.1]


def classifier(metrics: list[float]) -> Case:
    """A classifier whose loss rises from the second evaluation on."""
    seen = readings(RISING, metrics=metrics, train=BY_ROTE, decides="accuracy")
    return case(signals={"trace": trace(BY_HEART), "readings": seen}, decides="accuracy", base_cost=0.9)


def test_a_loss_that_rises_while_as_many_answers_are_right_is_no_overfit() -> None:
    assert diagnose(classifier([0.5, 0.5, 0.66, 0.65, 0.66, 0.65]))[0].name == "calibration-drift"
    assert diagnose(classifier([0.5, 0.7, 0.6, 0.5, 0.4, 0.4]))[0].name == "overfit", (
        "fewer are right, too"
    )
    by_loss = case(signals={"trace": trace(BY_HEART), "readings": readings(RISING, train=BY_ROTE)})
    assert diagnose(by_loss)[0].name == "overfit"


def test_a_rise_within_its_paired_noise_is_no_overfit() -> None:
    losses, train = [1.9, 1.7, 1.5, 1.4, 1.55, 1.56, 1.57], [1.5, 1.4, 1.3, 1.2, 1.2, 1.15, 1.1]

    def ends(gain_se: float, rise: float = 0.0) -> Case:
        seen = readings(
            [*losses[:4], *(loss - 0.15 + rise for loss in losses[4:])],
            train=train,
            se=0.1,
            gain_se=gain_se,
        )
        return case(signals={"readings": seen})

    assert RULES["overfit"](ends(0.05, rise=0.15)) is not None, (
        "rows are paired: that they differ is no noise"
    )
    assert RULES["overfit"](ends(0.1, rise=0.15)) is None
    assert RULES["overfit"](ends(0.001)) is None, "sure, and small beside what was gained"


def test_a_whole_run_that_gained_early_alone_is_overfit_although_no_loss_is_sure() -> None:
    flat, train = [1.3, 1.32, 1.33, 1.34, 1.35, 1.36], [1.2, 0.6, 0.4, 0.3, 0.2, 0.15]
    spent = case(signals={"readings": readings(flat, train=train, se=0.1, gain_se=0.1)})
    found = RULES["overfit"](spent)
    assert found is not None and found.patch["training.num_train_epochs"] == 0.81
    assert RULES["overfit"](replace(spent, planned_steps=2 * STEPS)) is None, "it was ended in time"
    late = [1.9, 1.6, 1.4, 1.3, 1.31, 1.32]
    assert (
        RULES["overfit"](case(signals={"readings": readings(late, train=train, se=0.1, gain_se=0.1)}))
        is None
    )


def test_rows_that_were_harder_from_the_start_do_not_hide_a_rank_that_is_too_small() -> None:
    sick = SICK["rank-bound"]
    harder = readings([reading.loss + 0.8 for reading in sick.signals.readings])
    assert RULES["rank-bound"](replace(sick, signals=replace(sick.signals, readings=harder))) is None
    shifted = replace(
        sick, base_loss=(sick.base_loss or 0.0) + 0.8, signals=replace(sick.signals, readings=harder)
    )
    assert RULES["rank-bound"](shifted) is not None


@pytest.mark.parametrize("change", [(0.01, 0.0), (0.4, 0.3), (-0.4, 0.01)])
def test_small_or_uncertain_losses_on_retained_rows_are_no_forgetting(
    change: tuple[float, float],
) -> None:
    assert RULES["forgetting"](case(signals={"retain_change": change})) is None


@given(st.permutations([(name, level) for name, level in zip(ORDER, LEVELS * len(ORDER), strict=False)]))
def test_findings_stand_in_order_whatever_order_they_come_in(found: list[tuple[str, str]]) -> None:
    made = ranked(Finding(name, level, "s", "e", "n") for name, level in found)  # type: ignore[arg-type]
    places = [(LEVELS.index(one.level), ORDER.index(one.name)) for one in made]
    assert places == sorted(places)


def test_a_healthy_choice_between_answers_has_no_fault() -> None:
    assert diagnose(preferring()) == ()


@pytest.mark.parametrize("name", OF_PREFERENCES)
def test_a_rule_about_preferences_leaves_other_tasks_alone(name: str) -> None:
    assert RULES[name](replace(SICK[name], task="causal_lm")) is None


@pytest.mark.parametrize("name", OF_PREFERENCES)
def test_a_reward_model_has_the_findings_that_need_no_reference(name: str) -> None:
    sick = SICK[name]
    readings = [
        replace(reading, chosen_logratio=None, rejected_logratio=None)
        for reading in sick.signals.readings
    ]
    scorer = replace(
        sick,
        task="reward",
        decides="loss",
        values={key: value for key, value in sick.values.items() if not key.startswith("preference.")},
        signals=replace(sick.signals, readings=readings),
    )
    found = {one.name: one for one in diagnose(scorer)}
    assert {*found} & {*OF_PREFERENCES} == {name} & {"preference-not-learnt", "length-hacking"}
    assert not any(key.startswith("preference.") for one in found.values() for key in one.patch)
    assert not any("preference." in one.next for one in found.values())


def test_swapped_sides_are_told_before_a_divergence() -> None:
    wrong = preferring(accuracy=[0.5, 0.4, 0.3, 0.25, 0.2, 0.2, 0.2, 0.2])
    found = diagnose(replace(wrong, status="diverged", reason="worse than before training"))
    assert [one.name for one in found[:2]] == ["preference-not-learnt", "diverged"]
    assert "swapped" in found[0].symptom and found[0].level == "fault"


def test_a_model_that_broke_is_not_said_to_have_swapped_pairs() -> None:
    wrong = [0.5, 0.4, 0.3, 0.25, 0.2, 0.2, 0.2, 0.2]
    broken = preferring(accuracy=wrong, train_exact=0.3)
    assert RULES["preference-not-learnt"](broken) is None


def test_a_model_that_was_right_before_it_broke_was_not_taught_the_opposite() -> None:
    breaks = [0.6, 0.7, 0.8, 0.8, 0.7, 0.5, 0.3, 0.2]
    assert RULES["preference-not-learnt"](preferring(accuracy=breaks)) is None


def test_a_choice_that_is_learnt_too_slowly_is_told_though_it_is_right() -> None:
    slow = [math.log(2) - 0.012 * step / STEPS for step in range(STEPS)]
    found = diagnose(preferring({"training.learning_rate": 1e-4}, losses=slow))
    assert found[0].name == "rate-too-low"
    assert not diagnose(preferring({"training.learning_rate": 3e-4}, losses=slow))


def test_pairs_that_are_known_by_heart() -> None:
    flat = [0.5, 0.5, 0.52, 0.51, 0.5, 0.5, 0.49, 0.5]
    sinks = [-0.1 * number for number in range(8)]
    found = diagnose(preferring(accuracy=flat, chosen=sinks, train_exact=1.0))
    assert found[0].name == "preference-not-learnt"
    assert "by heart" in found[0].symptom and found[0].patch == {"training.num_train_epochs": 1.0}


@pytest.mark.parametrize(
    ("late", "said", "patch"),
    [
        (0.70, "is where it began", {"training.learning_rate": pytest.approx(5e-3)}),
        (1.10, "has risen", {"training.learning_rate": pytest.approx(1e-3 / 3, rel=1e-2)}),
        (0.50, "holds on no other pairs", {}),
    ],
)
def test_what_helps_against_chance_goes_by_the_training_loss(
    late: float, said: str, patch: dict[str, object]
) -> None:
    flat = [0.5, 0.5, 0.52, 0.51, 0.5, 0.5, 0.49, 0.5]
    noise = [0.05 * (-1) ** step for step in range(STEPS)]
    losses = [math.log(2) + (late - math.log(2)) * step / STEPS + noise[step] for step in range(STEPS)]
    found = diagnose(preferring(accuracy=flat, losses=losses, train_exact=0.6))[0]
    assert found.name == "preference-not-learnt" and said in found.symptom
    assert found.patch == patch


def test_a_small_beta_is_told_before_what_follows_from_it() -> None:
    sinks = [-0.2 * number for number in range(8)]
    found = diagnose(
        preferring({"preference.beta": 0.002}, chosen=sinks, rejected=[2 * one for one in sinks])
    )
    assert [(one.name, one.level) for one in found[:2]] == [
        ("beta-too-small", "fault"),
        ("chosen-falling", "fault"),
    ]


def test_chance_on_few_pairs_says_nothing() -> None:
    sick = SICK["preference-not-learnt"]
    loose = [replace(reading, metric_se=0.2) for reading in sick.signals.readings]
    assert (
        RULES["preference-not-learnt"](replace(sick, signals=replace(sick.signals, readings=loose)))
        is None
    )


def test_what_helps_against_a_falling_chosen_side_goes_by_what_is_off() -> None:
    falls = [0.0, -0.05, -0.1, -0.12, -0.15, -0.2, -0.22, -0.25]
    fast = diagnose(preferring({"training.learning_rate": 3e-3}, chosen=falls))[0]
    assert (fast.name, fast.level) == ("chosen-falling", "warning")
    assert fast.patch == {"training.learning_rate": 1e-3}
    loose = diagnose(preferring(chosen=falls))[0]
    assert loose.patch == {"preference.beta": pytest.approx(0.3)}
    held = diagnose(preferring({"preference.beta": 0.5}, chosen=falls))[0]
    assert held.patch == {"preference.loss_type": ["sigmoid", "sft"]}


def test_a_chosen_side_that_has_come_to_rest_does_not_fall() -> None:
    rests = [-0.1, -0.3, -0.3, -0.2, -0.2, -0.18, -0.17, -0.16]
    assert diagnose(preferring(chosen=rests)) == ()


def test_margins_before_anything_was_learnt_do_not_tell_of_length() -> None:
    flat = [0.5, 0.5, 0.52, 0.51, 0.5, 0.5, 0.49, 0.5]
    told = [one.name for one in diagnose(preferring(accuracy=flat, correlation=0.7))]
    assert "length-hacking" not in told


def test_answers_that_have_grown_are_told() -> None:
    assert longer_than_base(1.2, 0.01, 16) is None
    assert longer_than_base(1.5, 0.4, 16) is None, "within its error"
    found = longer_than_base(1.6, 0.1, 16)
    assert found is not None and found.name == "length-hacking"
