"""report.html: whole, alone, and deaf to scripts that come in with data."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from finished import result_of, trial

from loraloom.errors import RequestError
from loraloom.records import Advice, Event, Finding
from loraloom.report.commands import (
    load_snippet,
    reproduce_command,
    serve_command,
    train_command,
    try_command,
)
from loraloom.report.page import render, write_report
from loraloom.store.folder import RunFolder
from loraloom.store.samples import Sample, write_samples

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, scripts, and the text outside of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif not self._inside:
            self.text += data


def test_one_file_that_needs_nothing_else(run: RunFolder) -> None:
    path = write_report(run)
    assert path == run.path / "report.html"
    assert path.stat().st_size < 6_000_000
    page = Page(path.read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
    assert not re.search(r"@import|url\(", path.read_text(encoding="utf-8").split("</style>")[0])
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and "http-equiv" in attributes
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_plotly_is_inside_once(run: RunFolder) -> None:
    page = Page(render(run))
    assert sum("plotly.js v" in script for _, script in page.scripts) == 1


def test_only_our_scripts_may_run(run: RunFolder) -> None:
    first, second = render(run), render(run)
    nonces = {attributes.get("nonce") for attributes, _ in Page(first).scripts}
    assert len(nonces) == 1
    (nonce,) = nonces
    assert nonce is not None
    assert f"script-src 'nonce-{nonce}'" in first
    assert nonce not in second


def test_the_headline_comes_first_and_all_sections_follow(run: RunFolder) -> None:
    page = Page(render(run))
    order = [
        "t001 wins: validation loss 51.0% lower",
        "Candidates",
        "Curves",
        "Use it",
        "Findings",
        "Settings and why",
        "Where it ran",
    ]
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)
    for words in (
        "too far behind t001",
        "keep the rate below 1e-3",
        "rank 16 at batch 8",
        "arXiv:0000.00000",
        "winner: 2e-4",
        "2.13.0",
    ):
        assert words in page.text


def test_the_figures_are_json_in_the_page(run: RunFolder) -> None:
    (data,) = [
        script
        for attributes, script in Page(render(run)).scripts
        if attributes.get("type") == "application/json"
    ]
    assert [figure["id"] for figure in json.loads(data)] == ["validation_loss", "train_loss"]


def test_what_comes_from_outside_is_only_text(run: RunFolder) -> None:
    clean = Page(render(run))
    result = run.result()
    result.name = result.model = result.verdict = EVIL
    result.labels, result.notes, result.environment = [EVIL], [EVIL], {EVIL: EVIL}
    result.findings = [Finding(EVIL, "note", EVIL, EVIL, EVIL)]
    result.trials = [
        replace(item, settings={**item.settings, "adapter.target_modules": EVIL})
        for item in result.trials
    ]
    result.trials[2] = replace(result.trials[2], id=EVIL, reason=EVIL, params={EVIL: EVIL})
    run.write_result(result)
    run.append(
        Event(
            "evaluated",
            EVIL,
            10,
            data={"split": "validation", "progress": 0.5, "epoch": 1.0, "loss": 1.0},
        )
    )
    run.write_resolved({f"data.{EVIL}": Advice(EVIL, EVIL, EVIL)})
    write_samples(run, [Sample(EVIL, EVIL, EVIL, EVIL)])
    page = Page(render(run))
    assert len(page.scripts) == len(clean.scripts)
    assert "img" not in {tag for tag, _ in page.tags}
    assert EVIL in page.text
    (data,) = [
        script for attributes, script in page.scripts if attributes.get("type") == "application/json"
    ]
    assert EVIL in {trace["meta"]["trial"] for figure in json.loads(data) for trace in figure["traces"]}


def pasted(command: str | None) -> list[str]:
    """The words that a shell makes of it."""
    return shlex.split(str(command).replace("\\\n", ""))


def test_commands_can_be_pasted(run: RunFolder) -> None:
    result = run.result()
    assert reproduce_command(run, result) == "loraloom tune runs/first/config.yaml --name first-again"
    words = pasted(train_command(run, result))
    assert words == [
        "loraloom",
        "train",
        "runs/first/config.yaml",
        "--name",
        "first-best",
        "--set",
        "training.learning_rate=0.0002",
    ]


def test_odd_values_are_quoted_for_the_shell(run: RunFolder) -> None:
    params = {
        "adapter.target_modules": ("q proj", "v"),
        "adapter.use_rslora": True,
        "training.max_steps": None,
        "note": "a; rm -rf --no",
    }
    words = pasted(train_command(run, result_of(trial("a", params=params), best="a")))
    assert words[6::2] == [
        "adapter.target_modules=[q proj, v]",
        "adapter.use_rslora=true",
        "training.max_steps=null",
        "note=a; rm -rf --no",
    ]


def save_config(run: RunFolder, **values: object) -> None:
    """The config of the adapter in best/."""
    run.best.mkdir(exist_ok=True)
    (run.best / "adapter_config.json").write_text(json.dumps({"bias": "none", **values}))


def test_the_snippet_is_python_and_knows_the_head(run: RunFolder) -> None:
    result = run.result()
    result.task, result.labels, result.model = "seq_cls", ["a", "b", "c"], "o'brien/tiny"
    snippet = str(load_snippet(run, result))
    compile(snippet, "snippet", "exec")
    loaded = "AutoModelForSequenceClassification.from_pretrained"
    assert f"""{loaded}("o'brien/tiny", id2label={{0: 'a', 1: 'b', 2: 'c'}},""" in snippet
    result.labels = [str(number) for number in range(77)]
    assert "num_labels=77" in str(load_snippet(run, result))
    assert "'runs/first/best'" in snippet
    assert "pad_token_id=tokenizer.pad_token_id" in snippet


def test_a_language_model_is_asked_and_served(run: RunFolder) -> None:
    result = run.result()
    save_config(run, r=16)
    assert pasted(try_command(run, result)) == [
        "loraloom",
        "generate",
        "--base",
        "--adapter",
        "runs/first",
        "...",
    ]
    words = pasted(serve_command(run, result))
    assert words[:3] == ["vllm", "serve", "tiny/model"]
    assert words[words.index("--max-lora-rank") + 1] == "16"
    assert "first=runs/first/best" in words


def test_a_base_of_one_revision_is_loaded_and_served_in_that_revision(run: RunFolder) -> None:
    result = run.result()
    save_config(run, r=16)
    assert "revision" not in f"{load_snippet(run, result)}{serve_command(run, result)}"
    run.write_config({"model": {"name_or_path": "tiny/model", "revision": "v1.0"}})
    assert "from_pretrained('tiny/model', revision='v1.0')" in str(load_snippet(run, result))
    words = pasted(serve_command(run, result))
    assert words[words.index("--revision") + 1] == "v1.0"


@pytest.mark.parametrize(("rank", "served"), [(8, "8"), (48, "64"), (400, "512")])
def test_the_rank_that_is_served_is_one_that_vllm_knows(run: RunFolder, rank: int, served: str) -> None:
    won = result_of(trial("a", settings={"adapter.r": 1}), best="a")
    for saved in ({"r": rank}, {"r": 1, "rank_pattern": {"q": rank}}):
        save_config(run, **saved)
        words = pasted(serve_command(run, won))
        assert words[words.index("--max-lora-rank") + 1] == served


@pytest.mark.parametrize(
    "saved",
    [
        {"r": 1024},
        {"use_dora": True},
        {"bias": "lora_only"},
        {"modules_to_save": ["head"]},
        {"rank_pattern": {"q": 1024}},
    ],
)
def test_what_vllm_does_not_take_is_not_offered(run: RunFolder, saved: dict[str, object]) -> None:
    save_config(run, **{"r": 8, **saved})
    assert serve_command(run, result_of(trial("a"), best="a")) is None


def test_only_a_language_model_that_was_kept_is_served(run: RunFolder) -> None:
    won = result_of(trial("a"), best="a")
    assert serve_command(run, won) is None, "no best/"
    save_config(run, r=8)
    assert serve_command(run, won) is not None
    assert serve_command(run, replace(won, task="seq_cls")) is None
    assert serve_command(run, replace(won, best=None)) is None


def test_samples_stand_side_by_side(run: RunFolder) -> None:
    assert "What it writes" not in Page(render(run)).text
    write_samples(run, [Sample("Once upon", "a time", "ten times", "a time there")])
    text = Page(render(run)).text
    places = [
        text.index(words) for words in ("What it writes", "Once upon", "ten times", "a time there")
    ]
    assert places == sorted(places)


def test_the_forecast_is_held_against_what_came(run: RunFolder) -> None:
    memory = {
        "weights_bytes": 3 * 2**29,
        "total_bytes": 2**31,
        "low_bytes": 2**30,
        "high_bytes": 3 * 2**30,
        "candidates": 4,
    }
    run.append(Event("forecast", data={"memory": memory}))
    text = " ".join(Page(render(run)).text.split())
    assert (
        "2.0 GiB expected (1.0 GiB to 3.0 GiB), 1.0 GiB measured: -50% against the forecast, inside the"
        " range" in text
    )


def test_a_broken_samples_file_is_passed_over(run: RunFolder) -> None:
    (run.path / "samples.json").write_text('{"samples": [{"prompt": 1}]}')
    assert "What it writes" not in Page(render(run)).text


def test_a_run_that_stopped_says_how_to_go_on(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.write_result(result_of(trial("t000", loss=1.0), status="interrupted"))
    text = " ".join(Page(render(folder)).text.split())
    assert "Go on loraloom tune --resume" in text and text.count("/first Do it again") == 1


def test_a_run_without_a_winner_still_has_a_page(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.write_result(result_of(trial("t000", "diverged")))
    page = Page(render(folder))
    assert "No candidate finished" in page.text
    assert "Do it again" in page.text and "Go on" not in page.text
    assert not any("plotly.js v" in script for _, script in page.scripts)


def test_a_killed_run_has_a_page_too(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.append(Event("trial_started", "t000", 0, data={"planned_steps": 10}))
    folder.append(Event("step", "t000", 1, data={"loss": 2.0}))
    assert "interrupted" in Page(render(folder)).text


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has no result yet"):
        write_report(RunFolder(tmp_path))
