"""Optuna without its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet() -> Generator[None]:
    """Optuna's log lines, from here on, and its warnings about experimental parts are not for the user:
    what fails comes as an error."""
    from optuna.exceptions import ExperimentalWarning

    logger = logging.getLogger("optuna")
    if logger.level != logging.ERROR:
        # Once: each time, all loggers of the process forget which of their lines are wanted, and a
        # search comes here three times a report.
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"optuna\..*")
        yield
