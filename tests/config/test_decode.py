"""Decoding a request: what wins over what, and messages that name key, file and line."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from loraloom.config.asked import Config
from loraloom.config.decode import load_config, to_plain
from loraloom.config.keys import ALIASES, RANGES, keys, nearest, sections
from loraloom.errors import ConfigError


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "tune.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(*arguments: Any, **named: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*arguments, **named)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_no_request_gives_the_defaults() -> None:
    assert load_config() == Config()


def test_an_empty_file_gives_the_defaults(write) -> None:
    assert load_config(write("# nothing yet\n")) == Config()
    assert load_config(write("model:\ntraining:\n")) == Config()


def test_set_wins_over_flags_and_flags_over_the_file(write) -> None:
    path = write("adapter: {r: 4, lora_alpha: 8, lora_dropout: 0.1}\n")
    config = load_config(
        path, {"adapter.r": "16", "adapter.lora_alpha": "32", "task": None}, ["adapter.r=64"]
    )
    assert (config.adapter.r, config.adapter.lora_alpha, config.adapter.lora_dropout) == (64, 32, 0.1)
    assert config.task == "auto"


def test_every_key_can_be_set_to_its_default() -> None:
    for name, key in keys().items():
        text = yaml.safe_dump(to_plain(Config()))
        default = yaml.safe_load(text)
        for part in name.split("."):
            default = default[part]
        written = yaml.safe_dump(default, default_flow_style=True).splitlines()[0]
        config = load_config(sets=[f"{name}={written}"])
        assert config == Config(), key


def test_every_example_of_a_range_is_inside_it() -> None:
    for name, allowed in RANGES.items():
        load_config(sets=[f"{name}={allowed.example}"])


def test_the_key_table_is_complete() -> None:
    def leaves(value: Any, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for field in fields(value):
            inner = getattr(value, field.name)
            found |= (
                leaves(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else {prefix + field.name}
            )
        return found

    assert set(keys()) == leaves(Config())
    assert set(RANGES) <= set(keys())
    assert set(ALIASES.values()) <= set(keys())


@pytest.mark.parametrize("text", ["5e-5", "5E-5", "5.0e-5", "0.00005", ".5e-4", "+5e-5"])
def test_rates_may_be_written_as_people_write_them(write, text: str) -> None:
    assert load_config(write(f"training:\n  learning_rate: {text}\n")).training.learning_rate == 5e-5
    assert load_config(sets=[f"training.learning_rate={text}"]).training.learning_rate == 5e-5
    space = load_config(
        sets=[f"search.space.training.learning_rate={{low: {text}, high: 1e-3, log: true}}"]
    ).search.space
    assert space == {"training.learning_rate": {"low": 5e-5, "high": 1e-3, "log": True}}


def test_names_that_look_like_numbers_stay_names() -> None:
    config = load_config(
        flags={"name": "007", "model.name_or_path": "1e3"}, sets=["output_dir=2024-01-01"]
    )
    assert (config.name, config.model.name_or_path, config.output_dir) == ("007", "1e3", "2024-01-01")
    assert load_config(flags={"name": "null"}).name is None


@pytest.mark.parametrize(
    ("typed", "meant"), [("true", True), ("offload", "offload"), ("unsloth", "offload")]
)
def test_a_switch_may_have_a_third_position(typed: str, meant: bool | str) -> None:
    config = load_config(sets=[f"training.gradient_checkpointing={typed}"])
    assert config.training.gradient_checkpointing == meant


def test_a_share_is_a_number_and_a_file_is_not() -> None:
    assert load_config(flags={"data.validation": "0.2"}).data.validation == 0.2
    assert load_config(flags={"data.validation": "held_out.jsonl"}).data.validation == "held_out.jsonl"
    assert load_config(flags={"data.validation": "null"}).data.validation is None


def test_a_key_takes_a_list_or_a_single_name() -> None:
    assert load_config(sets=["adapter.target_modules=[q_proj, v_proj]"]).adapter.target_modules == (
        "q_proj",
        "v_proj",
    )
    assert load_config(sets=["adapter.target_modules=attention"]).adapter.target_modules == "attention"
    assert load_config(sets=["adapter.modules_to_save=classifier"]).adapter.modules_to_save == (
        "classifier",
    )
    assert load_config(sets=["adapter.modules_to_save=auto"]).adapter.modules_to_save == "auto"
    assert load_config(sets=["report_to=tensorboard"]).report_to == ("tensorboard",)


def test_entries_of_a_mapping_are_set_beside_each_other(write) -> None:
    path = write("search:\n  space: {adapter.r: [4, 8]}\nadapter:\n  rank_pattern: {q_proj: 4}\n")
    config = load_config(
        path, sets=["search.space.adapter.lora_alpha=[16, 32]", "adapter.rank_pattern.v_proj=8"]
    )
    assert config.search.space == {"adapter.r": [4, 8], "adapter.lora_alpha": [16.0, 32.0]}
    assert config.adapter.rank_pattern == {"q_proj": 4, "v_proj": 8}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("adapter.r=0", "`adapter.r` is 0 but must be at least 1; try 8"),
        ("adapter.r=8.5", "`adapter.r` is 8.5 but must be a whole number or auto; try 8"),
        ("adapter.r=eight", "`adapter.r` is 'eight' but must be a whole number or auto; try 8"),
        ("adapter.r=true", "`adapter.r` is true but must be a whole number or auto; try 8"),
        ("adapter.lora_alpha=0", "`adapter.lora_alpha` is 0 but must be above 0; try 32"),
        (
            "adapter.lora_alpha=1e300",
            "`adapter.lora_alpha` is 1e+300 but must be above 0 and below 1e+18; try 32",
        ),
        (
            "adapter.lora_dropout=1",
            "`adapter.lora_dropout` is 1 but must be at least 0 and at most 0.99; try 0.05",
        ),
        (
            "adapter.rank_pattern.q_proj=0",
            "`adapter.rank_pattern.q_proj` is 0 but must be at least 1; try {q_proj: 16}",
        ),
        (
            "adapter.rank_pattern.q_proj=true",
            "but must be a mapping of names to whole numbers; try {q_proj: 16}",
        ),
        (
            "training.learning_rate=-1e-4",
            "`training.learning_rate` is -0.0001 but must be above 0 and below 1; try 2e-4",
        ),
        (
            "training.learning_rate=.nan",
            "`training.learning_rate` is nan but must be above 0 and below 1; try 2e-4",
        ),
        ("search.trials=0", "`search.trials` is 0 but must be at least 1; try 16"),
        (
            "search.pruner=fast",
            (
                "`search.pruner` is 'fast' but must be one of auto, careful, asha, hyperband, median or"
                " none; try auto"
            ),
        ),
        (
            "limits.memory=much",
            "`limits.memory` is 'much' but must be an amount of memory above 0; try 12GiB",
        ),
        ("limits.time=-3", "`limits.time` is -3 but must be a time above 0; try 30m"),
        ("data.validation=1.5", "`data.validation` is 1.5 but must be above 0 and below 1; try 0.1"),
        (
            "deploy.target=tgi",
            "`deploy.target` is 'tgi' but must be vllm, sglang, llama.cpp, ollama, mlx, merged or null;"
            " try vllm",
        ),
        (
            "adapter.use_dora=perhaps",
            "`adapter.use_dora` is 'perhaps' but must be true or false; try true",
        ),
        ("search.metric=test_accuracy", "try validation_accuracy"),
        (
            "search.space=12",
            "must be auto or a mapping of keys to choices; try {adapter.r: [8, 16, 32]}",
        ),
        ("search.space.adapter.r=8", "must be a list of choices or {low, high, log, step}"),
        ("search.space.adapter.r=[]", "must be a list of choices or {low, high, log, step}"),
        ("search.space.adapter.r=[8, 0]", "`search.space.adapter.r` is 0 but must be at least 1; try 8"),
        ("search.space.adapter.r=[8, auto]", "has the choice auto, which is no value to try"),
        (
            "search.space.adapter.r={low: 8, high: 4}",
            "has low 8 and high 4, but low must be at most high",
        ),
        (
            "search.space.adapter.r={low: 1, high: 4, log: maybe}",
            "`search.space.adapter.r.log` is 'maybe' but must be true",
        ),
        (
            "search.space.adapter.r={low: 1, high: 4, step: 0}",
            "`search.space.adapter.r.step` is 0 but must be a number above 0",
        ),
        ("search.space.adapter.r={low: 1, high: 4, step: 1, log: true}", "has both log and step"),
        (
            "search.space.training.weight_decay={low: 0, high: 0.1, log: true}",
            "searched on a log scale, but its low is 0",
        ),
        ("search.space.adapter.bias={low: none, high: all}", "`adapter.bias` is no number"),
        ("search.space.adapter.rr=[8]", "did you mean `adapter.r`?"),
        ("search.space.data.max_length=[8]", "names `data.max_length`, which cannot be searched"),
        ("search.space.data.max_length=[8]", "need: one of adapter.r, "),
        ("search.space.training.seed=[1, 2]", "names `training.seed`, which cannot be searched"),
        ("search.space.adapter.r=[8, 8]", "has the choice 8 twice"),
        (
            "search.space.adapter.r={low: 8, high: 16, step: 0.5}",
            "step` is 0.5, but `adapter.r` is a whole number",
        ),
        ("search.space.adapter.r={low: 8}", "`search.space.adapter.r` has no high"),
        ("search.space.adapter.r={low: 8, high: 16, scale: log}", "is a range, which has no `scale`"),
        ("adapter.target_modules=[q_proj", "which cannot be read as YAML"),
        ("adapter=3", "`adapter` is a section, not a key"),
    ],
)
def test_a_wrong_value_is_told_what_is_right(assignment: str, message: str) -> None:
    said = refusal(sets=[assignment])
    assert message in said
    assert said.startswith(f"--set {assignment}: ")


def test_set_without_a_value_is_refused() -> None:
    assert (
        refusal(sets=["adapter.r"])
        == "--set takes KEY=VALUE, not 'adapter.r'\n  next: for example --set adapter.r=8"
    )


def test_a_flag_says_that_it_was_the_command_line() -> None:
    assert (
        refusal(flags={"search.trials": "0"})
        == "command line: `search.trials` is 0 but must be at least 1; try 16"
    )


def test_file_and_line_are_named(write) -> None:
    path = write("model:\n  name_or_path: base\n\nadapter:\n  r: 8\n  lora_dropout: 2\n")
    assert (
        refusal(path)
        == f"{path}:6: `adapter.lora_dropout` is 2 but must be at least 0 and at most 0.99; try 0.05"
    )
    path = write("search:\n  space:\n    adapter.r: [8]\n    training.max_steps: [-1]\n")
    assert refusal(path).startswith(f"{path}:4: `search.space.training.max_steps` is -1")
    path = write("adapter:\n  alpha_pattern:\n    q_proj: 8\n    v_proj: 0\n")
    assert refusal(path).startswith(f"{path}:4: `adapter.alpha_pattern.v_proj` is 0")


def test_an_unknown_key_is_answered_with_the_nearest(write) -> None:
    path = write("adapter:\n  r: 8\n  lora_alfa: 16\n")
    assert (
        refusal(path)
        == f"{path}:3: there is no key `adapter.lora_alfa`\n  next: did you mean `adapter.lora_alpha`?"
    )
    path = write("learning_rate: 1e-4\n")
    assert (
        refusal(path)
        == f"{path}:1: there is no key `learning_rate`\n  next: did you mean `training.learning_rate`?"
    )
    path = write("modle: {name_or_path: base}\n")
    assert refusal(path) == f"{path}:1: there is no key `modle`\n  next: did you mean `model`?"
    path = write("colour: red\n")
    assert refusal(path).splitlines()[1].startswith("  need: one of model, data, adapter,")
    path = write("adapter: {colour: red}\n")
    assert refusal(path).splitlines()[1].startswith("  need: one of adapter.r, adapter.lora_alpha,")


def test_a_key_that_stands_twice_is_not_silently_the_last(write) -> None:
    path = write("adapter:\n  r: 8\n  r: 16\n")
    assert (
        refusal(path)
        == f"{path}:3: `adapter.r` appears twice, first in line 2\n  next: remove one of the two"
    )
    path = write("task: auto\nmodel: {}\ntask: seq_cls\n")
    assert "`task` appears twice, first in line 1" in refusal(path)


def test_a_section_is_not_a_value(write) -> None:
    path = write("model: Qwen/Qwen2.5-0.5B\n")
    said = refusal(path)
    assert said.startswith(
        f"{path}:1: `model` is 'Qwen/Qwen2.5-0.5B' but must be a section with keys of its own"
    )
    assert "model: {name_or_path:" in said


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, write) -> None:
    assert "there is no such config file" in refusal(tmp_path / "no.yaml")
    assert "this is a folder, not a config file" in refusal(tmp_path)
    path = write("adapter: {r: 8\ntask: auto\n")
    assert refusal(path).startswith(f"{path}:2: this is not YAML: ")
    assert "a config file is a mapping of keys to values" in refusal(write("- model\n- data\n"))
    for text in ("a: !!int eight\n", "a: !!timestamp soon\n", "a: " + "[" * 5000):
        assert "this is not YAML: " in refusal(write(text))
    path.write_bytes(b"model: \xff\xfe\n")
    assert "not text in UTF-8" in refusal(path)


def test_an_anchor_that_holds_itself_does_not_hang(write) -> None:
    assert "one that holds itself never ends" in refusal(write("a: &a\n  b: *a\n"))


def test_aliases_that_stand_for_billions_are_refused_unread(write) -> None:
    lines = ["a0: &a0 [1]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30))]
    assert "expands to more than 100,000 values" in refusal(write("\n".join(lines)))


def test_a_file_of_data_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "one"}\n' * 50_000)
    assert f"if these are the data: --data {path}" in refusal(path)


def test_numbers_without_measure_are_refused() -> None:
    assert "`training.max_steps` is 1000" in refusal(sets=[f"training.max_steps=1{'0' * 400}"])
    assert "at most 4 EiB" in refusal(sets=[f"limits.memory={'9' * 400}GiB"])


def test_a_number_where_text_belongs_asks_for_quotes(write) -> None:
    path = write("name: 2024\n")
    assert (
        refusal(path)
        == f'{path}:1: `name` is 2024 but must be text or null (in quotes); try "text in quotes"'
    )


def test_nearest_prefers_the_section_that_was_named() -> None:
    assert nearest("training.batch_size") == "training.per_device_train_batch_size"
    assert nearest("lr") == "training.learning_rate"
    assert nearest("adapter.learning_rate") == "training.learning_rate"
    assert nearest("zzzzzz") is None


def test_sections_are_the_dataclasses() -> None:
    assert set(sections()) == {
        "model",
        "data",
        "adapter",
        "training",
        "preference",
        "search",
        "limits",
        "diagnose",
        "deploy",
    }


numbers = st.floats(min_value=1e-8, max_value=0.99, allow_nan=False)
requests = st.fixed_dictionaries(
    {},
    optional={
        "adapter.r": st.integers(1, 4096) | st.just("auto"),
        "adapter.lora_dropout": numbers,
        "adapter.target_modules": (
            st.lists(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), min_size=1) | st.just("mlp")
        ),
        "adapter.rank_pattern": st.dictionaries(
            st.from_regex(r"[a-z_.]{1,9}", fullmatch=True), st.integers(1, 64)
        ),
        "training.learning_rate": numbers,
        "training.max_steps": st.none() | st.integers(1, 10**6),
        "data.validation": st.none() | numbers | st.from_regex(r"[a-z]{1,9}\.jsonl", fullmatch=True),
        "search.space": st.dictionaries(
            st.sampled_from(["adapter.r", "training.max_steps"]),
            st.lists(st.integers(1, 99), min_size=1, unique=True),
            min_size=1,
        ),
        "limits.memory": st.integers(1, 2**50) | st.just("1.5TiB"),
        # A name with a NUL is refused.
        "name": st.none()
        | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
        "report_to": st.lists(st.sampled_from(["tensorboard", "wandb"])),
    },
)


@pytest.mark.parametrize(
    ("key", "asked"),
    [
        ("training.learning_rate", {"low": 2e-4, "high": 2e-4}),
        ("adapter.lora_plus_ratio", [1.0, 4.0, 16.0]),
    ],
)
def test_what_a_plan_says_of_its_space_can_be_asked_for(key: str, asked: Any) -> None:
    assert load_config(flags={"search.space": {key: asked}}).search.space == {key: asked}


@given(requests)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, asked: dict[str, Any]
) -> None:
    document: dict[str, Any] = {}
    for name, value in asked.items():
        section, _, key = name.rpartition(".")
        (document.setdefault(section, {}) if section else document)[key] = value
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    config = load_config(path)
    path.write_text(yaml.safe_dump(to_plain(config), allow_unicode=True), encoding="utf-8")
    again = load_config(path)
    assert again == config
    assert asdict(again) == asdict(config)
    for name, value in asked.items():
        found: Any = config
        for part in name.split("."):
            found = getattr(found, part)
        assert (list(found) if isinstance(found, tuple) else found) == value


@given(st.text(max_size=80))
def test_no_text_gets_past_with_another_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(text, encoding="utf-8")
    for arguments in (
        {"path": path},
        {"sets": [text]},
        {"sets": [f"adapter.r={text}"]},
        {"flags": {"limits.time": text}},
    ):
        with suppress(ConfigError):
            assert isinstance(load_config(**arguments), Config)


def test_the_examples_are_good_requests() -> None:
    examples = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))
    assert examples
    for path in examples:
        assert load_config(path) != Config(), path
