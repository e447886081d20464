"""What good and bad answers weigh against each other in KTO."""

from __future__ import annotations

LEAST, MOST = 1.0, 4 / 3
"""How much the good answers of a set may weigh beside its bad ones, all together (Ethayarajh et al.,
arXiv:2402.01306, equation 8; TRL's trainer holds to the same band)."""
_SPARE = 0.005
"""Weights are written with two digits."""


def imbalance(good: int, bad: int, desirable: float, undesirable: float) -> tuple[str, str] | None:
    """What is out of balance, and the setting that mends it; None where nothing is.

    Args:
        good, bad: training rows.
        desirable, undesirable: what each of them weighs.
    """
    weight = desirable * good / (undesirable * bad) if undesirable and bad else float("inf")
    if LEAST - _SPARE <= weight <= MOST + _SPARE:
        return None
    if good <= bad:
        key, low = "desirable_weight", undesirable * bad / good
        high = low * MOST
    else:
        key, high = "undesirable_weight", desirable * good / bad
        low = high / MOST
    told = (
        f"{good:,} good answers weigh {weight:.2g} times what {bad:,} bad ones do; KTO wants"
        f" {LEAST:g} to {MOST:.2f} times"
    )
    return told, f"--set preference.{key}={low:.2f} (up to {high:.2f})"
