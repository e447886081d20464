"""Adapters brought to llama.cpp and Ollama by the command line, and asked there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bases import called, save_adapter
from small_families import save_family

from loraloom.adapters.export.go_template import GoTemplate, go_template

Change = Callable[[torch.Tensor], torch.Tensor]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 that knows ChatML."""
    import transformers as tf

    folder = save_family("Qwen2", tmp_path_factory.mktemp("qwen2"))
    tokenizer: Any = tf.AutoTokenizer.from_pretrained(folder)
    marks = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks, "eos_token": marks[1]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


def export(target: str, adapter: Path, base: Path, out: Path, *more: object) -> tuple[int, Any, str]:
    words = ("--to", target, "--model", base, "--out", out, "--json")
    code, text, err = called("adapter", "export", adapter, *words, *more)
    return code, json.loads(text), err


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def needs_llama() -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: extra `llama`")


@pytest.mark.parametrize("target", ["gguf:F32", "gguf:Q8_0", "gguf-lora"])
def test_every_format_is_proved_and_can_be_proved_again(target: str, base: Path, tmp_path: Path) -> None:
    needs_llama()
    scaled = {"use_rslora": True, "alpha_pattern": {"v_proj": 3}, "rank_pattern": {"k_proj": 2}}
    adapter = save_adapter(base, tmp_path / "a", target_modules=TARGETS, **scaled)
    code, document, err = export(target, adapter, base, tmp_path / "out", "--prove")
    assert code == 0, err
    proof = document["proof"]
    assert proof["passed"] and proof["token_ids_equal"] and proof["stops"] is True
    assert (proof["base_kl"] is not None) is (target == "gguf:Q8_0")
    kind = "lora" if target == "gguf-lora" else target.partition(":")[2]
    assert proof["file"] == f"a-{kind}.gguf" and (tmp_path / "out" / proof["file"]).is_file()
    assert str(tmp_path / "out" / proof["file"]) in document["commands"][-1]
    assert called("adapter", "verify", tmp_path / "out")[0] == 0
    if target == "gguf:F32":
        spoil(tmp_path / "out" / proof["file"])
        code, _, err = called("adapter", "verify", tmp_path / "out")
        assert code == 1 and "is not what was trained" in err
        assert (tmp_path / "out.rejected" / proof["file"]).is_file()


def spoil(path: Path) -> None:
    """The last tensor of the file gets other numbers."""
    content = bytearray(path.read_bytes())
    content[-4000:] = bytes(4000)
    path.write_bytes(content)


