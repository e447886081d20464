"""Optuna without its chatter, and with our errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from loraloom.errors import StoreError, first_line


@contextmanager
def quiet() -> Generator[None]:
    """Optuna's log lines and its warnings about experimental parts are not for the user: what fails comes as an error.

    Raises:
        StoreError: the storage refused.
    """
    from optuna.exceptions import ExperimentalWarning, StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module=r"optuna\..*")
            yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StoreError(
            "the search's storage refused",
            got=cause_line(error),
            need="a disk with room, and a database that no other process holds",
            next="put that right and resume the run: what was written is kept",
        ) from None
    finally:
        logger.setLevel(level)


def cause_line(error: Exception) -> str:
    """What the database said, without the statement that it was asked to run."""
    return first_line(error.__cause__ or error)
