"""Adapters on disk, in PEFT's own format, and the proof that what was saved is what was trained.

`save_adapter` writes adapter_config.json and adapter_model.safetensors; `verify_adapter` loads them with
PEFT into a module tree that has never seen our layers and compares logits. Only then does an adapter
count as saved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loraloom.errors import ModelError, VerificationError, first_line
from loraloom.lora.adapter_weights import REMOVED, AdapterWeights
from loraloom.lora.arena import Entry
from loraloom.lora.base import Base, load_tokenizer, quiet_transformers, share_copy
from loraloom.lora.device_faults import is_of_device
from loraloom.lora.init import LOFTQ, moves_base
from loraloom.lora.packed import PackedModel
from loraloom.lora.probe import embedding_table
from loraloom.lora.record import Record, write_record
from loraloom.lora.routing import Routing
from loraloom.lora.segment import Segment
from loraloom.lora.transfer import fetch
from loraloom.lora.untrusted_adapter import (
    adapter_shapes,
    check_adapter,
    has_tokenizer,
    read_adapter_config,
    trained_tokens,
)
from loraloom.records import AdapterSpec

PEFT_TASKS = {
    "causal_lm": "CAUSAL_LM",
    "seq_cls": "SEQ_CLS",
    "seq2seq_lm": "SEQ_2_SEQ_LM",
    "preference": "CAUSAL_LM",
    "reward": "SEQ_CLS",
}
PREFIX = "base_model.model."


def compact_targets(targets: Sequence[str], all_paths: Iterable[str]) -> list[str]:
    """The shortest list that PEFT resolves to exactly `targets`: last names where they
    pick nothing else, else paths.

    Servers match adapters by last names (`q_proj`), so these are preferred.
    """
    chosen = set(targets)
    names = sorted({path.rpartition(".")[2] for path in chosen})
    reached = {path for path in all_paths if path.rpartition(".")[2] in names}
    return names if reached == chosen else sorted(chosen)


def compact_modules(modules: Sequence[str], all_paths: Sequence[str]) -> list[str] | None:
    """The same for `modules_to_save`, which PEFT takes as the end of a path, letter by letter: "dense"
    also reaches "attention.dense", and "classifier" also "pre_classifier"."""
    names = sorted({path.rpartition(".")[2] for path in modules})
    reached = {path for path in all_paths if path.endswith(tuple(names))}
    return (names if reached == set(modules) else sorted(modules)) or None


def peft_config(spec: AdapterSpec, base: Base) -> Any:
    """The `peft.LoraConfig` of an adapter of ours, as it is saved.

    PiSSA and OLoRA are saved as plain LoRA of twice the rank over the unchanged base (see `peft_state`),
    at the same scale. So are PEFT's own conversions of them, and servers then need not know the method.
    """
    from peft import LoraConfig

    names = [name for name, _ in base.model.named_modules() if name]
    leaves = [name for name in names if not list(base.model.get_submodule(name).children())]
    removed = moves_base(spec.init_lora_weights)
    # PEFT would start such an adapter anew before it loads it.
    made_here = removed or spec.init_lora_weights == LOFTQ
    wider, stronger = (2, 2**0.5 if spec.use_rslora else 2) if removed else (1, 1)
    return LoraConfig(
        r=spec.r * wider,
        lora_alpha=spec.lora_alpha * stronger,  # pyright: ignore[reportArgumentType]
        lora_dropout=spec.lora_dropout,
        target_modules=compact_targets(spec.target_modules, leaves),
        use_rslora=spec.use_rslora,
        use_dora=spec.use_dora,
        bias=spec.bias,
        init_lora_weights=(True if made_here else spec.init_lora_weights),  # pyright: ignore[reportArgumentType]
        rank_pattern={path: r * wider for path, r in spec.rank_pattern.items()},
        alpha_pattern={path: alpha * stronger for path, alpha in spec.alpha_pattern.items()},
        modules_to_save=compact_modules(spec.modules_to_save, names),
        task_type=PEFT_TASKS[base.task],
        base_model_name_or_path=base.name_or_path,
        inference_mode=True,
        fan_in_fan_out=any(
            type(base.model.get_submodule(path)).__name__ == "Conv1D" for path in spec.target_modules
        ),
    )


def peft_state(tensors: Iterable[tuple[Entry, Tensor]], base: nn.Module) -> dict[str, Tensor]:
    """Our tensors under PEFT's names, in float32 on the CPU.

    W x - s B0 A0 x + s B A x is LoRA over W with A and A0 one above the other and B and
    -B0 side by side.
    """
    state: dict[str, Tensor] = {}
    pairs = [(entry, tensor.detach()) for entry, tensor in tensors]
    whole = fetch(
        [value + _frozen(base, entry).to(value) if entry.relative else value for entry, value in pairs]
    )
    for (entry, _), value in zip(pairs, whole, strict=True):
        value = value.to(torch.float32)
        key = f"{PREFIX}{entry.key.removesuffix(REMOVED)}"
        if entry.name.endswith(REMOVED):
            value = (
                torch.cat([state[key], value])
                if entry.group == "lora_A"
                else torch.cat([state[key], -value], 1)
            )
        state[key] = value.contiguous().clone()
    return state


class HasModules(Protocol):
    """A base whose modules can be asked for by their paths."""

    def get_submodule(self, target: str, /) -> nn.Module: ...


def _frozen(base: HasModules, entry: Entry) -> Tensor:
    """The frozen tensor that a relative entry is the difference from."""
    return base.get_submodule(entry.path).get_parameter(entry.name.removeprefix("base_layer."))


def save_adapter(
    folder: Path,
    tensors: Iterable[tuple[Entry, Tensor]],
    spec: AdapterSpec,
    base: Base,
    *,
    max_length: int | None = None,
) -> Path:
    """Write an adapter, the tokenizer and the record of its rows into `folder` (made if needed).

    Args:
        max_length: tokens after which its rows were cut.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = peft_state(tensors, base.model)
    partial = folder / "adapter_model.safetensors.partial"
    save_file(state, partial, metadata={"format": "pt"})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    peft_config(spec, base).save_pretrained(str(folder))
    partial.rename(folder / "adapter_model.safetensors")
    base.tokenizer.save_pretrained(str(folder))
    dtype = str(base.model.dtype).removeprefix("torch.")
    write_record(
        folder, Record(base.label_names, max_length, base.quantization, dtype, base.kept_layers)
    )
    return folder


