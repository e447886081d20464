"""A line asks for something where rows are wrong in its matter, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loraloom.data.diversity import Diversity, SplitDiversity
from loraloom.data.groups import Repeats
from loraloom.data.overlap import Overlap
from loraloom.data.wording import Lacking, Wording
from loraloom.report.diversity import Line, lines_of

LENGTHS = {0: 3, 5: 4, 50: 10, 95: 20, 100: 30}
TRAIN = SplitDiversity(
    1000,
    Repeats(0, 0),
    LENGTHS,
    labels={"good": 520, "bad": 480},
    scripts={"Latin": 1.0},
    sources={"a.jsonl": 1000},
)
TEST = replace(TRAIN, rows=400, labels={"good": 205, "bad": 195}, sources={"b.jsonl": 400})
USUAL = Lacking(400, 40, 0.1, 0.02, 0.02, 80, 0.2)
WELL = Diversity(
    {"train": TRAIN, "test": TEST},
    {"text": Wording(9000, {1: 0.2, 2: 0.7, 3: 0.9}, {1: 0.8, 2: 0.3, 3: 0.1})},
    {"test": USUAL},
    given=frozenset({"test"}),
)


def asked(diversity: Diversity) -> dict[str, Line]:
    return {line.name: line for line in lines_of(diversity) if line.asks}


def of_split(name: str, **changed: object) -> Diversity:
    one = replace(WELL.splits[name], **changed)  # type: ignore[arg-type]
    return replace(WELL, splits={**WELL.splits, name: one})


def test_good_rows_ask_for_nothing() -> None:
    assert not asked(WELL)
    assert len({line.name for line in lines_of(WELL)}) == len(lines_of(WELL))
    assert all(line.found and not line.means for line in lines_of(WELL))


@pytest.mark.parametrize(
    ("name", "sick"),
    [
        ("repeats", of_split("train", repeats=Repeats(60, 0))),
        ("shared", replace(WELL, overlaps=(Overlap("test", "content", "say the same", 20, 400),))),
        ("text", replace(WELL, wording={"text": Wording(9000, {1: 0.1, 2: 0.2, 3: 0.3}, {3: 0.6})})),
        ("lengths", of_split("test", longer=30)),
        ("labels", of_split("train", labels={"good": 950, "bad": 50})),
        ("labels", of_split("test", labels={"good": 300, "bad": 100})),
        ("scripts", of_split("test", scripts={"Latin": 0.9, "Cyrillic": 0.1})),
        ("new in test", replace(WELL, lacking={"test": replace(USUAL, new_words=90)})),
        ("new in test", replace(WELL, lacking={"test": replace(USUAL, new_openings=160)})),
        ("new in test", replace(WELL, lacking={"test": replace(USUAL, new_share=0.05)})),
    ],
)
def test_each_fault_is_told_alone_with_meaning_and_remedy(name: str, sick: Diversity) -> None:
    found = asked(sick)
    assert list(found) == [name]
    assert found[name].means


def test_near_repeats_lead_to_near_deduplication_and_a_drawn_split_is_not_drawn_again() -> None:
    near = asked(of_split("train", repeats=Repeats(0, 80)))["repeats"]
    same = asked(of_split("train", repeats=Repeats(80, 0)))["repeats"]
    assert "deduplicate=near" in near.do and "deduplicate=true" in same.do
    overlap = (Overlap("test", "near", "are nearly the same", 20, 400),)
    drawn = asked(replace(WELL, overlaps=overlap, given=frozenset()))["shared"]
    assert "data.test=0.1" not in drawn.do
