"""A run folder on a network share that goes away in the middle of a run, or in which another machine has
gone on with it: one message, nothing lost, nothing written over."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doorway import Door, World

from loraloom.pipeline.recorder import Recorder
from loraloom.records import Event
from loraloom.store import lock
from loraloom.store.folder import RunFolder

Words = list[object]
At = Callable[[str, Callable[[], None]], None]


@pytest.fixture
def tune(world: World, tmp_path: Path) -> Words:
    words = (
        f"--output-dir {tmp_path / 'share' / 'runs'} --name one --trials 2 --max-steps 4 --max-packed 1"
    )
    seeds = ["--set", "search.seeds_for_finalists=1", "--quiet"]
    return ["tune", "--model", world.llama, "--data", world.text, *words.split(), *seeds]


@pytest.fixture
def at_first(monkeypatch: pytest.MonkeyPatch) -> At:
    """Let something happen after the first event of a kind."""

    def at(kind: str, happens: Callable[[], None]) -> None:
        send, seen = Recorder.send, list[str]()

        def sent(recorder: Recorder, event: Event) -> None:
            send(recorder, event)
            if event.kind == kind and not seen:
                seen.append(kind)
                happens()

        monkeypatch.setattr(Recorder, "send", sent)

    return at


def stale(below: Path, patch: pytest.MonkeyPatch) -> None:
    """Let everything below a folder be refused, as on a share whose server was started anew."""

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            if isinstance(path, (str, Path)) and str(path).startswith(str(below)):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
            return real(path, *given, **named)

        return call

    for name in ("open", "stat", "mkdir", "replace", "rename", "unlink", "scandir", "listdir"):
        patch.setattr(os, name, refusing(getattr(os, name)))
    patch.setattr(io, "open", refusing(io.open))


@pytest.mark.parametrize("kind", ["evaluated", "saved"])
def test_a_share_that_refuses_everything(
    kind: str, tune: Words, loraloom: Door, tmp_path: Path, at_first: At
) -> None:
    folder = tmp_path / "share" / "runs" / "one"
    with pytest.MonkeyPatch.context() as patch:
        at_first(kind, lambda: stale(tmp_path / "share", patch))
        answer = loraloom(*tune)
    assert answer.code == 1 and "the disk is out of reach" in answer.err
    assert f"loraloom tune --resume {folder}" in answer.err
    assert "Traceback" not in answer.err and "should not have happened" not in answer.err
    assert loraloom("tune", "--resume", folder, "--quiet").code == 0
    assert json.loads((folder / "run.json").read_text())["status"] == "completed"


def test_a_share_that_is_not_mounted_any_more(
    tune: Words, loraloom: Door, tmp_path: Path, at_first: At
) -> None:
    share, away = tmp_path / "share", tmp_path / "away"

    def unmount() -> None:
        share.rename(away)
        share.mkdir()

    at_first("note", unmount)
    answer = loraloom(*tune)
    assert answer.code == 1 and "the folder is gone" in answer.err and "--resume" in answer.err
    assert "Traceback" not in answer.err
    share.rmdir()  # nothing was written under the place where it belongs
    away.rename(share)
    assert loraloom("tune", "--resume", share / "runs" / "one", "--quiet").code == 0


def test_a_run_that_went_on_elsewhere_is_left_alone(
    tune: Words, loraloom: Door, tmp_path: Path, at_first: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.0)
    folder = RunFolder(tmp_path / "share" / "runs" / "one")
    there: dict[Path, bytes] = {}

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}

    def taken_over() -> None:
        path = folder.checkpoints / "lock"
        path.unlink()
        path.write_text("7 on node9\n")
        there.update(files())

    at_first("completed", taken_over)
    answer = loraloom(*tune)
    assert answer.code == 1 and "another process has taken this run over" in answer.err
    assert "7 on node9" in answer.err and "Traceback" not in answer.err
    assert there and files() == there
