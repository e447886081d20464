"""Philox4x32 gives the numbers of its authors, and dropout's masks of a GPU are made of
them as its kernels make them."""

from __future__ import annotations

import pytest
import torch

from loraloom.lora import dropout
from loraloom.lora.dropout import LEVELS, Mask, fill_all, keep_mask
from loraloom.lora.philox import WORD, key_schedule, philox

LAYER = 3


@pytest.fixture(autouse=True)
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are drawn as a GPU draws them, on the CPU."""
    monkeypatch.setattr(dropout, "drawn_in_order", lambda device: False)


@pytest.mark.parametrize(
    ("rounds", "word", "seed", "known"),
    [
        (7, 0, 0, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
        (10, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (10, WORD, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_numbers_are_those_of_the_authors_test_vectors(
    rounds: int, word: int, seed: int, known: tuple[int, ...]
) -> None:
    counter = torch.full((1,), word)
    words = philox((counter, counter, counter, counter), key_schedule([seed], rounds))
    assert tuple(int(word) for word in words) == known


def test_a_mask_is_a_function_of_candidate_layer_row_place_and_feature() -> None:
    rows, tokens, features, p, seed = 2, 3, 19, 0.3, 2**45 + 7
    mask = (
        Mask(rows, tokens, features, p, seed, LAYER)
        .fill(torch.empty(rows * tokens, features))
        .view(rows, tokens, features)
    )
    for row in range(rows):
        for place in range(tokens):
            for feature in range(features):
                counter = (torch.tensor([feature // 8]), place, torch.tensor([row]), LAYER)
                word = int(philox(counter, key_schedule([seed]))[feature % 8 // 2])
                draw = word >> 16 if feature % 2 else word & 0xFFFF
                assert mask[row, place, feature] == float(draw >= round(p * LEVELS))


def test_neither_padding_nor_neighbours_change_a_mask() -> None:
    masks = [Mask(2, 5, 12, p, seed, LAYER) for seed, p in ((1, 0.5), (2, 0.1), (3, 0.5))]
    together = fill_all([masks[0], None, *masks[1:]], torch.empty(4, 10, 12))
    assert (together[1] == 1).all() and not torch.equal(together[0], together[3])
    for mask, filled in zip(masks, (together[0], together[2], together[3]), strict=True):
        assert torch.equal(mask.fill(torch.empty(10, 12)), filled)
    longer = Mask(2, 9, 12, 0.5, 1, LAYER).fill(torch.empty(18, 12)).view(2, 9, 12)
    assert torch.equal(longer[:, :5], together[0].view(2, 5, 12))
    assert not torch.equal(Mask(2, 5, 12, 0.5, 1, LAYER + 1).fill(torch.empty(10, 12)), together[0])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_mask_keeps_the_mean(p: float) -> None:
    mask = keep_mask(16, 64, 64, p, 5, LAYER, torch.empty(0))
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.03)
    assert float((mask == 0).double().mean()) == pytest.approx(p, abs=0.01)
