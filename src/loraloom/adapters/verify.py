"""The proof that an artefact computes what was trained: its logits beside those of the live adapter.

The reference is PEFT's adapter over the base in float32, in modules that have never seen our code. KL is
that of the artefact's next-token (or class) distribution from the reference's, in nats a position.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loraloom.adapters.artefacts import Artefact, form_home, model_folder, peft_folder
from loraloom.adapters.base_files import BaseFiles
from loraloom.adapters.form import Form
from loraloom.adapters.probes import TEXTS, Probes
from loraloom.adapters.proof import Promise, Proof, promise_of
from loraloom.adapters.shards import read_headers
from loraloom.errors import ModelError
from loraloom.lora.base import load_tokenizer
from loraloom.lora.record import read_record
from loraloom.records import Task

TASKS: dict[str, Task] = {
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForSequenceClassification": "seq_cls",
    "ForConditionalGeneration": "seq2seq_lm",
}
"""By the end of an architecture's name."""


@dataclass(frozen=True)
class Reference:
    """What was trained, asked once.

    Attributes:
        trained: float32 logits [T, V] of each row of the probes.
        bare: those of the base without it; None where its head is new.
        rounding: how much more float32 rounds in a sum of base and update than in the base alone.
    """

    adapter: str
    base: str
    probes: Probes
    trained: Sequence[Tensor]
    bare: Sequence[Tensor] | None
    notes: tuple[str, ...] = ()
    rounding: float = 1.0


def reference_of(form: Form, files: BaseFiles) -> Reference:
    """An adapter as PEFT runs it over its base.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    task, probes = task_of(files), probes_of(form, files)
    new_head = task == "seq_cls" and any(files.stored(name) is None for name in form.whole)
    with peft_folder(form.folder, files, task) as live:
        trained = [live.logits(row) for row in probes.rows]
        with live.model.disable_adapter():
            bare = None if new_head else [live.logits(row) for row in probes.rows]
        rounding = rounding_of(form, live.model.get_base_model())
    notes = tuple(trained_over(form.folder))
    return Reference(str(form.folder), str(files.folder), probes, trained, bare, notes, rounding)


def rounding_of(form: Form, model: nn.Module) -> float:
    """By how much A and B outweigh a layer's weight, where they do; 1 where no layer's do.

    What B A adds up to may be small and its terms large: those of OLoRA and PiSSA take away again what
    the start had. Each term is rounded, so that a sum differs in the order of its terms by up to
    eps |B| |A| (Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.13), and from the
    weight's own rounding by this many times.
    """
    found = [1.0]
    for path, factor in form.factors.items():
        layer: Any = model.get_submodule(path)
        weight: Tensor = getattr(layer, "base_layer", layer).weight
        terms = float(factor.a_RD.norm() * factor.b_OR.norm()) * abs(factor.scale)
        found.append(terms / max(float(weight.detach().float().norm()), 1e-30))
    return max(found)


def probes_of(form: Form, files: BaseFiles) -> Probes:
    """What an adapter over this base is asked."""
    rows, _ = files.model.get_input_embeddings().weight.shape
    config = files.model.config.get_text_config()
    longest = int(getattr(config, "max_position_embeddings", None) or 2**31)
    return Probes(load_tokenizer(form_home(form, files)), rows, longest)


def prove(
    reference: Reference,
    artefact: Artefact,
    format: str,
    *,
    promise: Promise | None = None,
    base_kl: float | None = None,
    file: str | None = None,
) -> Proof:
    """Compare an artefact with what was trained.

    Args:
        format: as in `Proof`.
        promise: what it has to keep to; that of the format when None.
        base_kl, file: as in `Proof`.
    """
    probes, trained = reference.probes, reference.trained
    promise = promise or promise_of(format)
    got = [artefact.logits(row) for row in probes.rows]
    fits = all(
        a.shape == b.shape and bool(b.isfinite().all()) for a, b in zip(trained, got, strict=True)
    )
    kl = kl_of(trained, got) if fits else torch.tensor([torch.inf])
    effect = None if reference.bare is None else float(kl_of(reference.bare, trained).mean())
    relative, same = _compared(trained, got) if fits else (float("inf"), 0.0)
    allowed = None if promise.kl is None else max(promise.kl, promise.of_effect * (effect or 0.0))
    ids = all(probes.tokenizer(text).input_ids == artefact.tokens(text) for text in TEXTS)
    ids &= probes.conversations_by(artefact.template) == probes.conversations
    ids &= all(probes.ids_of(talk) == artefact.prompt(talk) for talk in probes.conversations)
    stops = None if probes.turn_end is None else artefact.stops_at(probes.turn_end)
    within = allowed is None or float(kl.mean()) <= allowed
    close = promise.relative is None or relative <= promise.relative * reference.rounding
    return Proof(
        reference.adapter,
        reference.base,
        format,
        sum(len(one) for one in trained),
        float(kl.mean()),
        float(kl.max()),
        relative,
        same,
        effect,
        allowed,
        ids,
        bool(fits and within and close and ids and stops is not False),
        reference.notes,
        base_kl,
        stops,
        file,
    )


def prove_adapter(folder: Path, reference: Reference, files: BaseFiles, promise: Promise) -> Proof:
    """Compare a PEFT folder that was made of other adapters with what it should be.

    Args:
        promise: `proof.EXACT` where it should be the same, `proof.REPORTED` where something is left out.

    Raises:
        ModelError: PEFT cannot load it.
    """
    with peft_folder(folder, files, task_of(files)) as made:
        return prove(reference, made, "PEFT", promise=promise)


def prove_merged(folder: Path, reference: Reference, files: BaseFiles) -> Proof:
    """Compare a merged model with the adapter over its base.

    Raises:
        VerificationError: it cannot be loaded.
    """
    with model_folder(folder, task_of(files)) as merged:
        return prove(reference, merged, format_of(folder))


def format_of(folder: Path) -> str:
    """The type of most numbers of a model folder."""
    counts = Counter[str]()
    for tensors in read_headers(folder).values():
        for one in tensors:
            counts[one.code] += one.bytes
    return counts.most_common(1)[0][0]


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


def kl_of(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """KL of each position, in nats, in float64."""
    found: list[Tensor] = []
    for a, b in zip(reference, other, strict=True):
        p, q = (_choice(one).to(torch.float64).log_softmax(-1) for one in (a, b))
        found.append((p.exp() * (p - q)).sum(-1))
    return torch.cat(found)


def _choice(logits: Tensor) -> Tensor:
    """Logits [T, V] of which one is chosen. One output alone is a reward r: sigmoid(r) is how often such
    an answer is preferred to one whose reward is 0."""
    return logits if logits.shape[-1] > 1 else F.pad(logits, (0, 1))


def _compared(trained: Sequence[Tensor], got: Sequence[Tensor]) -> tuple[float, float]:
    """Largest difference of two logits in shares of the largest; share of equal first choices."""
    pairs = list(zip(trained, got, strict=True))
    largest = max(float(one.abs().max()) for one in trained)
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    same = sum(int((_choice(a).argmax(-1) == _choice(b).argmax(-1)).sum()) for a, b in pairs)
    return worst / max(largest, 1e-30), same / sum(len(one) for one in trained)


def trained_over(folder: Path) -> list[str]:
    """What has to be known of an adapter that was trained over few bits."""
    held = read_record(folder).quantization
    if held == "none":
        return []
    return [f"trained over {held}: over the full weights it answers a little otherwise than there"]
