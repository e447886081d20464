"""The Optuna study behind a search: opened without a word, and put in order after a crash."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from loraloom.errors import RequestError, StoreError
from loraloom.search.quiet import cause_line, quiet

SPACE = "space"
ASKED, RESULT = "asked", "result"
"""Attributes of a trial that was handed out: what it is (one mapping, so that it is there whole or not at all), and how it
ended."""
SQLITE_WAIT_SECONDS = 30


def open_study(url: str | None, name: str, space: str, resume: bool = True) -> Study:
    """The study of a name, made if there is none.

    Args:
        url: any SQLAlchemy URL, or None for a study that ends with the process.
        space: a text that is equal for equal spaces: trials of another space would mean nothing here.
        resume: whether to go on with a study of that name; else it is dropped and begun anew.

    Raises:
        RequestError: the URL cannot be understood, or the study was begun with another space.
        StoreError: the database cannot be opened or written.
    """
    with quiet():
        try:
            storage = _storage(url)
            if not resume and name in optuna.get_all_study_names(storage):
                optuna.delete_study(study_name=name, storage=storage)
            study = optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)
            known: str | None = study.user_attrs.get(SPACE)
            if known is None:
                study.set_user_attr(SPACE, space)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise RequestError(
                f"the storage URL `{_shown(url)}` cannot be used",
                got=cause_line(error),
                need="an SQLAlchemy URL with an installed driver, such as sqlite:///runs/loraloom.db",
                next="correct LORALOOM_STORAGE, or unset it",
            ) from None
        except (SQLAlchemyError, StorageInternalError, OSError) as error:
            raise StoreError(
                f"the search cannot be kept in `{_shown(url)}`",
                got=cause_line(error),
                next="check that its folder exists and can be written, and that the disk is not full",
            ) from None
    if known not in (None, space):
        raise RequestError(
            f"the search `{name}` was begun with another search space",
            got=space,
            need=str(known),
            next="give this run another name, or the space that it began with",
        )
    return study


def reconcile(study: Study) -> None:
    """Put trials that were running when the last process ended back in the queue.

    A trial left RUNNING would repel samplers from its surroundings for ever. It is failed, and enqueued anew with the same
    point and attributes; one that was never handed out is only failed.
    """
    with quiet():
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        for trial in handed_out(study).values():
            if trial.state == TrialState.FAIL and RESULT not in trial.user_attrs:
                asked = {**trial.user_attrs[ASKED], "resumed": True}
                study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, ASKED: asked})


def handed_out(study: Study) -> dict[str, FrozenTrial]:
    """The latest Optuna trial of each id that was handed out, by id, in the order of the ids."""
    latest = {str(t.user_attrs[ASKED]["id"]): t for t in study.get_trials(deepcopy=False) if ASKED in t.user_attrs}
    return dict(sorted(latest.items()))


def _storage(url: str | None) -> InMemoryStorage | RDBStorage:
    if url is None:
        return InMemoryStorage()
    if not url.startswith("sqlite"):
        return RDBStorage(url)
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_WAIT_SECONDS}})
    event.listen(storage.engine, "connect", _write_ahead)
    storage.engine.dispose()
    return storage


def _write_ahead(connection: Any, _: object) -> None:
    """Readers may read while one writes, and a commit need not wait for the disk: a crash of the process loses nothing."""
    with suppress(Exception):
        connection.execute("PRAGMA journal_mode=WAL").close()
        connection.execute("PRAGMA synchronous=NORMAL").close()


def _shown(url: str | None) -> str:
    """The URL without what stands before the host: a password has no place in a message."""
    scheme, _, rest = (url or "").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else scheme
