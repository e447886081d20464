"""Several sources of rows, and flags that stand twice, as a person types them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from doorway import Door, World, write_rows


@pytest.fixture
def parts(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows of `world.text` in three files of the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = [json.loads(line) for line in Path(world.text).read_text().splitlines()]
    return [write_rows(Path(f"part-{i}.jsonl"), rows[i::3]) for i in range(3)]


def test_every_way_to_name_several_files_trains_on_all_rows(
    world: World, parts: list[str], loraloom: Door
) -> None:
    every = len(Path(world.text).read_text().splitlines())
    Path("list.yaml").write_text(yaml.safe_dump({"data": {"train": parts}}))
    for words in (
        ["--data", parts[0], "--data", parts[1], "--data", parts[2]],
        ["--data", "part-*.jsonl"],
        ["--set", f"data.train=[{', '.join(parts)}]"],
        ["list.yaml"],
        parts,
    ):
        answer = loraloom("check", "--quick", "--model", world.llama, *words)
        assert answer.code == 0, answer.err
        assert f"{every} rows read as text" in answer.out, words


def test_a_run_over_several_files_keeps_them_and_goes_on_with_them(
    world: World, parts: list[str], loraloom: Door
) -> None:
    words = [
        "train",
        "--model",
        world.llama,
        "--data",
        parts[0],
        "--data",
        "part-[12].jsonl",
        "--max-steps",
        "2",
        "--name",
        "a",
    ]
    assert loraloom(*words).code == 0
    assert yaml.safe_load(Path("runs/a/config.yaml").read_text())["data"]["train"] == [
        parts[0],
        "part-[12].jsonl",
    ]
    again = loraloom("train", "runs/a/config.yaml", "--name", "b")
    assert again.code == 0, again.err
    first, second = (
        json.loads(Path(f"runs/{name}/run.json").read_text())["trials"][0]["metrics"] for name in "ab"
    )
    assert first == second
    scored = loraloom(
        "evaluate",
        "runs/a/config.yaml",
        "--adapter",
        "runs/a",
        "--test",
        parts[1],
        "--test",
        parts[2],
        "--json",
    )
    assert scored.json()["rows"] == sum(len(Path(part).read_text().splitlines()) for part in parts[1:])


def test_held_out_rows_may_stand_in_several_files(
    world: World, parts: list[str], loraloom: Door
) -> None:
    answer = loraloom(
        "check", "--quick", "--model", world.llama, "--data", parts[0], "--validation", "part-[12].jsonl"
    )
    assert answer.code == 0, answer.err


def test_what_a_shell_makes_of_a_pattern_is_answered_with_the_pattern(
    world: World, parts: list[str], loraloom: Door
) -> None:
    for flag, before in (("--data", []), ("--test", ["--data", world.text])):
        answer = loraloom("plan", "--model", world.llama, *before, flag, *parts)
        assert answer.code == 2
        assert (
            f"beside {flag} files stand without a flag of their own: {parts[1]}, {parts[2]}"
            in answer.err
        )
        assert f"{flag} 'part-*.jsonl'" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--r", "8", "--r", "16"], "--r was given twice: 8 and 16"),
        (["--rank", "8", "--r", "16"], "--r was given twice: 8 and 16"),
        (["--name", "a", "--name=b"], "--name was given twice: a and b"),
        (["--model", "other"], "--model was given twice"),
        (["--set", "adapter.r=8", "--set", "adapter.r=16"], "`adapter.r` was set twice"),
        (["--max-length", "8", "--set", "data.max_length=16"], "`data.max_length` was set twice"),
    ],
)
def test_a_flag_with_one_value_is_not_taken_twice(
    world: World, words: list[str], said: str, loraloom: Door
) -> None:
    answer = loraloom("plan", "--model", world.llama, "--data", world.text, *words)
    assert answer.code == 2
    assert said in answer.err


def test_names_of_files_are_taken_as_they_are(world: World, tmp_path: Path, loraloom: Door) -> None:
    rows = [json.loads(line) for line in Path(world.text).read_text().splitlines()]
    for name in ("a, b.jsonl", "2024.jsonl", "a: b #1.jsonl", "[a].jsonl", "*.jsonl", "{a}.jsonl"):
        path = write_rows(tmp_path / name, rows)
        answer = loraloom("check", "--quick", "--model", world.llama, "--data", path)
        assert answer.code == 0, answer.err
        assert f"{len(rows)} rows read as text" in answer.out


def test_what_was_decided_about_a_table_is_shown(world: World, tmp_path: Path, loraloom: Door) -> None:
    rows = [json.loads(line) for line in Path(world.labels).read_text().splitlines()]
    path = tmp_path / "excel.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows(
            [["text", "label", ""], *([row["text"], row["label"], ""] for row in rows)]
        )
    for verb, flags in (("check", ["--quick"]), ("plan", [])):
        answer = loraloom(verb, "--model", world.bert, "--data", path, *flags)
        assert answer.code == 0, answer.err
        said = " ".join((answer.out + answer.err).split())
        assert f"{len(rows)} rows read as text_label" in said
        assert "semicolon" in said and "1 column without a name or a value" in said