@torch.no_grad()
def read_adapter(folder: Path, adapter: AdapterWeights, base: HasModules) -> None:
    """Fill an adapter of the same shape from a folder that `save_adapter` wrote.

    Raises:
        ModelError: the file cannot be read, lacks one of its tensors, or has it in another shape.
    """
    file = folder / "adapter_model.safetensors"
    try:
        state = load_file(file)
    except (FileNotFoundError, SafetensorError) as error:
        raise ModelError(
            "the weights of this adapter cannot be read",
            where=str(file),
            got=first_line(error),
            next="restore the adapter's files, or train it again",
        ) from error
    constants = {entry.key.removesuffix(REMOVED) for entry, _ in adapter.constants}
    for entry, tensor in adapter.tensors():
        key = entry.key.removesuffix(REMOVED)
        stored = state.get(f"{PREFIX}{key}")
        if stored is not None and key in constants:
            stored = _half(stored, entry)
        if stored is None or stored.shape != tensor.shape:
            got = "nothing" if stored is None else f"shape {tuple(stored.shape)}"
            raise ModelError(
                f"`{key}` of the adapter in {folder} is not as it was saved",
                got=got,
                need=str(entry.shape),
                next="restore the adapter's files, or train it again",
            )
        value = stored.to(tensor)
        tensor.copy_(value - _frozen(base, entry).to(tensor) if entry.relative else value)
    adapter.refresh()


