"""A GPU that fails, or has no memory left, in the middle of a command: one message,
nothing lost, and the run goes on."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from bases import save_llama
from doorway import Answer, call, write_rows
from safetensors.torch import load_file
from stand_in import StandIn, stand_in

from loraloom.pipeline import samples, write_timer
from loraloom.train.pack import PackTrainer

pytestmark = pytest.mark.usefixtures("without_triton")
SENTENCES = [
    f"the {animal} {verb} {place}"
    for animal in ("cat", "dog", "bird")
    for verb in ("sleeps", "waits", "turns")
    for place in ("here", "there", "in the house", "by the door")
]
LOST = torch.AcceleratorError(
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be reported elsewhere"
)


@contextmanager
def failing(error: Exception, place: float, *, dead: bool = True) -> Generator[list[int]]:
    """Within, the device raises at that launch, once or, where it is dead, ever after.
    Gives the launches so far.

    The thread of the backward pass raises nothing: errors of a GPU are told late, and
    there the stand-in ends the process.
    """
    count, launches, told = StandIn._count, [0], [False]

    def counted(self: StandIn, *args: Any) -> None:
        count(self, *args)
        launches[0] += 1
        here = threading.current_thread() is threading.main_thread()
        if here and launches[0] >= place and (dead or not told[0]):
            told[0] = True
            raise type(error)(str(error))

    with mock.patch.object(StandIn, "_count", counted):
        yield launches


@pytest.fixture(scope="module")
def request_words(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    root = tmp_path_factory.mktemp("world")
    model = save_llama(root / "llama", SENTENCES)
    data = write_rows(root / "rows.jsonl", [{"text": text} for text in SENTENCES])
    return ["--model", model, "--data", data, "--validation", "0.2"]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every tick."""
    monkeypatch.setattr(write_timer, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(write_timer, "SHARE", 1e9)


@pytest.fixture(autouse=True)
def no_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an extra, which a device may fail at, and most of what such a run launches."""
    monkeypatch.setattr(samples, "SAMPLES", 0)


def train(words: list[object], root: Path, name: str) -> Answer:
    return call("train", *words, "--max-steps", 4, "--output-dir", root, "--name", name, "--quiet")


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def best_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "best" / "adapter_model.safetensors")


def test_a_gpu_that_fails_costs_a_run_nothing_but_time(
    cuda: StandIn, often: None, request_words: list[object], tmp_path: Path
) -> None:
    assert train(request_words, tmp_path, "first").code == 0  # it measures the device, by the clock
    with failing(LOST, float("inf")) as launches:
        assert train(request_words, tmp_path, "whole").code == 0
    for number, share in enumerate((0.3, 0.5, 0.7, 0.9)):
        folder = tmp_path / f"lost-{number}"
        with failing(LOST, int(share * launches[0])):
            answer = train(request_words, tmp_path, folder.name)
        assert answer.code == 1, answer.err
        assert "Traceback" not in answer.err and "should not have happened" not in answer.err
        assert answer.err.count("CUDA error: unspecified launch failure") == 1
        assert f"next: loraloom train --resume {folder}" in answer.err
        result = result_of(folder)
        assert result["status"] == "failed" and "the GPU failed" in result["reason"]
        assert not list(folder.rglob("*.part*"))
        resumed = call("train", "--resume", folder, "--quiet")
        assert resumed.code == 0, resumed.err
        assert result_of(folder)["status"] == "completed" and result_of(folder)["reason"] is None
        for name, tensor in best_of(tmp_path / "whole").items():
            assert torch.equal(best_of(folder)[name], tensor), name


@pytest.mark.parametrize(
    "error", [LOST, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")]
)
def test_every_command_tells_it_in_one_message(
    error: Exception,
    cuda: StandIn,
    request_words: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train(request_words, tmp_path, "run").code == 0
    data, adapter = request_words[3], ["--adapter", tmp_path / "run"]
    commands: list[list[object]] = [
        ["env"],
        ["check", *request_words, "--max-steps", 2],
        ["plan", *request_words, "--probe"],
        ["evaluate", *adapter, "--data", data],
        ["predict", *adapter, "--data", data],
        ["generate", *adapter, "the cat"],
    ]
    for words in commands:
        with failing(error, 1), monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "mem_get_info", _raises(error)) if words == ["env"] else None
            answer = call(*words)
        assert answer.code in (1, 2), words
        assert (
            answer.err.count("error: ") - answer.err.count("CUDA error: ") == 1
            and "Traceback" not in answer.err
        )
        assert "should not have happened" not in answer.err, answer.err


def _raises(error: Exception) -> Any:
    def refuse(*_: object) -> None:
        raise type(error)(str(error))

    return refuse


def test_a_run_goes_on_on_the_cpu_where_the_gpu_is_gone(
    often: None, request_words: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with stand_in("cuda"):
        assert train(request_words, tmp_path, "first").code == 0  # it measures the device, by the clock
        with failing(LOST, float("inf")) as launches:
            assert train(request_words, tmp_path, "whole").code == 0
        with failing(LOST, int(0.6 * launches[0])):
            assert train(request_words, tmp_path, "run").code == 1
    answer = call("train", "--resume", folder, "--quiet")
    assert answer.code == 0, answer.err
    result = result_of(folder)
    assert result["environment"]["device"]["kind"] == "cpu"
    assert sum("was begun on stand-in (cuda) and goes on on" in note for note in result["notes"]) == 1
    for name, tensor in best_of(tmp_path / "whole").items():
        torch.testing.assert_close(best_of(folder)[name], tensor, rtol=1e-2, atol=1e-3)


def test_memory_that_runs_out_in_the_middle_makes_passes_smaller_and_says_who_holds_it(
    cuda: StandIn, request_words: list[object], tmp_path: Path
) -> None:
    error, packs, where = (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        [0],
        list[str](),
    )
    run = PackTrainer._through

    def runs_out(self: PackTrainer, *given: Any) -> Any:
        packs[0] += 1
        if packs[0] == 3:
            where.append("pass")
            raise error
        return run(self, *given)

    with mock.patch.object(PackTrainer, "_through", runs_out):
        answer = call(
            "tune",
            *request_words,
            "--trials",
            2,
            "--max-steps",
            4,
            "--max-packed",
            2,
            "--output-dir",
            tmp_path,
            "--name",
            "run",
            "--set",
            "search.seeds_for_finalists=1",
            "--set",
            "search.pruner=none",
        )
    assert answer.code == 0 and where, answer.err
    assert (
        "memory ran out in a pass of 2 candidates (other processes hold 18.9 GiB of its 80.0 GiB):"
        " passes now" in answer.err
    )
    assert {trial["status"] for trial in result_of(tmp_path / "run")["trials"]} == {"completed"}
