"""Signals taken while a pack trains: a few numbers a step, a little more at
evaluations, singular values at the end.

Shapes: O features out, D features in, R rank, M modules of equal rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loraloom.diagnose.signals import OF_ANSWERS, ModuleUpdate, Reading
from loraloom.facts.groups import group_names
from loraloom.lora.frozen import dense_weight
from loraloom.lora.layer import lora_scale
from loraloom.lora.transfer import fetch
from loraloom.records import Score
from loraloom.search.compare import mean_cost, paired_difference, standard_error

if TYPE_CHECKING:
    from loraloom.lora.adapter_weights import AdapterWeights
    from loraloom.lora.packed import PackedModel
    from loraloom.train.seat import Seat


class Gauge:
    """Reads the signals of a pack's candidates into their seats.

    Attributes:
        base: the bare base's score on validation, once it was measured.
    """

    def __init__(self, packed: PackedModel, share: str) -> None:
        """`share`: name of the metric that counts what is right."""
        self.packed, self.share = packed, share
        self.base: Score | None = None
        self._weight_norms: dict[str, float] = {}

    def stepped(self, seat: Seat, loss: float, norm: float, rate: float) -> None:
        """An optimiser step is about to be taken."""
        signals = seat.signals
        limit = seat.candidate.training.max_grad_norm
        if math.isfinite(loss) and math.isfinite(norm):
            clipped = 0 < limit < norm
            signals.trace.add(seat.step + 1, loss, norm, clipped, rate)
        else:
            signals.nonfinite += 1

    def scored(self, seat: Seat, score: Score) -> None:
        """An evaluation on validation, before the seat's best is brought up to date."""
        before = seat.best or self.base
        metrics = score.metrics
        gain = None if before is None else paired_difference(before, score)
        seat.signals.readings.append(
            Reading(
                seat.step,
                seat.epoch,
                seat.smoothed_loss or math.nan,
                metrics["loss"],
                metrics["loss_se"],
                metrics[self.share],
                metrics[f"{self.share}_se"],
                mean_cost(score),
                standard_error(score),
                None if gain is None else gain.mean,
                None if gain is None else gain.se,
                **{name: metrics[name] for name in OF_ANSWERS if name in metrics},
            )
        )

    def measure_modules(self, seat: Seat) -> None:
        """What training did to each target layer; nothing where B did not begin at 0."""
        if not seat.adapter.constants:
            layers = self.packed.layers()
            new = [path for path in seat.adapter.spec.target_modules if path not in self._weight_norms]
            norms = [
                dense_weight(getattr(layers[path], "base", layers[path])).float().norm() for path in new
            ]
            self._weight_norms |= {
                path: float(norm) for path, norm in zip(new, fetch(norms), strict=True)
            }
            seat.signals.modules = module_updates(seat.adapter, self._weight_norms)


def first_norms(adapter: AdapterWeights) -> list[Tensor]:
    """Norms of the gradients of all A and of all B."""
    grads = {group: adapter.arena.grads[piece] for group, piece in adapter.arena.slices()}
    nothing = adapter.arena.grads[:0]
    return [grads.get(group, nothing).norm() for group in ("lora_A", "lora_B")]


@torch.no_grad()
def module_updates(
    adapter: AdapterWeights, weight_norms: Mapping[str, float]
) -> dict[str, ModuleUpdate]:
    """The update of each target layer, its size and its spread over directions.

    The singular values of B A [O, D] are those of an R x R matrix: with B^T B = L L^T, they are the
    roots of the eigenvalues of L^T (A A^T) L. Modules of equal rank are done in one batch, in float64 on
    the CPU.

    Weights that are not finite have no modules to tell of.

    Args:
        weight_norms: Frobenius norm of each frozen weight by path.
    """
    (weights,) = fetch([adapter.arena.weights])
    if not bool(torch.isfinite(weights).all()):
        return {}
    a_by_path, b_by_path = pairs(adapter, weights)
    found: dict[str, ModuleUpdate] = {}
    spec = adapter.spec
    squares: dict[str, float] = {}
    for rank in sorted({a.shape[0] for a in a_by_path.values()}):
        paths = [path for path, a in a_by_path.items() if a.shape[0] == rank]
        gram_a_MRR = torch.stack([(a := a_by_path[path].double()) @ a.T for path in paths])
        gram_b_MRR = torch.stack([(b := b_by_path[path].double()).T @ b for path in paths])
        singular_MR = _singular_values(gram_a_MRR, gram_b_MRR)
        for path, values_R, gram_b_RR in zip(paths, singular_MR, gram_b_MRR, strict=True):
            scale = lora_scale(spec.alpha_pattern.get(path, spec.lora_alpha), rank, spec.use_rslora)
            squares[path] = float((scale * values_R).square().sum())
            found[path] = ModuleUpdate(
                r=rank,
                effective_rank=_effective_rank(values_R),
                update=math.sqrt(squares[path]) / max(weight_norms[path], 1e-30),
                energy=0.0,
                b_norm=math.sqrt(max(float(gram_b_RR.trace()), 0.0)),
            )
    total = sum(squares.values()) or 1.0
    groups = group_names(spec.target_modules)
    return {
        path: replace(found[path], energy=squares[path] / total, group=groups[path])
        for path in spec.target_modules
    }


def pairs(adapter: AdapterWeights, weights: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A [R, D] and B [O, R] by path."""
    groups: dict[str, dict[str, Tensor]] = {"lora_A": {}, "lora_B": {}}
    for entry, tensor in adapter.tensors(weights):
        if entry.group in groups:
            groups[entry.group][entry.path] = tensor
    return groups["lora_A"], groups["lora_B"]


def _singular_values(gram_a_MRR: Tensor, gram_b_MRR: Tensor) -> Tensor:
    """Singular values of B A from A A^T and B^T B, [M, R] ascending; both may be singular."""
    values_MR, vectors_MRR = torch.linalg.eigh(gram_b_MRR)
    half_MRR = vectors_MRR * values_MR.clamp(min=0).sqrt()[:, None, :]
    return torch.linalg.eigvalsh(half_MRR.mT @ gram_a_MRR @ half_MRR).clamp(min=0).sqrt()


def _effective_rank(singular_R: Tensor) -> float:
    total = float(singular_R.sum())
    if total <= 0:
        return 0.0
    shares = singular_R / total
    return float(torch.exp(-(shares * torch.log(shares.clamp(min=1e-30))).sum()))
