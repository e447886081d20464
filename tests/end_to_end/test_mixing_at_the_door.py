"""Several sources with weights, replay and deduplication, as a person asks for them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from doorway import Door, Run, World, call, write_rows
from test_several_workers import require_same

SUBJECTS = ("the cat", "a dog", "the soup", "a cake")
VERBS = ("sleeps", "waits", "stands")
PLACES = ("in the house", "by the door", "under the tree", "near the river", "on the table")


def labelled(count: int, task: str) -> list[dict[str, Any]]:
    """Rows of one of two tasks: what is named first, or whether it is near the river."""
    said = [f"{s} {v} {p}" for v in VERBS for s in SUBJECTS for p in PLACES][:count]
    if task == "own":
        return [{"text": text, "label": text.split()[0]} for text in said]
    return [{"text": f"so {text}", "label": "near" if "near" in text else "far"} for text in said]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled rows of two tasks, with different columns."""
    root = tmp_path_factory.mktemp("rows")
    write_rows(root / "own.jsonl", labelled(60, "own"))
    other = [{"sentence": row["text"], "label": row["label"]} for row in labelled(30, "other")]
    write_rows(root / "other.jsonl", other)
    write_rows(root / "twice.jsonl", [*labelled(60, "own"), *labelled(20, "own")])
    return root


@pytest.fixture(scope="module")
def mixed(world: World, rows: Path) -> Run:
    """A training over two sources, the smaller with three quarters of every batch."""
    config = rows / "mixed.yaml"
    train = [
        {"source": str(rows / "own.jsonl"), "weight": 1},
        {"source": str(rows / "other.jsonl"), "weight": 3, "name": "tail"},
    ]
    config.write_text(yaml.safe_dump({"data": {"train": train, "validation": 0.2}}))
    answer = call(
        *("train", config, "--model", world.bert, "--batch-size", 8, "--max-steps", 6),
        *("--output-dir", rows / "runs", "--name", "mixed"),
    )
    assert answer.code == 0, answer.err
    return Run(answer, rows / "runs" / "mixed")


def test_a_mix_is_shown_trained_and_scored_by_source(mixed: Run, world: World, loraloom: Door) -> None:
    metrics = mixed.result["trials"][0]["metrics"]
    parts = [metrics[f"validation_accuracy/{name}"] for name in ("own", "tail")]
    assert min(parts) <= metrics["validation_accuracy"] <= max(parts)
    assert all(f"validation_loss/{name}_se" in metrics for name in ("own", "tail"))
    # The run's own config says the same again.
    answer = loraloom("plan", mixed.folder / "config.yaml", "--json")
    sources = {one["name"]: one for one in answer.json()["sources"]}
    assert sources["tail"]["share"] == pytest.approx(0.75)
    assert sources["own"]["rows"] > sources["tail"]["rows"]
    # Six steps of eight rows, three quarters of them from fewer than thirty rows.
    assert sources["tail"]["passes"] == pytest.approx(36 / sources["tail"]["rows"])


def test_sources_of_several_formats_are_read_in_one(
    world: World, tmp_path: Path, loraloom: Door
) -> None:
    talks = [json.loads(line) for line in Path(world.chat).read_text().splitlines()]
    write_rows(tmp_path / "talks.jsonl", talks)
    alpaca = [
        {"instruction": f"the bread {v}", "input": p, "output": "a pear"} for v in VERBS for p in PLACES
    ]
    write_rows(tmp_path / "alpaca.jsonl", alpaca)
    both = [str(tmp_path / name) for name in ("talks.jsonl", "alpaca.jsonl")]
    answer = loraloom(
        *("plan", "--model", world.chat_llama, *both, "--set", "data.mix={temperature: 2}", "--json")
    )
    assert answer.code == 0, answer.err
    document = answer.json()
    assert {one["name"] for one in document["sources"]} == {"talks", "alpaca"}
    assert sum(document["rows"].values()) == len(talks) + len(alpaca)
    assert any("alpaca.jsonl is read as alpaca" in text for text in document["warnings"])


