"""Run folders: names, files that survive a crash, and messages when the disk or the user is wrong."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.errors import RequestError, StoreError
from loraloom.records import Advice, Event, Trial
from loraloom.store.folder import RunFolder, require_space, write_atomically
from loraloom.store.names import check_name, invented_name
from loraloom.store.result import RunResult
from loraloom.store.to_json import to_json


def result_named(name: str, **changes: Any) -> RunResult:
    values: dict[str, Any] = {
        "verb": "tune",
        "status": "completed",
        "model": "tiny",
        "task": "causal_lm",
        "started_at": "2025-01-01T00:00:00+00:00",
    }
    return RunResult(name=name, **(values | changes))


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def failing(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)


def test_a_named_run_lies_in_the_output_folder(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "deep" / "runs", "first")
    assert folder.path == tmp_path / "deep" / "runs" / "first"
    assert folder.path.is_dir()
    assert folder.name == "first"


def test_an_invented_name_can_be_read_and_is_free(tmp_path: Path) -> None:
    names = {RunFolder.create(tmp_path).name for _ in range(20)}
    assert len(names) == 20
    for name in names:
        tint, weave, number = name.split("-")
        assert tint.isalpha()
        assert weave.isalpha()
        assert number.isdigit()
        check_name(name)


def test_an_existing_name_is_refused_with_a_free_one(tmp_path: Path) -> None:
    for name in ("first", "first-2"):
        RunFolder.create(tmp_path, name).write_config({})
    with pytest.raises(RequestError, match=r"run `first` already exists") as caught:
        RunFolder.create(tmp_path, "first")
    assert "--name first-3" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_in_which_nothing_was_begun_is_as_good_as_none(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "first").lock()
    (tmp_path / "first" / ".config.yaml.77.part").write_text("mod")
    assert RunFolder.create(tmp_path, "first").path == tmp_path / "first"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "a\nb",
        "a:b",
        "loraloom.db",
        "x" * 200,
        "end.",
    ],
)
def test_a_name_that_cannot_be_one_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="cannot be the name of a folder"):
        RunFolder.create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=120))
def test_a_name_is_either_one_folder_or_refused_with_one_that_works(name: str) -> None:
    try:
        check_name(name)
    except RequestError as error:
        check_name(str(error.next).removeprefix("try "))
    else:
        assert Path(name).name == name
        assert (Path("/root") / name).resolve().parent == Path("/root").resolve()


def test_invented_names_are_allowed_names() -> None:
    for _ in range(200):
        check_name(invented_name())


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(RequestError, match="is a file"):
        RunFolder.create(tmp_path / "runs", "first")


def test_opening_what_is_not_there_names_the_runs_beside_it(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, "first").write_config({})
    with pytest.raises(RequestError, match="there is no run folder") as caught:
        RunFolder.open(tmp_path / "frist")
    assert "first" in str(caught.value)


def test_opening_any_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run folder"):
        RunFolder.open(tmp_path)


def test_config_and_resolved_come_back_as_they_were(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    asked = {
        "model": {"name_or_path": "tiny"},
        "adapter": {"target_modules": ["q_proj", "v_proj"]},
        "training": {"learning_rate": 1e-5},
    }
    folder.write_config(asked)
    advice = {
        "adapter.r": Advice(16, "size of the data: 4,000 rows", "arXiv:0000", (8, 64), "C"),
        "data.test": Advice(None, "none asked for", "request"),
    }
    folder.write_resolved(advice)
    opened = RunFolder.open(folder.path)
    assert opened.config() == asked
    assert opened.resolved() == advice


def test_resolved_is_yaml_for_people(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.write_resolved({"adapter.r": Advice(16, "enough for 4,000 rows", "measured")})
    assert (
        folder.resolved_path.read_text()
        == "adapter.r:\n  value: 16\n  reason: enough for 4,000 rows\n  source: measured\n"
    )


numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
events = st.builds(
    Event,
    kind=st.text(min_size=1),
    trial=st.none() | st.text(),
    step=st.none() | st.integers(0, 10**9),
    at=st.floats(0, 1e9),
    data=st.dictionaries(st.text(), json_values, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(events, max_size=5))
def test_events_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, written: list[Event]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    for event in written:
        folder.append(event)
    assert list(folder.events()) == written


@given(cut=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_a_crash_anywhere_costs_at_most_the_last_event(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("run")
    folder = RunFolder(path)
    for step in range(5):
        folder.append(Event("step", trial="t000", step=step, data={"loss": 1.5}))
    whole = folder.events_path.read_bytes()
    torn = whole[: max(0, len(whole) - cut)]
    folder.events_path.write_bytes(torn)
    ended = torn.count(b"\n")
    before = [event.step for event in RunFolder(path).events()]
    assert before[:ended] == list(range(ended))
    RunFolder(path).append(Event("note"))
    after = list(RunFolder(path).events())
    assert [event.step for event in after] == [*before, None]
    assert all(json.loads(line) for line in folder.events_path.read_text().splitlines())


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append(Event("step", data={"loss": math.nan, "grad_norm": math.inf}))
    assert "NaN" not in folder.events_path.read_text()
    assert next(folder.events()).data == {"loss": None, "grad_norm": None}


@pytest.mark.parametrize(
    "changed",
    [
        {"trial": {}},
        {"step": "third"},
        {"at": [1]},
        {"data": 3},
        {"kind": None},
        {"data": {"loss": math.nan}},
    ],
)
def test_an_event_that_nobody_writes_is_passed_over(changed: dict[str, Any], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    events = [Event("step", "t000", step, data={"loss": 1.0}) for step in (1, 2)]
    for event in events:
        folder.append(event)
    first, second = folder.events_path.read_text().splitlines()
    odd = json.dumps(json.loads(second) | changed)
    folder.events_path.write_text(f"{first}\n{odd}\n{second}\n")
    assert [event.step for event in folder.events()] == [1, 2]


@given(st.lists(st.tuples(st.text(), st.floats(), st.booleans()), max_size=6))
def test_run_json_is_the_result_as_one_document(
    tmp_path_factory: pytest.TempPathFactory, told: list[Any]
) -> None:
    """Also the second time, when most of its trials are as they were."""
    folder = RunFolder(tmp_path_factory.mktemp("whole"))
    trials = [
        Trial(f"t{n}", "completed", {"p": text}, {"m": cost}) for n, (text, cost, _) in enumerate(told)
    ]
    again = [
        replace(trial, reason='\n  "trials": []') if told[n][2] else trial
        for n, trial in enumerate(trials)
    ]
    for now in (trials, again):
        result = result_named("whole", notes=['"trials": []'], trials=now, best="t0" if now else None)
        folder.write_result(result)
        assert folder.result_path.read_bytes() == to_json(result.to_plain(), indent=2) + b"\n"


def test_signals_come_back_and_those_of_an_older_run_from_its_events(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append(Event("signals", "t0", 4, data={"readings": [1]}))
    assert folder.signals("t0") == {"readings": [1]} and folder.signals("t1") == {}
    folder.write_signals("t0", {"readings": [1, 2]})
    assert folder.signals("t0") == {"readings": [1, 2]}


def test_a_result_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_result(result_named("first", status="running"))
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(StoreError, match="the disk is full") as caught:
        folder.write_result(result_named("first", notes=["never seen"]))
    assert "make room" in str(caught.value)
    assert caught.value.exit_code == 1
    assert folder.result().status == "running"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "writing is not allowed"),
        (errno.EROFS, "writing is not allowed"),
        (errno.EIO, "the disk refused"),
    ],
)
def test_what_the_system_refuses_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    refuse(monkeypatch, number)
    with pytest.raises(StoreError, match=words) as caught:
        write_atomically(tmp_path / "run.json", b"{}")
    assert "--output-dir" in str(caught.value)
    assert str(tmp_path / "run.json") in str(caught.value)


def test_a_folder_that_vanished_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the folder is gone"):
        RunFolder(tmp_path / "gone").append(Event("note"))


def test_a_result_that_is_not_json_names_the_way_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.result_path.write_text('{"name": ')
    with pytest.raises(RequestError, match="this is not JSON") as caught:
        folder.result()
    assert "events.jsonl" in str(caught.value)


def test_a_run_that_had_not_begun_has_no_result(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.write_config({})
    with pytest.raises(RequestError, match="run `first` has no result yet"):
        folder.result()


def test_a_killed_run_is_read_from_its_events(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.append(Event("run_started", data={"verb": "tune", "model": "tiny", "task": "causal_lm"}))
    folder.append(
        Event(
            "trial_started", trial="t000", at=1.0, data={"params": {"adapter.r": 8}, "planned_steps": 40}
        )
    )
    folder.append(
        Event(
            "evaluated",
            trial="t000",
            step=20,
            at=5.0,
            data={"split": "validation", "progress": 0.5, "loss": 1.5},
        )
    )
    result = folder.result()
    assert (result.name, result.verb, result.status) == ("first", "tune", "interrupted")
    assert result.trials[0].metrics == {"validation_loss": 1.5}


def test_trial_folders_stay_inside_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.trial_folder("t000") == tmp_path / "trials" / "t000"
    with pytest.raises(RequestError):
        folder.trial_folder("../../t000")


def test_free_space_is_asked_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(StoreError, match="not enough free space") as caught:
        require_space(tmp_path / "not" / "there" / "yet", 2**62)
    assert "GiB free" in str(caught.value)
    assert "--output-dir" in str(caught.value)
