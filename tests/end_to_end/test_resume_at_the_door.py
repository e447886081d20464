"""`--resume` through the door: Ctrl-C, the same command again, what may differ, and
what is refused with a reason."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from doorway import Answer, Door, World

from loraloom.records import Event
from loraloom.store.folder import RunFolder
from loraloom.train.pack import PackTrainer

Words = list[object]


def asked_of(verb: str, world: World, root: Path) -> Words:
    """A small tune or train; under which name is left open."""
    words: Words = [
        verb,
        "--model",
        world.llama,
        "--data",
        world.text,
        "--output-dir",
        root,
        "--max-steps",
        6,
        "--quiet",
    ]
    if verb == "tune":
        words += ["--trials", 3, "--max-packed", 2, "--set", "search.seeds_for_finalists=1"]
    return words


@pytest.fixture
def tune(world: World, tmp_path: Path) -> Words:
    return [*asked_of("tune", world, tmp_path / "runs"), "--name", "one"]


@pytest.fixture
def train(world: World, tmp_path: Path) -> Words:
    return [*asked_of("train", world, tmp_path / "runs"), "--name", "one"]


@pytest.fixture(scope="module")
def undisturbed(world: World, loraloom: Door, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two runs from beginning to end; shared, so nobody writes into their folders."""
    root = tmp_path_factory.mktemp("undisturbed")
    for verb in ("tune", "train"):
        answer = loraloom(*asked_of(verb, world, root), "--name", verb)
        assert answer.code == 0, answer.err
    return root


@pytest.fixture
def cut(tune: Words, loraloom: Door, stopping: Callable[[int | None], None], tmp_path: Path) -> Path:
    """A tune that Ctrl-C stopped after three ticks."""
    stopping(3)
    assert loraloom(*tune).code == 130
    stopping(None)
    return tmp_path / "runs" / "one"


def result_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def refused(answer: Answer, *words: str) -> None:
    assert answer.code == 2, answer.err
    assert (
        answer.err.startswith("error: ") and "\n  next: " in answer.err and "Traceback" not in answer.err
    )
    for word in words:
        assert word in answer.err, answer.err


def adapters(folder: Path) -> dict[str, bytes]:
    return {
        path.parent.parent.name: path.read_bytes()
        for path in folder.glob("trials/*/adapter/adapter_model.safetensors")
    }


def test_ctrl_c_says_how_to_go_on(
    tune: Words, loraloom: Door, stopping: Callable[[int | None], None], tmp_path: Path
) -> None:
    stopping(3)
    answer = loraloom(*tune, "--json")
    folder = tmp_path / "runs" / "one"
    assert answer.code == 130
    assert f"next: loraloom tune --resume {folder}\n" in answer.err
    assert answer.json()["error"]["next"] == f"loraloom tune --resume {folder}"
    kept = result_in(folder)
    assert kept["status"] == "interrupted"
    assert {trial["status"] for trial in kept["trials"]} == {"waiting"}
    steps = [
        json.loads(line)["step"]
        for line in (folder / "events.jsonl").read_text().splitlines()
        if '"step", ' in line
    ]
    assert max(steps) == 3, "the tick in which it came was finished, and no other begun"


