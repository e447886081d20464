"""`loraloom generate`: a prompt reaches an adapter in the form that it was trained in,
also outside of loraloom."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from bases import save_llama
from doorway import Door, Run, World, write_rows

from loraloom.data.form_template import in_form
from loraloom.lora.base import load_base

QUESTION = "who sleeps in the house"
PAIRS = [
    (f"who {verb} {place}", f"the {who} {verb} {place}")
    for verb in ("sleeps", "waits")
    for place in ("here", "there")
    for who in ("cat", "dog", "bird")
]
ROWS: dict[str, list[dict[str, str]]] = {
    "alpaca": [{"instruction": asked, "output": answer} for asked, answer in PAIRS],
    "question_answer": [{"question": asked, "answer": answer} for asked, answer in PAIRS],
    "source_target": [{"source": asked, "target": answer} for asked, answer in PAIRS],
    "prompt_completion": [{"prompt": asked, "completion": f" {answer}"} for asked, answer in PAIRS],
}


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A decoder without a chat template, with room for the words of a form."""
    texts = [text for pair in PAIRS for text in pair] + ["Question: Answer: Instruction: Output:"]
    return str(save_llama(tmp_path_factory.mktemp("plain") / "base", texts))


@pytest.fixture(scope="module")
def trained(plain_base: str, tmp_path_factory: pytest.TempPathFactory, loraloom: Door) -> Any:
    """A run on rows of a format."""
    done: dict[str, Run] = {}

    def run(format: str) -> Run:
        if format not in done:
            place = tmp_path_factory.mktemp(format)
            answer = loraloom(
                "train",
                write_rows(place / "rows.jsonl", ROWS[format]),
                "--model",
                plain_base,
                "--max-steps",
                2,
                "-o",
                place,
                "--name",
                "first",
                "-q",
                "--batch-size",
                4,
            )
            assert answer.code == 0, answer.err
            done[format] = Run(answer, place / "first")
        return done[format]

    return run


@pytest.mark.parametrize("format", sorted(ROWS))
def test_the_adapter_is_asked_in_the_form_of_its_training(
    format: str, trained: Any, plain_base: str, loraloom: Door
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = trained(format)
    words = ("generate", "--max-new-tokens", 4, "--json", "--adapter", run.folder)
    answer = loraloom(*words, QUESTION)
    assert answer.code == 0, answer.err
    (found,) = answer.json()
    assert found["form"] == format
    assert f"in the form of training: {in_form(format, '...')!r}" in answer.err
    bare: Any = AutoTokenizer.from_pretrained(plain_base)
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(plain_base), str(run.folder / "best")
    )
    prompt = bare(in_form(format, QUESTION), return_tensors="pt", return_token_type_ids=False)
    out = model.generate(**prompt, max_new_tokens=4, do_sample=False, pad_token_id=0)[
        0, prompt["input_ids"].shape[1] :
    ]
    assert found["text"] == bare.decode(out, skip_special_tokens=True).strip()


def test_each_trial_carries_the_form_too(trained: Any) -> None:
    run = trained("alpaca")
    (trial,) = run.result["trials"]
    for folder in (run.folder / "best", run.folder / trial["adapter"]):
        assert "Instruction:" in (folder / "chat_template.jinja").read_text()


def test_a_prompt_that_stands_in_the_form_is_not_written_into_it_twice(
    trained: Any, loraloom: Door
) -> None:
    run = trained("alpaca")
    prompts = (QUESTION, in_form("alpaca", QUESTION))
    once, whole = loraloom(
        "generate", "--adapter", run.folder, "--max-new-tokens", 4, "--json", *prompts
    ).json()
    assert once["text"] == whole["text"]


