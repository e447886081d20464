"""Groups of linear layers: attention or MLP, and in which third of the model's depth. Told from the
layers' paths alone."""

from __future__ import annotations

from collections.abc import Iterable

from loraloom.facts.linear import role_of

THIRDS = ("first", "middle", "last")


def thirds(paths: Iterable[str]) -> dict[str, str]:
    """The third of its stack's depth that each layer lies in.

    A stack is what shares the path before the first number ("model.layers"; of a seq2seq model encoder
    and decoder each have their own). Layers in no stack, or in one of fewer than three blocks, are left
    out.
    """
    blocks: dict[str, tuple[str, int]] = {}
    for path in paths:
        parts = path.split(".")
        place = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        if place is not None:
            blocks[path] = ".".join(parts[:place]), int(parts[place])
    depths: dict[str, set[int]] = {}
    for stack, number in blocks.values():
        depths.setdefault(stack, set()).add(number)
    found: dict[str, str] = {}
    for path, (stack, number) in blocks.items():
        numbers = sorted(depths[stack])
        if len(numbers) >= len(THIRDS):
            found[path] = THIRDS[len(THIRDS) * numbers.index(number) // len(numbers)]
    return found


def group_names(paths: Iterable[str]) -> dict[str, str]:
    """What to call the group of each layer: "attention, first third", or "attention" alone where there
    are no thirds."""
    listed = tuple(paths)
    third = thirds(listed)
    return {
        path: f"{role_of(path)}, {third[path]} third" if path in third else role_of(path)
        for path in listed
    }
