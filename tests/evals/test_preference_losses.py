"""Losses of preferences: what must hold of each, whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loraloom.evals.preference_losses import (
    PAIR_LOSSES,
    Answers,
    Compared,
    kto,
    log_one_minus_exp,
    pair_loss,
)
from loraloom.records import PreferenceSpec

logps = st.floats(-200, -0.01)
betas = st.floats(0.01, 5)
shares = st.floats(0, 0.45)


def of(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def pair(chosen: float, rejected: float, reference: float = -50.0) -> Compared:
    sides = (Answers(of(own), of(reference), of(10.0)) for own in (chosen, rejected))
    return Compared(*sides, of(-chosen / 10))


@given(logps, logps, betas, shares)
def test_robust_is_unbiased_where_its_share_of_pairs_is_swapped(
    chosen: float, rejected: float, beta: float, share: float
) -> None:
    """Chowdhury et al., lemma 3.1: over the noise it is the loss without any."""
    spec = PreferenceSpec(("robust",), beta, label_smoothing=share)
    right, swapped = (pair_loss(pair(*both), spec) for both in ((chosen, rejected), (rejected, chosen)))
    clean = pair_loss(pair(chosen, rejected), PreferenceSpec(beta=beta))
    assert float((1 - share) * right + share * swapped) == pytest.approx(
        float(clean), rel=1e-6, abs=1e-9
    )


@given(logps, st.floats(0.1, 50), betas, st.sampled_from(("sigmoid", "sigmoid_norm", "simpo", "orpo")))
def test_a_larger_margin_never_costs_more(rejected: float, more: float, beta: float, name: str) -> None:
    chosen = min(rejected + more, -0.005)
    spec = PreferenceSpec((name,), beta)  # type: ignore[arg-type]
    left, right = (float(pair_loss(pair(one, rejected), spec)) for one in (rejected, chosen))
    assert right <= left + 1e-9


@given(logps, logps, betas)
def test_losses_add_with_their_weights(chosen: float, rejected: float, beta: float) -> None:
    both = PreferenceSpec(("sigmoid", "sft"), beta, loss_weights=(2.0, 0.5))
    apart = [PAIR_LOSSES[name](pair(chosen, rejected), both) for name in both.loss_type]
    assert float(pair_loss(pair(chosen, rejected), both)) == pytest.approx(
        float(2 * apart[0] + 0.5 * apart[1])
    )


@given(st.floats(-40, -1e-12))
def test_one_minus_a_probability_keeps_its_digits(x: float) -> None:
    assert float(log_one_minus_exp(of(x))) == pytest.approx(
        math.log(-math.expm1(x)), rel=1e-9, abs=1e-15
    )


@pytest.mark.parametrize("x", [0.0, -1e-30, -1e-3, -0.7, -300.0])
def test_orpo_has_a_gradient_at_every_probability(x: float) -> None:
    own = torch.tensor([x], dtype=torch.float32, requires_grad=True)
    log_one_minus_exp(own).sum().backward()
    assert own.grad is not None and bool(torch.isfinite(own.grad).all())


@given(logps, betas, st.floats(0, 20))
def test_kto_weighs_good_against_bad(logp: float, beta: float, kl: float) -> None:
    """What a good answer and a bad one of the same likelihood cost adds to their weight."""
    spec = PreferenceSpec(("kto",), beta, desirable_weight=1.5, undesirable_weight=1.5)
    one = Answers(of(logp, logp), of(-50.0, -50.0), of(9.0, 9.0))
    losses = kto(one, torch.tensor([True, False]), kl, spec)
    assert float(losses.sum()) == pytest.approx(1.5)
    assert (float(losses[0]) < float(losses[1])) == (logp + 50.0 > kl) or math.isclose(logp + 50.0, kl)
