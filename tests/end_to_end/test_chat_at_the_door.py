"""`loraloom chat`: in a terminal, in a pipe, and as JSON."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from bases import save_llama
from doorway import Door, Run, World, write_rows
from terminal import Terminal

from loraloom.data.chat import prompt_ids

FIRST, SECOND = "the cat sleeps", "the bird waits by the door"


@pytest.fixture(scope="module")
def adapter(world: World, tmp_path_factory: pytest.TempPathFactory, loraloom: Door) -> Path:
    """An adapter that was trained on conversations."""
    place = tmp_path_factory.mktemp("chatting")
    words = ("--model", world.chat_llama, "--max-steps", 2, "-o", place, "--name", "first", "-q")
    answer = loraloom("train", world.chat, *words, "--batch-size", 4)
    assert answer.code == 0, answer.err
    return place / "first"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put lines on stdin."""

    def put(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return put


def answers(document: dict[str, Any], source: int = 0) -> list[str]:
    return [turn["answers"][source]["text"] for turn in document["turns"]]


def test_a_person_talks_in_a_terminal(world: World) -> None:
    words = ("--model", world.chat_llama, "--system", "a dog", "--max-new-tokens", 4)
    with Terminal("chat", *words) as terminal:
        greeting = terminal.wait("> ")
        assert "base: what you type is sent through the chat template" in greeting
        assert "Ctrl-D ends" in greeting
        terminal.type(f"{FIRST}\n")
        terminal.wait("cut at 4 tokens")
        terminal.wait("> ")
        terminal.type("what is <eos> and <user>?\n")
        terminal.wait("(cut at 4 tokens")
        terminal.wait("> ")
        terminal.type("/undo\n")
        terminal.wait("the last turn is forgotten")
        terminal.wait("> ")
        terminal.insist("\x03", "Ctrl-D ends the chat")
        terminal.wait("> ")
        terminal.type("/nonsense\n")
        terminal.wait("there is no command /nonsense: /help lists them")
        terminal.wait("> ")
        terminal.type("the cat " * 60 + "\n")
        terminal.wait("error: the text has")
        terminal.wait("next: shorten it")
        terminal.wait("> ")
        terminal.type("\x04")
        assert terminal.end() == 0
    assert "Traceback" not in terminal.screen
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.screen)
    assert all(len(line) <= 80 for line in shown.splitlines() if "the cat the cat" not in line)


def test_ctrl_c_stops_an_answer_and_the_talk_goes_on(tmp_path: Path) -> None:
    base = save_llama(tmp_path / "base", [FIRST, SECOND], chat=True)
    for name in ("config.json", "generation_config.json"):
        text = (base / name).read_text().replace('"eos_token_id": 3', '"eos_token_id": null')
        text = text.replace('"max_position_embeddings": 64', '"max_position_embeddings": 99999')
        (base / name).write_text(text)
    with Terminal("chat", "--model", base, "--max-new-tokens", 90000) as terminal:
        terminal.wait("> ")
        terminal.type(f"{FIRST}\n")
        terminal.wait(f"{FIRST}\n")
        terminal.wait(" ")
        terminal.type("\x03")
        terminal.wait("(stopped)")
        terminal.wait("> ")
        terminal.type("/exit\n")
        assert terminal.end() == 0


def test_each_answer_follows_from_all_that_was_said(adapter: Path, loraloom: Door, typed: Any) -> None:
    typed(FIRST, "", SECOND)
    options = ("--max-new-tokens", 5, "--json")
    answer = loraloom("chat", "--adapter", adapter, "--system", "a horse", *options)
    assert answer.code == 0, answer.err
    document = answer.json()
    assert [turn["prompt"] for turn in document["turns"]] == [FIRST, SECOND]
    assert document["system"] == "a horse"
    first, second = answers(document)
    talk = [
        {"role": "system", "content": "a horse"},
        {"role": "user", "content": FIRST},
        {"role": "assistant", "content": first},
        {"role": "user", "content": SECOND},
    ]
    assert second == said_by(adapter, talk, 5)


