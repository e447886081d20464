"""Keys: wordings of one item come together, and few wordings change nothing."""

from __future__ import annotations

import numpy as np

from loraloom.recall.whitening import normal, whitening

RNG = np.random.default_rng(0)
WIDTH = 24


def wordings(items: int, each: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Of items that differ a little in half of the directions and whose wordings differ much in the
    other half; with them a held-out wording of each."""
    spread = np.where(np.arange(WIDTH) < WIDTH // 2, 0.1, 3.0)
    centres = RNG.normal(size=(items, WIDTH)) * (spread < 1)
    drawn = centres[:, None] + RNG.normal(size=(items, each + 1, WIDTH)) * spread
    found = drawn.astype(np.float32)
    return list(found[:, :-1]), found[:, -1]


def recall(known: list[np.ndarray], asked: np.ndarray, matrix: np.ndarray) -> float:
    keys = normal(np.array([one[0] for one in known]) @ matrix)
    return float(((normal(asked @ matrix) @ keys.T).argmax(1) == np.arange(len(known))).mean())


def test_a_held_out_wording_finds_its_item_where_it_did_not_before() -> None:
    known, asked = wordings(40, 8)
    before = recall(known, asked, np.eye(WIDTH, dtype=np.float32))
    assert before < 0.5 and recall(known, asked, whitening(known, WIDTH)) > 0.9


def test_with_few_wordings_keys_stay_nearly_as_they_are_and_with_none_wholly() -> None:
    few = whitening(wordings(1, 2)[0], WIDTH)
    many = whitening(wordings(60, 8)[0], WIDTH)
    assert np.array_equal(whitening([], WIDTH), np.eye(WIDTH))
    assert np.linalg.cond(few) < 2 < np.linalg.cond(many)
    same = [np.ones((4, WIDTH), dtype=np.float32)]
    assert np.array_equal(whitening(same, WIDTH), np.eye(WIDTH))