@pytest.mark.parametrize(
    ("train", "more", "said"),
    [
        ([{"source": "own.jsonl", "weight": -1}, "other.jsonl"], (), "number above 0"),
        ({"own.jsonl": 0, "other.jsonl": 0}, (), "number above 0"),
        ({"own.jsonl": 0.5, "other.jsonl": 0.2}, (), "sum to 0.7"),
        ([{"source": "own.jsonl", "weight": 2}, "other.jsonl"], ("data.mix=equal",), "both say"),
        ([{"source": "own.jsonl"}, "own.jsonl"], (), "own.jsonl twice"),
        ([{"source": "own.jsonl", "name": "other"}, "other.jsonl"], (), "the name other twice"),
        ([{"source": "own.jsonl", "weight": 1, "epochs": 2}, "other.jsonl"], (), "both a weight"),
        ([{"source": "own.jsonl", "wieght": 1}], (), "`wieght`"),
        ([{"source": "own.jsonl", "weight": 1}, "empty.jsonl"], (), "empty.jsonl"),
        ("own.jsonl", ("data.mix=equal",), "has one"),
        ("own.jsonl", ("data.replay_share=0.2",), "`data.replay` has to name"),
        ("own.jsonl", ("data.replay=few.jsonl",), "at least 10"),
        ("own.jsonl", ("data.system=merge",), "are no messages"),
        ("own.jsonl", ("data.replay=prose.jsonl",), "`data.replay`: no known format for seq_cls"),
        ("own.jsonl", ("data.replay=other.jsonl", "data.replay_share=0.7"), "at most 0.5"),
        ("same.jsonl", ("data.deduplicate=true",), "too few different rows"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_message(
    train: Any,
    more: tuple[str, ...],
    said: str,
    world: World,
    rows: Path,
    loraloom: Door,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(rows)
    Path("empty.jsonl").write_text("")
    write_rows(Path("few.jsonl"), labelled(4, "own"))
    write_rows(Path("prose.jsonl"), [{"text": row["text"]} for row in labelled(20, "own")])
    write_rows(Path("same.jsonl"), [{"text": "the cat", "label": "a"}] * 20)
    Path("bad.yaml").write_text(yaml.safe_dump({"data": {"train": train}}))
    sets = [word for one in more for word in ("--set", one)]
    answer = loraloom("train", "bad.yaml", "--model", world.bert, *sets, "--output-dir", "refused")
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not Path("refused").exists()


def test_names_of_classes_are_for_classifiers(world: World, loraloom: Door) -> None:
    answer = loraloom("plan", "--model", world.llama, world.text, "--set", "data.label_names=[a, b]")
    assert answer.code == 2 and "`data.label_names` names classes" in answer.err


def test_deduplication_tells_how_many_rows_it_leaves_out(
    world: World, rows: Path, loraloom: Door
) -> None:
    words = ("plan", "--model", world.bert, rows / "twice.jsonl", "--json")
    kept = loraloom(*words).json()
    fewer = loraloom(*words, "--set", "data.deduplicate=true").json()
    assert sum(kept["rows"].values()) == 80
    assert sum(fewer["rows"].values()) == 60
    assert any("20 rows of 80 left out" in text for text in fewer["warnings"])


def test_nearly_the_same_rows_are_left_out_where_that_is_asked_for(
    world: World, tmp_path: Path, loraloom: Door
) -> None:
    draw = random.Random(0)
    said = [" ".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=30)) for _ in range(4)]
    near = [f"{text} indeed" for text in said]
    rows = [{"text": text, "label": "a"} for text in (*said, *near)] + labelled(30, "own")
    words = ("plan", "--model", world.bert, write_rows(tmp_path / "near.jsonl", rows), "--json")
    same = loraloom(*words, "--set", "data.deduplicate=true").json()
    fewer = loraloom(*words, "--set", "data.deduplicate=near").json()
    assert sum(same["rows"].values()) == 38
    assert sum(fewer["rows"].values()) <= 34
    assert any("nearly the same" in text for text in fewer["warnings"])


def test_a_source_with_epochs_is_gone_over_so_often(world: World, rows: Path, loraloom: Door) -> None:
    config = rows / "epochs.yaml"
    train = [
        {"source": str(rows / "own.jsonl")},
        {"source": str(rows / "other.jsonl"), "epochs": 3, "name": "tail"},
    ]
    config.write_text(yaml.safe_dump({"data": {"train": train, "validation": 0.2}}))
    words = ("plan", config, "--model", world.bert, "--epochs", 2, "--batch-size", 1, "--json")
    sources = {one["name"]: one for one in loraloom(*words).json()["sources"]}
    assert sources["own"]["passes"] == pytest.approx(2, abs=0.05)
    assert sources["tail"]["passes"] == pytest.approx(6, abs=0.05)


def search_of_shares(world: World, rows: Path, runs: Path) -> list[object]:
    """A search over a mix with replay, in which nothing is pruned."""
    config = runs.with_suffix(".yaml")
    train = [
        {"source": str(rows / "own.jsonl"), "weight": 1},
        {"source": str(rows / "other.jsonl"), "weight": 3},
    ]
    replay = write_rows(runs.with_suffix(".jsonl"), labelled(60, "other")[30:])
    config.write_text(
        yaml.safe_dump(
            {
                "data": {"train": train, "validation": 0.2, "replay": replay},
                "search": {
                    "space": {"data.replay_share": [0.0, 0.2, 0.4]},
                    "sampler": "grid",
                    "pruner": "none",
                    "seeds_for_finalists": 1,
                },
            }
        )
    )
    return [
        *("tune", config, "--model", world.bert, "--max-steps", 6, "--batch-size", 6, "--no-act"),
        *("--trials", 3, "--max-packed", 2, "--no-history", "--output-dir", runs, "--quiet"),
    ]


def test_a_mix_that_goes_on_takes_the_rows_that_it_would_have(
    world: World,
    rows: Path,
    tmp_path: Path,
    loraloom: Door,
    stopping: Callable[[int | None], None],
) -> None:
    words = search_of_shares(world, rows, tmp_path / "runs")
    stopping(None)
    assert loraloom(*words, "--name", "whole").code == 0
    stopping(3)
    assert loraloom(*words, "--name", "cut").code == 130
    stopping(None)
    checked = loraloom("check", tmp_path / "runs/cut/config.yaml", "--set", "name=cut", "--quick")
    assert checked.code == 0, checked.err
    answer = loraloom("tune", "--resume", tmp_path / "runs/cut", "--quiet")
    assert answer.code == 0, answer.err
    whole, cut = (
        {
            file.relative_to(tmp_path / "runs" / name): file.read_bytes()
            for file in (tmp_path / "runs" / name).glob("trials/*/adapter/adapter_model.safetensors")
        }
        for name in ("whole", "cut")
    )
    assert len(whole) == 3 and whole == cut


@pytest.mark.long
def test_two_workers_take_the_rows_of_a_mix_that_one_process_does(
    world: World, rows: Path, tmp_path: Path, loraloom: Door
) -> None:
    words = search_of_shares(world, rows, tmp_path / "runs")
    for name, more in (("alone", ()), ("several", ("--workers", 2))):
        answer = loraloom(*words, "--name", name, *more)
        assert answer.code == 0, answer.err
    require_same(tmp_path / "runs/alone", tmp_path / "runs/several")


@pytest.fixture(scope="module")
def replayed(world: World, rows: Path) -> Run:
    """A search over how much is replayed of another task, whose classes the head has too."""
    answer = call(
        *("tune", "--model", world.bert, "--data", rows / "own.jsonl", "--validation", 0.2),
        *("--trials", 3, "--max-steps", 4, "--batch-size", 10, "--no-act"),
        *("--output-dir", rows / "runs", "--name", "replayed"),
        *("--set", f"data.replay={rows / 'other.jsonl'}", "--set", "search.seeds_for_finalists=1"),
        *("--set", "search.space={data.replay_share: [0, 0.2, 0.5]}", "--set", "search.pruner=none"),
    )
    assert answer.code == 0, answer.err
    return Run(answer, rows / "runs" / "replayed")


def test_a_search_of_the_share_measures_what_each_candidate_forgets(replayed: Run) -> None:
    trials = {trial["settings"]["data.replay_share"]: trial for trial in replayed.result["trials"]}
    assert len(trials) == 3
    assert all("retain_loss" in trial["metrics"] for trial in trials.values())
    # Classes of both tasks, so that what is replayed has a place in the head.
    assert {"near", "far", "the", "a"} == set(replayed.result["labels"])
    assert len({trial["metrics"]["retain_loss"] for trial in trials.values()}) == 3


def test_what_is_measured_is_not_replayed(world: World, tmp_path: Path, loraloom: Door) -> None:
    talks = [json.loads(line) for line in Path(world.chat).read_text().splitlines()]
    write_rows(tmp_path / "own.jsonl", talks[:24])
    write_rows(tmp_path / "earlier.jsonl", talks[24:])
    write_rows(tmp_path / "retain.jsonl", talks[24:29])
    words = ("plan", "--model", world.chat_llama, tmp_path / "own.jsonl", "--json")
    replay = ("--set", f"data.replay={tmp_path / 'earlier.jsonl'}")
    held_out = loraloom(*words, *replay).json()
    assert held_out["settings"]["data.replay_share"]["value"] == 0.1
    assert any("data.replay are held out" in text for text in held_out["notes"])
    answer = loraloom(*words, *replay, "--set", f"data.retain={tmp_path / 'retain.jsonl'}")
    assert any("5 rows of data.replay are in data.retain" in text for text in answer.json()["notes"])
    same = loraloom(*words, "--set", f"data.replay={tmp_path / 'own.jsonl'}", "--validation", 0.5)
    assert same.code == 0, same.err
    both = ("--set", f"data.retain={tmp_path / 'earlier.jsonl'}")
    refused = loraloom(*words, *replay, *both)
    assert refused.code == 2
    assert "nothing is left of `data.replay`" in refused.err
