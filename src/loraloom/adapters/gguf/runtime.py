"""llama.cpp as this project needs it: token ids, logits, K-quants. llama-cpp-python is known here alone.

Its low-level interface is used, because the other one has neither the logits of every position nor a
float32 cache. llama.cpp says what it does in its log, which is caught here and told where it fails.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from loraloom.errors import ModelError, RequestError, RunError, first_line

FILE_TYPES = {
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "Q8_0": 7,
}
"""Numbers of `enum llama_ftype` in llama.h, of the formats that llama.cpp writes for us."""
_ROW = 64
"""Tokens; contexts are made in multiples of it."""
_ERROR, _CONTINUED = 4, 5
"""Of `enum ggml_log_level`."""


class Runtime(Protocol):
    """A loaded GGUF file."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens, and logits of a position."""
        ...

    @property
    def chat_template(self) -> str | None:
        """What the file has in `tokenizer.chat_template`."""
        ...

    def tokens(self, text: str, *, parse_special: bool = True, add_special: bool = True) -> list[int]:
        """Ids of a text.

        Args:
            parse_special: take `<|im_end|>` and the like for the tokens that they are called by.
            add_special: put BOS before it (and EOS after it) where the file says so.
        """
        ...

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """The logits [T, V], float32, of every position of one row of tokens."""
        ...

    def ends_generation(self, token: int) -> bool:
        """Whether an answer is over with this token."""
        ...


def available() -> str | None:
    """Why llama.cpp cannot be run here; None where it can."""
    try:
        _library()
    # a compiled package raises whatever its loader raises
    except Exception as error:
        return first_line(error)
    return None


@contextmanager
def open_gguf(path: Path, lora: Path | None = None, *, exact: bool = True) -> Generator[Runtime]:
    """A GGUF file, loaded on the CPU until the block ends.

    Args:
        lora: a GGUF LoRA that is attached with scale 1.
        exact: keep the cache in float32 and compute attention without the kernel that rounds to float16.

    Raises:
        RequestError: the extra `llama` is missing.
        ModelError: llama.cpp cannot load one of the files.
    """
    loaded = _Loaded(_required(), path, lora, exact)
    try:
        yield loaded
    finally:
        loaded.close()


def quantise(source: Path, out: Path, kind: str) -> None:
    """Write a GGUF file of float32, float16 or bfloat16 in one of the formats in `FILE_TYPES`.

    Raises:
        RequestError: the extra `llama` is missing, or `kind` is none of them.
        RunError: llama.cpp fails; what it wrote is removed.
    """
    if kind not in FILE_TYPES:
        raise RequestError(
            f"{kind} is no format that llama.cpp writes here", need=f"one of {', '.join(FILE_TYPES)}"
        )
    library = _required()
    asked = library.llama_model_quantize_default_params()
    asked.ftype, asked.nthread = FILE_TYPES[kind], torch.get_num_threads()
    with _log(library) as log:
        failed = library.llama_model_quantize(bytes(source), bytes(out), ctypes.byref(asked))
    if failed or not out.is_file():
        out.unlink(missing_ok=True)
        raise RunError(
            f"llama.cpp could not write {kind}",
            where=str(out),
            got=_cause(log),
            next="look for room on the disk, or choose Q8_0, which needs no llama.cpp",
        )


