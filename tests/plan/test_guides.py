"""The checklist of the guides: whole, with a source wherever it is overruled, and true
of what the planner gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from machines import CPU, GIB, GPU

from loraloom.cli.main import app
from loraloom.config.asked import AdapterConfig, Config, LimitsConfig, SearchConfig, TrainingConfig
from loraloom.config.keys import keys
from loraloom.lora.layer import LoRALinear
from loraloom.plan import guides
from loraloom.plan.goals import GOALS
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.presets import PRESETS
from loraloom.plan.rules import RULES
from loraloom.plan.search_space import space_json

Make = Callable[..., Facts]
SPEC = Path(__file__).resolve().parents[3] / "shared" / "spec"
BATCH, RATE, EPOCHS = (
    "training.per_device_train_batch_size",
    "training.learning_rate",
    "training.num_train_epochs",
)
DROPOUT, R, ALPHA, TARGETS = (
    "adapter.lora_dropout",
    "adapter.r",
    "adapter.lora_alpha",
    "adapter.target_modules",
)


# -- the list itself
# --------------------------------------------------------------------------------------------------


def test_every_item_has_words_and_a_number_of_its_own() -> None:
    assert all(count == 1 for count in Counter(item.id for item in guides.ITEMS).values())
    for number in range(len(guides.TITLES)):
        ids = [
            int(item.id.partition(".")[2]) for item in guides.ITEMS if item.id.startswith(f"{number}.")
        ]
        assert ids == list(range(1, len(ids) + 1)) and len(ids) > 20


def test_an_item_has_a_reason_and_someone_who_carries_it_out() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    known = {
        "rule": RULES,
        "setting": keys(),
        "goal": GOALS,
        "preset": PRESETS,
        "command": commands,
        "test": tests,
    }
    for item in guides.ITEMS:
        assert item.says.endswith(".") and item.because.endswith("."), item.id
        assert item.by, item.id
        for kind, _, name in (what.partition(" ") for what in item.by):
            assert name in known[kind], (item.id, kind, name)


def test_what_is_overruled_names_its_source() -> None:
    overruled = [item for item in guides.ITEMS if item.status == "overruled"]
    assert 0 < len(overruled) < len(guides.ITEMS) / 2
    for item in overruled:
        assert re.search(r"arXiv:\d{4}\.\d{5}|/|sweep|table|derived here \(.+\)", item.overruled), (
            item.id
        )


@pytest.mark.skipif(not SPEC.is_dir(), reason="needs the guides themselves (../shared/spec)")
def test_no_item_copies_a_guide() -> None:
    """No run of seven words is the same."""
    runs: set[tuple[str, ...]] = set()
    for path in sorted(SPEC.glob("*.txt")):
        words = re.findall(r"[\w']+", path.read_text(encoding="utf-8").lower())
        runs |= {tuple(words[start : start + 7]) for start in range(len(words) - 6)}
    assert runs
    for item in guides.ITEMS:
        words = re.findall(r"[\w']+", f"{item.says} {item.because}".lower())
        assert not runs & {tuple(words[start : start + 7]) for start in range(len(words) - 6)}, item.id


@pytest.mark.skipif(not SPEC.is_dir(), reason="needs the guides themselves (../shared/spec)")
def test_every_number_that_a_guide_recommends_is_in_the_list() -> None:
    """Every rate of the guides stands in some item of the same guide."""
    for number, path in enumerate(sorted(SPEC.glob("*.txt"))):
        said = " ".join(item.says for item in guides.ITEMS if item.id.startswith(f"{number}."))
        for rate in set(re.findall(r"\b\d+e-\d+\b", path.read_text(encoding="utf-8"))):
            assert rate in said, (number, rate)


# -- what the planner gives
# -------------------------------------------------------------------------------------------

Case = tuple[str, str, dict[str, Any], dict[str, Any], str, Any]
"""Item, model, data, request, key, and its value or (lowest, highest)."""

KEEP = TrainingConfig(gradient_checkpointing=False)
"""Where activations are kept, the step of a large model has to be split."""

CASES: list[Case] = [
    ("0.2", "1b", {}, {}, R, 16),
    ("0.3", "1b", {}, {}, R, (16, 64)),
    ("0.4", "1b", {}, {}, TARGETS, "all-linear"),
    ("0.5", "1b", {"supervised_tokens": 10**9}, {}, R, (64, 256)),
    ("0.7", "minilm", {}, {}, R, 8),
    ("0.8", "minilm", {}, {}, ALPHA, 16),
    ("0.8", "1b", {}, {}, ALPHA, 32),
    ("0.12", "1b", {"rows": 200_000}, {}, DROPOUT, 0.0),
    ("0.13", "1b", {"rows": 500}, {}, DROPOUT, 0.1),
    ("0.14", "1b", {"rows": 5_000}, {"preset": "3-4b"}, DROPOUT, 0.05),
    ("0.16", "1b", {"rows": 200_000}, {"adapter": AdapterConfig(r=16)}, RATE, (1.5e-4, 5e-4)),
    ("0.17", "1b", {"rows": 200_000}, {"adapter": AdapterConfig(r=16)}, RATE, 2e-4),
    ("0.17", "1b", {}, {"adapter": AdapterConfig(r=16)}, RATE, 1.41e-4),
    ("0.18", "1b", {}, {}, "training.lr_scheduler_type", "linear"),
    ("0.21", "1b", {"rows": 500}, {}, EPOCHS, (1, 3)),
    ("0.21", "1b", {"rows": 200_000}, {}, EPOCHS, 1),
    ("0.22", "1b", {"rows": 5_000}, {}, EPOCHS, 2),
    ("0.22", "1b", {"rows": 5_000}, {}, "training.early_stopping_patience", 3),
    ("0.23", "1b", {}, {}, BATCH, 16),
    ("0.23", "1b", {"rows": 300}, {}, BATCH, 4),
    (
        "0.25",
        "8b",
        {"length": 2_000},
        {"limits": LimitsConfig(memory=40 * GIB), "training": KEEP},
        "training.gradient_accumulation_steps",
        (2, 16),
    ),
    ("0.26", "1b", {}, {"preset": "3-4b"}, "training.weight_decay", 0.001),
    ("0.28", "1b", {}, {"preset": "3-4b"}, R, 16),
    ("0.29", "1b", {}, {"preset": "3-4b"}, ALPHA, 32),
    ("0.30", "1b", {}, {"preset": "3-4b"}, RATE, (5e-5, 2e-4)),
    ("0.31", "1b", {"rows": 60}, {"preset": "3-4b"}, EPOCHS, (1, 2)),
    ("0.32", "1b", {}, {"preset": "3-4b"}, BATCH, 16),
    ("0.33", "1b", {}, {"preset": "3-4b"}, TARGETS, "all-linear"),
    ("0.36", "1b", {}, {"goal": "quality"}, R, 64),
    ("0.36", "1b", {}, {"goal": "quality"}, EPOCHS, 4),
    ("0.44", "1b", {}, {}, "adapter.rank_pattern", {}),
    ("0.47", "1b", {}, {}, "limits.max_packed", (2, 16)),
    ("0.49", "1b", {}, {"preset": "memory-episodic"}, R, (16, 32)),
    ("0.50", "tiny", {}, {"preset": "memory-episodic"}, RATE, (1e-3, 1.0)),
    ("0.50", "8b", {}, {"preset": "memory-episodic"}, RATE, 2e-4),
    ("0.51", "1b", {}, {"preset": "memory-episodic"}, ALPHA, 32),
    ("0.52", "1b", {"rows": 500}, {"preset": "memory-episodic"}, DROPOUT, (0.0, 0.05)),
    ("0.53", "1b", {}, {"preset": "memory-relational"}, R, 8),
    ("0.54", "1b", {}, {"preset": "memory-relational"}, DROPOUT, 0.1),
    ("0.55", "1b", {}, {"preset": "memory-spatial"}, R, (16, 32)),
    ("0.56", "1b", {"rows": 60_000}, {"preset": "memory-spatial"}, EPOCHS, 3),
    ("0.57", "1b", {"rows": 60_000}, {"preset": "memory-spatial"}, DROPOUT, 0.1),
    ("0.61", "1b", {}, {"preset": "memory-episodic"}, EPOCHS, 4),
    ("0.63", "1b", {"rows": 500}, {}, "training.early_stopping_patience", 3),
    ("1.3", "1b", {}, {"adapter": AdapterConfig(r=256)}, ALPHA, 32),
    ("1.8", "1b", {}, {}, TARGETS, "all-linear"),
    ("1.9", "1b", {}, {"goal": "memory"}, TARGETS, "mlp"),
    ("1.10", "1b", {}, {}, "adapter.init_lora_weights", True),
    ("1.19", "1b", {"rows": 200_000}, {"goal": "retain", "adapter": AdapterConfig(r=16)}, RATE, 1e-4),
    ("1.20", "1b", {"rows": 5_000}, {}, DROPOUT, 0.05),
    ("1.21", "1b", {}, {}, "training.precision", "bf16"),
    ("1.24", "1b", {}, {}, "training.optim", "adamw"),
    ("1.26", "1b", {"rows": 200_000}, {}, EPOCHS, 1),
    ("1.31", "1b", {}, {"goal": "memory"}, BATCH, 1),
    ("1.37", "1b", {}, {}, "training.lr_scheduler_type", "linear"),
    ("1.43", "1b", {"rows": 900}, {}, EPOCHS, 3),
    ("2.1", "1b", {"rows": 200_000}, {"adapter": AdapterConfig(r=16)}, RATE, (1.01e-4, 5e-4)),
    ("2.5", "1b", {}, {}, R, (16, 32)),
    ("2.6", "1b", {}, {"adapter": AdapterConfig(r=32)}, ALPHA, (32, 64)),
    ("2.7", "1b", {"rows": 500}, {}, DROPOUT, (0.0, 0.1)),
    ("2.8", "1b", {"length": 333}, {}, "data.max_length", 336),
    ("2.9", "1b", {}, {"training": TrainingConfig(max_steps=100)}, "training.warmup_ratio", 0.1),
    ("2.10", "1b", {}, {}, "training.lr_scheduler_type", "linear"),
    ("2.11", "1b", {}, {}, "training.seed", 42),
    ("2.14", "1b", {}, {}, "training.weight_decay", 0.0),
    ("2.14", "minilm", {}, {}, "training.weight_decay", 0.1),
    ("2.16", "1b", {}, {"goal": "fastest"}, R, 8),
    ("2.19", "1b", {"rows": 500}, {"goal": "fastest"}, DROPOUT, 0.0),
    ("2.22", "1b", {}, {}, "adapter.bias", "none"),
    ("2.23", "1b", {}, {}, "training.gradient_checkpointing", False),
    ("2.26", "1b", {}, {"adapter": AdapterConfig(r=64)}, "adapter.use_rslora", False),
    ("3.4", "1b", {}, {}, R, 16),
    ("3.5", "1b", {}, {"goal": "memory"}, R, 8),
    ("3.14", "1b", {"rows": 200_000}, {}, DROPOUT, 0.0),
    ("3.19", "minilm", {}, {"preset": "sentiment"}, R, 16),
    ("3.20", "minilm", {}, {"preset": "sentiment"}, ALPHA, 32),
    ("3.21", "minilm", {"rows": 5_000}, {"preset": "sentiment"}, DROPOUT, 0.1),
    ("3.22", "minilm", {}, {"preset": "sentiment"}, TARGETS, "all-linear"),
    ("3.23", "minilm", {}, {"preset": "sentiment"}, "adapter.bias", "none"),
    ("3.24", "1b", {}, {"preset": "generation"}, R, 16),
    ("3.25", "1b", {}, {"preset": "generation"}, ALPHA, 32),
    ("3.26", "1b", {"rows": 500}, {"preset": "generation"}, DROPOUT, 0.05),
    ("3.27", "1b", {}, {"preset": "generation"}, TARGETS, "all-linear"),
    ("3.29", "1b", {}, {"preset": "question-answering"}, R, 32),
    ("3.30", "1b", {}, {"preset": "question-answering"}, ALPHA, 64),
    ("3.31", "1b", {"rows": 5_000}, {"preset": "question-answering"}, DROPOUT, 0.1),
    ("3.32", "t5", {}, {"preset": "question-answering"}, TARGETS, "all-linear"),
    ("3.33", "1b", {}, {"preset": "question-answering"}, "adapter.bias", "none"),
    ("3.34", "1b", {"length": 64}, {"preset": "under-8gb"}, R, 8),
    ("3.35", "1b", {"length": 64}, {"preset": "under-8gb"}, ALPHA, 16),
    ("3.36", "1b", {"length": 64, "rows": 500}, {"preset": "under-8gb"}, DROPOUT, 0.05),
    ("3.37", "1b", {"length": 64}, {"preset": "under-8gb"}, TARGETS, "mlp"),
    ("3.41", "1b", {}, {}, TARGETS, "all-linear"),
]


@pytest.mark.parametrize(
    ("item", "name", "data", "request_", "key", "wanted"),
    CASES,
    ids=[f"{case[0]}-{case[1]}-{case[4]}" for case in CASES],
)
def test_the_plan_gives_what_the_list_says(
    facts: Make,
    item: str,
    name: str,
    data: dict[str, Any],
    request_: dict[str, Any],
    key: str,
    wanted: Any,
) -> None:
    listed = next(one for one in guides.ITEMS if one.id == item)
    value = make_plan(Config(**request_), facts(name, device=GPU, **data)).values()[key]
    assert wanted[0] <= value <= wanted[1] if isinstance(wanted, tuple) else value == wanted
    named = {what.partition(" ")[2] for what in listed.by}
    assert key in named or named & {request_.get("preset"), request_.get("goal")}


def plan_of(facts: Facts, trials: int) -> Plan:
    return make_plan(Config(search=SearchConfig(trials=trials)), facts)


def test_the_search_holds_what_the_list_promises_of_it(facts: Make) -> None:
    """0.11, 0.15, 0.27, 0.40, 1.17, 2.9, 2.14, 2.15, 3.15."""
    at = facts("1b", device=CPU, rows=20_000, length=32)
    small, large = space_json(plan_of(at, 16)), space_json(plan_of(at, 128))
    low, high = (small[RATE][end] for end in ("low", "high"))
    middle = plan_of(at, 16).values()[RATE]
    assert low == pytest.approx(middle / 4) and high == pytest.approx(middle * 4)
    assert small[R] == [8, 16, 32, 64, 128]
    assert min(small[BATCH]) == 4
    assert set(large["adapter.scale"]) >= {0.5, 1.0, 2.0, 4.0}
    assert set(large[DROPOUT]) >= {0.0, 0.05, 0.1}
    assert set(large["training.weight_decay"]) >= {0.0, 0.01, 0.1}
    assert set(large["training.warmup_ratio"]) >= {0.06, 0.1}


def test_an_update_grows_with_alpha() -> None:
    """The update is (alpha/r) B A, with A of shape r x d_in and B of d_out x r, B zero
    at the start (0.42, 1.6, 1.16)."""
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    weak, strong = (adapter(alpha) for alpha in (4, 8))
    assert weak.lora_A.shape == (2, 6) and weak.lora_B.shape == (5, 2)
    assert torch.equal(weak(x), weak.base(x))
    for layer in (weak, strong):
        torch.nn.init.ones_(layer.lora_A)
        torch.nn.init.ones_(layer.lora_B)
    assert (weak(x) - weak.base(x)).abs().min() > 0
    assert torch.allclose(strong(x) - strong.base(x), 2 * (weak(x) - weak.base(x)), atol=1e-5)


def adapter(alpha: float) -> LoRALinear:
    return LoRALinear(torch.nn.Linear(6, 5, bias=False), 6, 5, r=2, lora_alpha=alpha)
