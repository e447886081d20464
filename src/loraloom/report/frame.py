"""What every page has: one file that opens from disk, asks the network for nothing, and lets no script
run but ours."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from loraloom.report.plots import Figure
from loraloom.store.to_json import plain

TEMPLATES = Path(__file__).parent / "templates"


def drawn(template: str, figures: Sequence[Figure], scripts: Sequence[str], **values: Any) -> str:
    """A page as text. Everything that comes from outside is escaped.

    Args:
        template: name of a file in `templates/`, which extends `frame.html.j2`.
        figures: what page.js draws; plotly.js is in the page where there is one.
        scripts: names of files in `templates/`.
        values: for the template.
    """
    placed = [{**figure, "place": f"plot-{place}"} for place, figure in enumerate(figures, start=1)]
    return (
        environment(TEMPLATES)
        .get_template(template)
        .render(
            figures=plain(placed),
            nonce=secrets.token_urlsafe(16),
            plotly=_plotly(),
            css=_own_file("page.css"),
            js=Markup("\n").join(_own_file(name) for name in scripts),
            **values,
        )
    )


@cache
def environment(folder: Path) -> Environment:
    """The templates in a folder. Everything that they are given is escaped."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _own_file(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from plotly.offline import (
        get_plotlyjs,
    )  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    # A closing tag inside the library's strings would end the script early.
    return Markup(re.sub(r"</(?=script)", r"<\\/", str(get_plotlyjs()), flags=re.IGNORECASE))  # pyright: ignore[reportUnknownArgumentType]
