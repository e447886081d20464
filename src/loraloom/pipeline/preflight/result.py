"""What one check says, and how it becomes an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from loraloom.errors import (
    ConfigError,
    DataError,
    LoraloomError,
    MemoryBudgetError,
    ModelError,
    RequestError,
)

Level = Literal["ok", "warn", "fail", "skipped"]
"""`skipped`: it does not apply, or could not be made because another check failed first."""

ERRORS: Mapping[str, type[RequestError]] = {
    "labels": DataError,
    "stop": DataError,
    "template": DataError,
    "targets": ModelError,
    "embeddings": ModelError,
    "memory": MemoryBudgetError,
    "gradients": ModelError,
    "precision": ConfigError,
    "deployment": ConfigError,
}


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        name: which check: "labels".
        what: what was found, in one sentence.
        number: the count or amount that it rests on.
        cause: why it is so, and what would come of it.
        command: one flag or command that mends it (of a check that passed, one worth knowing).
    """

    name: str
    level: Level
    what: str
    number: str | None = None
    cause: str | None = None
    command: str | None = None

    def to_error(self) -> RequestError:
        """The same words as an error, for verbs that refuse to start."""
        got = ": ".join(part for part in (self.number, self.cause) if part)
        return ERRORS.get(self.name, RequestError)(self.what, got=got or None, next=self.command)


def refused(name: str, error: LoraloomError) -> CheckResult:
    """A check that failed because the program already refuses what was asked."""
    what = f"{error.where}: {error.what}" if error.where else error.what
    return CheckResult(
        name, "fail", what, error.got, f"needed: {error.need}" if error.need else None, error.next
    )
