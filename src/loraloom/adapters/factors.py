"""Sums of low-rank products without the dense matrix: two QRs and an SVD of a small core are exact.

    B A = Q_b (R_b R_a^T) Q_a^T        with  B = Q_b R_b  and  A^T = Q_a R_a

(Golub and Van Loan, Matrix Computations, 5.2 and 8.6.) Shapes as in `form`; S singular values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""A [R, D] and B [O, R] of a product B A."""
FULL = 1 - 1e-12
"""A share of the energy that counts as all of it in float64."""

LARGEST_EXACT = 512
"""Rows or columns up to which a dense update is decomposed exactly."""
SPARE_DIRECTIONS = 16
"""Looked for beside those that are kept, so that the last ones are right too."""


def concatenated(pairs: Sequence[Pair]) -> Pair:
    """One product (A, B) that is the sum of several: the As one above the other, the Bs side by side."""
    return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], 1)


def product_svd(a_RD: Tensor, b_OR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U [O, S], singular values [S] and V^T [S, D] of B A, in float64, largest first."""
    qb_OS, rb = torch.linalg.qr(b_OR.to(torch.float64))
    qa_DS, ra = torch.linalg.qr(a_RD.to(torch.float64).T)
    u, values_S, vt = torch.linalg.svd(rb @ ra.T, full_matrices=False)
    return qb_OS @ u, values_S, vt @ qa_DS.T


def truncated(a_RD: Tensor, b_OR: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best (A, B) of a rank, each with the root of the singular values, in float32.

    No other product of this rank is nearer in the Frobenius norm (Eckart and Young, 1936). A product of
    a smaller rank is filled up with zeros.
    """
    u, values_S, vt = product_svd(a_RD, b_OR)
    root_S = values_S[:rank].sqrt()
    missing = max(0, rank - len(root_S))
    a = torch.nn.functional.pad(root_S[:, None] * vt[:rank], (0, 0, 0, missing))
    b = torch.nn.functional.pad(u[:, :rank] * root_S, (0, missing))
    return a.to(torch.float32), b.to(torch.float32)


def product_norm(pairs: Sequence[Pair]) -> float:
    """|sum of B A|, Frobenius, in float64; 0 of no products."""
    return float(singular_values(*concatenated(pairs)).norm()) if pairs else 0.0


def difference_norm(pairs: Sequence[Pair], others: Sequence[Pair]) -> float:
    """|sum of B A - sum of the others' B A|, without what the two have in common taken away in between:
    no digits are lost."""
    return product_norm([*pairs, *((a, -b) for a, b in others)])


def singular_values(a_RD: Tensor, b_OR: Tensor) -> Tensor:
    """Of B A, largest first, in float64."""
    return product_svd(a_RD, b_OR)[1]


def effective_rank(values_S: Tensor) -> float:
    """How many directions an update has, weighed by their share: exp of the entropy of the singular
    values (Roy and Vetterli, The effective rank, 2007). 0 for no update at all."""
    total = values_S.sum()
    if not total > 0:
        return 0.0
    share_S = values_S / total
    return float(torch.exp(torch.special.entr(share_S).sum()))


def rank_for_energy(values_S: Tensor, share: float) -> int:
    """The smallest rank that keeps this share of the sum of squared singular values; at least 1."""
    energy_S = values_S.square().cumsum(0)
    if not energy_S[-1] > 0:
        return 1
    enough = energy_S >= min(share, FULL) * energy_S[-1]
    return int(enough.to(torch.int64).argmax()) + 1


def rank_for_ratio(values_S: Tensor, ratio: float) -> int:
    """How many singular values are at least this share of the largest; at least 1."""
    return max(1, int((values_S >= ratio * values_S[0]).sum()))


def least_error(pairs: Sequence[Pair], rank: int) -> float:
    """|sum - best product of a rank|, Frobenius (Eckart and Young, 1936)."""
    return float(singular_values(*concatenated(pairs))[rank:].norm()) if pairs else 0.0


def approximated(dense_OD: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best (A, B) of a rank for a dense update, in float32.

    Exact for small matrices; else by a randomised range (Halko, Martinsson and Tropp, arXiv:0909.4061),
    within 1.0001 of the optimum's error, with a seed of its own.
    """
    smaller = min(dense_OD.shape)
    kept = min(rank, smaller)
    if smaller <= LARGEST_EXACT or kept + SPARE_DIRECTIONS >= smaller:
        u, values_S, vt = torch.linalg.svd(dense_OD.to(torch.float64), full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, values_S, v = torch.svd_lowrank(dense_OD, kept + SPARE_DIRECTIONS, niter=4)
        vt = v.T
    root_S = values_S[:kept].sqrt()
    missing = rank - kept
    a = torch.nn.functional.pad(root_S[:, None] * vt[:kept], (0, 0, 0, missing))
    b = torch.nn.functional.pad(u[:, :kept] * root_S, (0, missing))
    return a.to(torch.float32), b.to(torch.float32)
