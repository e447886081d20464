"""Directions of texts, to be compared by their cosine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""[items, D], each of length 1."""


def normal(vectors_ND: NDArray[np.float32]) -> Vectors:
    """The same directions, of length 1."""
    return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=-1, keepdims=True), 1e-9)
