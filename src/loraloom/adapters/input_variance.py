"""In how many directions the inputs of a layer vary: what EVA (Paischer et al., arXiv:2410.07170) shares
rank by."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from loraloom.adapters.inputs import read_inputs
from loraloom.data.batches import Batch

TOKENS = 512
"""Of each batch and layer that are looked at, evenly spaced: directions of inputs show in few."""


class RunningComponents:
    """The principal components of rows that come in parts, without any of them being kept.

    Incremental PCA: the components so far, each as long as its singular value, stand for the rows that
    were seen (Ross et al., Incremental learning for robust visual tracking, 2008). Exact where the rows
    have no more directions than `most`.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.rows = 0
        self.squares = 0.0
        self._mean_D = torch.zeros(0)
        self._components_KD = torch.zeros(0, 0)

    def add(self, x_ND: Tensor) -> None:
        """Look at more rows."""
        more = len(x_ND)
        if not more:
            return
        mean_D = x_ND.mean(0)
        parts = [x_ND - mean_D]
        if self.rows:
            shift_D = (self.rows * more / (self.rows + more)) ** 0.5 * (self._mean_D - mean_D)
            parts.append(shift_D[None])
            mean_D = self._mean_D + (mean_D - self._mean_D) * more / (self.rows + more)
        self.squares += float(torch.cat(parts).square().sum())
        if self.rows:
            parts.append(self._components_KD)
        _, values_S, directions_SD = torch.linalg.svd(torch.cat(parts), full_matrices=False)
        self._components_KD = (values_S[:, None] * directions_SD)[: self.most]
        self._mean_D, self.rows = mean_D, self.rows + more

    def explained(self) -> list[float]:
        """The share of all variance that each component has, largest first."""
        if not self.squares > 0:
            return []
        return (self._components_KD.square().sum(1) / self.squares).tolist()


def explained_variance(
    model: nn.Module,
    paths: Iterable[str],
    batches: Iterable[Batch],
    forward: Callable[[Batch], object],
    most: int,
) -> dict[str, list[float]]:
    """Of each layer's inputs over all batches, the share of variance in each of `most` directions."""
    found = {path: RunningComponents(most) for path in paths}

    def add(path: str, x_ND: Tensor) -> None:
        found[path].add(x_ND[:: -(-len(x_ND) // TOKENS)] if len(x_ND) > TOKENS else x_ND)

    read_inputs(model, found, batches, forward, add)
    return {path: components.explained() for path, components in found.items()}
