"""Tables that fit: whatever the cells, numbers are whole and what matters most is there."""

from __future__ import annotations

import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from loraloom.report.fit import Shown, fitted, shortened, wrapped
from loraloom.report.words import count, duration, gib, number, with_error

WORDS = st.text("abcdefgh-_/", min_size=1, max_size=60)
MEASURED = st.builds(
    with_error, st.floats(-1e7, 1e7), st.one_of(st.just(math.nan), st.floats(1e-9, 1e3))
)
NUMBERS = st.one_of(
    st.builds(number, st.floats(1e-12, 1e12)),
    st.builds(duration, st.floats(0, 1e6)),
    st.builds(gib, st.floats(0, 1e13)),
    st.builds(count, st.integers(0, 10**12)),
    MEASURED,
)


@st.composite
def tables(draw: st.DrawFn) -> list[Shown]:
    """A candidate, its metric and its status, and up to ten columns more."""
    rows = draw(st.integers(0, 6))

    def column(heading: str, cells: st.SearchStrategy[str], rank: int, *, is_number: bool) -> Shown:
        return Shown(
            heading,
            [Text(cell) for cell in draw(st.lists(cells, min_size=rows, max_size=rows))],
            rank,
            is_number,
        )

    statuses = st.sampled_from(["completed", "pruned", "diverged", "interrupted", "failed"])
    made = [
        column("candidate", WORDS, 0, is_number=False),
        column("validation\nloss", MEASURED, 0, is_number=True),
    ]
    for place in range(draw(st.integers(0, 10))):
        is_number = draw(st.booleans())
        made.append(
            column(
                f"h{place}",
                NUMBERS if is_number else WORDS,
                draw(st.integers(1, 9)),
                is_number=is_number,
            )
        )
    return [*made, column("status", statuses, 0, is_number=False)]


def drawn(columns: list[Shown], width: int | None, **more: object) -> str:
    out = io.StringIO()
    Console(file=out, width=width or 10_000, color_system=None).print(
        fitted(columns, width, **more), crop=False
    )  # type: ignore[arg-type]
    return out.getvalue()


@given(tables(), st.integers(60, 200))
def test_numbers_are_whole_no_line_is_too_long_and_what_matters_is_there(
    columns: list[Shown], width: int
) -> None:
    text = drawn(columns, width)
    table, _, told = text.partition("not shown: ")
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    hidden = "".join(told.partition(" (--all")[0].split("\n")).replace(" ", "").split(",")
    for column in columns:
        if column.name in hidden:
            assert column.rank > 0
        elif column.number or column.name == "status":
            assert all(cell.plain in table for cell in column.cells)
    assert "candidate" in table and "status" in table and "loss" in table


@given(tables())
def test_where_there_is_no_width_everything_is_shown_in_one_piece(columns: list[Shown]) -> None:
    text = drawn(columns, None)
    assert "not shown" not in text
    assert all(cell.plain in text for column in columns for cell in column.cells)


@given(tables(), st.integers(60, 200))
def test_what_leaves_would_not_fit_beside_what_matters_more(columns: list[Shown], width: int) -> None:
    text = drawn(columns, width)
    for column in columns:
        alone = [
            other
            for other in columns
            if other.rank == 0 or (other.rank <= column.rank and other is not column)
        ]
        if column.rank and sum(other.least + 2 for other in [*alone, column]) <= width:
            assert f"{column.name}," not in text and f"{column.name} (" not in text


def test_a_long_text_folds_and_loses_nothing() -> None:
    name = "a-name-that-somebody-typed-on-a-friday-evening-and-never-shortened"
    columns = [Shown("name", [Text(name)], number=False), Shown("loss", [Text("0.823 ± 0.027")])]
    rows = drawn(columns, 60).splitlines()[3:]
    assert (
        "".join(row[: row.rindex(" 0.823") if "0.823" in row else None].strip() for row in rows) == name
    )
    assert sum("0.823 ± 0.027" in row for row in rows) == 1


def test_a_note_stands_below_only_where_its_column_is_shown() -> None:
    columns = [
        Shown("name", [Text("x" * 30)], number=False),
        Shown("front", [Text("P M T" * 10)], 3, note="front: what P is"),
    ]
    assert "front: what P is" in drawn(columns, 100)
    narrow = drawn(columns, 60, more="compare first --all")
    assert "what P is" not in narrow and "not shown: front (compare first --all shows them)" in narrow


@pytest.mark.parametrize(
    ("room", "short"),
    [
        (80, "1 row takes 556 MiB of 22.7 GiB without it, at 480 tokens; more would not fit"),
        (60, "1 row takes 556 MiB of 22.7 GiB without it, at 480 tokens"),
        (30, "1 row takes 556 MiB of …"),
        (20, "1 row takes …"),
        (3, ""),
    ],
)
def test_a_reason_ends_with_a_clause_or_between_words_and_keeps_a_number_s_unit(
    room: int, short: str
) -> None:
    assert (
        shortened("1 row takes 556 MiB of 22.7 GiB without it, at 480 tokens; more would not fit", room)
        == short
    )


@given(st.text("abc 019.;:(", max_size=120), st.integers(0, 100))
def test_what_is_shortened_fits(text: str, room: int) -> None:
    short = shortened(text, room)
    assert len(short) <= room or short == text[: len(short)] == ""
    assert text.startswith(short.removesuffix("…").rstrip())


@given(st.lists(st.text("abc019.-/", min_size=1, max_size=90), max_size=12), st.integers(60, 120))
def test_sentences_break_between_words_only(words: list[str], width: int) -> None:
    lines = wrapped(" ".join(words), width).split("\n")
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width or " " not in line for line in lines)
