"""Names under which PEFT finds exactly what was trained."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from loraloom.lora.state import compact_modules, compact_targets, logits_of

PATHS = [
    "a.0.q",
    "a.0.k",
    "a.1.q",
    "a.1.k",
    "b.q",
    "pooler.dense",
    "a.0.dense",
    "pre_classifier",
    "classifier",
]


@given(st.sets(st.sampled_from(PATHS), min_size=1))
def test_targets_reach_what_was_chosen_and_nothing_else(chosen: set[str]) -> None:
    """PEFT matches a listed target with a whole path or with the end of one after a dot."""
    names = compact_targets(sorted(chosen), PATHS)
    assert {
        path for path in PATHS if any(path == name or path.endswith(f".{name}") for name in names)
    } == chosen


@given(st.sets(st.sampled_from([p for p in PATHS if p not in ("q", "classifier")]), min_size=1))
def test_modules_reach_what_was_chosen_and_nothing_else(chosen: set[str]) -> None:
    """PEFT matches modules_to_save with the end of a path, dot or not."""
    names = compact_modules(sorted(chosen), PATHS)
    assert names is not None
    assert {path for path in PATHS if path.endswith(tuple(names))} == chosen


def test_short_names_are_preferred() -> None:
    assert compact_targets(["a.0.q", "a.1.q", "b.q"], PATHS) == ["q"]
    assert compact_targets(["a.0.q", "a.1.q"], PATHS) == ["a.0.q", "a.1.q"]
    assert compact_modules(["pre_classifier", "classifier"], PATHS) == ["classifier", "pre_classifier"]
    assert compact_modules(["pooler.dense"], PATHS) == ["pooler.dense"]
    assert compact_modules([], PATHS) is None


def test_logits_on_padding_are_not_compared() -> None:
    """With a sliding window a padded token may see nothing, and what attention makes of
    that is anybody's guess."""
    logits = torch.full((1, 3, 2), 5.0)
    logits[0, 2] = float("nan")
    model: Any = lambda **_: SimpleNamespace(logits=logits)  # noqa: E731
    shown = logits_of(
        model, {"input_ids": torch.ones(1, 3), "attention_mask": torch.tensor([[1, 1, 0]])}
    )
    assert shown.tolist() == [[[5.0, 5.0], [5.0, 5.0], [0.0, 0.0]]]
    classes: Any = lambda **_: SimpleNamespace(logits=torch.ones(1, 3))  # noqa: E731
    assert logits_of(classes, {"attention_mask": torch.tensor([[1, 1, 0]])}).tolist() == [
        [1.0, 1.0, 1.0]
    ]
