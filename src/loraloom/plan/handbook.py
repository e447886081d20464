"""Writes docs/settings.md from the rules, goals, presets and the list of common advice, so
that the page cannot drift from them.

python -m loraloom.plan.handbook > docs/settings.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from loraloom.plan.adjust import Lean
from loraloom.plan.common_advice import ITEMS, SUBJECTS
from loraloom.plan.common_advice.item import Item, Subject
from loraloom.plan.explain import ABOUT, Explanation, explain
from loraloom.plan.goals import GOALS
from loraloom.plan.presets import PRESETS

INTRO = """\
# Settings

What each setting does, how `loraloom plan` finds a value for it, and what is known. This page is
written by `make docs` from the rules themselves.

For your model and data, `loraloom plan` shows every value with its reason, its source, the range worth
trying and a grade: **A** raw data or code, **B** the text of a paper, **C** a vendor or a second hand,
**M** derived here: try it before you trust it. `loraloom plan --explain r` shows one setting at length,
with the value for your run if you name model and data.

What you set wins over a preset, a preset wins over a goal, and a goal over a rule. `loraloom tune`
starts from the plan and searches round it; the end of `loraloom plan` lists what it may change.
"""
ORDER = ("task", "model", "data", "adapter", "training", "preference", "search", "limits")


def page() -> str:
    """The whole page, in Markdown."""
    parts = [INTRO, *_goals(), *_presets(), *_settings(), *_common_advice()]
    return "\n".join(parts).rstrip() + "\n"


def _goals() -> Iterator[str]:
    yield "## Goals\n"
    yield "`goal: NAME` or `--goal NAME`.\n"
    yield _table(
        ("goal", "leans towards", "changes"),
        [(_code(name), lean.says, _bends(lean)) for name, lean in GOALS.items()],
    )


def _presets() -> Iterator[str]:
    yield "## Presets\n"
    yield "`preset: NAME` or `--preset NAME`: common advice for a situation, where measurements do not"
    yield "speak against it; where they do, the value is the rule's and its reason says so.\n"
    rows: list[Sequence[str]] = []
    for name, preset in PRESETS.items():
        more = [f"goal {preset.goal}"] if preset.goal != "auto" else []
        more += [f"at most {preset.memory}"] if preset.memory else []
        rows.append((_code(name), preset.says, ", ".join([*more, _bends(preset)])))
    yield _table(("preset", "for", "sets or speaks of"), rows)


def _settings() -> Iterator[str]:
    for section in ORDER:
        if section not in ABOUT:
            yield f"## {section}\n"
        for key in sorted(ABOUT):
            if key == section or key.startswith(f"{section}."):
                yield from _setting(explain(key), "##" if key == section else "###")


def _setting(found: Explanation, level: str) -> Iterator[str]:
    yield f"{level} {found.key}\n"
    yield f"{found.about.does} It takes {found.takes}.\n"
    yield f"- **Our rule.** {found.about.rule}"
    yield f"- **What is known.** {found.about.evidence}"
    if found.bent_by:
        yield f"- **May be changed by** {', '.join(found.bent_by)}."
    if found.common_advice:
        yield f"- **Common advice:** {_mention(found.common_advice)}."
    if found.about.tools:
        yield (
            "- **Defaults elsewhere:**"
            f" {'; '.join(f'{tool} {value}' for tool, value in found.about.tools.items())}."
        )
    yield ""


def _mention(items: Sequence[Item]) -> str:
    """How many pieces of advice there are on a setting, and below which headings."""
    told = f"{len(items)} {'piece' if len(items) == 1 else 'pieces'}"
    left = sum(item.status != "followed" for item in items)
    if left:
        told += f", {left} not followed"
    titles = [subject.title for subject in SUBJECTS if any(item in items for item in subject.items)]
    return f"{told}: {', '.join(f'[{title}](#{_anchor(title)})' for title in titles)}"


def _common_advice() -> Iterator[str]:
    overruled, untested = (
        sum(item.status == status for item in ITEMS) for status in ("overruled", "untested")
    )
    yield "## Common advice\n"
    yield "What is recommended for LoRA again and again, in our own words, and what loraloom does with"
    yield f"it. Of {len(ITEMS)} pieces {overruled} are overruled: beside each stands the source that"
    yield f"speaks against it. {untested} more is not followed, though no trial has compared it with"
    yield "what is done instead.\n"
    for subject in SUBJECTS:
        yield from _subject(subject)


def _subject(subject: Subject) -> Iterator[str]:
    yield f"### {subject.title}\n"
    if subject.differs:
        yield f"Common advice differs: {subject.differs}\n"
    yield _table(
        ("advice", "followed", "what loraloom does", "by"), [_row(item) for item in subject.items]
    )


def _row(item: Item) -> tuple[str, ...]:
    followed = {
        "followed": "yes",
        "overruled": f"no: {item.overruled}",
        "untested": "no: not compared",
    }[item.status]
    by = dict.fromkeys(_by(what) for what in item.by if not what.startswith("test "))
    return (item.says, followed, item.because, ", ".join(by))


def _by(what: str) -> str:
    kind, _, name = what.partition(" ")
    return f"[{name}](#{_anchor(name)})" if name in ABOUT else f"{kind} {_code(name)}"


def _anchor(heading: str) -> str:
    """As GitHub calls a heading in an address."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _bends(lean: Lean) -> str:
    return ", ".join(_code(key.rpartition(".")[2]) for key in lean.bends) or "nothing"


def _code(name: str) -> str:
    return f"`{name}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
        + "\n"
    )


if __name__ == "__main__":
    print(page(), end="")
