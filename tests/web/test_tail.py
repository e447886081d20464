"""A growing file in pieces: whatever the cuts, every whole line comes once, and a file that was cut and
has grown anew is noticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loraloom.web.tail import BATCH_BYTES, Place, Read, holds, place_of, whole_lines

LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), max_size=12)


def reading(content: bytes) -> Read:
    return lambda offset, most: content[offset : offset + most]


def read_all(content: bytes, place: Place, most: int) -> tuple[list[bytes], Place]:
    found: list[bytes] = []
    while True:
        lines, after = whole_lines(reading(content), place, most)
        if after == place:
            return found, place
        found, place = found + lines, after


@given(lines=LINES, cuts=st.lists(st.integers(0, 600)), most=st.integers(1, 64))
def test_every_line_comes_once_however_the_file_grew(
    lines: list[bytes], cuts: list[int], most: int
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    found: list[bytes] = []
    place = Place()
    for size in sorted(cut for cut in cuts if cut < len(content)):
        more, place = read_all(content[:size], place, most)
        found += more
    more, place = read_all(content, place, most)
    assert found + more == lines
    assert place.offset == len(content)
    assert holds(reading(content), place)


@given(lines=LINES, torn=st.binary(min_size=1, max_size=30).filter(lambda text: b"\n" not in text))
def test_a_torn_last_line_waits_until_it_is_whole(lines: list[bytes], torn: bytes) -> None:
    content = b"".join(line + b"\n" for line in lines)
    found, place = read_all(content + torn, Place(), 64)
    assert found == lines
    assert place.offset == len(content)
    # a driver that goes on makes the end whole, or cuts the torn line away
    assert read_all(content + torn + b"!\n", place, 64)[0] == [torn + b"!"]
    assert read_all(content + b"new\n", place, 64)[0] == [b"new"]


@given(
    lines=LINES.filter(bool),
    keep=st.integers(0, 11),
    anew=st.lists(st.integers(0, 9), min_size=1, max_size=30),
)
def test_a_file_that_was_cut_and_has_grown_does_not_pass_for_the_old_one(
    lines: list[bytes], keep: int, anew: list[int]
) -> None:
    old = b"".join(line + b"\n" for line in lines)
    _, place = read_all(old, Place(), 64)
    start = b"".join(line + b"\n" for line in lines[:keep])
    new = start + b"".join(b"at %d\n" % number for number in anew)
    assert holds(reading(new), place) == (new[: place.offset] == old)


def test_a_line_longer_than_a_batch_comes_whole() -> None:
    line = b"x" * (2 * BATCH_BYTES + 7)
    assert whole_lines(reading(line + b"\nshort\n"), Place(), BATCH_BYTES)[0][0] == line


def test_a_place_is_written_and_read() -> None:
    place = Place().after(b"one\ntwo\n")
    assert place_of(str(place)) == place
    for text in (None, "", "12", "zzzzzzzz-1", f"{place}-2", "0" * 8 + "-" + "9" * 30, f" {place}"):
        assert place_of(text) is None
