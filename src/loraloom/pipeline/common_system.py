"""What every conversation that a run learnt from began with."""

from __future__ import annotations

from pathlib import Path

from loraloom.config.decode import load_config
from loraloom.data.conversation import Conversation
from loraloom.data.forms import conversation
from loraloom.data.sides import answers, as_completions, side
from loraloom.errors import LoraloomError
from loraloom.pipeline.beside import run_around
from loraloom.pipeline.training_rows import training_rows
from loraloom.records import COMPARED


def common_system(folder: Path) -> str | None:
    """The system message of all rows of the run around an adapter; None where they differ, have none, or
    are no longer there."""
    try:
        run = run_around(folder)
        if run is None or not run.config_path.is_file():
            return None
        config = load_config(run.config_path)
        if config.data.train is None:
            return None
        table, recognised = training_rows(config, encoder_decoder=False)
        if recognised.task in COMPARED:
            table = side(table, recognised, answers(recognised)[0])
            recognised = as_completions(recognised)
        if recognised.task != "causal_lm" or recognised.format == "text":
            return None
        found = {_system(conversation(row, recognised)) for row in table.rows}
    except LoraloomError:  # of data that were moved: nothing is known then, and nothing is wrong
        return None
    return found.pop() if len(found) == 1 else None


def _system(talk: Conversation) -> str | None:
    first = talk.messages[0] if talk.messages else {}
    content = first.get("content")
    is_system = first.get("role") in ("system", "developer")
    return content if is_system and isinstance(content, str) and content else None
