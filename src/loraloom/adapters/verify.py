"""The proof that an artefact computes what was trained: its logits beside those of the live adapter.

The reference is PEFT's adapter over the base in float32, in modules that have never seen our code. KL is
that of the artefact's next-token (or class) distribution from the reference's, in nats a position.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.shards import read_headers
from loraloom.errors import ModelError, VerificationError
from loraloom.lora.base import Base, load_base, load_tokenizer
from loraloom.lora.record import read_record
from loraloom.lora.state import load_peft, logits_of
from loraloom.lora.untrusted_adapter import tokenizer_home
from loraloom.records import Task

NAME = "proof.json"
TASKS: dict[str, Task] = {
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForSequenceClassification": "seq_cls",
    "ForConditionalGeneration": "seq2seq_lm",
}
"""By the end of an architecture's name."""
ROWS, TOKENS = 4, 48
"""Random rows that both models read, and the length of each."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  Zwei  Leerzeichen, Umlaute äöü ß, 1234567890 und 3.14159.",
    "def f(x):\n    return {'a': [x, None], \"b\": x ** 2}\n",
    "日本語のテキスト、emoji 🙂 and a tab\there",
)


@dataclass(frozen=True)
class Promise:
    """What an artefact of a format has to keep to.

    Attributes:
        kl: mean KL, nats a position.
        relative: largest difference of two logits, in shares of the largest logit; None where rounding
            decides it.
        of_effect: mean KL in shares of the adapter's effect that is allowed as well.
    """

    kl: float
    relative: float | None = None
    of_effect: float = 0.0


PROMISES = {
    "F32": Promise(1e-9, 1e-5),
    "F16": Promise(1e-5, of_effect=0.01),
    "BF16": Promise(1e-4, of_effect=0.01),
}
DROWNS = 0.5
"""Noise of the format in shares of the adapter's effect from which the adapter counts as drowned."""


@dataclass(frozen=True)
class Proof:
    """What was compared, and how it came out."""

    adapter: str
    base: str
    format: str
    positions: int
    kl_mean: float
    kl_max: float
    relative_difference: float
    top1_agreement: float
    effect: float | None
    """Mean KL of the adapter's distribution from the bare base's; None where the head is new."""
    allowed_kl: float
    token_ids_equal: bool
    passed: bool
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """It in three plain lines, and what has to be known beside."""
        verdict = "proved" if self.passed else "NOT what was trained"
        return [
            f"{verdict}: KL {self.kl_mean:.1e} nats a token on average (allowed {self.allowed_kl:.1e}),"
            f" {self.kl_max:.1e} at the worst; largest logit difference {self.relative_difference:.1e}",
            f"top-1 agreement {self.top1_agreement:.1%} of {self.positions} tokens;"
            f" token ids {'equal' if self.token_ids_equal else 'DIFFER'}",
            self._effect(),
            *self.notes,
        ]

    def _effect(self) -> str:
        if self.effect is None:
            return "effect of the adapter: its head is new, so there is no bare base to compare with"
        noise = self.kl_mean / self.effect if self.effect else float("inf")
        drowned = f": the adapter drowns in {self.format}, use float32" if noise > DROWNS else ""
        beside = f"noise of {self.format} {noise:.2g} of it{drowned}"
        return f"effect of the adapter KL {self.effect:.1e}; {beside}"


def prove(form: Form, files: BaseFiles, artefact: Path) -> Proof:
    """Compare a merged folder with the adapter over its base.

    Raises:
        ModelError: the adapter or its base cannot be loaded.
        VerificationError: the artefact cannot.
    """
    tokenizer = load_tokenizer(tokenizer_home(form.folder, str(files.folder)))
    rows = probe_rows(tokenizer, files)
    task = task_of(files)
    new_head = task == "seq_cls" and any(files.stored(name) is None for name in form.whole)
    trained, bare = _live(form, files, task, rows)
    loaded = _loaded(artefact, task)
    got = _logits(loaded, rows)
    kl = _kl(trained, got)
    effect = None if new_head else float(_kl(bare, trained).mean())
    largest = max(float(one.abs().max()) for one in trained)
    worst = max(float((a - b).abs().max()) for a, b in zip(trained, got, strict=True))
    relative = worst / max(largest, 1e-30)
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(trained, got, strict=True))
    code = _format(artefact)
    promise = PROMISES.get(code, PROMISES["BF16"])
    allowed = max(promise.kl, promise.of_effect * (effect or 0.0))
    ids = _ids(tokenizer) == _ids(loaded.tokenizer)
    fits = promise.relative is None or relative <= promise.relative
    return Proof(
        str(form.folder),
        str(files.folder),
        code,
        len(kl),
        float(kl.mean()),
        float(kl.max()),
        relative,
        same / len(kl),
        effect,
        allowed,
        ids,
        bool(float(kl.mean()) <= allowed and fits and ids),
        tuple(_notes(form)),
    )


