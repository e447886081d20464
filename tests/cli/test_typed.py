"""What people type: options and verbs of other tools become ours, and what is not known
is answered by meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from loraloom.cli.main import app, main
from loraloom.cli.request import FLAGS
from loraloom.cli.typed import in_our_words
from loraloom.config.decode import load_config, to_plain
from loraloom.config.keys import keys
from loraloom.config.words import ABSENT, ALIASES, OPTIONS, SETTINGS, VALUES, VERBS
from loraloom.errors import RequestError

GROUP: Any = typer.main.get_command(app)


def ours(line: str) -> str:
    return " ".join(in_our_words(line.split(), GROUP.commands))


def refusal(line: str) -> str:
    with pytest.raises(RequestError) as caught:
        ours(line)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train --lr 1e-4 --rank 8 --lora-alpha 16", "train --learning-rate 1e-4 --r 8 --alpha 16"),
        ("train -m base -d rows.jsonl -o out", "train --model base --data rows.jsonl --output-dir out"),
        ("tune --learning_rate=2e-4 --lora_r 4", "tune --learning-rate 2e-4 --r 4"),
        ("train -lr 1e-4 --num-train-epochs 2", "train --learning-rate 1e-4 --epochs 2"),
        ("train --per_device_train_batch_size 4", "train --batch-size 4"),
        ("train --gradient-accumulation-steps 2", "train --set training.gradient_accumulation_steps=2"),
        (
            "train --max-seq-length 64 --weight_decay=0.1",
            "train --set data.max_length=64 --set training.weight_decay=0.1",
        ),
        ("train --training.learning_rate 1e-4", "train --learning-rate 1e-4"),
        ("train --qlora", "train --set model.quantization=nf4"),
        ("train --load-in-8bit True -q", "train --set model.quantization=int8 -q"),
        ("train --bf16 rows.jsonl", "train --set training.precision=bf16 rows.jsonl"),
        (
            "train --use-dora --packing false",
            "train --set adapter.use_dora=true --set data.packing=false",
        ),
        ("train --no-gradient-checkpointing", "train --set training.gradient_checkpointing=false"),
        (
            "train --gradient-checkpointing offload",
            "train --set training.gradient_checkpointing=offload",
        ),
        (
            "train --use_gradient_checkpointing unsloth",
            "train --set training.gradient_checkpointing=unsloth",
        ),
        ("train --config asked.yaml", "train asked.yaml"),
        ("train --resume_from_checkpoint runs/a", "train --resume runs/a"),
        ("evaluate --lora runs/a --max-length 32", "evaluate --adapter runs/a --set data.max_length=32"),
        (
            "generate --lora runs/a --max-tokens 9 --prompt Hi",
            "generate --adapter runs/a --max-new-tokens 9 Hi",
        ),
        ("generate --adapter a -- --lr 3", "generate --adapter a -- --lr 3"),
        ("train --name --lr", "train --name --lr"),
        ("train -qv", "train -qv"),
        ("runs -o there", "runs --output-dir there"),
        ("help", "--help"),
        ("help tune", "tune --help"),
        ("tune help", "tune --help"),
    ],
)
def test_words_of_other_tools_become_ours(typed: str, meant: str) -> None:
    assert ours(typed) == meant


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train --learningrate 1", "did you mean --learning-rate?"),
        ("train --gpu 1", "one device"),
        ("train --save-steps 10", "checkpoints are written by themselves"),
        ("tune --deepspeed z3.json", "one device"),
        ("train --warmup-steps 10", "training.warmup_ratio is the share"),
        ("train --push-to-hub", "nothing is uploaded"),
        ("train --trials 3", "it belongs to `check`, `tune`, `plan`"),
        ("runs --data x", "it belongs to"),
        ("train --qlora false", "leave --qlora out"),
        ("train --warmuprat 0.1", "did you mean --set training.warmup_ratio=VALUE?"),
        ("generate --temprature 0.1", "did you mean --temperature?"),
        ("train --wd", "option `--wd` needs a value"),
        ("train --qqqq", "loraloom train --help shows what it takes"),
        ("finetune --lr 1", "did you mean `loraloom train`?"),
        ("sweep", "did you mean `loraloom tune`?"),
        ("eval", "did you mean `loraloom evaluate`?"),
        ("ls", "did you mean `loraloom runs`?"),
        ("trian", "did you mean `loraloom train`?"),
        ("asked.yaml", "for example loraloom tune asked.yaml"),
        ("weave", "loraloom --help shows what there is"),
    ],
)
def test_what_is_not_known_is_answered_by_meaning(typed: str, said: str) -> None:
    assert said in refusal(typed)


def test_the_tables_name_what_is_there() -> None:
    assert set(ALIASES.values()) | {key for key, _ in SETTINGS.values()} | set(VALUES) <= set(keys())
    within = {f"adapter {name}" for name in GROUP.commands["adapter"].commands}
    assert set(VERBS.values()) <= set(GROUP.commands) | within
    known = {
        option
        for command in GROUP.commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    assert {option for option in OPTIONS.values() if option} <= known
    assert not set(VERBS) & set(GROUP.commands)
    assert not {*SETTINGS, *ABSENT} & {
        *ALIASES,
        *(key.rpartition(".")[2] for key in keys()),
    }, "a word has one meaning"


@pytest.mark.parametrize("key", sorted(SETTINGS))
def test_each_switch_sets_what_its_key_takes(key: str) -> None:
    load_config(sets=["{}={}".format(*SETTINGS[key])])


def test_each_value_of_another_tool_is_one_of_ours() -> None:
    for key, words in VALUES.items():
        for word, value in words.items():
            assert load_config(sets=[f"{key}={word}"]) == load_config(sets=[f"{key}={value}"]), (
                key,
                word,
            )


def test_names_with_commas_are_a_list_and_a_pattern_stays_one() -> None:
    def targets(text: str) -> Any:
        return to_plain(load_config(flags={"adapter.target_modules": text}))["adapter"]["target_modules"]

    assert (
        targets("q_proj,v_proj")
        == targets("q_proj, v_proj")
        == targets("[q_proj, v_proj]")
        == ["q_proj", "v_proj"]
    )
    assert targets(r".*\.(q|v)_proj") == r".*\.(q|v)_proj"
    assert targets(r"layers\.[0-9]{1,2}\.q_proj") == r"layers\.[0-9]{1,2}\.q_proj"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("micro_batch_size: 2", "training.per_device_train_batch_size"),
        ("num_epochs: 3", "training.num_train_epochs"),
        ("cutoff_len: 512", "data.max_length"),
        ("base_model: there", "model.name_or_path"),
        ("adapter: {lora_r: 8}", "adapter.r"),
        ("training: {lora_target: all}", "adapter.target_modules"),
        ("load_in_4bit: true", "model.quantization: nf4"),
        ("warmup_steps: 10", "training.warmup_ratio is the share"),
        ("LearningRate: 1", "training.learning_rate"),
    ],
)
def test_a_file_for_another_tool_is_answered_with_our_key(line: str, meant: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"{line}\n")
    with pytest.raises(RequestError, match=f"did you mean `{meant}`" if " is " not in meant else meant):
        load_config(tmp_path / "c.yaml")


def answered(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_a_file_without_a_flag_is_the_config_or_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    Path("rows.json").write_text('[{"text": "a"}]')
    Path("lines.json").write_text('{"text": "a"}\n')
    Path("asked.json").write_text('{"adapter": {"r": 0}}')
    for rows in ("rows.jsonl", "rows.json", "lines.json"):
        assert "no base model was given" in answered(capsys, "plan", rows)
    assert "`adapter.r` is 0" in answered(capsys, "plan", "asked.json", "rows.jsonl")
    assert "beside --data files stand without a flag of their own: rows.jsonl" in answered(
        capsys, "plan", "rows.jsonl", "--data", "x"
    )
    assert "beside --test files stand without a flag of their own: rows.jsonl" in answered(
        capsys, "evaluate", "rows.jsonl", "--test", "x"
    )
    assert "give it without a flag: asked.yaml" in answered(capsys, "plan", "--data", "asked.yaml")
    assert "q_proj,v_proj" in answered(capsys, "plan", "--target-modules", "q_proj", "v_proj")
    assert "more than one config" in answered(capsys, "plan", "a.yaml", "b.yaml")
    Path("config.yaml").write_text("")
    Path("run.json").write_text("{}")
    assert "a resumed run uses its own data" in answered(capsys, "train", "rows.jsonl", "--resume", ".")


def test_a_run_is_neither_config_nor_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert f"--adapter {tmp_path} takes the adapter" in answered(capsys, "evaluate", str(tmp_path))


def test_every_flag_has_one_meaning() -> None:
    for name, flag in FLAGS.items():
        assert ALIASES.get(name.replace("-", "_"), flag.key) == flag.key
