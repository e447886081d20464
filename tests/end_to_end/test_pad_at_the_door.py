"""A decoder without a pad token, whose token 0 is a word: a text is judged by its last
word, by us and by the printed lines."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from bases import POSITIONS, SPREAD, WIDTHS
from doorway import Door, Run, write_rows
from tokenizers import Tokenizer, models, pre_tokenizers

from loraloom.errors import VerificationError
from loraloom.lora.base import load_base
from loraloom.lora.packed import PackedModel
from loraloom.lora.state import save_adapter, verify_adapter
from loraloom.records import AdapterSpec
from loraloom.report.commands import load_snippet
from loraloom.store.folder import RunFolder

WORDS = (
    "!",
    "the",
    "a",
    "cat",
    "dog",
    "bird",
    "horse",
    "sleeps",
    "waits",
    "stands",
    "turns",
    "now",
    "here",
)
ROWS = [
    {"text": f"{article} {animal} {verb} {place}{end}", "label": "loud" if end else "quiet"}
    for article, animal, verb, place, end in itertools.product(
        ("the", "a"),
        ("cat", "dog", "bird", "horse"),
        ("sleeps", "waits", "stands", "turns"),
        ("now", "here"),
        (" !", ""),
    )
]
KINDS: dict[str, tuple[tuple[str, ...], int, dict[str, Any]]] = {
    "an end of text": (("</s>",), 0, {"eos_token": "</s>"}),
    "another special token": (("<s>",), 0, {"bos_token": "<s>"}),
    "a row that no token has": ((), 3, {}),
    "nothing to spare": (("rare",), 0, {}),
}


def save_decoder(folder: Path, kind: str) -> str:
    more, spare, named = KINDS[kind]
    words = (*WORDS, *more)
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="the")
    )
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=POSITIONS, **named)
    torch.manual_seed(0)
    config = tf.GPT2Config(
        n_embd=WIDTHS["hidden_size"],
        n_layer=2,
        n_head=4,
        vocab_size=len(words) + spare,
        n_positions=POSITIONS,
        initializer_range=SPREAD,
        bos_token_id=None,
        eos_token_id=None,
    )
    tf.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_lines_classify_as_the_run_did(kind: str, loraloom: Door, tmp_path: Path) -> None:
    model, data = save_decoder(tmp_path / "base", kind), write_rows(tmp_path / "rows.jsonl", ROWS)
    words = (
        "--data",
        data,
        "--learning-rate",
        "0.01",
        "--max-steps",
        "24",
        "--output-dir",
        tmp_path,
        "--name",
        "one",
    )
    answer = loraloom("train", "--model", model, *words)
    assert answer.code == 0, answer.err
    run = Run(answer, tmp_path / "one")
    kept = RunFolder.open(run.folder)
    lines = str(load_snippet(kept, kept.result(), str(kept.best)))
    assert "pad_token_id=tokenizer.pad_token_id" in lines
    elsewhere: dict[str, Any] = {}
    exec(lines, elsewhere)
    tokenizer, loaded = elsewhere["tokenizer"], elsewhere["model"].eval()
    assert tokenizer.pad_token_id not in (None, 0)
    with torch.no_grad():
        logits = loaded(
            **tokenizer([row["text"] for row in ROWS], padding=True, return_tensors="pt")
        ).logits
    wanted = torch.tensor([run.result["labels"].index(row["label"]) for row in ROWS])
    found = json.loads(loraloom("evaluate", "--adapter", run.folder, "--data", data, "--json").out)[
        "metrics"
    ]
    assert found["test_accuracy"] == pytest.approx(float((logits.argmax(-1) == wanted).float().mean()))
    assert found["test_loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, wanted)), rel=1e-4
    )
    assert found["test_accuracy"] > 0.9, "what tells the classes apart is the last token alone"


def test_an_adapter_whose_tokenizer_pads_otherwise_is_not_verified(tmp_path: Path) -> None:
    base = load_base(
        save_decoder(tmp_path / "base", "an end of text"), "seq_cls", label_names=("no", "yes")
    )
    spec = AdapterSpec(
        r=2,
        lora_alpha=4,
        lora_dropout=0.0,
        target_modules=("transformer.h.0.attn.c_attn",),
        modules_to_save=base.fresh_modules,
    )
    packed = PackedModel(base.model, fresh_modules=base.fresh_modules)
    adapter = packed.add("one", spec, 0)
    rows = ["the cat sleeps now !", "a dog waits"]
    inputs = base.tokenizer(rows, padding=True, return_tensors="pt")
    plain = load_base(base.name_or_path, "seq_cls", label_names=("no", "yes"))
    folder = save_adapter(tmp_path / "adapter", adapter.tensors(), spec, plain)
    assert verify_adapter(folder, packed, "one", plain, inputs) < 1e-5
    base.tokenizer.pad_token = "!"
    base.tokenizer.save_pretrained(folder)
    with pytest.raises(VerificationError, match="logits differ"):
        verify_adapter(folder, packed, "one", plain, inputs)
