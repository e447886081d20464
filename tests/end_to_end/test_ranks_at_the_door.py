"""Ranks that differ from layer to layer, as a user asks for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Answer, Door, World

ALLOCATIONS = ["uniform", "mlp", "energy", "adalora", "eva"]
SPACE = f"search.space={{adapter.rank_allocation: [{', '.join(ALLOCATIONS)}]}}"


def asked(world: World, here: Path, *more: object) -> list[object]:
    return [
        *("--model", world.bert, "--data", world.labels, "--validation", "0.2", "--rank", "4"),
        *("--max-steps", "8", "--output-dir", here, "--name", "one", "--json", *more),
    ]


def tune(door: Door, world: World, here: Path) -> Answer:
    return door(
        "tune",
        *asked(world, here, "--trials", "5", "--set", SPACE, "--set", "search.sampler=grid"),
        *("--set", "search.pruner=none", "--set", "search.seeds_for_finalists=1"),
        *("--set", "limits.max_packed=5"),
    )


@pytest.fixture(scope="module")
def searched(
    world: World, loraloom: Door, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Answer, Path]:
    here = tmp_path_factory.mktemp("ranks")
    return tune(loraloom, world, here), here / "one"


def by_allocation(answer: Answer) -> dict[str, Any]:
    trials = answer.json()["trials"]
    return {one["params"]["adapter.rank_allocation"]: one for one in trials if one["role"] != "race"}


def test_a_search_compares_allocations_of_the_same_parameters_in_one_pack(
    searched: tuple[Answer, Path],
) -> None:
    answer, run = searched
    assert answer.code == 0, answer.err

    trials = by_allocation(answer)

    assert sorted(trials) == sorted(ALLOCATIONS)
    patterns = {name: one["settings"]["adapter.rank_pattern"] for name, one in trials.items()}
    assert patterns["uniform"] == {}
    assert all(len(set(patterns[name].values())) > 1 for name in ALLOCATIONS[1:])
    counts = [one["trainable_parameters"] for one in trials.values()]
    assert max(counts) <= 1.01 * trials["uniform"]["trainable_parameters"]
    assert min(counts) > 0.95 * trials["uniform"]["trainable_parameters"]
    assert set(json.loads((run / "ranks.json").read_text())) == {"energy", "adalora", "eva"}


def test_what_was_measured_is_told_by_group(searched: tuple[Answer, Path]) -> None:
    _, run = searched
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    notes = [event["data"]["text"] for event in events if event["kind"] == "note"]
    for allocation in ALLOCATIONS[2:]:
        (note,) = [text for text in notes if text.startswith(f"ranks by {allocation}: ")]
        assert "attention " in note
        assert "mlp " in note


def test_the_page_shows_where_rank_went(searched: tuple[Answer, Path]) -> None:
    _, run = searched
    assert "Where rank went" in (run / "report.html").read_text()


def test_peft_reads_the_ranks_and_every_layer_has_one_scale(
    world: World, loraloom: Door, tmp_path: Path
) -> None:
    answer = loraloom("train", *asked(world, tmp_path, "--set", "adapter.rank_allocation=attention"))
    assert answer.code == 0, answer.err

    saved = json.loads((tmp_path / "one/best/adapter_config.json").read_text())

    ranks, alphas = saved["rank_pattern"], saved["alpha_pattern"]
    assert max(ranks.values()) > 4 > min(ranks.values())
    scales = [alphas[path] / ranks[path] for path in ranks]
    assert scales == pytest.approx([saved["lora_alpha"] / saved["r"]] * len(ranks))


def test_a_search_that_goes_on_keeps_what_was_measured(
    searched: tuple[Answer, Path],
    world: World,
    loraloom: Door,
    tmp_path: Path,
    stopping: Callable[[int | None], None],
) -> None:
    stopping(3)
    assert tune(loraloom, world, tmp_path).code == 130
    kept = (tmp_path / "one/ranks.json").read_text()
    stopping(None)
    for spoilt in ("{}", re.sub(r": [0-9.]+", ": NaN", kept), re.sub(r": [0-9.]+", ": 0", kept)):
        (tmp_path / "one/ranks.json").write_text(spoilt)
        lost = loraloom("tune", "--resume", tmp_path / "one")
        assert lost.code == 1
        assert "measured for its ranks cannot be read" in lost.err
    (tmp_path / "one/ranks.json").write_text(kept)

    again = loraloom("tune", "--resume", tmp_path / "one", "--json")

    assert again.code == 0, again.err
    assert (tmp_path / "one/ranks.json").read_text() == kept
    whole = by_allocation(searched[0])
    for name, trial in by_allocation(again).items():
        assert (
            trial["settings"]["adapter.rank_pattern"] == whole[name]["settings"]["adapter.rank_pattern"]
        )


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        (["adapter.rank_allocation=mpl"], "mlp_last"),
        (["adapter.rank_allocation=mlp", "adapter.rank_pattern={query: 2}"], "adapter.rank_pattern"),
        (["adapter.rank_allocation=last"], "thirds need three blocks"),
        (["adapter.rank_allocation=eva", "adapter.r=1"], "nothing can be moved"),
        (["search.space={adapter.rank_allocation: [uniform, first]}"], "thirds need three blocks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    sets: list[str], named: str, world: World, loraloom: Door, tmp_path: Path
) -> None:
    more = [part for one in sets for part in ("--set", one)]
    rank = [] if any("adapter.r=" in one for one in sets) else ["--rank", "4"]
    answer = loraloom(
        *("tune", "--model", world.bert, "--data", world.labels, "--output-dir", tmp_path / "runs"),
        *(*rank, *more),
    )
    assert answer.code == 2
    assert named in answer.err
    assert not (tmp_path / "runs").exists()