def write_proof(folder: Path, proof: Proof) -> None:
    """Put it beside the artefact."""
    text = json.dumps(asdict(proof), indent=2, ensure_ascii=False) + "\n"
    (folder / NAME).write_text(text, encoding="utf-8")


def read_proof(folder: Path) -> dict[str, Any]:
    """What an earlier proof says of an artefact: whose adapter and base it was made of.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("adapter"), str):
            return found  # pyright: ignore[reportUnknownVariableType]
        got = "a file that names no adapter"
    except (OSError, ValueError, RecursionError) as error:
        got = str(error)
    raise ModelError(
        f"{folder} has no {NAME} that says what it was made of",
        got=got,
        need="a folder that `loraloom adapter merge` wrote, or an adapter",
        next="merge the adapter again",
    )


def task_of(files: BaseFiles) -> Task:
    """What a model does, by the name of its class.

    Raises:
        ModelError: none of the tasks that can be compared here.
    """
    name = type(files.model).__name__
    for end, task in TASKS.items():
        if name.endswith(end):
            return task
    raise ModelError(f"a {name} cannot be compared here", need=f"one of *{', *'.join(TASKS)}")


def probe_rows(tokenizer: Any, files: BaseFiles) -> list[dict[str, Tensor]]:
    """Rows that both models read: our texts, and random tokens from all of the vocabulary."""
    rows, _ = files.model.get_input_embeddings().weight.shape
    config = files.model.config.get_text_config()
    length = min(TOKENS, int(getattr(config, "max_position_embeddings", None) or TOKENS) - 2)
    random = torch.Generator().manual_seed(0)
    ids = [torch.randint(0, rows, (length,), generator=random) for _ in range(ROWS)]
    ids += [torch.tensor(one[:length]) for one in _ids(tokenizer)[: len(TEXTS)] if one]
    # A classifier looks at the last token that is no padding: padding within a row would hide some.
    pad = getattr(tokenizer, "pad_token_id", None)
    kept = [one[one != pad] if pad is not None else one for one in ids]
    kept = [one[one < rows] for one in kept]
    decoder = {"decoder_input_ids"} if files.model.config.is_encoder_decoder else set[str]()
    names = ("input_ids", *decoder)
    return [dict.fromkeys(names, one[None]) for one in kept if len(one)]


def _live(
    form: Form, files: BaseFiles, task: Task, rows: Sequence[dict[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Logits of the adapter as PEFT runs it, and of the base without it."""
    names = None
    if task == "seq_cls":
        count = int(files.model.config.num_labels)
        names = read_record(form.folder).label_names or tuple(f"LABEL_{n}" for n in range(count))
    base = load_base(str(files.folder), task, label_names=names)
    base.read_with(load_tokenizer(tokenizer_home(form.folder, str(files.folder))))
    loaded = load_peft(form.folder, base.model)
    trained = [logits_of(loaded, row) for row in rows]
    with loaded.disable_adapter():
        bare = [logits_of(loaded, row) for row in rows]
    return trained, bare


def _loaded(artefact: Path, task: Task) -> Base:
    """Raises VerificationError where an artefact is not even a model."""
    try:
        read_headers(artefact)
        return load_base(str(artefact), task)
    except ModelError as error:
        raise VerificationError(
            f"{artefact} cannot be loaded",
            got=f"{error.what}: {error.got}" if error.got else error.what,
            need="the files as they were written",
            next="merge the adapter again",
        ) from error


def _logits(base: Base, rows: Sequence[dict[str, Tensor]]) -> list[Tensor]:
    model = base.model.eval()
    return [logits_of(model, row) for row in rows]


def _kl(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """KL of each position, in nats, in float64."""
    found: list[Tensor] = []
    for a, b in zip(reference, other, strict=True):
        p = a.flatten(0, -2).to(torch.float64).log_softmax(-1)
        q = b.flatten(0, -2).to(torch.float64).log_softmax(-1)
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(found)


def _ids(tokenizer: Any) -> list[list[int]]:
    """What a tokenizer makes of our texts, and of a conversation where it has a template."""
    found: list[list[int]] = [tokenizer(text).input_ids for text in TEXTS]
    if getattr(tokenizer, "chat_template", None):
        talk = [{"role": "user", "content": text} for text in TEXTS[:1]]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        found.append(tokenizer(text, add_special_tokens=False).input_ids)
    return found


def _format(folder: Path) -> str:
    """The type of most numbers of an artefact."""
    counts = Counter[str]()
    for tensors in read_headers(folder).values():
        for one in tensors:
            counts[one.code] += one.bytes
    return counts.most_common(1)[0][0]


def _notes(form: Form) -> list[str]:
    held = read_record(form.folder).quantization
    if held == "none":
        return []
    return [
        f"trained over {held}: merged into the full weights, it answers a little otherwise than there"
    ]