@pytest.mark.parametrize("ticks", [0, 1, 5, 7])
@pytest.mark.parametrize("verb", ["tune", "train"])
def test_it_ends_as_if_nothing_had_happened(
    verb: str,
    ticks: int,
    request: pytest.FixtureRequest,
    loraloom: Door,
    stopping: Callable[[int | None], None],
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    words: Words = request.getfixturevalue(verb)
    stopping(ticks)
    first = loraloom(*words)
    stopping(None)
    folder = tmp_path / "runs" / "one"
    if ticks >= 6 and verb == "train":
        assert first.code == 0, "it was over before"
        return
    assert first.code == 130
    answer = loraloom(verb, "--resume", folder, "--json", "--quiet")
    assert answer.code == 0, answer.err
    assert answer.json() == result_in(folder)
    assert adapters(folder) == adapters(undisturbed / verb)
    own, other = result_in(folder), result_in(undisturbed / verb)
    assert own["best"] == other["best"] and own["verdict"] == other["verdict"]
    assert [(t["id"], t["status"], t["metrics"], t["steps"], t["tokens"]) for t in own["trials"]] == [
        (t["id"], t["status"], t["metrics"], t["steps"], t["tokens"]) for t in other["trials"]
    ]
    times = [event.at for event in RunFolder(folder).events()]
    assert times == sorted(times)


def test_ctrl_c_twice_ends_it_at_once(
    tune: Words, loraloom: Door, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one comes in the middle of a tick: that tick is lost, and nothing that
    was in a checkpoint."""
    tick, begun, ended = PackTrainer.tick, list[None](), list[None]()

    def impatient(trainer: PackTrainer) -> list[Event]:
        begun.append(None)
        if len(begun) == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        events = tick(trainer)
        ended.append(None)
        return events

    monkeypatch.setattr(PackTrainer, "tick", impatient)
    answer = loraloom(*tune)
    folder = tmp_path / "runs" / "one"
    assert (answer.code, len(ended)) == (130, 4), answer.err
    assert f"next: loraloom tune --resume {folder}\n" in answer.err and "Traceback" not in answer.err
    assert result_in(folder)["status"] == "interrupted"
    assert loraloom("tune", "--resume", folder, "--quiet").code == 0
    assert adapters(folder) == adapters(undisturbed / "tune")


def test_the_same_command_goes_on_by_itself(cut: Path, tune: Words, loraloom: Door) -> None:
    answer = loraloom(*tune)
    assert answer.code == 0, answer.err
    assert result_in(cut)["status"] == "completed"
    started = [event.trial for event in RunFolder(cut).events() if event.kind == "trial_started"]
    assert started == ["t000", "t001", "t002"], "each once"
    refused(loraloom(*tune), "run `one` already exists", "is finished", "--name one-2")
    refused(loraloom("tune", "--resume", cut), "is finished")


def test_another_request_under_the_same_name_is_refused(cut: Path, tune: Words, loraloom: Door) -> None:
    before = (cut / "events.jsonl").read_bytes()
    answer = loraloom(*tune, "--set", "search.trials=5", "--set", "training.seed=7")
    refused(answer, "run `one` already exists", "another request", "--name one-2")
    assert (
        "got: training.seed 7, search.trials 5" in answer.err
        and "need: training.seed 42, search.trials 3" in answer.err
    )
    refused(loraloom("tune", "--resume", cut, "--r", 3), "adapter.r 3")
    refused(loraloom("tune", "--resume", cut, "--name", "other"), "name other")
    refused(loraloom("tune", "config.yaml", "--resume", cut), "uses its own config")
    assert (cut / "events.jsonl").read_bytes() == before, "a refusal changes nothing"
    assert loraloom("tune", "--resume", cut, "--r", "auto", "--quiet").code == 0, (
        "saying the same again is no difference"
    )


def test_limits_may_change_and_are_kept(cut: Path, loraloom: Door) -> None:
    answer = loraloom("tune", "--resume", cut, "--time", "2h", "--set", "search.budget=3000", "--quiet")
    assert answer.code == 0, answer.err
    asked = yaml.safe_load((cut / "config.yaml").read_text())
    assert (asked["limits"]["time"], asked["search"]["budget"], asked["name"]) == ("2h", 3000.0, "one")


def test_time_counts_from_the_first_start(cut: Path, loraloom: Door) -> None:
    """What was used before the interruption is used up."""
    answer = loraloom("tune", "--resume", cut, "--time", "0.001s", "--quiet")
    result = result_in(cut)
    assert "t002" not in {trial["id"] for trial in result["trials"]}, (
        "nobody new begins when the time is over"
    )
    assert answer.code in (0, 1)


def test_a_run_of_another_verb_is_refused(cut: Path, train: Words, loraloom: Door) -> None:
    refused(
        loraloom("train", "--resume", cut), "begun by `loraloom tune`", f"loraloom tune --resume {cut}"
    )
    refused(loraloom(*train), "begun by `loraloom tune`")


def test_what_is_no_run_is_refused(world: World, loraloom: Door, tmp_path: Path) -> None:
    refused(loraloom("tune", "--resume", tmp_path / "nowhere"), "there is no run folder")
    refused(loraloom("tune", "--resume", tmp_path), "is not a run folder")


def test_changed_data_is_refused(
    world: World, tune: Words, loraloom: Door, stopping: Callable[[int | None], None], tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    shutil.copy(world.text, data)
    words = [data if word == world.text else word for word in tune]
    stopping(2)
    assert loraloom(*words).code == 130
    stopping(None)
    lines = data.read_text().splitlines(keepends=True)
    data.write_text("".join([*lines[:-1], lines[-1].replace("a", "the", 1)]))
    answer = loraloom("tune", "--resume", tmp_path / "runs" / "one")
    refused(answer, "the data is no longer what the run was begun with", str(data))
    data.write_text("".join(lines))
    assert loraloom("tune", "--resume", tmp_path / "runs" / "one", "--quiet").code == 0


def test_a_changed_model_is_refused(
    world: World, tune: Words, loraloom: Door, stopping: Callable[[int | None], None], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(world.llama, model)
    words = [model if word == world.llama else word for word in tune]
    stopping(2)
    assert loraloom(*words).code == 130
    stopping(None)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    refused(
        loraloom("tune", "--resume", tmp_path / "runs" / "one"),
        "the base model is no longer the one",
        str(model),
    )


def test_a_spoilt_checkpoint_falls_back_and_says_so(
    cut: Path, loraloom: Door, undisturbed: Path
) -> None:
    checkpoints = sorted((cut / "checkpoints").glob("checkpoint-*.safetensors"))
    assert len(checkpoints) == 2
    checkpoints[-1].write_bytes(checkpoints[-1].read_bytes()[:-5])
    assert loraloom("tune", "--resume", cut, "--quiet").code == 0
    result = result_in(cut)
    assert result["status"] == "completed"
    assert any(
        "a checkpoint could not be used" in note and checkpoints[-1].stem in note
        for note in result["notes"]
    )
    assert adapters(cut) == adapters(undisturbed / "tune")


def test_two_spoilt_ones_are_an_error(cut: Path, loraloom: Door) -> None:
    for path in (cut / "checkpoints").glob("checkpoint-*.json"):
        path.write_bytes(b"\0" * 100)
    answer = loraloom("tune", "--resume", cut)
    assert answer.code == 1
    assert "no checkpoint can be read" in answer.err and "the run then begins anew" in answer.err


def test_without_any_checkpoint_it_begins_anew(cut: Path, loraloom: Door) -> None:
    shutil.rmtree(cut / "checkpoints")
    assert loraloom("tune", "--resume", cut, "--quiet").code == 0
    kinds = [event.kind for event in RunFolder(cut).events()]
    assert kinds.count("run_started") == kinds.count("run_finished") == 1


def test_a_run_that_another_process_holds_is_refused(cut: Path, tune: Words, loraloom: Door) -> None:
    holder = RunFolder(cut)
    holder.lock()
    before = (cut / "events.jsonl").read_bytes()
    refused(loraloom("tune", "--resume", cut), "being worked on by another process")
    refused(loraloom(*tune), "being worked on by another process")
    assert (cut / "events.jsonl").read_bytes() == before
    holder.unlock()
    assert loraloom("tune", "--resume", cut, "--quiet").code == 0


def test_a_kill_at_the_very_end_leaves_a_finished_run(
    cut: Path, tune: Words, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came while the checkpoints were being removed: none is left that could be taken up, and the
    rest goes with the next command."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert loraloom("tune", "--resume", cut, "--quiet").code == 0
    assert not (cut / "checkpoints").exists() and any(
        path.name.startswith(".") for path in cut.iterdir()
    )
    (cut / "checkpoints").mkdir()
    (cut / "checkpoints" / "checkpoint-000009.safetensors").touch()
    refused(loraloom(*tune), "is finished")
    assert not [path for path in cut.iterdir() if path.name.startswith((".", "checkpoints"))]


def test_other_versions_are_said(cut: Path, loraloom: Door) -> None:
    """A checkpoint remembers with what the run was begun."""
    from loraloom.train import checkpoint

    newest = max((cut / "checkpoints").glob("checkpoint-*.json"))
    body = json.loads(newest.read_bytes())
    del body["sha256"]
    body["run"]["result"]["environment"]["packages"]["torch"] = "1.0"
    digest = checkpoint._digest(body)  # pyright: ignore[reportPrivateUsage]
    newest.write_text(json.dumps({"sha256": digest, **body}))
    assert loraloom("tune", "--resume", cut, "--quiet").code == 0
    assert any("begun with other versions (torch 1.0, now " in note for note in result_in(cut)["notes"])


def test_a_dry_run_of_a_run_shows_its_plan_and_changes_nothing(cut: Path, loraloom: Door) -> None:
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    answer = loraloom("tune", "--resume", cut, "--dry-run")
    assert answer.code == 0 and "learning_rate" in answer.out
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before
