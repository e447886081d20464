"""NEFTune: noise on the input embeddings while training (Jain et al. 2023,
arXiv:2310.05914), candidate by candidate.

A row of T tokens and width d gets noise uniform in [-1, 1] times alpha / sqrt(T * d). T is the row's own
length without padding, and the noise is a function of the candidate's seed, its clock and the token's
place alone, so that neighbours and padding change nothing. As in transformers, it is added to the output
of the embedding module.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from loraloom.errors import ModelError
from loraloom.lora.probe import embedding_table
from loraloom.lora.transfer import send


@dataclass(frozen=True)
class Noise:
    """The noise of one candidate's rows in one pass.

    Attributes:
        start, stop: rows [start, stop) of the batch.
        alpha: the paper's strength, 5 to 15 for chat.
        seed: of this micro-step.
        lengths: tokens that are not padding, one number a row.
    """

    start: int
    stop: int
    alpha: float
    seed: int
    lengths: tuple[int, ...]


def neftune_noise(noise: Noise, tokens: int, features: int, like: Tensor) -> Tensor:
    """[rows, tokens, features] in the dtype of `like`; what stands beyond a row's length is zero.

    Drawn token by token over all rows, so that more padding only adds draws at the end.
    """
    rows = noise.stop - noise.start
    generator = torch.Generator().manual_seed(noise.seed & 0x7FFF_FFFF_FFFF_FFFF)
    drawn_TBD = torch.empty(tokens, rows, features, dtype=torch.float32).uniform_(
        -1, 1, generator=generator
    )
    lengths_B = torch.tensor(noise.lengths, dtype=torch.float32)
    inside_BT = torch.arange(tokens)[None] < lengths_B[:, None]
    strength_BT = inside_BT * (noise.alpha / torch.sqrt(lengths_B * features))[:, None]
    return send((drawn_TBD.transpose(0, 1) * strength_BT[..., None]).to(like.dtype), like.device)


@contextmanager
def noisy_embeddings(model: Any, noises: Sequence[Noise]) -> Generator[None]:
    """Within, the input embeddings' output carries each candidate's noise. Without
    noises nothing is touched."""
    if not noises:
        yield
        return

    def add(_module: nn.Module, _inputs: Any, output_BTD: Tensor) -> Tensor:
        noisy = output_BTD.clone()
        for noise in noises:
            rows = slice(noise.start, noise.stop)
            noisy[rows] += neftune_noise(noise, output_BTD.shape[1], output_BTD.shape[2], output_BTD)
        return noisy

    handle = input_embeddings(model).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def input_embeddings(model: Any) -> nn.Module:
    """The module that embeds the tokens a candidate reads; of an encoder-decoder, the encoder's own.

    Raises:
        ModelError: encoder and decoder embed with one module, so that noise for one would reach the
            other; or a model that reads characters, without a module for that.
    """
    if not model.config.is_encoder_decoder:
        if (table := embedding_table(model)) is None:
            raise ModelError(
                "`training.neftune_noise_alpha` needs one module that embeds tokens, and"
                f" {type(model).__name__} has none",
                next="leave it out: NEFTune is meant for decoders that learn to chat",
            )
        return table
    encoder, decoder = model.get_encoder(), model.get_decoder()
    embedding = getattr(encoder, "embed_tokens", None) or encoder.get_input_embeddings()
    if any(module is embedding for module in decoder.modules()):
        raise ModelError(
            "`training.neftune_noise_alpha` cannot be kept to the source: encoder and decoder share one"
            " embedding module",
            next="leave it out: NEFTune is meant for decoders that learn to chat",
        )
    return embedding