def _half(stored: Tensor, entry: Entry) -> Tensor:
    """The trained or the removed half of a tensor that `peft_state` joined."""
    dim = 0 if entry.group == "lora_A" else 1
    trained, removed = stored.chunk(2, dim)
    if not entry.name.endswith(REMOVED):
        return trained
    return removed if dim == 0 else -removed


@torch.no_grad()
def logits_of(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of a model for a batch, as float32 on the CPU; zero on padding.

    What a model computes for padding may be anything: with a sliding window such a token may see nothing
    at all, and attention over nothing is not defined.
    """
    logits = model(**inputs).logits.to("cpu", torch.float32)
    mask = inputs.get("attention_mask")
    if mask is None or logits.ndim != 3 or "decoder_input_ids" in inputs:
        return logits
    return torch.where(mask.to("cpu", torch.bool)[..., None], logits, 0.0)


def load_peft(folder: Path, model: nn.Module) -> Any:
    """A `peft.PeftModel` of an adapter folder over `model` (which PEFT changes in place), in eval mode.

    Raises:
        ModelError: the folder holds no adapter for this model, or one that is not safe to load.
    """
    from peft import PeftModel

    check_adapter(folder, [name for name, _ in model.named_modules() if name])
    fit_vocabulary(folder, model)
    try:
        with quiet_transformers():
            loaded: Any = PeftModel.from_pretrained(model, str(folder), use_safetensors=True).eval()  # pyright: ignore[reportArgumentType]
    # the folder is input: PEFT answers what does not fit with errors of many kinds
    except Exception as error:
        if is_of_device(error):
            raise
        raise ModelError(
            f"the adapter in {folder} does not fit this model",
            got="; ".join(line.strip() for line in str(error).splitlines()[:2]),
            need="the model that it was trained on",
            next="compare base_model_name_or_path in its adapter_config.json",
        ) from error
    _check_applied(folder, loaded)
    return loaded


def embedding_rows(model: Any) -> int:
    """Tokens that a model has an embedding for; as good as endless where it has no
    plain table of them."""
    table = embedding_table(model)
    return int(getattr(getattr(table, "weight", None), "shape", (2**31,))[0])


def require_embeddings(model: Any, ids: Iterable[int]) -> None:
    """Raises ModelError where a token has no embedding: a tokenizer with more tokens
    than the model it is used with."""
    most, rows = max(ids, default=0), embedding_rows(model)
    if most >= rows:
        raise ModelError(
            f"token {most:,} has no embedding: the model has {rows:,}",
            need=(
                "an adapter that was saved with the embeddings of the tokens that its tokenizer has more"
            ),
            next="save it again with PEFT: model.save_pretrained(FOLDER, save_embedding_layers=True)",
        )


def fit_vocabulary(folder: Path, model: Any) -> None:
    """Give `model` as many rows of embeddings as an adapter with tokens of its own has,
    in memory that no other model shares.

    Embeddings and heads that were saved whole are written into the model's own by PEFT.

    Raises:
        ModelError: the adapter trains tokens that neither it nor the model has a row for.
    """
    shapes, given, answering = (
        adapter_shapes(folder),
        embedding_table(model),
        model.get_output_embeddings(),
    )
    paths = [name for name, module in model.named_modules() if module is given or module is answering]
    saved = {
        path: shapes[key][0]
        for path in paths
        if (key := f"{PREFIX}{path}.weight") in shapes and shapes[key]
    }
    if given is None or not hasattr(given, "num_embeddings"):
        return
    rows = max([*saved.values(), 0]) or given.num_embeddings
    tokens = trained_tokens(read_adapter_config(folder))
    if tokens and max(tokens) >= rows:
        _refuse_untold_rows(
            folder, max(tokens), rows, tied=answering is None or answering.weight is given.weight
        )
        rows = max(tokens) + 1
    with quiet_transformers():
        if rows != given.num_embeddings:
            model.resize_token_embeddings(rows, mean_resizing=False)
        for path in saved:
            module = model.get_submodule(path)
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
        model.tie_weights()


def _refuse_untold_rows(folder: Path, token: int, rows: int, *, tied: bool) -> None:
    """Raises ModelError where tokens that an adapter adds one by one have embeddings, and the head
    nothing to say of them."""
    if tied and token < len(load_tokenizer(str(folder))):
        return
    raise ModelError(
        f"the adapter in {folder} trains token {token:,}, and the model has {rows:,}",
        need=(
            "the embeddings and the head for all tokens beside it"
            if not tied
            else "the tokenizer that it was trained with"
        ),
        next="save it again with PEFT: model.save_pretrained(FOLDER, save_embedding_layers=True)",
    )


def _check_applied(folder: Path, loaded: Any) -> None:
    """PEFT only warns of weights that it does not find, and says nothing of those that fit nowhere."""
    from peft import get_peft_model_state_dict

    if getattr(loaded.get_base_model(), "_checkpoint_conversion_mapping", None):
        return  # the names were translated on the way in
    applied = get_peft_model_state_dict(loaded, save_embedding_layers=False)
    stored = adapter_shapes(folder)
    lacking = sorted(key for key in applied if key not in stored)
    astray = sorted(key for key in stored if "lora_" in key and key not in applied)
    if lacking or astray:
        raise ModelError(
            f"the adapter in {folder} fits this model in part: {len(applied) - len(lacking)} of"
            f" {len(applied)} tensors",
            got=(
                f"{len(astray)} that the model has no place for: {', '.join(astray[:2])}"
                if astray
                else f"none for {lacking[0]}"
            ),
            need=f"tensors such as {', '.join(sorted(applied)[:2])}",
            next="compare base_model_name_or_path and target_modules in its adapter_config.json",
        )
    finite = fetch([torch.isfinite(tensor).all() for tensor in applied.values()])
    broken = next((key for key, fine in zip(applied, finite, strict=True) if not fine), None)
    if broken is not None:
        raise ModelError(
            f"the adapter in {folder} is broken: `{broken}` has NaN or infinite numbers",
            next="train it again",
        )


def as_loaded_elsewhere(base: Base, folder: Path) -> Any:
    """The base as the lines that a page prints load it, over the same weights: of our
    settings it has only what they pass on.

    That is the pad token of the tokenizer in `folder`, by which a decoder that
    classifies finds a row's last token.
    """
    model = share_copy(base.model, own_biases=True)
    if base.task == "seq_cls" and has_tokenizer(folder):
        model.config.pad_token_id = load_tokenizer(str(folder)).pad_token_id
    return model


@torch.no_grad()
def verify_adapter(
    folder: Path,
    packed: PackedModel,
    trial: str,
    base: Base,
    inputs: Mapping[str, Tensor],
    *,
    tolerance: float = 1e-4,
) -> float:
    """Load a saved adapter with PEFT into a fresh module tree and compare its logits
    with the trained ones.

    Args:
        inputs: a small batch for the model's forward.
        tolerance: largest allowed difference, relative to the largest logit.

    Returns:
        The largest difference relative to the largest logit.

    Raises:
        VerificationError: the logits differ, or are not finite.
    """
    rows = int(inputs["input_ids"].shape[0])
    with packed.route(Routing((Segment(trial, 0, rows),))) as model:
        trained = logits_of(model, inputs)
    loaded = logits_of(load_peft(folder, as_loaded_elsewhere(base, folder)), inputs)
    largest = float(trained.abs().max())
    difference = float((trained - loaded).abs().max()) / max(largest, 1e-12)
    if not difference <= tolerance:
        raise VerificationError(
            f"the adapter saved in {folder.name} is not the one that was trained: logits differ by"
            f" {difference:.2g}",
            need=f"at most {tolerance:.2g} relative to the largest logit, {largest:.3g}",
            next="keep the run folder and report this; do not ship the adapter",
        )
    return difference