def test_a_k_quant_is_made_of_a_file_that_was_proved(base: Path, tmp_path: Path) -> None:
    needs_llama()
    adapter = save_adapter(base, tmp_path / "a", target_modules=TARGETS)
    code, document, err = export("gguf:Q4_K_M", adapter, base, tmp_path / "out")
    assert code == 0, err
    proof = document["proof"]
    assert proof["allowed_kl"] is None and proof["base_kl"] > 0
    assert any("no multiples of 256" in note for note in proof["notes"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-Q4_K_M.gguf", "proof.json"]
    assert called("adapter", "verify", tmp_path / "out")[0] == 0
    spoil(tmp_path / "out" / "a-Q4_K_M.gguf")
    code, _, err = called("adapter", "verify", tmp_path / "out")
    assert code == 1 and "is not what was trained" in err


def test_a_wrong_conversion_is_rejected_in_every_format(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A K-quant too, which has no bound of its own."""
    needs_llama()
    from loraloom.adapters.gguf.families import Place

    right = Place.of

    def halved(place: Place, values: torch.Tensor) -> torch.Tensor:
        return right(place, values) / (2 if place.name.endswith("ffn_up.weight") else 1)

    monkeypatch.setattr(Place, "of", halved)
    adapter = save_adapter(base, tmp_path / "a", target_modules=TARGETS)
    for target in ("gguf:F16", "gguf:Q4_K_M"):
        code, document, err = export(target, adapter, base, tmp_path / "out")
        assert code == 1 and "is not what was trained" in err
        assert not (tmp_path / "out").exists() and Path(document["rejected"]).is_dir()


def test_an_ollama_folder_has_all_that_it_needs(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "Run" / "best", target_modules=TARGETS)
    code, document, err = export("ollama", adapter, base, tmp_path / "out")
    assert code == 0, err
    lines = (tmp_path / "out" / "Modelfile").read_text()
    assert lines.startswith("FROM ./best-Q8_0.gguf\nTEMPLATE") and "ADAPTER" not in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert (tmp_path / "out" / "best-Q8_0.gguf").is_file()
    assert document["commands"][0].startswith("ollama create best -f ")


@pytest.mark.parametrize(
    ("openings", "found"), [(["Be brief."], True), (["Be brief.", "Be long."], False)]
)
def test_a_system_message_that_all_rows_had_goes_along(
    openings: list[str], found: bool, base: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    save_adapter(base, run / "best", target_modules=TARGETS)
    talks = [
        [message("system", opening), message("user", "Is it?"), message("assistant", "Yes.")]
        for opening in openings * 3
    ]
    rows = (json.dumps({"messages": talk}) + "\n" for talk in talks)
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    about = {"name": "run", "verb": "train", "status": "completed", "model": str(base)}
    about |= {"task": "causal_lm", "started_at": "2026-01-01T00:00:00+00:00"}
    (run / "run.json").write_text(json.dumps({**about, "trials": []}))
    (run / "config.yaml").write_text(f"data: {{train: {tmp_path / 'rows.jsonl'}}}\n")
    words = ("--to", "ollama", "--model", base, "--out", tmp_path / "out", "--dry-run")
    code, text, err = called("adapter", "export", run, *words)
    assert code == 0, err
    assert ('SYSTEM "Be brief."' in text) is found


def test_what_a_gguf_lora_has_no_place_for_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path / "a", use_dora=True)
    for more in ((), ("--dry-run",)):
        code, _, err = export("gguf-lora", adapter, base, tmp_path / "out", *more)
        assert code == 2 and "DoRA" in err and "--to gguf" in err
        assert not (tmp_path / "out").exists()


def test_without_llama_cpp_a_file_is_written_and_not_proved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loraloom.adapters.export.gguf.available", lambda: "no such module")
    adapter = save_adapter(base, tmp_path / "a", target_modules=TARGETS)
    code, document, _ = export("gguf:F16", adapter, base, tmp_path / "out")
    assert code == 0 and document["proof"] is None and "loraloom[llama]" in document["not_proved"]
    code, _, err = export("gguf:F16", adapter, base, tmp_path / "more", "--prove")
    assert code == 1 and "was written and is not proved" in err
    code, _, err = export("gguf:Q4_K_M", adapter, base, tmp_path / "third")
    assert code == 2 and "loraloom[llama]" in err and not (tmp_path / "third").exists()


DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
INST = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('none') }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
)
COUNTING = CHATML.replace("'<|im_start|>' +", "'<|im_start|>' ~ loop.index ~")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (CHATML, ("<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n", "")),
        (
            DEFAULT + CHATML,
            ("{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n", "Be kind."),
        ),
        (INST, ("[INST] {{ if .System }}{{ .System }}\n\n{{ end }}{{ .Prompt }} [/INST]", "")),
        (COUNTING, None),
        (None, None),
    ],
)
def test_a_chat_template_in_ollamas_words(
    template: str | None, says: tuple[str, str] | None, base: Path
) -> None:
    import transformers as tf

    tokenizer: Any = tf.AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    found = go_template(tokenizer, "")
    if says is None:
        assert found is None
        return
    assert found is not None
    part, default = says
    assert part in found.text() and found.default_system == default
    assert by_go(found, [("Hi", "Ho"), ("And?", "")]) == tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
            {"role": "user", "content": "And?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )


def by_go(found: GoTemplate, exchanges: list[tuple[str, str]]) -> str:
    """What Go makes of the text, exchange by exchange, the last one ended at the response."""
    written, system = "", found.default_system
    for number, (prompt, response) in enumerate(exchanges):
        text = found.text()
        if number == len(exchanges) - 1:
            text = text.partition("{{ .Response }}")[0]
        said = r"\1" if system else ""
        text = re.sub(r"\{\{ if \.System \}\}(.*?)\{\{ end \}\}", said, text, flags=re.DOTALL)
        text = text.replace("{{ if .Prompt }}", "").replace("{{ end }}", "")
        for name, value in (("System", system), ("Prompt", prompt), ("Response", response)):
            text = text.replace(f"{{{{ .{name} }}}}", value)
        written, system = written + text, ""
    return written
