"""Rows that are parts of one thing say so, from the file to the standard error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loraloom.config.asked import DataConfig
from loraloom.data.encode import encode
from loraloom.data.recognise import recognise
from loraloom.data.rows import Row
from loraloom.data.split import Splits, split
from loraloom.data.table import Table
from loraloom.evals.scoring import RowTable, score_of
from loraloom.search.compare import standard_error


def table_of(*rows: dict[str, Any]) -> Table:
    return Table("rows", rows, tuple(("rows:", i) for i in range(len(rows))))


def test_windows_of_a_text_are_one_cluster(byte_tokenizer: Any) -> None:
    table = table_of(
        {"text": "one two three four five six seven"},
        {"text": "four five"},
        {"text": "user one two three yes no"},
    )
    encoded = encode(Splits(table), recognise(table, DataConfig()), byte_tokenizer).cut(8)
    clusters = [row.cluster for row in encoded.train]
    assert len(clusters) > 3
    assert clusters == sorted(clusters) and set(clusters) == {0, 1, 2}


def test_answers_of_one_conversation_are_one_cluster(byte_tokenizer: Any) -> None:
    """Where a template rewrites earlier turns, each answer is a row of its own."""
    talk = [
        {"role": role, "content": word}
        for role, word in zip(("user", "assistant") * 2, ("one", "two", "yes", "no"), strict=True)
    ]
    table = table_of({"messages": talk}, {"messages": talk[:2]})
    before = byte_tokenizer.chat_template
    byte_tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['role'] == 'user' or loop.last %}{{"
        " m['content'] }}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant: {%"
        " endif %}"
    )
    try:
        encoded = encode(Splits(table), recognise(table, DataConfig()), byte_tokenizer)
    finally:
        byte_tokenizer.chat_template = before
    assert [row.cluster for row in encoded.train] == [0, 0, 1]


def test_rows_of_a_group_are_one_cluster(byte_tokenizer: Any) -> None:
    """Several answers to one question stand in one group, and so in one cluster of the
    split that they are drawn into."""
    words = ("one", "two", "three", "four", "five", "yes", "no", "hello", "world", "user")
    rows = [
        {"prompt": f"{word} {word}", "completion": answer} for word in words for answer in ("one", "two")
    ]
    table = table_of(*rows)
    recognised = recognise(table, DataConfig())
    splits = split(table, 0.3, None, recognised)
    encoded = encode(splits, recognised, byte_tokenizer)
    of_prompt: dict[str, set[int]] = {}
    for row, made in zip(splits.validation.rows, encoded.validation, strict=True):
        of_prompt.setdefault(row["prompt"], set()).add(made.cluster)
    assert len(of_prompt) == 3
    assert all(len(clusters) == 1 for clusters in of_prompt.values())
    assert len({next(iter(clusters)) for clusters in of_prompt.values()}) == 3


def test_a_score_is_as_sure_as_its_clusters() -> None:
    rng = np.random.default_rng(0)
    ids = np.arange(3, dtype=np.int32)
    level = np.repeat(rng.normal(2.0, 1.0, 6), 20)

    class Objective:
        metric, chance, concurrent = "token_accuracy", 1.0, True

    def score(clusters: list[int]) -> Any:
        table = RowTable([Row(ids, ids, cluster) for cluster in clusters])
        table._sums[:] = np.stack([level, np.ones(120), np.zeros(120)])
        return score_of(table.sums(), "validation", Objective(), "loss")  # type: ignore[arg-type]

    apart, together = score([-1] * 120), score(list(np.repeat(range(6), 20)))
    assert apart.clusters == () and len(together.clusters) == 120
    assert together.metrics["loss"] == pytest.approx(apart.metrics["loss"])
    assert together.metrics["loss_se"] == pytest.approx(level[::20].std(ddof=1) / np.sqrt(6))
    assert together.metrics["loss_se"] > 3 * apart.metrics["loss_se"]
    assert standard_error(together) == pytest.approx(together.metrics["loss_se"])
