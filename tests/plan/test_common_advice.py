"""Common advice: each piece with a reason, with a source wherever it is overruled, and true of
what the planner gives."""

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
from loraloom.plan import handbook
from loraloom.plan.common_advice import ITEMS, SUBJECTS, about
from loraloom.plan.goals import GOALS
from loraloom.plan.planner import Facts, Plan, make_plan
from loraloom.plan.presets import PRESETS
from loraloom.plan.rules import RULES
from loraloom.plan.search_space import space_json

Make = Callable[..., Facts]
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


def test_every_piece_stands_below_one_heading_and_once_there() -> None:
    assert len({subject.title for subject in SUBJECTS}) == len(SUBJECTS)
    for subject in SUBJECTS:
        assert all(count == 1 for count in Counter(item.says for item in subject.items).values())
        assert not subject.differs or subject.differs.endswith(".")


def test_a_setting_finds_what_is_advised_for_it() -> None:
    found = about("adapter.bias")
    assert 0 < len(found) < len(ITEMS)
    assert all({"rule adapter.bias", "setting adapter.bias"} & set(item.by) for item in found)


def test_an_item_has_a_reason_and_someone_who_carries_it_out() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    for group in app.registered_groups:
        assert group.typer_instance is not None
        below = (command.callback for command in group.typer_instance.registered_commands)
        commands |= {f"{group.typer_instance.info.name} {one.__name__}" for one in below if one}
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    known = {
        "rule": RULES,
        "setting": keys(),
        "goal": GOALS,
        "preset": PRESETS,
        "command": commands,
        "test": tests,
    }
    for item in ITEMS:
        assert item.says.endswith(".") and item.because.endswith("."), item.says
        assert item.by, item.says
        for kind, _, name in (what.partition(" ") for what in item.by):
            assert name in known[kind], (item.says, kind, name)


def test_what_is_overruled_names_its_source() -> None:
    overruled = [item for item in ITEMS if item.status == "overruled"]
    assert 0 < len(overruled) < len(ITEMS) / 2
    for item in overruled:
        assert re.search(r"arXiv:\d{4}\.\d{5}|/|sweep|table|derived here \(.+\)", item.overruled), (
            item.says
        )


def test_what_no_trial_compared_is_not_said_to_be_overruled() -> None:
    (item,) = [item for item in ITEMS if item.status == "untested"]
    assert item.says.startswith("Spatial memory: dropout") and not item.overruled
    (row,) = [line for line in handbook.page().splitlines() if item.says in line]
    assert "| no: not compared |" in row


@pytest.fixture
def texts(shared: Path) -> list[str]:
    """The texts that the list was drawn from."""
    found = [path.read_text(encoding="utf-8") for path in sorted((shared / "spec").glob("*.txt"))]
    if not found:
        pytest.skip("needs the texts that common advice was drawn from")
    return found


def test_no_piece_copies_a_text(texts: list[str]) -> None:
    """No run of seven words is the same."""
    runs = {run for text in texts for run in runs_of_words(text)}
    for item in ITEMS:
        assert not runs & runs_of_words(f"{item.says} {item.because}"), item.says


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[start : start + 7]) for start in range(len(words) - 6)}


def test_every_rate_that_a_text_recommends_is_in_the_list(texts: list[str]) -> None:
    said = " ".join(item.says for item in ITEMS)
    for rate in set(re.findall(r"\b\d+e-\d+\b", " ".join(texts))):
        assert rate in said, rate


# -- what the planner gives
# -------------------------------------------------------------------------------------------

Case = tuple[str, str, dict[str, Any], dict[str, Any], str, Any]
"""What is advised, model, data, request, key, and its value or (lowest, highest)."""

KEEP = TrainingConfig(gradient_checkpointing=False)
"""Where activations are kept, the step of a large model has to be split."""

