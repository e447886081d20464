"""Load the frozen base model and its tokenizer, and make further models that share its memory."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loraloom.errors import LoraloomError, ModelError, first_line
from loraloom.lora.device_faults import is_of_device
from loraloom.lora.frozen import keep_few_programs
from loraloom.lora.full_weights import FullWeights
from loraloom.lora.loading_memory import give_back_memory
from loraloom.lora.mapped import mapped_files, refuse_copies
from loraloom.lora.quantised import QuantisedLinear
from loraloom.lora.quantised_loading import (
    kind_of_stored,
    linears_outside_blocks,
    options_for_full,
    options_for_stored,
    remember_full_weights,
    rest_in,
    stored_in,
    take_over,
)
from loraloom.lora.streaming import BlockStream
from loraloom.lora.tokenizer import reader_of
from loraloom.records import Task

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


@dataclass
class Base:
    """A loaded model, never trained.

    Attributes:
        model: the model as transformers made it, before any adapter.
        tokenizer: a classifier's has a pad token; `pad_id` is what rows are padded with.
        fresh_modules: modules that the weights did not carry (a new head), by path.
        label_names: of a classifier's classes, in the order of its outputs.
        quantization: "nf4" or "int8" where the layers inside the blocks are held in few
            bits, else "none".
        stored: how the base's own files are quantised, such as "gptq int4"; "none" for full weights.
        kept_layers: of a quantised base, the linear layers that are not: those outside the blocks.
    """

    name_or_path: str
    task: Task
    model: Any
    tokenizer: Any
    fresh_modules: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()
    quantization: str = "none"
    kept_layers: tuple[str, ...] = ()
    stored: str = "none"

    @property
    def held(self) -> str:
        """In which bits the base is trained over, whoever quantised it."""
        return self.stored if self.quantization == "none" else self.quantization

    @property
    def parameters(self) -> int:
        """Numbers of the model, whatever each of them is held in."""
        coded = sum(layer.in_features * layer.out_features for layer in _quantised(self.model))
        return coded + sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def stored_bytes(self) -> int:
        """What all of these numbers take."""
        coded = sum(layer.stored_bytes for layer in _quantised(self.model))
        return coded + sum(parameter.nbytes for parameter in self.model.parameters())

    @property
    def pad_id(self) -> int:
        return pad_id(self.tokenizer, self.model.config)

    def read_with(self, tokenizer: Any) -> None:
        """Take the rows of this tokenizer from now on, padded with its token: an
        adapter's own, where it came with one."""
        if self.task == "seq_cls":
            give_pad_token(tokenizer, self.model.config)
        self.tokenizer = tokenizer
        self.model.config.pad_token_id = self.pad_id


def _quantised(model: nn.Module) -> list[QuantisedLinear]:
    return [layer for layer in model.modules() if isinstance(layer, QuantisedLinear)]


@contextmanager
def quiet_transformers() -> Generator[None]:
    """Loading reports and progress bars of transformers are for its own users; ours get our messages."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def load_tokenizer(
    name_or_path: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any:
    """The model's own tokenizer.

    Raises:
        ModelError: none is there.
    """
    import transformers

    reader = reader_of(name_or_path)
    tokenizer: Any = getattr(transformers, reader or "AutoTokenizer")
    extra = {} if reader else {"trust_remote_code": trust_remote_code}
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with quiet_transformers():
            return tokenizer.from_pretrained(name_or_path, revision=revision, **extra)
    # its files are input: each kind of tokenizer fails on broken ones in a way of its own
    except Exception as error:
        raise ModelError(
            f"no tokenizer in `{name_or_path}`",
            got=first_line(error),
            need="tokenizer.json, or the tokenizer files of the model's family",
            next="copy the tokenizer files beside config.json",
        ) from error


def pad_id(tokenizer: Any, config: Any) -> int:
    """The id that pads: the tokenizer's, else the model's, else 0. Padding is never
    seen by a row's own tokens."""
    for value in (getattr(tokenizer, "pad_token_id", None), getattr(config, "pad_token_id", None)):
        if isinstance(value, int) and value >= 0:
            return value
    return 0


