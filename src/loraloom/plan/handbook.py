"""Writes docs/settings.md from the rules, goals, presets and the guides' checklist, so
that the page cannot drift from them.

python -m loraloom.plan.handbook > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loraloom.plan import guides
from loraloom.plan.adjust import Lean
from loraloom.plan.explain import ABOUT, Explanation, explain
from loraloom.plan.goals import GOALS
from loraloom.plan.guides.item import Item
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
ORDER = ("task", "model", "data", "adapter", "training", "search", "limits")


def page() -> str:
    """The whole page, in Markdown."""
    parts = [INTRO, *_goals(), *_presets(), *_settings(), *_checklist()]
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
    yield (
        "`preset: NAME` or `--preset NAME`: what the guides recommend for a situation, where"
        " measurements do not speak against"
    )
    yield "it; where they do, the value is the rule's and its reason says so.\n"
    rows: list[Sequence[str]] = []
    for name, preset in PRESETS.items():
        more = [f"goal {preset.goal}"] if preset.goal != "auto" else []
        more += [f"at most {preset.memory}"] if preset.memory else []
        rows.append((_code(name), preset.says, ", ".join([*more, _bends(preset)]), preset.guide))
    yield _table(("preset", "for", "sets or speaks of", "after"), rows)


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
    if found.guides:
        yield f"- **In the guides:** {', '.join(_mention(item) for item in found.guides)}."
    if found.about.tools:
        yield (
            "- **Defaults elsewhere:**"
            f" {'; '.join(f'{tool} {value}' for tool, value in found.about.tools.items())}."
        )
    yield ""


def _checklist() -> Iterator[str]:
    items = guides.ITEMS
    overruled = sum(item.status == "overruled" for item in items)
    yield "## What the guides recommend\n"
    yield (
        f"Four guides are this project's specification. Of their {len(items)} recommendations, here in"
        " our own words,"
    )
    yield (
        f"{len(items) - overruled} are followed and {overruled} overruled, each of these with its"
        " source.\n"
    )
    for number, title in enumerate(guides.TITLES):
        yield f"### Guide {number}: {title}\n"
        listed = [item for item in items if item.id.startswith(f"{number}.")]
        yield _table(("", "recommends", "", "what we do", "by"), [_row(item) for item in listed])


def _row(item: Item) -> tuple[str, ...]:
    status = f"overruled: {item.overruled}" if item.overruled else "followed"
    by = ", ".join(_by(what) for what in item.by if not what.startswith("test "))
    return (item.id, item.says, status, item.because, by)


def _by(what: str) -> str:
    kind, _, name = what.partition(" ")
    return f"[{name}](#{name.replace('.', '')})" if name in ABOUT else f"{kind} {_code(name)}"


def _mention(item: Item) -> str:
    return f"{item.id} overruled" if item.overruled else item.id


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
