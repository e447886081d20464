"""Costs row by row, kept beside a trial's adapter, so that candidates can be compared in pairs long
after they were scored."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from loraloom.records import Score
from loraloom.store.disk import disk, write_atomically

FILE_NAME = "scores.npz"


@dataclass(frozen=True)
class RowCosts:
    """Costs of one candidate on one split. Two can be paired where `rows` is the same text.

    Attributes:
        costs: [rows], what the deciding metric's mean is taken of: losses in nats a
            token, or 1 where a row is wrong.
        weights: [rows], each row's share in the mean.
        rows: fingerprint of the rows, in their order.
        clusters: [rows], as in `Score.clusters`; empty where each row is a draw of its own.
    """

    costs: np.ndarray
    weights: np.ndarray
    rows: str
    clusters: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def score(self, split: str, metrics: Mapping[str, float]) -> Score:
        """The score that was kept, with these metrics."""
        parts = (self.costs, self.weights, self.clusters)
        costs, weights, clusters = (tuple(part.tolist()) for part in parts)
        return Score(split, metrics, costs, weights, clusters)


def add_score(folder: Path, score: Score, rows: str) -> None:
    """Keep the row costs of `score` in `folder`, beside those of other splits. float32:
    half the size, and errors of 1e-7.

    Raises:
        StoreError: the disk refuses.
    """
    if not score.costs:
        return
    costs = np.asarray(score.costs, dtype=np.float32)
    weights = np.asarray(score.weights, dtype=np.float32) if score.weights else np.ones_like(costs)
    clusters = np.asarray(score.clusters, dtype=np.int64)
    known = {**read_scores(folder), score.split: RowCosts(costs, weights, rows, clusters)}
    content = BytesIO()
    np.savez_compressed(content, **_arrays(known))  # pyright: ignore[reportArgumentType]
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE_NAME, content.getvalue())


def read_scores(folder: Path) -> dict[str, RowCosts]:
    """Row costs by split; empty where none were kept, or where the file cannot be read:
    they can be done without."""
    try:
        with np.load(folder / FILE_NAME, allow_pickle=False) as file:
            splits = [name.removesuffix(".costs") for name in file.files if name.endswith(".costs")]
            return {
                split: RowCosts(
                    file[f"{split}.costs"],
                    file[f"{split}.weights"],
                    str(file[f"{split}.rows"]),
                    (
                        file[f"{split}.clusters"]
                        if f"{split}.clusters" in file.files
                        else np.zeros(0, dtype=np.int64)
                    ),
                )
                for split in splits
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}


def _arrays(known: Mapping[str, RowCosts]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for split, kept in known.items():
        arrays |= {
            f"{split}.costs": kept.costs,
            f"{split}.weights": kept.weights,
            f"{split}.rows": np.asarray(kept.rows),
        }
        arrays |= {f"{split}.clusters": kept.clusters} if len(kept.clusters) else {}
    return arrays
