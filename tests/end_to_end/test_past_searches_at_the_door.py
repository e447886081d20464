"""A second search over the same base through the door: what it learns from the first, what not, and that
a resumed one learns what it began with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from doorway import Door, World

Words = list[object]
FIRST_RATE, SECOND_RATE = 1e-4, 1.4e-4
"""So small that a candidate with a higher one is better for certain, and so far apart
that no candidate of both is the same."""


def asked_of(
    verb: str, world: World, root: Path, *more: object, rate: float = SECOND_RATE, model: object = None
) -> Words:
    return [
        verb,
        "--model",
        model or world.llama,
        "--data",
        world.text,
        "--output-dir",
        root,
        "--learning-rate",
        rate,
        "--max-steps",
        8,
        "--trials",
        5,
        "--max-packed",
        3,
        "--set",
        "search.seeds_for_finalists=1",
        *more,
    ]


@pytest.fixture(scope="module")
def once(world: World, loraloom: Door, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with one finished search; shared, so nobody writes into it."""
    root = tmp_path_factory.mktemp("once")
    answer = loraloom(*asked_of("tune", world, root, "--name", "first", "--quiet", rate=FIRST_RATE))
    assert answer.code == 0, answer.err
    return root


@pytest.fixture
def runs(once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once, tmp_path / "runs"))


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def winner_of(folder: Path) -> dict[str, Any]:
    """The trial of the search that a run kept."""
    result = result_in(folder)
    return next(trial for trial in result["trials"] if trial["params"] == result["best"]["params"])


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["kind"] == kind]


def candidates(folder: Path) -> list[Any]:
    return [
        (event["trial"], event["data"]["params"], event["data"]["role"])
        for event in events_of(folder, "trial_started")
    ]


def learnt(loraloom: Door, words: Words) -> list[str]:
    """Names of the runs that a plan would learn from."""
    answer = loraloom(*words, "--json")
    assert answer.code == 0, answer.err
    return [one["run"] for one in answer.json()["history"]]


