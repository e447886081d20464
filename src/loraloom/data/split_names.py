"""Names that people give to their splits."""

from __future__ import annotations

import re

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "validate", "val", "dev", "eval"),
    "test": ("test", "testing"),
}


def split_of(name: str) -> str | None:
    """The split that a file, folder or key is called after: train-00000-of-00002, my_train, dev,
    test_sft. None for any other name, and for one that names two."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    found = [split for split, names in SPLIT_NAMES.items() if words.intersection(names)]
    return found[0] if len(found) == 1 else None