class _Loaded:
    """One model, its adapter and, once a row was computed, its context."""

    def __init__(self, library: Any, path: Path, lora: Path | None, exact: bool) -> None:
        self._lib, self._exact = library, exact
        self._context, self._length = None, 0
        asked = library.llama_model_default_params()
        asked.n_gpu_layers = 0
        with _log(library) as log:
            self._model = library.llama_model_load_from_file(bytes(path), asked)
        if not self._model:
            raise _unloadable(path, log)
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self._lora = None
        if lora is not None:
            with _log(library) as log:
                self._lora = library.llama_adapter_lora_init(self._model, bytes(lora))
            if not self._lora:
                self.close()
                raise _unloadable(lora, log)

    @property
    def vocabulary_size(self) -> int:
        return int(self._lib.llama_vocab_n_tokens(self._vocabulary))

    @property
    def chat_template(self) -> str | None:
        found = self._lib.llama_model_chat_template(self._model, None)
        return None if found is None else found.decode("utf-8")

    def tokens(self, text: str, *, parse_special: bool = True, add_special: bool = True) -> list[int]:
        content = text.encode("utf-8")
        room = len(content) + 2
        while True:
            ids = (self._lib.llama_token * room)()
            count = self._lib.llama_tokenize(
                self._vocabulary, content, len(content), ids, room, add_special, parse_special
            )
            if count >= 0:
                return list(ids[:count])
            room = -count  # a negative number says how many there would be

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Raises RunError where llama.cpp fails."""
        context = self._context_of(len(tokens))
        self._lib.llama_memory_clear(self._lib.llama_get_memory(context), True)
        batch = self._lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for place, token in enumerate(tokens):
                batch.token[place], batch.pos[place] = token, place
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
                batch.logits[place] = 1
            with _log(self._lib) as log:
                failed = self._lib.llama_decode(context, batch)
            if failed:
                raise RunError(f"llama.cpp could not compute {len(tokens)} tokens", got=_cause(log))
            return self._computed(context, len(tokens))
        finally:
            self._lib.llama_batch_free(batch)

    def _computed(self, context: Any, count: int) -> Tensor:
        """Logits of the last batch, in memory of our own."""
        size = count * self.vocabulary_size
        first = self._lib.llama_get_logits(context)
        found = ctypes.cast(first, ctypes.POINTER(ctypes.c_float * size)).contents
        return torch.frombuffer(found, dtype=torch.float32).clone().reshape(count, -1)

    def ends_generation(self, token: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self._vocabulary, token))

    def _context_of(self, length: int) -> Any:
        """A context with room for a row; a longer row gets a new one."""
        if self._context is not None and length <= self._length:
            return self._context
        self._free_context()
        library = self._lib
        self._length = -(-max(length, 1) // _ROW) * _ROW
        asked = library.llama_context_default_params()
        asked.n_ctx = asked.n_batch = asked.n_ubatch = self._length
        asked.n_threads = asked.n_threads_batch = torch.get_num_threads()
        asked.offload_kqv = asked.op_offload = False
        asked.no_perf = True
        if self._exact:
            asked.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
            asked.type_k = asked.type_v = library.GGML_TYPE_F32
        with _log(library) as log:
            self._context = library.llama_init_from_model(self._model, asked)
        if not self._context:
            raise RunError(f"llama.cpp has no room for {self._length} tokens", got=_cause(log))
        if self._lora is not None:
            adapters = (library.llama_adapter_lora_p_ctypes * 1)(self._lora)
            library.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))
        return self._context

    def _free_context(self) -> None:
        if self._context is not None:
            self._lib.llama_free(self._context)
            self._context = None

    def close(self) -> None:
        """Free all of it; an adapter is freed with its model."""
        self._free_context()
        if self._model is not None:
            self._lib.llama_model_free(self._model)
            self._model = None


# -- the library and its log ---------------------------------------------------------------------------


def _library() -> Any:
    """Raises what importing it raises."""
    library = import_module("llama_cpp")
    library.llama_log_set(_silent(library), ctypes.c_void_p(0))
    return library


def _required() -> Any:
    """Raises RequestError where llama-cpp-python is not installed."""
    try:
        return _library()
    # a compiled package raises whatever its loader raises
    except Exception as error:
        raise RequestError(
            "llama-cpp-python is needed to run a GGUF file and to write K-quants",
            got=first_line(error),
            next='pip install "loraloom[llama]"',
        ) from error


_KEPT: list[Any] = []
"""Callbacks that llama.cpp may still call: freed by nobody."""
_LINES: list[str] = []


def _silent(library: Any) -> Any:
    """The callback that keeps what llama.cpp would print to stderr."""
    if not _KEPT:
        level_before = [0]

        def keep(level: int, text: bytes, _: object) -> None:
            level_before[0] = level_before[0] if level == _CONTINUED else level
            if level_before[0] == _ERROR:
                _LINES.append(text.decode("utf-8", "replace").strip())

        _KEPT.append(library.llama_log_callback(keep))
    return _KEPT[0]


@contextmanager
def _log(library: Any) -> Generator[list[str]]:
    """What llama.cpp complains of while the block runs."""
    _LINES.clear()
    yield _LINES


def _cause(log: Sequence[str]) -> str | None:
    """The first complaint, which is the cause; those after it follow from it."""
    return next((line for line in log if line), None)


def _unloadable(path: Path, log: Sequence[str]) -> ModelError:
    return ModelError(
        "llama.cpp cannot load the file",
        where=str(path),
        got=_cause(log) if path.is_file() else "no such file",
        need="a GGUF model, or a GGUF LoRA of the model that it is attached to",
        next="export it again",
    )
