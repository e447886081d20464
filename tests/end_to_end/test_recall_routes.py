"""Routes at the command line: walked, learnt with what follows from them, asked for and scored."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from doorway import call, write_rows
from small_memory import asked, learn, lines, refusal, save_word_chat, short_anchors

from loraloom.pipeline.recall import learning
from loraloom.recall.derived import derived_forms
from loraloom.recall.forms import held_out_forms, trained_forms
from loraloom.recall.items import items_of
from loraloom.recall.places import maps_of
from loraloom.recall.recipe import RECIPE
from loraloom.recall.simulator import walked
from loraloom.recall.state import Entry

PATHS = (
    ("mill", "east", "well", "east", "gate", "south", "barn"),
    ("barn", "west", "inn", "north", "well", "west", "mill"),
    ("gate", "west", "well", "south", "inn", "east", "barn"),
)
ROWS = [{"kind": "trajectory", "map": "Harbour", "path": list(path)} for path in PATHS]
ITEMS = items_of([("", row) for row in ROWS], "2026-01-01")
HARBOUR = maps_of(ITEMS)["Harbour"]


@pytest.fixture(scope="module", autouse=True)
def anchors_of_a_moment() -> Iterator[None]:
    with short_anchors():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    entries = [Entry(item) for item in ITEMS]
    forms = [form for item in ITEMS for form in (*trained_forms(item), *held_out_forms(item))]
    forms += [*derived_forms(entries), *derived_forms(entries, held_out=True)]
    texts = [text for form in forms for text in (form.question, form.answer)]
    return str(save_word_chat(tmp_path_factory.mktemp("base") / "words", more=texts))


@pytest.fixture(scope="module")
def memory(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of three trajectories; nobody changes it."""
    folder = tmp_path_factory.mktemp("recall") / "memory"
    data = write_rows(folder.with_suffix(".jsonl"), ROWS)
    wrote = call("recall", "write", folder, "--model", base, "--data", data, "--json")
    assert wrote.code == 0, wrote.err
    # A model of two layers that knows no word needs more steps than one that talks.
    longer = replace(RECIPE, fewest_steps=150, rows=16)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(learning, "learn", partial(learning.learn, recipe=longer))
        learn(folder)
    return folder


def test_a_way_that_was_walked_is_answered_step_by_step(memory: Path) -> None:
    (answer,) = asked(memory, ITEMS[0].question)
    assert walked(HARBOUR, "mill", "barn", answer["memory"]).reached
    assert not walked(HARBOUR, "mill", "barn", answer["base"]).valid


def test_a_report_follows_the_routes_of_each_map(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = call("recall", "report", memory, "--json", "--quiet").json()
    (found,) = told["maps"]
    assert (found["map"], found["places"], found["steps"], found["trajectories"]) == ("Harbour", 5, 9, 3)
    assert found["seen"]["reached"] > 0.5 and found["seen"]["pairs"] > len(PATHS)
    assert found["unseen"]["pairs"] + found["seen"]["pairs"] <= 5 * 4
    monkeypatch.setenv("COLUMNS", "80")
    screen = call("recall", "report", memory, "--quiet").out
    assert all(len(line) <= 80 for line in screen.splitlines() if str(memory) not in line)
    assert "map Harbour: 5 places, 9 steps, 3 trajectories" in screen and "never asked" in screen


def test_a_path_that_contradicts_what_is_kept_is_refused_and_nothing_is_written(memory: Path) -> None:
    before = lines(memory)
    row = {"kind": "trajectory", "map": "Harbour", "path": ["inn", "north", "barn"]}
    data = write_rows(memory.parent / "wrong.jsonl", [row])
    said = refusal(call("recall", "write", memory, "--data", data))
    assert "leads to two places" in said and "m0002" in said
    assert lines(memory) == before


def test_what_others_say_of_a_map_is_still_known_when_a_trajectory_is_forgotten(
    memory: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(memory, tmp_path / "memory")
    done = call("recall", "forget", folder, "m0003", "--json", "--quiet")
    assert done.code == 0, done.err
    proof = done.json()["proof"]
    assert proof["target_after"] < proof["target_before"]
    (found,) = call("recall", "report", folder, "--json", "--quiet").json()["maps"]
    # gate to well and well to inn were known from it alone; inn to barn, too.
    assert (found["steps"], found["trajectories"]) == (6, 2)
