"""Strategies for data files of every format, from nearly right to hopeless."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from dataclasses import dataclass
from typing import Any

import pyarrow
from fuzz_texts import deep, dumped, garbled, numbers, scalars, texts, values, words
from hypothesis import strategies as st

SUFFIXES = (
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
    ".txt",
    ".jsonl.gz",
    ".csv.zst",
    ".json.xz",
    ".tsv.bz2",
)
COLUMNS = (
    "text",
    "label",
    "sentence",
    "messages",
    "conversations",
    "instruction",
    "input",
    "output",
    "prompt",
    "completion",
    "question",
    "answer",
    "source",
    "target",
    "chosen",
    "rejected",
    "margin",
    "label_text",
    "id",
    "",
)

labels = st.one_of(words, st.integers(0, 3), st.integers(0, 3), scalars, values)
sound_messages = st.builds(
    lambda asked, answer: [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
    texts,
    texts,
)
turns = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(("user", "assistant", "system", "tool")), "content": texts}
    ),
    st.fixed_dictionaries(
        {"from": st.one_of(st.sampled_from(("human", "gpt", "narrator")), values), "value": values}
    ),
    st.fixed_dictionaries(
        {"role": values, "content": values}, optional={"tool_calls": values, "name": values}
    ),
    st.fixed_dictionaries(
        {
            "role": texts,
            "content": st.lists(st.one_of(values, st.fixed_dictionaries({"text": values})), max_size=2),
        }
    ),
    values,
)
messages = st.one_of(sound_messages, st.lists(turns, max_size=4), values)
sides = st.one_of(
    texts, texts, sound_messages, sound_messages.map(lambda talk: talk[1:]), turns, messages
)
preferences = st.one_of(
    st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts}),
    st.fixed_dictionaries({"chosen": sound_messages, "rejected": sound_messages}),
    st.fixed_dictionaries({"prompt": texts, "completion": texts, "label": st.booleans()}),
    st.fixed_dictionaries(
        {"chosen": sides, "rejected": sides},
        optional={"prompt": sides, "margin": values, "system": values, "tools": values},
    ),
    st.fixed_dictionaries(
        {"prompt": sides, "completion": sides, "label": st.one_of(st.booleans(), values)}
    ),
)
rows = st.one_of(
    st.fixed_dictionaries({"text": texts, "label": labels}),
    st.fixed_dictionaries({"text": texts, "label": st.integers(0, 2), "label_text": values}),
    st.fixed_dictionaries({"text": texts}),
    st.fixed_dictionaries({"messages": messages}),
    st.fixed_dictionaries({"conversations": messages}),
    st.fixed_dictionaries(
        {"instruction": texts, "output": texts}, optional={"input": st.one_of(texts, values)}
    ),
    st.fixed_dictionaries({"prompt": texts, "completion": texts}),
    st.fixed_dictionaries({"prompt": messages, "completion": messages}),
    st.fixed_dictionaries({"question": texts, "answer": st.one_of(texts, values)}),
    st.fixed_dictionaries({"source": texts, "target": texts}),
    preferences,
    st.dictionaries(st.one_of(st.sampled_from(COLUMNS), texts), values, max_size=4),
)


@st.composite
def tables(draw: st.DrawFn) -> list[Any]:
    """Rows that are mostly of one form, with strangers among them."""
    form = draw(st.sampled_from(("labels", "text", "chat", "pairs", "preferences", "judged", "any")))
    kind = {
        "labels": st.fixed_dictionaries({"text": words, "label": st.integers(0, 1)}),
        "text": st.fixed_dictionaries({"text": texts}),
        "chat": st.fixed_dictionaries({"messages": sound_messages}),
        "pairs": st.fixed_dictionaries({"prompt": texts, "completion": texts}),
        "preferences": draw(
            st.sampled_from(
                (
                    preferences,
                    st.fixed_dictionaries({"prompt": texts, "chosen": texts, "rejected": texts}),
                    st.fixed_dictionaries({"chosen": texts, "rejected": texts}),
                    st.fixed_dictionaries({"chosen": sound_messages, "rejected": sound_messages}),
                )
            )
        ),
        "judged": st.fixed_dictionaries({"prompt": texts, "completion": texts, "label": st.booleans()}),
        "any": rows,
    }[form]
    made = draw(st.lists(kind, max_size=8)) + draw(st.lists(rows, max_size=1))
    return made * draw(st.sampled_from((1, 1, 2, 40)))


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    lines = [dumped(row, ascii_only=draw(st.booleans())) for row in draw(tables())]
    if draw(st.integers(0, 5)) == 0:
        place = draw(st.integers(0, len(lines)))
        odd = draw(
            st.one_of(
                deep,
                texts,
                st.builds('{{"text": {}, "label": 1}}'.format, deep),
                st.just("1" * 5000),
                st.just('{"text":"' + "x" * 300_000 + '"}'),
            )
        )
        lines.insert(place, odd)
    return (
        draw(st.sampled_from(("\n", "\r\n", "\n\n", "\r"))).join(lines).encode("utf-8", "surrogatepass")
    )


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    made: Any = draw(tables())
    wrapped = draw(st.sampled_from(("list", "list", "data", "object", "odd")))
    if wrapped == "data":
        made = {"data": made, "version": draw(values)}
    elif wrapped == "object":
        made = {str(number): row for number, row in enumerate(made)}
    elif wrapped == "odd":
        return draw(st.one_of(deep, st.builds("[{}, {}]".format, deep, deep), texts)).encode(
            "utf-8", "surrogatepass"
        )
    return json.dumps(made, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def separated(draw: st.DrawFn, separator: str = ",") -> bytes:
    """CSV as spreadsheets, scripts and hands write it."""
    names = draw(
        st.one_of(
            st.just(["text", "label"]),
            st.just(["text"]),
            st.lists(st.one_of(st.sampled_from(COLUMNS), texts), max_size=4),
        )
    )
    cells = st.one_of(texts, words, numbers.map(str))
    lines = draw(
        st.lists(st.lists(cells, min_size=max(0, len(names) - 1), max_size=len(names) + 1), max_size=6)
    )
    whole = draw(st.lists(st.lists(words, min_size=len(names), max_size=len(names)), max_size=6))
    if draw(st.integers(0, 9)) == 0:
        size = draw(st.sampled_from((100, 20_000)))
        names, whole = (
            [*names, *(f"c{i}" for i in range(size))],
            [[*row, *("v" for _ in range(size))] for row in whole[:2]],
        )
    quoted = draw(st.sampled_from(("never", "always", "where needed")))
    end = draw(st.sampled_from(("\n", "\r\n", "\r")))
    text = "".join(
        separator.join(_cell(cell, quoted, separator) for cell in row) + end
        for row in [names, *whole * draw(st.sampled_from((1, 3))), *lines]
    )
    if draw(st.integers(0, 5)) == 0:
        text += draw(
            st.sampled_from(
                (
                    '"',
                    '"open\nfor\never',
                    'a"b",c\n',
                    '"a" b,c\n',
                    '"""\n',
                    "\0,\0\n",
                    "x" * 200_000 + ",1\n",
                )
            )
        )
    return text.encode("utf-8", "surrogatepass")