def test_what_the_end_of_a_run_says_to_load_asks_in_the_form(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("question_answer")
    snippet = run.answer.out.split("load it")[1]
    assert "apply_chat_template" in snippet
    monkeypatch.chdir(run.folder.parent.parent)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec("\n".join(line.strip() for line in snippet.splitlines()), {})
    assert in_form("question_answer", "...").split("\n")[0] in out.getvalue()


def test_an_evaluation_reads_the_rows_as_the_run_did(
    trained: Any, plain_base: str, loraloom: Door, tmp_path: Path
) -> None:
    run = trained("alpaca")
    again = tmp_path / "again"
    again.mkdir()
    for file in (run.folder / "best").iterdir():
        (again / file.name).write_bytes(file.read_bytes())
    (again / "chat_template.jinja").unlink()
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [*ROWS["alpaca"], {"instruction": "who", "input": "here", "output": "the cat"}],
    )
    with_form, without = (
        loraloom("evaluate", rows, "--adapter", adapter, "--model", plain_base, "--json").json()[
            "metrics"
        ]
        for adapter in (run.folder, again)
    )
    assert with_form == without


def test_an_adapter_of_others_is_sent_the_bare_prompt(
    trained: Any, loraloom: Door, tmp_path: Path
) -> None:
    """PEFT saves an adapter without a tokenizer."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((trained("alpaca").folder / "best" / name).read_bytes())
    answer = loraloom("generate", "--adapter", tmp_path, "--max-new-tokens", 4, QUESTION)
    assert answer.code == 0, answer.err
    assert "as they are: there is neither a chat template nor a form of training" in answer.err
    both = loraloom("generate", "--adapter", tmp_path, "--adapter", trained("alpaca").folder, QUESTION)
    assert f"to {tmp_path} as they are" in both.err
    assert "in the form of training" in both.err


def test_the_name_of_a_run_is_enough(
    trained: Any, loraloom: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copytree(trained("alpaca").folder, tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    asked = ["--max-new-tokens", 4, "--json", QUESTION]
    by_name = loraloom("generate", "--adapter", "first", *asked)
    by_folder = loraloom("generate", "--adapter", "runs/first", *asked)
    assert by_name.code == 0, by_name.err
    assert by_name.json()[0]["text"] == by_folder.json()[0]["text"]
    assert loraloom("generate", "--adapter", "second", QUESTION).code == 2


def test_a_system_text_goes_to_the_template(
    world: World, plain_base: str, trained: Any, loraloom: Door
) -> None:
    words = ("generate", "--model", world.chat_llama, "--max-new-tokens", 4, "--json", "the cat")
    without, with_system = loraloom(*words), loraloom(*words, "--system", "the bird sleeps by the door")
    assert (without.code, with_system.code) == (0, 0), with_system.err
    assert with_system.json()[0]["form"] == "chat_template"
    assert (
        loraloom(
            "generate", "--adapter", trained("alpaca").folder, "--system", "be brief", QUESTION
        ).code
        == 0
    )
    refused = loraloom("generate", "--model", plain_base, "--system", "be brief", QUESTION)
    assert refused.code == 2
    assert "write it into the prompt itself" in refused.err


def test_a_classifier_answers_with_label_and_probabilities(
    tuned: Run, trained: Any, loraloom: Door, tmp_path: Path
) -> None:
    texts = ("the cat sleeps in the house", "a cake waits by the door")
    answer = loraloom("generate", "--adapter", tuned.folder, "--json", *texts)
    assert answer.code == 0, answer.err
    rows = write_rows(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    predicted = loraloom("predict", rows, "--adapter", tuned.folder, "--probabilities", "--json").json()[
        "rows"
    ]
    assert [(one["prompt"], one["text"], one["probabilities"]) for one in answer.json()] == [
        (row["text"], row["predicted"], row["probability"]) for row in predicted
    ]
    shown = loraloom("generate", "--adapter", tuned.folder, texts[0])
    first = predicted[0]
    assert (
        f"\n{first['predicted']}\n  {first['predicted']} {max(first['probability'].values()):.3f}, "
        in shown.out
    )
    for words, said in (
        (("--adapter", tuned.folder, "--system", "be brief"), "leave --system out"),
        (
            ("--adapter", tuned.folder, "--adapter", trained("alpaca").folder),
            "cannot answer side by side",
        ),
    ):
        refused = loraloom("generate", *words, texts[0])
        assert refused.code == 2
        assert said in refused.err


def test_prompts_come_from_a_file(world: World, loraloom: Door, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text("the cat\n\n  a dog \n")
    talks = write_rows(
        tmp_path / "prompts.jsonl",
        [
            {"messages": [{"role": "user", "content": "the cat"}], "note": 1},
            {"messages": [{"role": "system", "content": "a pear"}, {"role": "user", "content": "why"}]},
        ],
    )
    words = ("generate", "--model", world.chat_llama, "--max-new-tokens", 4, "--json")
    typed = loraloom(*words, "why", "the cat", "a dog").json()
    assert loraloom(*words, "why", "--prompts", lines).json() == typed
    answer = loraloom(*words, "--prompts", talks)
    assert answer.code == 0, answer.err
    assert "note: not used: note" in answer.err
    first, second = answer.json()
    assert first["text"] == typed[1]["text"]
    assert second["text"] == loraloom(*words, "why", "--system", "a pear").json()[0]["text"]
    shown = loraloom("generate", "--model", world.chat_llama, "--prompts", talks).out
    assert "\n> why\n" in shown
    answered = write_rows(
        tmp_path / "done.jsonl",
        [{"messages": [*({"role": role, "content": "a"} for role in ("user", "assistant"))]}],
    )
    for file, said in (
        (answered, "done.jsonl:1: `messages` of this row asks nothing"),
        (tmp_path / "none.txt", "does not exist"),
        (write_rows(tmp_path / "odd.jsonl", [{"x": "a"}]), "no column is known to ask anything"),
    ):
        refused = loraloom(*words, "--prompts", file)
        assert refused.code == 2
        assert said in refused.err


@pytest.mark.parametrize("verb", ["generate", "chat", "predict", "evaluate"])
def test_the_base_is_that_of_the_revision_that_the_run_used(
    verb: str,
    trained: Any,
    plain_base: str,
    loraloom: Door,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained("alpaca").folder, run)
    config = run / "config.yaml"
    config.write_text(
        config.read_text().replace("revision: null", "revision: v7")
        if "revision: null" in config.read_text()
        else re.sub(r"(?m)^model:\n", "model:\n  revision: v7\n", config.read_text())
    )
    import loraloom.pipeline.evaluate as evaluate
    import loraloom.pipeline.predictor as predictor
    import loraloom.pipeline.sources as sources

    asked: list[str | None] = []

    def loaded(*given: Any, **options: Any) -> Any:
        asked.append(options["revision"])
        return load_base(*given, **options)

    for module in (sources, predictor, evaluate):
        monkeypatch.setattr(module, "load_base", loaded)
    monkeypatch.setattr("sys.stdin", io.StringIO("who\n"))
    rows = write_rows(tmp_path / "rows.jsonl", ROWS["alpaca"][:2])
    words = {"generate": (QUESTION,), "chat": (), "predict": (rows,), "evaluate": (rows,)}[verb]
    answer = loraloom(verb, *words, "--adapter", run)
    assert answer.code == 0, answer.err
    assert asked == ["v7"]


def test_a_gpu_that_is_not_used_is_said(
    plain_base: str, loraloom: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("generate", "--model", plain_base, "--max-new-tokens", 1, QUESTION)
    monkeypatch.setattr("loraloom.facts.device.best_kind", lambda: "cpu")
    monkeypatch.setattr("loraloom.facts.device.why_unused", lambda: "its driver is too old")
    assert (
        "warning: a GPU is not used, and this runs on the CPU: its driver is too old"
        in loraloom(*words).err
    )
