"""What a model does with its modules, found by running it: which ones run at all, and
which ones see the batch's rows.

Two tiny passes, of 2 and of 3 rows, are enough: what changes with the number of rows carries rows. A
layer that also works on something without rows (DeBERTa's projections of relative positions) cannot tell
whose adapter to use there; the smallest module around it that has rows is then run candidate by
candidate. A pass before them lets a model put other modules in place, as BigBird does when it first sees
short rows.
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
        features: last dimensions of what comes in and goes out, where all others stay
            as they are; None where they do not.
    """

    rowless: bool
    row_places: frozenset[Place]
    row_results: bool
    simple: bool
    dtype: torch.dtype | None = None
    features: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Call:
    """First dimensions of the tensors among the arguments and in the result; `results` is None for
    anything else. `features` as in `Use`."""

    arguments: Mapping[Place, int]
    results: Sequence[int] | None
    simple: bool
    dtype: torch.dtype | None
    features: tuple[int, int] | None


def probe(model: Any) -> dict[str, Use]:
    """How each module that runs is used, by path. Not to be asked once layers are wrapped."""
    with torch.no_grad():
        _answer(model, 2)
        two, three = _watch(model, 2), _watch(model, 3)
    return {
        path: _use(calls, three[path])
        for path, calls in two.items()
        if len(calls) == len(three.get(path, ()))
    }


def _use(two: Sequence[_Call], three: Sequence[_Call]) -> Use:
    rowless, results = False, True
    places: set[Place] | None = None
    for a, b in zip(two, three, strict=True):
        pairs = {place: (size, b.arguments.get(place)) for place, size in a.arguments.items()}
        first = next(iter(pairs.values()), None)
        rowless |= first not in ((2, 3), (2 * TOKENS, 3 * TOKENS))
        with_rows = {place for place, pair in pairs.items() if pair == (2, 3)}
        places = with_rows if places is None else places & with_rows
        results &= (
            a.results is not None
            and set(a.results) == {2}
            and b.results is not None
            and set(b.results) == {3}
        )
    features = two[0].features if len({call.features for call in two}) == 1 else None
    simple = all(call.simple for call in (*two, *three))
    return Use(rowless, frozenset(places or ()), results, simple, two[0].dtype, features)


def _watch(model: Any, rows: int) -> dict[str, list[_Call]]:
    calls: dict[str, list[_Call]] = {}

    def note(path: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        given: dict[Place, Any] = {**dict(enumerate(args)), **kwargs}
        sizes = {
            place: value.shape[0]
            for place, value in given.items()
            if isinstance(value, Tensor) and value.ndim
        }
        simple = len(sizes) == 1 and isinstance(result, Tensor)
        first = next(
            (
                value
                for value in (result if isinstance(result, tuple) else (result,))
                if isinstance(value, Tensor)
            ),
            None,
        )
        dtype = None if first is None else first.dtype
        calls.setdefault(path, []).append(
            _Call(sizes, _sizes(result), simple, dtype, _features(args, result))
        )

    with _listening(model, note):
        _answer(model, rows)
    return calls


@contextmanager
def _listening(
    model: Any, note: Callable[[str, tuple[Any, ...], dict[str, Any], Any], Any]
) -> Generator[None]:
    """Within, `note` hears of each module's calls: its path, arguments and result."""

    def listen(path: str, module: nn.Module) -> Any:
        return module.register_forward_hook(
            lambda _m, args, kwargs, result: note(path, args, kwargs, result), with_kwargs=True
        )

    handles = [listen(path, module) for path, module in model.named_modules(remove_duplicate=False)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _answer(model: Any, rows: int) -> Tensor:
    """What the model says to `rows` tiny rows: its logits, or the last hidden states of a bare model."""
    vocabulary = vocabulary_of(model)
    ids = torch.full((rows, TOKENS), min(2, vocabulary - 1), device=next(model.parameters()).device)
    inputs = {
        "input_ids": ids,
        **({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}),
    }
    return model(**inputs)[0]


def vocabulary_of(model: Any) -> int:
    """Ids that the model reads: its vocabulary; of one that reads characters (CANINE), which has none,
    those of single bytes."""
    return getattr(model.config.get_text_config(), "vocab_size", None) or 256


def embedding_table(model: Any) -> Any:
    """The module that embeds tokens; None where transformers knows none, as of models
    that read characters."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def _features(args: tuple[Any, ...], result: Any) -> tuple[int, int] | None:
    x = args[0] if args else None
    if (
        not isinstance(x, Tensor)
        or not isinstance(result, Tensor)
        or x.shape[:-1] != result.shape[:-1]
        or not x.ndim
    ):
        return None
    return x.shape[-1], result.shape[-1]


def _sizes(result: Any) -> list[int] | None:
    values = (
        [result]
        if isinstance(result, Tensor)
        else list(result)
        if type(result) in (tuple, list)
        else None
    )
    if values is None or not all(value is None or isinstance(value, Tensor) for value in values):
        return None
    return [value.shape[0] for value in values if value is not None and value.ndim]
