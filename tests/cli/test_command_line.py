"""The command line: exit codes, messages, one JSON document, and no heavy import before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from loraloom.cli.main import app, main
from loraloom.cli.request import FLAGS
from loraloom.config.asked import Config
from loraloom.config.keys import keys
from loraloom.errors import RequestError, RunError
from loraloom.records import Event
from loraloom.report.words import with_error

HEAVY = ("torch", "transformers", "peft", "optuna", "sqlalchemy", "plotly", "pyarrow", "scipy", "yaml")
VERBS = (
    "check",
    "tune",
    "train",
    "plan",
    "evaluate",
    "predict",
    "generate",
    "chat",
    "runs",
    "compare",
    "report",
    "serve",
    "steer",
    "ship",
    "env",
)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a stand-in where `loraloom evaluate` looks for the pipeline, so that no model is needed."""

    def put(stand_in: Callable[..., Any]) -> None:
        monkeypatch.setitem(
            sys.modules, "loraloom.pipeline.evaluate", SimpleNamespace(evaluate=stand_in)
        )  # type: ignore[arg-type]

    return put


def raising(error: BaseException) -> Callable[..., Any]:
    def evaluate(*_: Any) -> Any:
        raise error

    return evaluate


@pytest.mark.parametrize("words", [[], ["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from loraloom.cli.main import main; code = main(sys.argv[1:]);"
        f"heavy = [name for name in {HEAVY} if name in sys.modules];"
        "print('heavy:', heavy, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == "heavy: []\n"
    assert done.stdout.startswith("Usage: loraloom")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        f"import sys, loraloom; print([name for name in {(*HEAVY, 'typer', 'rich')} if name in"
        " sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{version('loraloom')}\n"


def test_every_verb_is_there_with_a_short_help() -> None:
    assert (
        tuple(command.callback.__name__ for command in app.registered_commands if command.callback)
        == VERBS
    )
    for command in app.registered_commands:
        assert command.callback is not None
        first = (command.callback.__doc__ or "").strip().splitlines()[0]
        assert 0 < len(first) < 60


def test_every_flag_is_a_key_of_the_config() -> None:
    assert {flag.key for flag in FLAGS.values()} <= set(keys())
    assert len({flag.key for flag in FLAGS.values()}) == len(FLAGS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "--r", "0"], "error: command line: `adapter.r` is 0 but must be at least 1; try 8\n"),
        (
            ["train", "--set", "adapter.rr=3"],
            "error: --set adapter.rr=3: there is no key `adapter.rr`\n  next: did you mean",
        ),
        (
            ["plan", "absent.yaml"],
            "error: absent.yaml: there is no such config file\n  next: check the path",
        ),
        (
            ["tune", "--rank", "0"],
            "error: command line: `adapter.r` is 0 but must be at least 1; try 8\n",
        ),
        (["weave"], "error: there is no command `weave`\n  next: loraloom --help shows what there is\n"),
        (
            ["tune", "--model"],
            (
                "error: Option '--model' requires an argument.\n  next: loraloom tune --help shows what"
                " it takes\n"
            ),
        ),
        (
            ["train", "--trials", "3"],
            "error: `loraloom train` has no option `--trials`\n  next: it belongs to `check`",
        ),
        (
            ["generate", "Hello"],
            "error: neither an adapter nor a model was given\n  next: name one with --adapter",
        ),
        (
            ["generate", "--adapter", "a", "--max-new-tokens", "0", "Hello"],
            "error: Invalid value for '--max-new-tokens'",
        ),
    ],
)
def test_a_wrong_request_ends_with_2_and_one_message(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_flags_file_and_set_reach_the_pipeline(
    evaluated: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def evaluate(config: Config, adapter: str | None, split: str, *_: object) -> dict[str, Any]:
        seen.append((config, adapter, split))
        return {"model": "base", "metrics": {"test_loss": 1.25, "test_loss_se": 0.04}, "notes": []}

    evaluated(evaluate)
    path = tmp_path / "c.yaml"
    path.write_text("model: {name_or_path: from-file}\ntask: seq_cls\ndata: {test: file.jsonl}\n")
    words = [
        "evaluate",
        str(path),
        "--test",
        "flag.jsonl",
        "--seed",
        "7",
        "--set",
        "training.seed=9",
        "--adapter",
        "runs/a/best",
    ]
    assert main(words) == 0
    ((config, adapter, split),) = seen
    assert (config.model.name_or_path, config.task, config.data.test, config.training.seed) == (
        "from-file",
        "seq_cls",
        "flag.jsonl",
        9,
    )
    assert (adapter, split) == ("runs/a/best", "test")
    assert capsys.readouterr().out == f"model: base\ntest loss: {with_error(1.25, 0.04)}\n"


def test_json_is_one_document_whatever_a_library_prints(
    evaluated: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluate(*_: Any) -> dict[str, Any]:
        print("a library that chatters on stdout")
        return {
            "model": "base",
            "metrics": {"test_loss": float("nan"), "test_loss_se": 0.1},
            "notes": [],
        }

    evaluated(evaluate)
    assert main(["evaluate", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "model": "base",
        "metrics": {"test_loss": None, "test_loss_se": 0.1},
        "notes": [],
    }
    assert "chatters" in err
    assert "model: base" in err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            RequestError("no", got="this", need="that", next="go"),
            2,
            "error: no\n  got: this\n  need: that\n  next: go\n",
        ),
        (
            RunError("the run stopped", next="resume it"),
            1,
            "error: the run stopped\n  next: resume it\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_messages_and_exit_codes(
    error: BaseException, code: int, message: str, evaluated: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(raising(error))
    assert main(["evaluate"]) == code
    assert capsys.readouterr() == ("", message)
    assert main(["evaluate", "--json"]) == code
    out, err = capsys.readouterr()
    assert err == message
    what = "interrupted" if code == 130 else error.what  # type: ignore[attr-defined]
    assert json.loads(out)["error"]["what"] == what


def test_a_fault_of_ours_is_one_line_and_a_log(
    evaluated: Any, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    evaluated(raising(ZeroDivisionError("secret\nsecond line")))
    assert main(["evaluate"]) == 1
    out, err = capsys.readouterr()
    (log,) = tmp_path.iterdir()
    assert out == ""
    assert err == f"error: this should not have happened: ZeroDivisionError: secret\n  log: {log}\n"
    assert "Traceback" in log.read_text()
    assert "second line" in log.read_text()
    assert main(["evaluate", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_prompts_come_from_stdin_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import io

    asked: list[Any] = []

    def generate(*given: Any) -> list[dict[str, Any]]:
        asked.append(given)
        return [
            {"prompt": prompt, "source": source, "form": None, "text": "so"}
            for prompt in given[2]
            for source in ("base", "a")
        ]

    monkeypatch.setitem(sys.modules, "loraloom.pipeline.generate", SimpleNamespace(generate=generate))  # type: ignore[arg-type]
    monkeypatch.setattr("sys.stdin", io.StringIO("Once\n\nTwice\n"))
    assert main(["generate", "--adapter", "a", "--base", "--max-new-tokens", "5"]) == 0
    assert asked == [(None, ["a"], ["Once", "Twice"], 5, 0.0, True, None)]
    assert capsys.readouterr().out == "\n> Once\n[base]\nso\n[a]\nso\n\n> Twice\n[base]\nso\n[a]\nso\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["generate", "--adapter", "a"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no prompt\n  next: put one at the end")


def test_quiet_leaves_the_watch_silent(capsys: pytest.CaptureFixture[str]) -> None:
    from loraloom.cli.progress import progress

    with progress(quiet=True) as watch:
        watch(Event("note", data={"text": "hello"}))
    assert capsys.readouterr() == ("", "")


def test_an_empty_list_of_runs_says_so(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--output-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path} yet; loraloom tune makes one\n"
    assert main(["runs", "--output-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