CASES: list[Case] = [
    ("Models of about 3B: r 8 with alpha 8.", "1b", {}, {}, R, 16),
    ("Ranks of 16 to 64 were best for 3B models on language tasks.", "1b", {}, {}, R, (16, 64)),
    (
        "Put adapters on every layer, on its attention as on its MLP.",
        "1b",
        {},
        {},
        TARGETS,
        "all-linear",
    ),
    (
        "Small models try r 4, 8 and 16, large ones 64 to 256.",
        "1b",
        {"supervised_tokens": 10**9},
        {},
        R,
        (64, 256),
    ),
    ("Start at a rank of 8 or 16 and raise it where the model underfits.", "minilm", {}, {}, R, 8),
    ("Alpha of one to two times the rank.", "minilm", {}, {}, ALPHA, 16),
    ("Alpha of one to two times the rank.", "1b", {}, {}, ALPHA, 32),
    ("Dropout of 0.05 to 0.1 as a rule.", "1b", {"rows": 200_000}, {}, DROPOUT, 0.0),
    ("QLoRA took 0.1 up to 13B and about 0.05 above.", "1b", {"rows": 500}, {}, DROPOUT, 0.1),
    ("Dropout 0.1.", "1b", {"rows": 5_000}, {"preset": "3-4b"}, DROPOUT, 0.05),
    (
        "Rates from 5e-6 to 2e-4.",
        "1b",
        {"rows": 200_000},
        {"adapter": AdapterConfig(r=16)},
        RATE,
        (1.5e-4, 5e-4),
    ),
    (
        "A rate of about 2e-4 to begin with, for instructions.",
        "1b",
        {"rows": 200_000},
        {"adapter": AdapterConfig(r=16)},
        RATE,
        2e-4,
    ),
    (
        "A rate of about 2e-4 to begin with, for instructions.",
        "1b",
        {},
        {"adapter": AdapterConfig(r=16)},
        RATE,
        1.41e-4,
    ),
    (
        "A rate of 1e-5 for noisy data or long training.",
        "1b",
        {},
        {},
        "training.lr_scheduler_type",
        "linear",
    ),
    (
        "One to three passes; more make answers surer and less creative.",
        "1b",
        {"rows": 500},
        {},
        EPOCHS,
        (1, 3),
    ),
    (
        "One to three passes; more make answers surer and less creative.",
        "1b",
        {"rows": 200_000},
        {},
        EPOCHS,
        1,
    ),
    ("Two passes by default, with an eye on validation.", "1b", {"rows": 5_000}, {}, EPOCHS, 2),
    (
        "Two passes by default, with an eye on validation.",
        "1b",
        {"rows": 5_000},
        {},
        "training.early_stopping_patience",
        3,
    ),
    ("Batches of 1 to 4.", "1b", {}, {}, BATCH, 16),
    ("Batches of 1 to 4.", "1b", {"rows": 300}, {}, BATCH, 4),
    (
        "Where a batch does not fit, take a smaller one and accumulate.",
        "8b",
        {"length": 2_000},
        {"limits": LimitsConfig(memory=40 * GIB), "training": KEEP},
        "training.gradient_accumulation_steps",
        (2, 16),
    ),
    (
        "A little weight decay, 0.001 to 0.01; 0.001 to start.",
        "1b",
        {},
        {"preset": "3-4b"},
        "training.weight_decay",
        0.001,
    ),
    ("Rank 8 or 16, 32 when it underfits.", "1b", {}, {"preset": "3-4b"}, R, 16),
    ("Alpha of r or 2r.", "1b", {}, {"preset": "3-4b"}, ALPHA, 32),
    (
        "A rate of 5e-5 to 2e-4, tried three times up and down.",
        "1b",
        {},
        {"preset": "3-4b"},
        RATE,
        (5e-5, 2e-4),
    ),
    ("One or two passes.", "1b", {"rows": 60}, {"preset": "3-4b"}, EPOCHS, (1, 2)),
    ("Batches of 1 to 4, always small.", "1b", {}, {"preset": "3-4b"}, BATCH, 16),
    ("All attention and MLP weights.", "1b", {}, {"preset": "3-4b"}, TARGETS, "all-linear"),
    ("Underfitting: raise rank or rate, or train longer.", "1b", {}, {"goal": "quality"}, R, 64),
    ("Underfitting: raise rank or rate, or train longer.", "1b", {}, {"goal": "quality"}, EPOCHS, 4),
    ("One rank for all layers mostly works well.", "1b", {}, {}, "adapter.rank_pattern", {}),
    ("LoRA runs leave hardware idle.", "1b", {}, {}, "limits.max_packed", (2, 16)),
    ("Episodic memory: r 16 to 32.", "1b", {}, {"preset": "memory-episodic"}, R, (16, 32)),
    (
        "Episodic memory: a rate at which one sighting is learnt.",
        "tiny",
        {},
        {"preset": "memory-episodic"},
        RATE,
        (1e-3, 1.0),
    ),
    (
        "Episodic memory: a rate at which one sighting is learnt.",
        "8b",
        {},
        {"preset": "memory-episodic"},
        RATE,
        2e-4,
    ),
    (
        "Episodic memory: alpha of 2r gives new memories weight.",
        "1b",
        {},
        {"preset": "memory-episodic"},
        ALPHA,
        32,
    ),
    (
        "Episodic memory: overfitting is unlikely, but watch for specialising on rare events.",
        "1b",
        {"rows": 500},
        {"preset": "memory-episodic"},
        DROPOUT,
        (0.0, 0.05),
    ),
    ("Spatial memory: r 16 to 32.", "1b", {}, {"preset": "memory-spatial"}, R, 32),
    (
        "Spatial memory: replayed paths bear larger ranks or longer training.",
        "1b",
        {"rows": 60_000},
        {"preset": "memory-spatial"},
        EPOCHS,
        3,
    ),
    ("A few more passes to memorise.", "1b", {}, {"preset": "memory-episodic"}, EPOCHS, 4),
    (
        "Stop early when the loss levels off.",
        "1b",
        {"rows": 500},
        {},
        "training.early_stopping_patience",
        3,
    ),
    (
        "Alpha about 2r, to be tuned at large ranks.",
        "1b",
        {},
        {"adapter": AdapterConfig(r=256)},
        ALPHA,
        32,
    ),
    (
        "Adapt the attention layers (Q, K, V and O), as most people do.",
        "1b",
        {},
        {},
        TARGETS,
        "all-linear",
    ),
    ("More layers often do better, at more memory.", "1b", {}, {"goal": "memory"}, TARGETS, "mlp"),
    (
        "Both projections start so that the update is zero.",
        "1b",
        {},
        {},
        "adapter.init_lora_weights",
        True,
    ),
    (
        "A smaller rate keeps more of what the base could do.",
        "1b",
        {"rows": 200_000},
        {"goal": "retain", "adapter": AdapterConfig(r=16)},
        RATE,
        1e-4,
    ),
    ("A little dropout (0.05) on small sets.", "1b", {"rows": 5_000}, {}, DROPOUT, 0.05),
    ("Mixed precision, bf16 or fp16.", "1b", {}, {}, "training.precision", "bf16"),
    ("AdamW suits most ranks.", "1b", {}, {}, "training.optim", "adamw"),
    ("One pass over well chosen data, or mixed sources.", "1b", {"rows": 200_000}, {}, EPOCHS, 1),
    (
        "Where a batch does not fit, take a smaller one and accumulate.",
        "1b",
        {},
        {"goal": "memory"},
        BATCH,
        1,
    ),
    (
        "Use a schedule; a cosine or half cycle of it helps SGD more than Adam.",
        "1b",
        {},
        {},
        "training.lr_scheduler_type",
        "linear",
    ),
    ("No needless passes over small sets.", "1b", {"rows": 900}, {}, EPOCHS, 3),
    (
        "Rates of 5e-5 to 1e-4.",
        "1b",
        {"rows": 200_000},
        {"adapter": AdapterConfig(r=16)},
        RATE,
        (1.01e-4, 5e-4),
    ),
    ("Ranks of 16 to 32.", "1b", {}, {}, R, (16, 32)),
    ("Alpha of one to two times the rank.", "1b", {}, {"adapter": AdapterConfig(r=32)}, ALPHA, (32, 64)),
    ("Dropout of 0.1 to 0.2.", "1b", {"rows": 500}, {}, DROPOUT, (0.0, 0.1)),
    ("A length that suits the data.", "1b", {"length": 333}, {}, "data.max_length", 336),
    (
        "Warm up over 5 to 10% of the steps.",
        "1b",
        {},
        {"training": TrainingConfig(max_steps=100)},
        "training.warmup_ratio",
        0.1,
    ),
    (
        "Let the rate fall, linearly or by a cosine.",
        "1b",
        {},
        {},
        "training.lr_scheduler_type",
        "linear",
    ),
    ("A fixed seed, such as 42 or 3407.", "1b", {}, {}, "training.seed", 42),
    ("Weight decay of 0.01 to start.", "1b", {}, {}, "training.weight_decay", 0.0),
    ("Weight decay of 0.01 to start.", "minilm", {}, {}, "training.weight_decay", 0.1),
    ("A higher rank for hard tasks, a lower one for speed.", "1b", {}, {"goal": "fastest"}, R, 8),
    (
        "Dropout of 0 by default: fast, with little effect.",
        "1b",
        {"rows": 500},
        {"goal": "fastest"},
        DROPOUT,
        0.0,
    ),
    ("Train no biases, at least at first.", "1b", {}, {}, "adapter.bias", "none"),
    (
        "Gradient checkpointing trades time for memory, above all for long rows.",
        "1b",
        {},
        {},
        "training.gradient_checkpointing",
        False,
    ),
    (
        "rsLoRA adjusts alpha by itself.",
        "1b",
        {},
        {"adapter": AdapterConfig(r=64)},
        "adapter.use_rslora",
        False,
    ),
    ("Rank 16 suits most tasks.", "1b", {}, {}, R, 16),
    ("Rank 8 or less where resources are short.", "1b", {}, {"goal": "memory"}, R, 8),
    ("Dropout of 0.3 for large sets, none for small ones.", "1b", {"rows": 200_000}, {}, DROPOUT, 0.0),
    ("Rank 16.", "minilm", {}, {"preset": "sentiment"}, R, 16),
    ("Alpha 32.", "minilm", {}, {"preset": "sentiment"}, ALPHA, 32),
    ("Dropout 0.1.", "minilm", {"rows": 5_000}, {"preset": "sentiment"}, DROPOUT, 0.1),
    (
        "DistilBERT's four attention layers.",
        "minilm",
        {},
        {"preset": "sentiment"},
        TARGETS,
        "all-linear",
    ),
    ("No biases.", "minilm", {}, {"preset": "sentiment"}, "adapter.bias", "none"),
    ("Rank 8.", "1b", {}, {"preset": "generation"}, R, 16),
    ("Alpha of 2r.", "1b", {}, {"preset": "generation"}, ALPHA, 32),
    ("Dropout 0.05.", "1b", {"rows": 500}, {"preset": "generation"}, DROPOUT, 0.05),
    ("Q, K, V and O.", "1b", {}, {"preset": "generation"}, TARGETS, "all-linear"),
    ("Rank 32.", "1b", {}, {"preset": "question-answering"}, R, 32),
    ("Alpha 64.", "1b", {}, {"preset": "question-answering"}, ALPHA, 64),
    ("Dropout 0.1.", "1b", {"rows": 5_000}, {"preset": "question-answering"}, DROPOUT, 0.1),
    (
        "For T5: gate, up and down projections.",
        "t5",
        {},
        {"preset": "question-answering"},
        TARGETS,
        "all-linear",
    ),
    ("Train biases too.", "1b", {}, {"preset": "question-answering"}, "adapter.bias", "none"),
    ("Rank 4.", "1b", {"length": 64}, {"preset": "under-8gb"}, R, 8),
    ("Alpha of 2r.", "1b", {"length": 64}, {"preset": "under-8gb"}, ALPHA, 16),
    ("Dropout 0.05.", "1b", {"length": 64, "rows": 500}, {"preset": "under-8gb"}, DROPOUT, 0.05),
    ("Queries alone.", "1b", {"length": 64}, {"preset": "under-8gb"}, TARGETS, "mlp"),
    ("A baseline of r 16, alpha 32 and all attention layers.", "1b", {}, {}, TARGETS, "all-linear"),
]


@pytest.mark.parametrize(
    ("says", "name", "data", "request_", "key", "wanted"),
    CASES,
    ids=[f"{case[4]}-{case[1]}-{number}" for number, case in enumerate(CASES)],
)
def test_the_plan_gives_what_the_list_says(
    facts: Make,
    says: str,
    name: str,
    data: dict[str, Any],
    request_: dict[str, Any],
    key: str,
    wanted: Any,
) -> None:
    named = {what.partition(" ")[2] for item in ITEMS if item.says == says for what in item.by}
    value = make_plan(Config(**request_), facts(name, device=GPU, **data)).values()[key]
    assert wanted[0] <= value <= wanted[1] if isinstance(wanted, tuple) else value == wanted
    assert key in named or named & {request_.get("preset"), request_.get("goal")}


def plan_of(facts: Facts, trials: int) -> Plan:
    return make_plan(Config(search=SearchConfig(trials=trials)), facts)


def test_the_search_holds_what_the_list_promises_of_it(facts: Make) -> None:
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