def give_pad_token(tokenizer: Any, config: Any) -> None:
    """Let a classifier's tokenizer have a pad token that no text ends in, so that it is
    saved with the adapter.

    A decoder that classifies looks at a row's last token that is not the pad token. In many vocabularies
    0 is a word, and a text that ends in it would be judged by the token before. The model's own pad
    token comes first, then the token that ends texts and other special ones, then a row of the
    embeddings that no token has, then the rarest token.
    """
    if tokenizer.pad_token_id is not None:
        return
    declared = getattr(config, "pad_token_id", None)
    unknown = {getattr(tokenizer, "unk_token_id", None), None}
    known = (tokenizer.eos_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids)
    special = [number for number in known if number not in unknown]
    rows = config.get_text_config().vocab_size
    if isinstance(declared, int) and 0 <= declared < len(tokenizer):
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(declared)
    elif special:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(special[0])
    elif len(tokenizer) < rows:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    else:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(len(tokenizer) - 1)


def load_base(
    name_or_path: str,
    task: Task,
    *,
    label_names: Sequence[str] | None = None,
    dtype: str = "float32",
    seed: int = 42,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    device: str = "cpu",
    quantization: str = "none",
    streaming: bool = False,
) -> Base:
    """Load model and tokenizer for a task. A head that the weights lack is initialised from `seed`.

    Args:
        quantization: "nf4" or "int8" holds the linear layers inside the blocks in few bits, each
            quantised as it is read; embeddings, heads and norms stay in `dtype`. A base whose files are
            quantised is taken as it is.
        streaming: leave the weights in their files on a CPU (`lora.mapped`), those of blocks on the host
            on any other device (`lora.streaming`).

    Raises:
        ModelError: no weights, an unknown architecture, or a model that does not do the task.
        RequestError: a quantised base without the package that makes it.
    """
    import transformers

    auto = {
        "causal_lm": transformers.AutoModelForCausalLM,
        "seq_cls": transformers.AutoModelForSequenceClassification,
        "seq2seq_lm": transformers.AutoModelForSeq2SeqLM,
    }[task]
    tokenizer = load_tokenizer(name_or_path, revision=revision, trust_remote_code=trust_remote_code)
    extra: dict[str, Any] = {} if label_names is None else {"ignore_mismatched_sizes": True}
    labels = {} if label_names is None else _labels(label_names)
    if attn_implementation not in (None, "auto"):
        extra["attn_implementation"] = attn_implementation
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    kept: tuple[str, ...] = ()
    home = "cpu" if streaming else device  # where there is room for all of it
    keep_few_programs()
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(name_or_path, **source, **labels)
            stored = stored_in(config)
            kind = "none" if stored is None else kind_of_stored(config, stored)
            if stored is not None:
                _refuse_twice(stored, quantization, name_or_path)
                extra |= options_for_stored(config, stored, home)
            elif quantization != "none":
                kept = linears_outside_blocks(auto, config, trust_remote_code=trust_remote_code)
                extra |= options_for_full(quantization, kept, DTYPES[dtype], home)
            torch.manual_seed(seed)
            with mapped_files() if streaming else nullcontext([]) as maps:
                loaded: Any = auto.from_pretrained(
                    name_or_path,
                    config=config,
                    dtype=DTYPES[dtype],
                    output_loading_info=True,
                    **source,
                    **extra,
                )
            model, info = loaded
    except LoraloomError:
        raise
    # config and weights are input: damaged ones raise whatever their parser raises
    except Exception as error:
        if is_of_device(error):
            raise
        folder = Path(name_or_path).is_dir()
        raise ModelError(
            f"cannot load `{name_or_path}` for {task}",
            got=first_line(error),
            need="config.json and model.safetensors of a model that does this task",
            next="ls the folder" if folder else "check the name, or give a local folder",
        ) from error
    _refuse_random(model, info, task, name_or_path)
    if streaming and device == "cpu":
        refuse_copies(model, maps, name_or_path)
    take_over(model, DTYPES[dtype])
    if stored is not None:
        rest_in(model, DTYPES[dtype])
    if quantization != "none":
        remember_full_weights(model, FullWeights(name_or_path, revision))
        give_back_memory(model)
    if streaming and device != "cpu":
        BlockStream(model, torch.device(device))
    names = tuple(label_names or ())
    base = Base(
        name_or_path,
        task,
        model.to(device),
        tokenizer,
        fresh_modules(model, info),
        names,
        quantization,
        kept,
        kind,
    )
    base.read_with(tokenizer)
    return base


