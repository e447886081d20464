"""A world small enough to tune in: tiny bases, data of every kind, and runs that several tests read."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import small_memory
import torch
from bases import save_bert, save_llama, save_t5
from doorway import Door, Run, World, call, write_rows

from loraloom.pipeline import drive
from loraloom.records import Event
from loraloom.train.pack import PackTrainer

SUBJECTS = {
    "animal": ("the cat", "a dog", "the bird", "a horse"),
    "food": ("the soup", "a cake", "the bread", "a pear"),
}
VERBS = ("sleeps", "waits", "stands", "turns", "falls", "rests")
PLACES = ("in the house", "by the door", "under the tree", "near the river", "on the table")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    facts = [
        (subject, verb, place, label)
        for (label, subjects), verb, place in itertools.product(SUBJECTS.items(), VERBS, PLACES)
        for subject in subjects
    ]
    sentences = [f"{subject} {verb} {place}" for subject, verb, place, _ in facts]
    turns = [
        {"messages": [{"role": "user", "content": f"what {v} {p}"}, {"role": "assistant", "content": s}]}
        for s, v, p, _ in facts
    ]
    chosen = slice(None, None, 5)
    return World(
        llama=str(save_llama(root / "llama", sentences)),
        chat_llama=str(save_llama(root / "chat-llama", sentences, chat=True)),
        bert=str(save_bert(root / "bert", sentences)),
        t5=str(save_t5(root / "t5", sentences)),
        text=write_rows(root / "text.jsonl", [{"text": sentence} for sentence in sentences[chosen]]),
        chat=write_rows(root / "chat.jsonl", turns[chosen]),
        labels=write_rows(
            root / "labels.jsonl", [{"text": f"{s} {v} {p}", "label": label} for s, v, p, label in facts]
        ),
        pairs=write_rows(
            root / "pairs.jsonl", [{"source": f"{v} {p}", "target": s} for s, v, p, _ in facts[chosen]]
        ),
    )


@pytest.fixture(scope="session")
def loraloom() -> Door:
    return call


@pytest.fixture(scope="session")
def tuned(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`tune` of the encoder with a sealed test split; shared, so nobody writes into its folder."""
    runs = tmp_path_factory.mktemp("tuned")
    answer = call(
        "tune",
        "--model",
        world.bert,
        "--data",
        world.labels,
        "--validation",
        "0.2",
        "--test",
        "0.2",
        "--trials",
        "4",
        "--max-steps",
        "16",
        "--output-dir",
        runs,
        "--name",
        "first",
        "--json",
        "--set",
        "search.seeds_for_finalists=1",
    )
    assert answer.code == 0, answer.err
    return Run(answer, runs / "first")


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Let Ctrl-C come after so many ticks of the next pack; None for never."""

    done, tick = [0], PackTrainer.tick

    def counted(trainer: PackTrainer) -> list[Event]:
        done[0] += 1
        return tick(trainer)

    def after(ticks: int | None) -> None:
        @contextmanager
        def listening() -> Generator[Callable[[], bool]]:
            done[0] = 0
            yield lambda: ticks is not None and done[0] >= ticks

        monkeypatch.setattr(drive, "listening", listening)

    monkeypatch.setattr(PackTrainer, "tick", counted)
    return after


@pytest.fixture(scope="session")
def memory_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_memory.save_word_chat(tmp_path_factory.mktemp("memory-base") / "words"))


@pytest.fixture(scope="module")
def short_anchors() -> Generator[None]:
    """For a module in which a memory is learnt that had not been."""
    with small_memory.short_anchors():
        yield


@pytest.fixture(scope="module")
def few_steps(short_anchors: None) -> Generator[None]:
    """For one in which it is learnt with few steps, too."""
    with small_memory.few_steps(small_memory.ENOUGH_STEPS):
        yield


@pytest.fixture(scope="session")
def learnt_memory(memory_base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory that was written and learnt; nobody changes it."""
    folder = tmp_path_factory.mktemp("recall") / "memory"
    with small_memory.short_anchors(), small_memory.few_steps(small_memory.ENOUGH_STEPS):
        small_memory.write_facts(folder, memory_base, small_memory.FACTS)
        assert small_memory.learn(folder)["after"]["verbatim"] == 1.0
    return folder


@pytest.fixture
def memory(learnt_memory: Path, tmp_path: Path) -> Path:
    """A copy of that memory."""
    return shutil.copytree(learnt_memory, tmp_path / "memory")
