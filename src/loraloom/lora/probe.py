"""What a model does with its modules, found by running it: which ones run at all, and which ones see the batch's rows.

Two tiny passes, of 2 and of 3 rows, are enough: what changes with the number of rows carries rows. A layer that also
works on something without rows (DeBERTa's projections of relative positions) cannot tell whose adapter to use there;
the smallest module around it that has rows is then run candidate by candidate. A pass before them lets a model put other
modules in place, as BigBird does when it first sees short rows; one after them, walked backwards, shows which modules the
answer depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOKENS = 5

Place = int | str
"""Where an argument stands: its position, or its name."""


@dataclass(frozen=True)
class Use:
    """How a module is called.

    Attributes:
        rowless: some call's first tensor has neither rows first nor rows and tokens flattened.
        row_places: arguments whose first dimension is rows, in every call.
        row_results: the result is a tensor, or tensors, with rows first.
        simple: one tensor in, one tensor out.
        dtype: of the result, or of its first tensor; None where there is none.
        heard: a gradient of the answer comes back to the result.
    """

    rowless: bool
    row_places: frozenset[Place]
    row_results: bool
    simple: bool
    dtype: torch.dtype | None = None
    heard: bool = True


@dataclass(frozen=True)
class _Call:
    """First dimensions of the tensors among the arguments and in the result; `results` is None for anything else."""

    arguments: Mapping[Place, int]
    results: Sequence[int] | None
    simple: bool
    dtype: torch.dtype | None


def probe(model: Any) -> dict[str, Use]:
    """How each module that runs is used, by path. Not to be asked once layers are wrapped."""
    with torch.no_grad():
        _answer(model, 2)
        two, three = _watch(model, 2), _watch(model, 3)
    heard = _heard(model)
    return {
        path: _use(calls, three[path], path in heard) for path, calls in two.items() if len(calls) == len(three.get(path, ()))
    }


def _use(two: Sequence[_Call], three: Sequence[_Call], heard: bool) -> Use:
    rowless, results = False, True
    places: set[Place] | None = None
    for a, b in zip(two, three, strict=True):
        pairs = {place: (size, b.arguments.get(place)) for place, size in a.arguments.items()}
        first = next(iter(pairs.values()), None)
        rowless |= first not in ((2, 3), (2 * TOKENS, 3 * TOKENS))
        with_rows = {place for place, pair in pairs.items() if pair == (2, 3)}
        places = with_rows if places is None else places & with_rows
        results &= a.results is not None and set(a.results) == {2} and b.results is not None and set(b.results) == {3}
    return Use(rowless, frozenset(places or ()), results, all(call.simple for call in (*two, *three)), two[0].dtype, heard)


def _watch(model: Any, rows: int) -> dict[str, list[_Call]]:
    calls: dict[str, list[_Call]] = {}

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        given: dict[Place, Any] = {**dict(enumerate(args)), **kwargs}
        sizes = {place: value.shape[0] for place, value in given.items() if isinstance(value, Tensor) and value.ndim}
        simple = len(sizes) == 1 and isinstance(result, Tensor)
        first = next((value for value in (result if isinstance(result, tuple) else (result,)) if isinstance(value, Tensor)), None)
        calls.setdefault(path, []).append(_Call(sizes, _sizes(result), simple, None if first is None else first.dtype))

    with _listening(model, note):
        _answer(model, rows)
    return calls


@torch.enable_grad()
def _heard(model: Any) -> set[str]:
    """Paths of the modules whose result, where it is a tensor, has a gradient. The model's own parameters get none."""
    silence: dict[str, Tensor] = {}

    def add(path: str, _args: Any, _kwargs: Any, result: Any) -> Any:
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return None
        nothing = silence.setdefault(path, torch.zeros((), dtype=result.dtype, device=result.device, requires_grad=True))
        return result + nothing

    with _listening(model, add):
        answer = _answer(model, 2)
    paths = list(silence)
    grads: Any = torch.autograd.grad(answer.float().sum(), [silence[path] for path in paths], allow_unused=True)
    return {path for path, grad in zip(paths, grads, strict=True) if grad is not None}


@contextmanager
def _listening(model: Any, note: Callable[[str, tuple[Any, ...], dict[str, Any], Any], Any]) -> Generator[None]:
    """Within, `note` hears of each module's calls: its path, arguments and result, which it may replace."""

    def listen(path: str, module: nn.Module) -> Any:
        return module.register_forward_hook(lambda _m, args, kwargs, result: note(path, args, kwargs, result), with_kwargs=True)

    handles = [listen(path, module) for path, module in model.named_modules(remove_duplicate=False)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _answer(model: Any, rows: int) -> Tensor:
    """What the model says to `rows` tiny rows: its logits, or the last hidden states of a bare model."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.full((rows, TOKENS), min(2, vocabulary - 1), device=next(model.parameters()).device)
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})}
    return model(**inputs)[0]


def _sizes(result: Any) -> list[int] | None:
    values = [result] if isinstance(result, Tensor) else list(result) if type(result) in (tuple, list) else None
    if values is None or not all(value is None or isinstance(value, Tensor) for value in values):
        return None
    return [value.shape[0] for value in values if value is not None and value.ndim]