def _cell(cell: str, quoted: str, separator: str) -> str:
    needed = any(sign in cell for sign in (separator, '"', "\n", "\r"))
    return (
        '"' + cell.replace('"', '""') + '"'
        if quoted == "always" or (quoted == "where needed" and needed)
        else cell
    )


wide = separated().map(lambda content: content.decode("utf-8", "replace").encode("utf-16"))
"""As Excel writes "Unicode text"."""


def parquets() -> st.SearchStrategy[bytes]:
    """Parquet files, all written by the library itself."""
    import pyarrow.parquet as parquet

    return tables_of_types().map(lambda table: _written(table, parquet.write_table))


def arrows() -> st.SearchStrategy[bytes]:
    """Arrow streams, and files with their index at the end."""

    def stream(table: Any, out: Any) -> None:
        with pyarrow.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)

    def file(table: Any, out: Any) -> None:
        with pyarrow.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)

    return st.builds(_written, tables_of_types(), st.sampled_from((stream, file)))


def _written(table: Any, write: Any) -> bytes:
    out = io.BytesIO()
    try:
        write(table, out)
    except pyarrow.ArrowInvalid:
        return b"PAR1PAR1"
    return out.getvalue()


@st.composite
def tables_of_types(draw: st.DrawFn) -> Any:
    """Tables of every type that a column may have, with what `datasets` says of classes."""
    arrow = pyarrow
    size = draw(st.integers(0, 6))
    kinds: dict[str, Any] = {
        "text": arrow.array(draw(st.lists(words, min_size=size, max_size=size)), arrow.string()),
        "large": arrow.array(draw(st.lists(words, min_size=size, max_size=size)), arrow.large_string()),
        "dictionary": arrow.array(
            draw(st.lists(words, min_size=size, max_size=size)), arrow.string()
        ).dictionary_encode(),
        "bytes": arrow.array(
            draw(st.lists(st.binary(max_size=4), min_size=size, max_size=size)), arrow.binary()
        ),
        "whole": arrow.array(
            draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), arrow.int64()
        ),
        "fraction": arrow.array(
            draw(st.lists(st.floats(), min_size=size, max_size=size)), arrow.float64()
        ),
        "nothing": arrow.nulls(size),
        "half": arrow.array([None if i % 2 else "red" for i in range(size)], arrow.string()),
        "time": arrow.array([i * 10**17 for i in range(size)], arrow.timestamp("ns")),
        "date": arrow.array(list(range(size)), arrow.date32()).cast(arrow.date64()),
        "length": arrow.array([2**62] * size, arrow.duration("us")),
        "list": arrow.array([["a", "b"]] * size, arrow.list_(arrow.string())),
        "chat": arrow.array(
            [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]] * size
        ),
        "map": arrow.array([[("role", "user")]] * size, arrow.map_(arrow.string(), arrow.string())),
        "wrong bytes": arrow.array([b"\xff\xfe"] * size, arrow.binary()).view(arrow.string()),
    }
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3))
    columns = [kinds[draw(st.sampled_from(tuple(kinds)))] for _ in names]
    table = arrow.table(columns, names=names)
    if draw(st.booleans()):
        names = draw(st.one_of(st.just(["no", "yes", "maybe", "why"]), values))
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    return table


