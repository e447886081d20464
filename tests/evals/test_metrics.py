"""F1 and Matthews' coefficient against scikit-learn's definitions, texts against known scores, and
errors of the user's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.errors import ConfigError
from loraloom.evals.metrics import (
    bootstrapped_mean,
    class_metrics,
    exact_match,
    rouge_l,
    text_metrics,
    text_scores,
)

CLASSES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def slow_f1(chosen: list[int], labels: list[int]) -> float:
    """Macro F1, class by class."""
    scores: list[float] = []
    for one in sorted({*chosen, *labels}):
        hits = sum(a == b == one for a, b in zip(chosen, labels, strict=True))
        scores.append(2 * hits / (chosen.count(one) + labels.count(one)))
    return sum(scores) / len(scores)


@settings(max_examples=60, deadline=None)
@given(CLASSES)
def test_the_scores_are_the_textbooks(pairs: list[tuple[int, int]]) -> None:
    chosen, labels = ([pair[i] for pair in pairs] for i in (0, 1))
    found = class_metrics(np.array(chosen), np.array(labels))
    assert found["macro_f1"] == pytest.approx(slow_f1(chosen, labels))
    # Gorodkin's coefficient is the correlation of the one-hot rows, all classes together.
    one_hot = np.eye(5)
    a, b = one_hot[chosen] - one_hot[chosen].mean(0), one_hot[labels] - one_hot[labels].mean(0)
    size = math.sqrt((a * a).sum() * (b * b).sum())
    assert found["mcc"] == pytest.approx((a * b).sum() / size if size > 1e-9 else 0.0, abs=1e-9)


def test_they_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the demo extra")
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 6, 300)
    chosen = np.where(draw.random(300) < 0.6, labels, draw.integers(0, 6, 300))
    found = class_metrics(chosen, labels)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, chosen, average="macro"))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(labels, chosen))


def test_the_bootstrap_error_is_that_of_fresh_samples() -> None:
    draw = np.random.default_rng(2)

    def sample() -> dict[str, float]:
        labels = draw.integers(0, 3, 200)
        return class_metrics(np.where(draw.random(200) < 0.7, labels, draw.integers(0, 3, 200)), labels)

    samples = [sample() for _ in range(60)]
    for name in ("macro_f1", "mcc"):
        spread = float(np.std([found[name] for found in samples], ddof=1))
        told = float(np.mean([found[f"{name}_se"] for found in samples]))
        assert told == pytest.approx(spread, rel=0.35)


def test_the_error_is_the_same_each_time_and_no_rows_have_no_score() -> None:
    chosen, labels = np.array([0, 1, 1, 0, 2]), np.array([0, 1, 0, 0, 2])
    assert class_metrics(chosen, labels) == class_metrics(chosen, labels)
    assert class_metrics(np.array([], dtype=int), np.array([], dtype=int)) == {}


def test_many_classes_are_counted_without_a_table_of_all_pairs() -> None:
    labels = np.arange(3000) * 7
    found = class_metrics(labels[::-1].copy(), labels)
    assert found["macro_f1"] == 0.0


def test_exact_match_looks_past_white_space_only() -> None:
    assert exact_match(["a b", "a  b\n", "A b"], ["a b", "a b", "a b"]) == [1.0, 1.0, 0.0]


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    pytest.importorskip("rouge_score", reason="rouge-score comes with the metrics extra")
    # Three of four words in order on one side, three of three on the other: F = 2 * 3 / (4 + 3).
    assert rouge_l(["the cat sat down", ""], ["the cat down", "words"]) == pytest.approx([6 / 7, 0.0])


def test_a_mean_has_the_error_of_its_rows() -> None:
    values = np.random.default_rng(3).normal(size=400)
    mean, error = bootstrapped_mean(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(values.std(ddof=1) / 20, rel=0.2)
    assert math.isnan(bootstrapped_mean(np.array([]))[0])


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judging_c.py").write_text(
        "def longer(written, wanted):\n    return [len(a) > len(b) for a, b in zip(written, wanted)]\n"
        "def one(written, wanted):\n    return 0.5\n"
        "def broken(written, wanted):\n    return 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    chosen = text_metrics(["judging_c:longer", "exact_match"])
    scores = text_scores(chosen, ["aaa", "b"], ["a", "b"])
    assert scores["longer"] == 0.5
    assert scores["exact_match"] == 0.5
    assert 0 < scores["longer_se"] < 0.5
    with pytest.raises(ConfigError, match="metric `one` did not give one number a row") as caught:
        text_scores(text_metrics(["judging_c:one"]), ["a"], ["a"])
    assert "one number for 1 rows" in str(caught.value)
    with pytest.raises(ConfigError, match="metric `broken` failed") as caught:
        text_scores(text_metrics(["judging_c:broken"]), ["a"], ["a"])
    assert "ZeroDivisionError" in str(caught.value)


def test_two_functions_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("judging_d", "judging_e"):
        (tmp_path / f"{name}.py").write_text(
            "def score(written, wanted):\n    return [0.0] * len(wanted)\n"
        )
    monkeypatch.chdir(tmp_path)
    assert set(text_metrics(["judging_d:score", "judging_d:score"])) == {"score"}
    with pytest.raises(ConfigError, match="two metrics have the same name"):
        text_metrics(["judging_d:score", "judging_e:score"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bleu", "`bleu` is no metric"),
        (
            "nosuchmodule_c:score",
            "module `nosuchmodule_c` of metric `nosuchmodule_c:score` cannot be imported",
        ),
        ("math:nosuch", "module `math` has no function `nosuch`"),
        (":score", "`:score` is no metric"),
    ],
)
def test_a_metric_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        text_metrics([name])
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="rouge-score") as caught:
        text_metrics(["rouge_l"])
    assert 'pip install "loraloom[metrics]"' in str(caught.value)
