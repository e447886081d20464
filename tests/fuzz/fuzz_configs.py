"""Strategies for config files and `--set` assignments."""

from __future__ import annotations

import yaml
from fuzz_texts import HUGE_NUMBERS, ODD_TEXTS, deep, dumped, garbled, scalars, texts, values
from hypothesis import strategies as st

from loraloom.config.asked import Config
from loraloom.config.decode import to_plain
from loraloom.config.keys import keys, sections

SOUND = (
    yaml.safe_dump(to_plain(Config())),
    (
        "model: {name_or_path: here, dtype: float32}\ndata: {train: rows.jsonl, validation:"
        " 0.2}\nadapter:\n  r: 8\n  rank_pattern: {q_proj: 4}\ntraining:\n  learning_rate:"
        " 2e-4\nsearch:\n  space:\n    adapter.r: [4, 8]\n    training.learning_rate: {low: 1e-5, high:"
        " 1e-3, log: true}\nlimits: {memory: 12GiB, time: 1h30m}\nname: first\n"
    ),
)

key_names = st.one_of(
    st.sampled_from(tuple(keys())),
    st.sampled_from(tuple(keys())),
    st.sampled_from(tuple(sections())),
    st.builds("search.space.{}".format, st.sampled_from(tuple(keys()))),
    st.builds("adapter.rank_pattern.{}".format, texts),
    texts,
)
flow = st.one_of(
    st.builds(dumped, values),
    st.builds(dumped, scalars, ascii_only=st.just(False)),
    st.builds(yaml.safe_dump, scalars.filter(lambda value: value == value)),
    st.sampled_from(
        (
            *ODD_TEXTS,
            *map(str, HUGE_NUMBERS),
            "[1, 2",
            "{low: 1, high: 0}",
            "{low: 1, high: 2, step: 0}",
            "[*a]",
            "&a [*a]",
        )
    ),
    st.builds("{{low: {}, high: {}, log: {}, step: {}}}".format, scalars, scalars, scalars, scalars),
    st.builds(
        lambda digits, unit: "9" * digits + unit,
        st.integers(1, 400),
        st.sampled_from(("", "GiB", "h", "m", "e9", ".5")),
    ),
    deep,
)
assignments = st.one_of(st.builds("{}={}".format, key_names, flow), texts)


@st.composite
def bombs(draw: st.DrawFn) -> str:
    """A few lines that grow without bound where each alias is followed: the billion laughs."""
    depth, width = draw(st.integers(2, 60)), draw(st.integers(2, 12))
    flavour = draw(st.sampled_from(("list", "mapping", "merge", "itself")))
    if flavour == "itself":
        return draw(
            st.sampled_from(
                (
                    "a: &a [*a]\n",
                    "search: &a {space: *a}\n",
                    "&a adapter: {rank_pattern: &b {x: *b}}\n",
                    "? &k [*k]\n: 1\n",
                )
            )
        )
    lines = ["a0: &a0 " + ("[1]" if flavour == "list" else "{k: 1}")]
    for level in range(1, depth):
        names = [f"*a{level - 1}"] * width
        if flavour == "list":
            body = f"[{', '.join(names)}]"
        elif flavour == "mapping":
            body = "{" + ", ".join(f"k{i}: {name}" for i, name in enumerate(names)) + "}"
        else:
            body = "{<<: [" + ", ".join(names) + f"], k{level}: 1}}"
        lines.append(f"a{level}: &a{level} {body}")
    lines.append(
        f"search: {{space: {{adapter.r: *a{depth - 1}}}}}"
        if draw(st.booleans())
        else f"adapter: {{rank_pattern: *a{depth - 1}}}"
    )
    return "\n".join(lines) + "\n"


@st.composite
def structured(draw: st.DrawFn) -> str:
    """Keys that exist, in a file of the right shape, with any value."""
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 5))):
        name = draw(key_names)
        section, dot, rest = name.partition(".")
        value = draw(flow)
        lines.append(f"{section}: {{{dumped(rest)}: {value}}}" if dot else f"{section}: {value}")
    return "\n".join(lines) + "\n"


files = st.one_of(
    garbled(st.sampled_from(SOUND).map(str.encode)),
    structured().map(lambda text: text.encode("utf-8", "surrogatepass")),
    garbled(structured().map(lambda text: text.encode("utf-8", "surrogatepass"))),
    bombs().map(str.encode),
    garbled(bombs().map(str.encode)),
    deep.map(str.encode),
    st.binary(max_size=60),
    st.builds(
        lambda size: b"adapter: {r: 8}\n# " + b"x" * size, st.sampled_from((10, 300_000, 2_000_000))
    ),
    st.builds(
        lambda size: b"adapter:\n  rank_pattern:\n" + b"".join(b"    m%d: 1\n" % i for i in range(size)),
        st.sampled_from((3, 2000, 200_000)),
    ),
)
