"""Paths that are no plain file: pipes, devices, loops of links, closed folders, names
that no disk takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers as tf
from fuzz_doors import Tools, read_adapter, read_config, read_data, read_model
from fuzz_judge import judge

from loraloom.cli.main import main
from loraloom.config.asked import Config


def pipe(here: Path) -> str:
    os.mkfifo(here / "odd")
    return str(here / "odd")


def device(here: Path) -> str:
    return "/dev/zero"


def loop(here: Path) -> str:
    (here / "odd").symlink_to(here / "other")
    (here / "other").symlink_to(here / "odd")
    return str(here / "odd")


def loop_of_folders(here: Path) -> str:
    (here / "odd").mkdir()
    (here / "odd" / "again").symlink_to(here / "odd")
    return str(here / "odd" / "again" / "again" / "again")


def dangling(here: Path) -> str:
    (here / "odd").symlink_to(here / "nowhere")
    return str(here / "odd")


def folder_called_a_file(here: Path) -> str:
    (here / "rows.jsonl").mkdir()
    return str(here / "rows.jsonl")


def pipes_in_a_folder(here: Path) -> str:
    for name in ("train.jsonl", "config.json", "adapter_config.json", "adapter_model.safetensors"):
        os.mkfifo(here / name)
    return str(here)


def below_a_file(here: Path) -> str:
    (here / "odd").touch()
    return str(here / "odd" / "rows.jsonl")


def endless_name(here: Path) -> str:
    return str(here / ("x" * 5000))


def nobody(here: Path) -> str:
    return "~nobody-of-that-name/rows"


def with_a_nul(here: Path) -> str:
    return "rows\0.jsonl"


def empty(here: Path) -> str:
    return ""


PLACES = (
    pipe,
    device,
    loop,
    loop_of_folders,
    dangling,
    folder_called_a_file,
    pipes_in_a_folder,
    below_a_file,
    endless_name,
    nobody,
    with_a_nul,
    empty,
)
at_every_place = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
Place = Callable[[Path], str]


@at_every_place
def test_data_that_is_no_file_is_refused(place: Place, tools: Tools, tmp_path: Path) -> None:
    assert judge(lambda: read_data(place(tmp_path), Config(), tools, chat=False)) is not None


@at_every_place
def test_a_config_that_is_no_file_is_refused(place: Place, tmp_path: Path) -> None:
    assert judge(lambda: read_config(Path(place(tmp_path)))) is not None


@at_every_place
def test_a_model_that_is_no_folder_is_refused(place: Place, tmp_path: Path) -> None:
    assert judge(lambda: read_model(Path(place(tmp_path)))) is not None


@at_every_place
def test_an_adapter_that_is_no_folder_is_refused(place: Place, tools: Tools, tmp_path: Path) -> None:
    base = tf.AutoModelForCausalLM.from_pretrained(tools.model_folder)
    assert judge(lambda: read_adapter(Path(place(tmp_path)), base)) is not None


@at_every_place
@pytest.mark.parametrize("verb", ["tune", "train", "plan"])
def test_commands_leave_nothing_behind(
    place: Place, verb: str, tools: Tools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, runs = place(tmp_path), tmp_path / "runs"
    assert (
        main([verb, "--model", str(tools.model_folder), "--data", odd, "--set", f"output_dir={runs}"])
        == 2
    )
    assert "this should not have happened" not in capsys.readouterr().err
    assert not runs.exists()


def test_pipes_beside_the_data_are_passed_over(tools: Tools, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "more.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    assert judge(lambda: read_data(tmp_path, Config(), tools, chat=False)) is None


def test_a_class_for_every_row_ends_in_time(tools: Tools, tmp_path: Path) -> None:
    """What is quadratic in them would not."""
    rows = "".join(f"row {i},c{i}\n" for i in range(10_000))
    for name in ("train.csv", "held.csv"):
        (tmp_path / name).write_text("text,label\n" + rows)
    config = read_config(sets=[f"data.validation={tmp_path / 'held.csv'}"])
    assert judge(lambda: read_data(tmp_path / "train.csv", config, tools, chat=False)) is None


def test_a_row_of_half_a_megabyte_is_read(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"text": "' + "the cat " * 60_000 + '", "label": 0}\n{"text": "a dog", "label": 1}\n'
    )
    config = read_config(sets=["data.validation=null"])
    assert judge(lambda: read_data(tmp_path / "rows.jsonl", config, tools, chat=False)) is None


def test_a_table_of_a_hundred_thousand_columns_is_read(tools: Tools, tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(100_000))
    (tmp_path / "rows.csv").write_text(
        f"text,{names}\n" + "".join(f"row {i}{',' * 100_000}\n" for i in range(3))
    )
    assert judge(lambda: read_data(tmp_path / "rows.csv", Config(), tools, chat=False)) is None