def test_a_plan_names_the_run_and_its_winner(
    world: World, loraloom: Door, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    kept = winner_of(runs / "first")
    answer = loraloom(*asked_of("plan", world, runs))
    said = [line for line in answer.out.splitlines() if line.startswith("history:")]
    assert said == [
        f"history: 1 earlier run on this base (first): {kept['id']}'s setting is tried second"
    ]
    document = loraloom(*asked_of("plan", world, runs, "--json")).json()
    (told,) = document["history"]
    assert (told["run"], told["trial"], told["params"]) == (
        "first",
        kept["id"],
        kept["params"],
    ) and told["gain"] > 0
    assert document["settings"]["search.history"]["value"] == ["first"]


def test_the_second_search_tries_it_second_and_says_why(
    world: World, loraloom: Door, runs: Path
) -> None:
    answer = loraloom(*asked_of("tune", world, runs, "--name", "second"))
    assert answer.code == 0, answer.err
    kept = winner_of(runs / "first")
    assert candidates(runs / "second")[1] == ("t001", kept["params"], "history")
    notes = result_in(runs / "second")["notes"]
    assert any(note.startswith(f"t001 is tried again: {kept['id']} of run first was ") for note in notes)
    resolved = yaml.safe_load((runs / "second" / "resolved.yaml").read_text())["search.history"]
    assert resolved["value"] == ["first"] and "tried second" in resolved["reason"]
    assert learnt(loraloom, asked_of("plan", world, runs)) == ["second", "first"], "the latest first"


def test_without_history_it_searches_as_in_an_empty_folder(
    world: World, loraloom: Door, runs: Path, tmp_path: Path
) -> None:
    for root, more in ((runs, ["--no-history"]), (tmp_path / "empty", [])):
        answer = loraloom(*asked_of("tune", world, root, "--name", "second", "--quiet", *more))
        assert answer.code == 0 and "history" not in answer.err, answer.err
    assert candidates(runs / "second") == candidates(tmp_path / "empty" / "second")
    assert "search.history" not in yaml.safe_load((runs / "second" / "resolved.yaml").read_text())
    plain, fresh = (
        loraloom(*asked_of("plan", world, root, *more))
        for root, more in ((runs, ["--no-history"]), (tmp_path, []))
    )
    assert "history:" not in plain.out + fresh.out


def test_another_base_task_or_metric_learns_nothing(
    world: World, loraloom: Door, runs: Path, tmp_path: Path
) -> None:
    """The base is known by its content: another place changes nothing, another number
    in its weights does."""
    moved, changed = (
        Path(shutil.copytree(world.llama, tmp_path / name)) for name in ("moved", "changed")
    )
    weights = changed / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    assert learnt(loraloom, asked_of("plan", world, runs, model=moved)) == ["first"]
    assert learnt(loraloom, asked_of("plan", world, runs, model=changed)) == []
    assert (
        learnt(
            loraloom,
            [*asked_of("plan", world, runs), "--set", "search.metric=validation_token_accuracy"],
        )
        == []
    )
    other = [
        world.labels if word == world.text else word
        for word in asked_of("plan", world, runs, "--task", "seq_cls")
    ]
    assert learnt(loraloom, other) == []
    assert learnt(loraloom, [*asked_of("plan", world, runs), "--set", "search.sampler=tpe"]) == []


def test_runs_that_are_broken_unfinished_or_small_are_passed_over(
    world: World, loraloom: Door, runs: Path
) -> None:
    def spoilt(name: str, change: Callable[[dict[str, Any]], object]) -> None:
        folder = Path(shutil.copytree(runs / "first", runs / name))
        result = result_in(folder)
        change(result)
        (folder / "run.json").write_text(json.dumps(result))

    spoilt("failed", lambda result: result.update(status="failed"))
    spoilt("small", lambda result: result.update(trials=result["trials"][:2]))
    spoilt("old", lambda result: result.pop("base_fingerprint"))
    spoilt(
        "hostile",
        lambda result: [
            trial["params"].update({"training.learning_rate": []}) for trial in result["trials"]
        ],
    )
    spoilt("stranger", lambda result: [trial.update(settings=["much"]) for trial in result["trials"]])
    spoilt("torn", lambda result: None)
    (runs / "torn" / "run.json").write_text('{"name": ')
    (runs / "empty").mkdir()
    assert learnt(loraloom, asked_of("plan", world, runs)) == ["first"]
    for number in range(6):
        spoilt(f"more-{number}", lambda result: None)
    assert learnt(loraloom, asked_of("plan", world, runs)) == [
        f"more-{number}" for number in (5, 4, 3, 2, 1)
    ]


def test_one_run_may_be_named_and_has_to_fit(
    world: World, loraloom: Door, runs: Path, tmp_path: Path
) -> None:
    asked = asked_of("plan", world, tmp_path / "elsewhere")
    assert learnt(loraloom, [*asked, "--set", f"search.history={runs / 'first'}"]) == ["first"]
    assert learnt(loraloom, [*asked_of("plan", world, runs), "--set", "search.history=first"]) == [
        "first"
    ]
    for changes, said in (
        (["search.history=nobody"], "there is no run folder"),
        (
            [f"search.history={runs / 'first'}", "search.metric=validation_token_accuracy"],
            "its metric is validation_loss",
        ),
        (
            [f"search.history={runs / 'first'}", "search.sampler=tpe"],
            "the sampler `tpe` cannot use one",
        ),
    ):
        answer = loraloom(*asked, *(word for change in changes for word in ("--set", change)))
        assert answer.code == 2 and said in answer.err and "\n  next: " in answer.err, answer.err


def test_a_run_that_goes_on_keeps_its_history(
    world: World,
    loraloom: Door,
    runs: Path,
    once: Path,
    stopping: Callable[[int | None], None],
    tmp_path: Path,
) -> None:
    """Another run ends in between, and the one that it learnt from is gone."""
    undisturbed = Path(shutil.copytree(once, tmp_path / "undisturbed"))
    assert loraloom(*asked_of("tune", world, undisturbed, "--name", "second", "--quiet")).code == 0
    stopping(5)
    assert loraloom(*asked_of("tune", world, runs, "--name", "second", "--quiet")).code == 130
    stopping(None)
    (runs / "first").rename(tmp_path / "gone")
    later = Path(shutil.copytree(tmp_path / "gone", runs / "later"))
    result = result_in(later)
    for trial in result["trials"]:
        trial["params"]["training.learning_rate"] *= 1.3
    (later / "run.json").write_text(json.dumps(result))
    assert learnt(loraloom, asked_of("plan", world, runs)) == ["later"]
    answer = loraloom("tune", "--resume", runs / "second", "--quiet")
    assert answer.code == 0, answer.err
    own, other = result_in(runs / "second"), result_in(undisturbed / "second")
    assert candidates(runs / "second") == candidates(undisturbed / "second")
    assert [(t["id"], t["status"], t["metrics"]) for t in own["trials"]] == [
        (t["id"], t["status"], t["metrics"]) for t in other["trials"]
    ]
    assert not any("would now draw" in note for note in own["notes"])
