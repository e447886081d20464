"""What must never happen, whatever a file says: foreign code running, secrets kept, a
page that obeys a data row."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from fuzz_doors import Tools, read_adapter, read_config, read_data, read_model
from fuzz_judge import judge

import loraloom
from loraloom.cli.main import main
from loraloom.errors import LoraloomError, ModelError
from loraloom.lora.base import load_tokenizer
from loraloom.records import Event, Trial
from loraloom.report.page import render
from loraloom.store.folder import RunFolder
from loraloom.store.result import RunResult

SOURCE = Path(loraloom.__file__).parent
TOKEN = "hf_PlantedTokenThatNoFileMayHold"
PASSWORD = "planted-pass-word"
SCRIPT = "<script>stolen()</script>"


class Trap:
    """Makes a file when it is unpickled: proof that foreign code ran."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sprung),)


@pytest.fixture
def sprung(tmp_path: Path) -> Path:
    return tmp_path / "sprung"


def refused(read: Any) -> str:
    error = judge(read)
    assert error is not None, "it was loaded"
    return str(error)


# No pickle


def test_the_planted_pickle_runs_code_when_it_is_loaded(sprung: Path) -> None:
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.is_dir()


def test_nothing_in_the_package_unpickles() -> None:
    """Neither pickle, nor torch.load without weights_only=True, nor NumPy's own pickles, nor eval."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {
                    "pickle",
                    "dill",
                    "joblib",
                    "shelve",
                    "marshal",
                }, path
            if not isinstance(node, ast.Call):
                continue
            options = {word.arg: ast.unparse(word.value) for word in node.keywords}
            called = ast.unparse(node.func)
            assert called not in (
                "eval",
                "exec",
                "pickle.load",
                "pickle.loads",
                "yaml.unsafe_load",
            ), path
            assert called != "torch.load" or options.get("weights_only") == "True", path
            assert options.get("allow_pickle", "False") == "False", path
            assert options.get("weights_only", "True") == "True", path
            assert options.get("trust_remote_code", "") != "True", path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_in_place_of_a_models_weights_is_refused(
    tools: Tools, tmp_path: Path, sprung: Path, zipped: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tools.model_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(
        {"model.embed_tokens.weight": Trap(sprung)},
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    assert "cannot load" in refused(lambda: read_model(folder))
    assert not sprung.exists()


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.safetensors"])
def test_a_pickle_in_an_adapter_folder_is_refused(
    tools: Tools, tmp_path: Path, sprung: Path, name: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}'
    )
    torch.save(
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": Trap(sprung)}, tmp_path / name
    )
    base = tf.AutoModelForCausalLM.from_pretrained(tools.model_folder)
    message = refused(lambda: read_adapter(tmp_path, base))
    assert "a pickle: loading one may run anything" in message or "no safetensors file" in message
    assert not sprung.exists()


def test_an_extension_type_of_arrow_is_read_as_what_it_stores(
    tools: Tools, tmp_path: Path, sprung: Path
) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    hidden = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Trap(sprung)),
    }
    field = arrow.field("text", arrow.string(), metadata=hidden)
    parquet.write_table(
        arrow.table([arrow.array(["the cat", "a dog"])], schema=arrow.schema([field])),
        tmp_path / "rows.parquet",
    )
    judge(
        lambda: read_data(
            tmp_path / "rows.parquet", read_config(sets=["data.validation=null"]), tools, chat=False
        )
    )
    assert not sprung.exists()


def test_a_tag_of_yaml_makes_no_object(tmp_path: Path, sprung: Path) -> None:
    path = tmp_path / "tune.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir [{sprung}]\n")
    assert "this is not YAML" in refused(lambda: read_config(path))
    assert not sprung.exists()


# No code of others


@pytest.fixture
def foreign(tools: Tools, tmp_path: Path, sprung: Path) -> Path:
    """A model folder that brings its own code."""
    folder = tmp_path / "foreign"
    shutil.copytree(tools.model_folder, folder)
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_in_a_model_folder_does_not_run_unless_allowed(foreign: Path, sprung: Path) -> None:
    message = refused(lambda: read_model(foreign))
    assert "brings its own model code" in message and "model.trust_remote_code: true" in message
    assert not sprung.exists()


def test_a_known_family_is_built_without_the_code_beside_it(foreign: Path, sprung: Path) -> None:
    config = json.loads((foreign / "config.json").read_text()) | {"model_type": "llama"}
    (foreign / "config.json").write_text(json.dumps(config))
    assert judge(lambda: read_model(foreign)) is None
    assert not sprung.exists()


def test_code_of_a_tokenizer_does_not_run(foreign: Path, sprung: Path) -> None:
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    config |= {
        "tokenizer_class": "EvilTokenizer",
        "auto_map": {"AutoTokenizer": ["evil.Slow", "evil.Fast"]},
    }
    (foreign / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(LoraloomError):
        load_tokenizer(str(foreign))
    assert not sprung.exists()


def test_an_adapter_cannot_import_what_it_likes(tools: Tools, tmp_path: Path, sprung: Path) -> None:
    config = {
        "peft_type": "LORA",
        "r": 2,
        "target_modules": ["q_proj"],
        "megatron_config": {"x": 1},
        "megatron_core": "evil",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").touch()
    base = tf.AutoModelForCausalLM.from_pretrained(tools.model_folder)
    assert "uses `megatron_config`" in refused(lambda: read_adapter(tmp_path, base))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir(bos_token) }}",
        "{{ ''.__class__.__base__.__subclasses__()[0].__init__.__globals__ }}",
        "{{ messages.append(messages) }}",
        "{% for a in range(999999999) %}{{ a }}{% endfor %}",
    ],
)
def test_a_chat_template_cannot_leave_its_sandbox(
    tools: Tools, tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools.chat, "chat_template", template)
    rows = [
        {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "yes"}]}
        for i in range(3)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    message = refused(
        lambda: read_data(
            tmp_path / "rows.jsonl", read_config(sets=["data.validation=null"]), tools, chat=True
        )
    )
    assert "chat template refuses" in message and "rows.jsonl:1" in message


# No secrets, no obedient page


@pytest.fixture
def run(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tune in a world full of secrets, of rows that are scripts."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("LORALOOM_STORAGE", f"sqlite:///{tmp_path / 'index.db'}?planted={PASSWORD}")
    rows = [{"text": f"{SCRIPT} the cat {i}", "label": f"{SCRIPT}{i % 2}"} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        code = main(
            [
                "tune",
                "--model",
                str(tools.model_folder),
                "--data",
                str(tmp_path / "rows.jsonl"),
                "--output-dir",
                str(tmp_path / "runs"),
                "--name",
                "kept",
                "--max-steps",
                "2",
                "--trials",
                "2",
                "--task",
                "seq_cls",
                "--set",
                "search.seeds_for_finalists=1",
            ]
        )
    assert code == 0, said.getvalue()
    assert TOKEN not in said.getvalue() and PASSWORD not in said.getvalue()
    return tmp_path / "runs" / "kept"


def test_no_file_of_a_run_holds_a_secret_and_its_page_obeys_no_row(run: Path) -> None:
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert TOKEN.encode() not in content and PASSWORD.encode() not in content, path
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "stolen()" in (run / "run.json").read_text(), "the labels are kept"
    assert scripts_with(page, "stolen") == []


def test_a_password_in_the_storage_url_is_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORALOOM_STORAGE", f"postgresql+psycopg2://me:{PASSWORD}@nowhere/db")
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        code = main(["runs", "--set", f"output_dir={tmp_path}"])
        code = main(["runs", str(tmp_path)]) or code
    assert PASSWORD not in said.getvalue()


def test_names_reasons_and_settings_are_text_on_the_page(tmp_path: Path) -> None:
    hostile = f'"></script>{SCRIPT}<img src=x onerror="stolen()">'
    folder = RunFolder.create(tmp_path, "page")
    trial = Trial(
        "t000",
        "failed",
        {"adapter.target_modules": hostile},
        reason=hostile,
        settings={"adapter.r": hostile},
    )
    result = RunResult(
        name="page",
        verb="tune",
        status="failed",
        model=hostile,
        task="seq_cls",
        started_at="2024-01-01T00:00:00+00:00",
        metric="validation_loss",
        direction="minimize",
        environment={hostile: hostile},
        labels=[hostile],
        trials=[trial],
    )
    folder.write_result(result)
    folder.append(Event("step", "t000", 1, 0.1, {"loss": 1.0, hostile: hostile}))
    page = render(folder)
    assert "stolen()" in page
    assert scripts_with(page, "stolen") == []


def scripts_with(page: str, word: str) -> list[str]:
    """What of a page would run and has `word` in it: scripts that are no plain data,
    and attributes that are events."""
    found: list[str] = []

    class Reader(HTMLParser):
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag == "script" and dict(attrs).get("type") != "application/json"
            found.extend(
                f"{tag} {name}"
                for name, value in attrs
                if name.startswith("on") and word in (value or "")
            )

        def handle_endtag(self, tag: str) -> None:
            self.inside = False

        def handle_data(self, data: str) -> None:
            if self.inside and word in data:
                found.append(data[:200])

    Reader(convert_charrefs=True).feed(page)
    return found


def test_a_message_cannot_steer_the_terminal(tmp_path: Path) -> None:
    text = str(ModelError("bad \x1b]0;title\x07 name", got="a\u202eb", next="x" * 10_000))
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "\\x1b]0;title\\x07" in text
    assert len(text) < 2000


def test_help_does_not_read_what_lies_in_the_current_folder(tmp_path: Path, sprung: Path) -> None:
    """A folder of someone else's, with a file that is called like a library."""
    for name in ("yaml.py", "typer.py", "json.py"):
        (tmp_path / name).write_text(f"import os\nos.mkdir({str(sprung)!r})\n")
    command = Path(sys.executable).with_name("loraloom")
    if not command.exists():
        pytest.skip("needs the installed command")
    done = subprocess.run([command, "--help"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0 and not sprung.exists()
