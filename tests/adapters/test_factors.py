"""Sums and cuts of low-rank products, and methods of combining, against dense arithmetic in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloom.adapters.combine import METHODS
from loraloom.adapters.combine.conflicts import cosine, interference
from loraloom.adapters.combine.task import LayerTask
from loraloom.adapters.factors import approximated, concatenated, truncated
from loraloom.adapters.form import Factor

SEEDS = st.integers(0, 10**6)
RANKS = st.integers(1, 5)


def pair(seed: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rank, 9, generator=random), torch.randn(7, rank, generator=random)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, rank=RANKS, kept=RANKS)
def test_truncation_has_the_best_error_of_its_rank(seed: int, rank: int, kept: int) -> None:
    a, b = pair(seed, rank)
    short_a, short_b = truncated(a, b, kept)
    assert short_a.shape[0] == kept == short_b.shape[1]
    values = torch.linalg.svdvals((b @ a).double())
    optimum = float(values[kept:].square().sum().sqrt())
    error = float((b @ a - short_b @ short_a).norm())
    assert error == pytest.approx(optimum, rel=1e-4, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, ranks=st.lists(RANKS, min_size=2, max_size=4))
def test_methods_that_keep_everything_are_the_sum(seed: int, ranks: list[int]) -> None:
    pairs = [pair(seed + i, rank) for i, rank in enumerate(ranks)]
    task = LayerTask("layer", pairs, [1.0] * len(pairs), 7, 1.0, seed)
    total = sum(b @ a for a, b in pairs)
    for method in ("cat", "svd", "dare"):
        a, b = METHODS[method](task)
        torch.testing.assert_close(b @ a, total, rtol=1e-4, atol=1e-4)
    a, b = METHODS["soup"](task)
    torch.testing.assert_close(b @ a, total / len(pairs), rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rank=RANKS, copies=st.integers(2, 4))
def test_equal_updates_agree_in_every_sign(seed: int, rank: int, copies: int) -> None:
    a, b = pair(seed, rank)
    task = LayerTask("layer", [(a, b)] * copies, [1.0] * copies, 7, 1.0, 0)
    for method in ("ties", "knots", "soup"):
        got_a, got_b = METHODS[method](task)
        torch.testing.assert_close(got_b @ got_a, b @ a, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, rank=RANKS, order=st.permutations([0, 1, 2]))
def test_the_order_of_updates_is_immaterial(seed: int, rank: int, order: list[int]) -> None:
    pairs, weights = [pair(seed + i, rank) for i in range(3)], [0.5, 1.0, -2.0]
    tasks = [
        LayerTask("layer", [pairs[i] for i in places], [weights[i] for i in places], 4, 0.6, 0)
        for places in ([0, 1, 2], order)
    ]
    for method in METHODS.keys() - {"dare", "regmean"}:  # what dare drops goes by place
        (a, b), (other_a, other_b) = (METHODS[method](task) for task in tasks)
        torch.testing.assert_close(other_b @ other_a, b @ a, rtol=1e-3, atol=1e-3)


@given(seed=SEEDS, rank=RANKS, other=RANKS)
def test_interference_is_that_of_the_dense_projections(seed: int, rank: int, other: int) -> None:
    (a, b), (a2, b2) = pair(seed, rank), pair(seed + 1, other)
    reads = torch.linalg.pinv(a.double()) @ a.double()
    writes = b.double() @ torch.linalg.pinv(b.double())
    update = (b2 @ a2).double()
    expected = float((writes @ update @ reads).square().sum() / update.square().sum())
    got = interference(Factor("x", a, b, 0.5), Factor("x", a2, b2, 3.0))
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert interference(Factor("x", a, b, 0.5), Factor("x", a, -b, 3.0)) == pytest.approx(1)


@given(seed=SEEDS, rank=RANKS)
def test_cosine_is_that_of_the_dense_updates(seed: int, rank: int) -> None:
    (a, b), (a2, b2) = pair(seed, rank), pair(seed + 1, 3)
    expected = torch.cosine_similarity((b @ a).flatten().double(), (b2 @ a2).flatten().double(), dim=0)
    got = cosine(Factor("x", a, b, 0.5), Factor("x", a2, b2, 3.0))
    assert got == pytest.approx(float(expected), abs=1e-5)


def test_a_large_update_is_approximated_as_well_as_can_be() -> None:
    random = torch.Generator().manual_seed(0)
    dense = torch.randn(700, 600, generator=random) / (1 + torch.arange(600))
    a, b = approximated(dense, 8)
    optimum = float(torch.linalg.svdvals(dense)[8:].square().sum().sqrt())
    assert float((dense - b @ a).norm()) <= 1.001 * optimum
    one, other = concatenated([(a, b), (a, -b)])
    assert float((other @ one).norm()) < 1e-4


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, ranks=st.lists(RANKS, min_size=2, max_size=3))
def test_regmean_keeps_each_update_on_its_own_inputs(seed: int, ranks: list[int]) -> None:
    """Inputs without a direction in common: each is changed as its own adapter does, but for the ridge;
    where all tasks have the same inputs, the mean by weight is left."""
    pairs = [pair(seed + i, rank) for i, rank in enumerate(ranks)]
    weights = [1.0, 2.0, 0.5][: len(pairs)]
    base = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(seed)))[0]
    inputs = [base[:, 3 * i : 3 * i + 3] for i in range(len(pairs))]
    task = LayerTask("layer", pairs, weights, 7, 1.0, 0, [1e6 * x @ x.T for x in inputs])
    a, b = METHODS["regmean"](task)
    for x, (own_a, own_b) in zip(inputs, pairs, strict=True):
        difference = (b @ a).float() @ x - own_b @ own_a @ x
        others = sum(float((c @ d @ x).norm()) for d, c in pairs)
        assert float(difference.norm()) < 0.05 * others
    same = LayerTask("layer", pairs, weights, 7, 1.0, 0, [torch.eye(9)] * len(pairs))
    a, b = METHODS["regmean"](same)
    mean = sum(w * (d @ c) for w, (c, d) in zip(weights, pairs, strict=True)) / sum(weights)
    torch.testing.assert_close((b @ a).float(), mean, rtol=1e-3, atol=1e-4)
