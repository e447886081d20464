"""Names of runs: which ones can be a folder on every system, and readable ones for runs
that were given none; and the name of this machine."""

from __future__ import annotations

import re
import secrets
import socket
from pathlib import Path

from loraloom.errors import RequestError

DATABASE_NAME = "loraloom.db"
LONGEST_NAME = 100
NAME = re.compile(r"\w(?:[\w.+=@-]*[\w+=@-])?")

TINTS = (
    "amber ashen azure coral cream dusky ebony fawn hazel indigo ivory jade "
    "linen maple ochre olive pearl plum rose ruby sable sage teal umber"
)
WEAVES = (
    "bobbin braid cord damask felt fringe heddle hem jersey knot lace linnet "
    "loom muslin ribbon satin selvage shuttle spindle tapestry thread tweed twill weft"
)


def check_name(name: str) -> None:
    """Refuse a name that cannot be one folder on every system: separators, traversal,
    hidden names, the database's name.

    Raises:
        RequestError: with a name that would do.
    """
    if (
        NAME.fullmatch(name)
        and len(name.encode("utf-8", "replace")) <= LONGEST_NAME
        and not name.startswith(DATABASE_NAME)
    ):
        return
    raise RequestError(
        f"`{name}` cannot be the name of a folder",
        need=(
            f"letters, digits and . _ + = @ -, at most {LONGEST_NAME} bytes, not . or - first, not"
            f" {DATABASE_NAME}"
        ),
        next=f"try {_mended_name(name)}",
    )


def this_host() -> str:
    """What this machine calls itself."""
    return socket.gethostname() or "localhost"


def invented_name() -> str:
    """A readable name: "amber-loom-07"."""
    # From the system's own randomness: the seed of a run must not decide its name, nor
    # the name move the seed.
    return (
        f"{secrets.choice(TINTS.split())}-{secrets.choice(WEAVES.split())}-{secrets.randbelow(100):02d}"
    )


def free_name(root: Path, name: str) -> str:
    """`name` with the first number behind it that `root` has no entry for."""
    number = 2
    while (root / f"{name}-{number}").exists():
        number += 1
    return f"{name}-{number}"


def _mended_name(name: str) -> str:
    cleaned = re.sub(r"[^\w+=@-]+", "-", name, flags=re.ASCII).strip("-+=@")[: LONGEST_NAME // 2]
    return cleaned if NAME.fullmatch(cleaned) else invented_name()
