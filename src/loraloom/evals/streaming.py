"""One answer as it comes, token by token, and what of the work for one can serve the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from loraloom.evals.writing import generated, room_for, stop_ids
from loraloom.records import Task

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the first bytes of a character whose last are still to come."""

Ending = Literal["stop", "length", "positions", "interrupted"]
"""Why an answer ends: the model ended it, it is as long as was asked for, the model has no more
positions, or a person stopped it."""


@dataclass(frozen=True)
class Streamed:
    """One answer, and why it ends."""

    text: str
    ending: Ending


class Memory:
    """Keys and values of tokens that a model has read, for a prompt that begins with them.

    Only those of plain attention over all tokens can be cut back to the tokens that two prompts share;
    with any other the prompt is read anew.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cache: Any = None

    def take(self, prompt: Sequence[int]) -> Any:
        """The cache of the longest beginning of `prompt` that was read before; None where there is none.

        It is the caller's then: whatever becomes of it, the memory is empty until `keep`.
        """
        cache, ids = self.cache, self.ids
        self.cache, self.ids = None, []
        if cache is None:
            return None
        most = min(len(ids), len(prompt) - 1)  # one token at least has to be read for the next
        shared = next((i for i in range(most) if ids[i] != prompt[i]), most)
        if not shared:
            return None
        if shared < len(ids):
            cache.crop(shared - len(ids))
        return cache

    def keep(self, cache: Any, ids: Sequence[int]) -> None:
        """Remember the tokens `ids`, as far as the cache has them."""
        layers = getattr(cache, "layers", ())
        if layers and all(type(layer).__name__ == "DynamicLayer" for layer in layers):
            self.cache, self.ids = cache, list(ids[: int(cache.get_seq_length())])


@torch.no_grad()
def streamed(
    model: Any,
    prompt: Sequence[int],
    tokenizer: Any,
    *,
    task: Task,
    pad_id: int,
    max_new_tokens: int,
    temperature: float = 0.0,
    memory: Memory | None = None,
    told: Callable[[str], object] = lambda piece: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Streamed:
    """What `model` writes after a prompt that leaves it room. Arguments as of `writing.continuations`.

    Args:
        memory: of this model; used, and filled for the next prompt.
        told: given the answer piece by piece; together the pieces are its text.
        stopped: asked after each token.
    """
    room = room_for(model, task, len(prompt), max_new_tokens)
    listener = _Listener(tokenizer, told)
    cache = memory.take(prompt) if memory is not None and task == "causal_lm" else None
    out = generated(
        model,
        [prompt],
        tokenizer,
        pad_id,
        room,
        temperature,
        num_beams=1,
        streamer=listener,
        stopping_criteria=_stopping(stopped),
        **({} if cache is None else {"past_key_values": cache}),
    )
    whole: list[int] = out.sequences[0].tolist()
    if memory is not None and task == "causal_lm":
        memory.keep(out.past_key_values, whole)
    ended = bool(listener.ids) and listener.ids[-1] in stop_ids(model, tokenizer)
    beyond: Ending = "length" if room == max_new_tokens else "positions"
    ending: Ending = "stop" if ended else "interrupted" if stopped() else beyond
    return Streamed(listener.end(), ending)


def _stopping(stopped: Callable[[], bool]) -> Any:
    from transformers import StoppingCriteriaList

    def asked(ids: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        return torch.full((len(ids),), stopped(), device=ids.device, dtype=torch.bool)

    return StoppingCriteriaList([asked])  # pyright: ignore[reportArgumentType]


class _Listener:
    """What `generate` tells of its tokens, as text without the white space around it."""

    def __init__(self, tokenizer: Any, told: Callable[[str], object]) -> None:
        self.tokenizer, self.told = tokenizer, told
        self.ids: list[int] = []
        self.said = ""
        self.prompt_is_over = False

    def put(self, ids: torch.Tensor) -> None:
        """The prompt first, then each token."""
        if not self.prompt_is_over:
            self.prompt_is_over = True
            return
        self.ids += ids.reshape(-1).tolist()
        text = self._text()
        if not text.endswith(UNFINISHED):
            self._tell(text)

    def end(self) -> str:
        """The whole answer; what was held back is told."""
        text = self._text()
        self._tell(text)
        return text

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).strip()

    def _tell(self, text: str) -> None:
        if text.startswith(self.said) and text != self.said:
            self.told(text[len(self.said) :])
            self.said = text