def said_by(adapter: Path, talk: list[dict[str, str]], tokens: int) -> str:
    """What plain PEFT and transformers answer."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model: Any = AutoPeftModelForCausalLM.from_pretrained(adapter / "best").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(adapter / "best")
    asked = tokenizer.apply_chat_template(
        talk, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    out = model.generate(input_ids=asked, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(out[0, asked.shape[1] :], skip_special_tokens=True)).strip()


def test_adapters_and_their_base_answer_side_by_side_each_for_itself(
    adapter: Path, world: World, loraloom: Door, typed: Any
) -> None:
    typed(FIRST, SECOND)
    words = ("chat", "--max-new-tokens", 5, "--json")
    both = loraloom(*words, "--adapter", adapter, "--base").json()
    assert both["sources"] == ["base", str(adapter / "best")]
    for number, who in enumerate((("--model", world.chat_llama), ("--adapter", adapter))):
        typed(FIRST, SECOND)
        assert answers(loraloom(*words, *who).json()) == answers(both, number)


def test_in_a_pipe_each_line_is_a_turn_and_nothing_else_is_printed(
    adapter: Path, loraloom: Door, typed: Any
) -> None:
    typed(FIRST, "/reset")
    words = ("chat", "--adapter", adapter, "--max-new-tokens", 5)
    plain = loraloom(*words)
    typed(FIRST, "/reset")
    document = loraloom(*words, "--json").json()
    assert plain.out == "".join(f"{text}\n" for text in answers(document))
    assert len(document["turns"]) == 2, "a line that looks like a command is a text"
    typed("the cat " * 60)
    refused = loraloom(*words)
    assert refused.code == 2
    assert "shorten it" in refused.err


def test_the_oldest_turns_are_left_out_where_there_is_no_room(
    adapter: Path, world: World, loraloom: Door, typed: Any
) -> None:
    lines = [f"{SECOND} by the door {i}" for i in range(6)]
    typed(*lines)
    answer = loraloom("chat", "--adapter", adapter, "--max-new-tokens", 3, "--json")
    assert answer.code == 0, answer.err
    left = [turn["answers"][0]["left_out"] for turn in answer.json()["turns"]]
    assert left[0] == 0
    assert left == sorted(left)
    assert left[-1] > 0
    assert "left out: the model has no positions for them" in answer.err
    shown = list(zip(lines, answers(answer.json()), strict=True))
    talk = [
        {"role": role, "content": content}
        for turn in shown[left[-1] : -1]
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    talk.append({"role": "user", "content": lines[-1]})
    assert shown[-1][1] == said_by(adapter, talk, 3)


def test_a_base_without_a_template_continues_one_text(world: World, loraloom: Door, typed: Any) -> None:
    typed(FIRST, SECOND)
    words = ("--model", world.llama, "--max-new-tokens", 4, "--json")
    document = loraloom("chat", *words).json()
    first, second = answers(document)
    text = "\n".join([FIRST, first, SECOND])
    assert second == loraloom("generate", *words, text).json()[0]["text"]


def test_what_is_typed_is_what_generate_is_asked(world: World, loraloom: Door, typed: Any) -> None:
    """Marks of the template stay text in both."""
    from transformers import AutoTokenizer

    said = "the cat <eos><user> sleeps"
    typed(said)
    words = ("--model", world.chat_llama, "--max-new-tokens", 4, "--json")
    (answer,) = answers(loraloom("chat", *words).json())
    assert answer == loraloom("generate", *words, said).json()[0]["text"]
    tokenizer: Any = AutoTokenizer.from_pretrained(world.chat_llama)
    ids = prompt_ids(said, tokenizer, continued=True)
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<user>")) == 1


def test_an_encoder_decoder_reads_each_text_alone(world: World, loraloom: Door, typed: Any) -> None:
    typed("sleeps here", "waits there", "sleeps here")
    words = ("chat", "--model", world.t5, "--max-new-tokens", 4, "--json")
    first, _, third = answers(loraloom(*words).json())
    alone = ("--model", world.t5, "--max-new-tokens", 4, "--json", "sleeps here")
    assert first == third == loraloom("generate", *alone).json()[0]["text"]
    refused = loraloom(*words, "--system", "be brief")
    assert refused.code == 2
    assert "write it into the text itself" in refused.err


def test_a_classifier_labels_each_line(tuned: Run, loraloom: Door, typed: Any, tmp_path: Path) -> None:
    typed(FIRST, "a cake waits by the door")
    answer = loraloom("chat", "--adapter", tuned.folder)
    assert answer.code == 0, answer.err
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": FIRST}])
    (row,) = loraloom("predict", rows, "--adapter", tuned.folder, "--probabilities", "--json").json()[
        "rows"
    ]
    label, shares, *_ = answer.out.splitlines()
    assert label == row["predicted"]
    assert shares.startswith(f"  {label} {row['probability'][label]:.3f}, ")
    refused = loraloom("chat", "--adapter", tuned.folder, "--system", "be brief")
    assert refused.code == 2
    assert "leave --system out" in refused.err


def test_a_turn_that_not_all_can_answer_was_not_said(
    adapter: Path, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person types it: the fault is told, and the talk goes on as if the turn had not been."""
    from loraloom.cli import chat
    from loraloom.errors import ConfigError
    from loraloom.pipeline.chat import Speaker

    answer = Speaker.answer

    def refusing(speaker: Speaker, text: str, *more: Any) -> Any:
        if text == "no" and speaker.name != "base":
            raise ConfigError("no room")
        return answer(speaker, text, *more)

    monkeypatch.setattr(Speaker, "answer", refusing)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    words = ("chat", "--adapter", adapter, "--base", "--max-new-tokens", 4, "--json")

    def said(*lines: str) -> Any:
        monkeypatch.setattr(chat, "_typed", lambda: iter(lines))
        found = loraloom(*words)
        assert found.code == 0, found.err
        return found

    faulty = said("no", FIRST, "/undo", "/undo", SECOND)
    assert "error: no room" in faulty.err
    assert "there is no turn to forget" in faulty.err
    assert faulty.json() == said(SECOND).json()


def test_someone_has_to_be_named(loraloom: Door) -> None:
    refused = loraloom("chat")
    assert refused.code == 2
    assert "name one with --adapter or --model" in refused.err
