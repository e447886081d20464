"""Strategies for values and bytes that files should not hold, and sometimes do."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

ODD_TEXTS = (
    "",
    " ",
    "\t",
    "\0",
    "\ufeff",
    "\ud800",
    "\udfff!",
    "\u2028",
    "\x1b[2J",
    "\r",
    "\r\n",
    "\n\n",
    "'",
    '"',
    '"""',
    "`",
    ",",
    ";",
    "\\",
    "{}",
    "[]",
    "null",
    "nan",
    "NaN",
    "Infinity",
    "-inf",
    "1e999",
    "0x10",
    "--5",
    "-",
    "+1",
    "٣",
    "²",
    "true",
    "no",
    "~",
    "<<",
    "*a",
    "&a",
    "!!python/object/apply:os.system [id]",
    "!!int eight",
    "{{ 7*7 }}",
    "{% raw %}",
    "{generation}",
    "${HOME}",
    "%s%n",
    "../../etc/passwd",
    "/dev/zero",
    "~nobody-here/x",
    "~",
    ".",
    "..",
    "C:\\con",
    "con",
    "a/b",
    "a:b:c",
    "<|im_end|>",
    "<eos>",
    "<script>alert(1)</script>",
    "😀",
    "e\u0301" * 30,
    "\u202egnp.exe",
    "user",
    "assistant",
    "auto",
    "all-linear",
    "validation_loss",
)
HUGE_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324)
NOT_NUMBERS = (float("nan"), float("inf"), float("-inf"))

words = st.sampled_from(("the cat", "a dog runs", "red", "blue", "what is it", "four five"))
texts = st.one_of(words, words, st.sampled_from(ODD_TEXTS), st.text(max_size=20))
numbers = st.one_of(
    st.sampled_from(HUGE_NUMBERS), st.sampled_from(NOT_NUMBERS), st.integers(-5, 40), st.floats(0, 2)
)
scalars = st.one_of(texts, numbers, st.booleans(), st.none())
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def nested(depth: int, opening: str = "[", inner: str = "1") -> str:
    """JSON (and YAML) brackets within brackets."""
    closing = {"[": "]", '{"a":': "}"}[opening]
    return opening * depth + inner + closing * depth


deep = st.builds(
    nested, st.sampled_from((3, 90, 300, 900, 5000, 100_000)), st.sampled_from(("[", '{"a":'))
)
"""Text of a value as deep as no reader can follow."""


def dumped(value: Any, *, ascii_only: bool = True) -> str:
    """JSON as Python writes it, NaN and half characters included."""
    return json.dumps(value, ensure_ascii=ascii_only)


ODD_BYTES = (
    b"\0",
    b"\0" * 9,
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\x80",
    b"\r",
    b"\n",
    b"\n\n",
    b'"',
    b'""',
    b"'",
    b",",
    b"\t",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b"&a ",
    b"*a",
    b"<<: ",
    b"- ",
    b"? ",
    b"!!",
    b"|",
    b">",
    b"%",
    b"#",
    b"\\u0000",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"null",
    b"-",
    b"9" * 5000,
    b"[" * 2000,
    b'{"a":' * 2000,
    b"x" * 300_000,
    b"\x1b[31m",
    b"PAR1",
)


@st.composite
def garbled(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """A sound file to which a few accidents happened: cut, doubled, overwritten,
    something odd put in."""
    content = draw(sound)
    for _ in range(draw(st.integers(0, 4))):
        at, size = draw(st.floats(0, 1)), draw(st.integers(0, 20))
        start = int(at * len(content))
        kind = draw(st.sampled_from(("put", "put", "overwrite", "cut out", "cut off", "double")))
        odd = draw(st.one_of(st.sampled_from(ODD_BYTES), st.binary(max_size=4)))
        if kind == "put":
            content = content[:start] + odd + content[start:]
        elif kind == "overwrite":
            content = content[:start] + odd + content[start + len(odd) :]
        elif kind == "cut out":
            content = content[:start] + content[start + size :]
        elif kind == "cut off":
            content = content[:start]
        else:
            content = content[:start] + content[max(0, start - size) : start] * 3 + content[start:]
    return content
