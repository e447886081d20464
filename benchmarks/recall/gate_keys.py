"""A map of keys that was tried and is not in loraloom: beside the cosine of words it finds no more.

Linear discriminant analysis with a class for each item, in closed form: directions in which the wordings
of an item differ are shrunk by their standard deviation there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def whitening(wordings: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """The map, [D, D], symmetric: rows are multiplied by it from the right.

    The covariance within items is shrunk to a multiple of the identity, which counts as much as D
    wordings do: with few wordings directions stay as they are, and with none the map is the identity.

    Args:
        wordings: hidden states of the wordings of each item, [wordings, D].
        width: D.
    """
    apart = [vectors - vectors.mean(0) for vectors in wordings if len(vectors) > 1]
    if not apart:
        return np.eye(width, dtype=np.float32)
    within_ND = np.concatenate(apart).astype(np.float64)
    freedom = len(within_ND) - len(apart)
    covariance_DD = within_ND.T @ within_ND / freedom
    variance = np.trace(covariance_DD) / width
    if not variance > 0:
        return np.eye(width, dtype=np.float32)
    trust = freedom / (freedom + width)
    shrunk_DD = trust * covariance_DD + (1 - trust) * variance * np.eye(width)
    values_D, directions_DD = np.linalg.eigh(shrunk_DD / variance)
    return ((directions_DD / np.sqrt(values_D)) @ directions_DD.T).astype(np.float32)