@dataclass(frozen=True)
class DataFile:
    suffix: str
    content: bytes


def _files() -> st.SearchStrategy[DataFile]:
    sound: dict[str, st.SearchStrategy[bytes]] = {
        ".jsonl": json_lines(),
        ".ndjson": json_lines(),
        ".json": json_files(),
        ".csv": separated(),
        ".tsv": separated("\t"),
        ".parquet": parquets(),
        ".arrow": arrows(),
        ".txt": st.lists(texts, max_size=6).map(
            lambda lines: "\n\n".join(lines).encode("utf-8", "surrogatepass")
        ),
    }
    sound |= {
        ".jsonl.gz": json_lines().map(gzip.compress),
        ".csv.zst": separated(";").map(
            lambda content: pyarrow.Codec("zstd").compress(content, asbytes=True)
        ),
        ".json.xz": json_files().map(lzma.compress),
        ".tsv.bz2": separated("\t").map(bz2.compress),
        ".csv": st.one_of(
            separated(), separated("|"), separated().map(lambda content: b"sep=,\n" + content), wide
        ),
    }
    each = [
        st.builds(DataFile, st.just(suffix), st.one_of(made, garbled(made)))
        for suffix, made in sound.items()
    ]
    return st.one_of(*each, st.builds(DataFile, st.sampled_from(SUFFIXES), st.binary(max_size=80)))


files = _files()
requests = st.lists(
    st.sampled_from(
        (
            "task=causal_lm",
            "task=seq_cls",
            "data.format=text",
            "data.format=messages",
            "data.format=preference",
            "data.format=kto",
            "task=preference",
            "data.format=text_label",
            "data.text_column=text",
            "data.text_column=id",
            "data.label_column=label",
            "data.label_column=id",
            "data.validation=null",
            "data.validation=0.5",
            "data.max_rows=3",
            "data.test=0.2",
        )
    ),
    max_size=2,
    unique_by=lambda request: request.partition("=")[0],
)
"""Keys that say how data are to be read."""