def _labels(names: Sequence[str]) -> dict[str, Any]:
    """A classifier's classes as transformers' configs have them."""
    numbered = {name: number for number, name in enumerate(names)}
    return {"num_labels": len(names), "id2label": dict(enumerate(names)), "label2id": numbered}


def _refuse_twice(stored: str, quantization: str, name_or_path: str) -> None:
    """Raises ModelError where codes would be made of codes."""
    if quantization != "none":
        raise ModelError(
            f"`model.quantization: {quantization}` needs the full weights of the base",
            where=name_or_path,
            got=f"weights that are quantised by {stored} already",
            next="leave model.quantization out: the base is taken as it is stored",
        )


def _not_loaded(model: nn.Module, info: dict[str, Any]) -> set[str]:
    """Parameters that the files lack, or have in another size: transformers gave them random numbers."""
    absent = {str(key) for key in info.get("missing_keys", ())} | {
        str(key[0]) for key in info.get("mismatched_keys", ())
    }
    return absent - set(getattr(model, "_tied_weights_keys", None) or ())


def _refuse_random(model: nn.Module, info: dict[str, Any], task: Task, name_or_path: str) -> None:
    """Only a classifier's head, and the pooler before it, may be new: nobody trains the
    rest, and it would stay noise.

    Raises:
        ModelError: config.json describes other layers than the weights are of.
    """
    within = f"{model.base_model_prefix}." if task == "seq_cls" else ""
    noise = sorted(
        name for name in _not_loaded(model, info) if name.startswith(within) and "pooler" not in name
    )
    if noise:
        raise ModelError(
            f"config.json and the weights do not fit: {len(noise):,} tensors of the model have no"
            " weights of their size",
            where=name_or_path,
            got=", ".join(noise[:3]) + (", ..." if len(noise) > 3 else ""),
            need=f"a checkpoint of {type(model).__name__} with all of its layers",
            next="get the model's files again, config.json and weights from the same place",
        )


def fresh_modules(model: nn.Module, info: dict[str, Any]) -> tuple[str, ...]:
    """Top-most modules none of whose tensors came from the weights."""
    missing = _not_loaded(model, info)
    found: list[str] = []
    for name, module in model.named_modules():
        names = [f"{name}.{key}" for key, _ in module.named_parameters()]
        if (
            name
            and names
            and all(key in missing for key in names)
            and not any(name.startswith(f"{f}.") for f in found)
        ):
            found.append(name)
    return tuple(found)


def share_copy(model: nn.Module, *, own_biases: bool = False) -> Any:
    """A new module tree over the same weights: no memory is spent, and wrapping layers
    in one leaves the other.

    With `own_biases` the copy has biases of its own: PEFT writes trained biases into the frozen layers.
    """
    shared = [
        t
        for name, t in (*model.named_parameters(), *model.named_buffers())
        if not (own_biases and name.endswith("bias"))
    ]
    memo: dict[int, Any] = {id(t): t for t in shared}
    return copy.deepcopy(model, memo)
