"""One setting at length: what it does, how our value is found, what this plan chose,
what is known, what others do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from loraloom.config.asked import Config
from loraloom.config.keys import is_asked, keys, named, nearest
from loraloom.errors import ConfigError, LoraloomError
from loraloom.plan import common_advice, goals, presets, rules
from loraloom.plan.about import About
from loraloom.plan.common_advice.item import Item
from loraloom.plan.planner import Plan, make_plan
from loraloom.records import Advice

ABOUT: Mapping[str, About] = {"goal": goals.ABOUT, "preset": presets.ABOUT, **rules.ABOUT}
"""Every setting that a plan decides, in the order in which it does."""


@dataclass(frozen=True)
class Explanation:
    """What there is to say about one setting."""

    key: str
    takes: str
    """What the config allows: "a whole number or auto"."""
    about: About
    advice: Advice | None
    """This plan's value; None without a model and data, or where its task has no such setting."""
    left_open: Advice | None
    """What the plan would choose, where the user set the value by hand."""
    bent_by: tuple[str, ...]
    """Goals and presets that may change it."""
    common_advice: tuple[Item, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "takes": self.takes,
            **asdict(self.about),
            "advice": asdict(self.advice) if self.advice else None,
            "left_open": asdict(self.left_open) if self.left_open else None,
            "bent_by": list(self.bent_by),
            "common_advice": [{**asdict(item), "status": item.status} for item in self.common_advice],
        }


def explain(name: str, plan: Plan | None = None) -> Explanation:
    """All about the setting that `name` means: a dotted key, its last word, or another
    tool's word for it.

    Raises:
        ConfigError: no rule decides a setting of this name.
    """
    key = named(name, among=ABOUT)
    if key is None:
        guess = nearest(name, among=ABOUT)
        raise ConfigError(
            f"no rule decides `{name}`" + (": it is only yours to set" if name in keys() else ""),
            need=f"one of {', '.join(ABOUT)}",
            next=f"did you mean `{guess}`?" if guess else "loraloom plan shows them all",
        )
    return Explanation(
        key=key,
        takes=takes(key),
        about=ABOUT[key],
        advice=plan.settings.get(key) if plan else None,
        left_open=_left_open(plan, key) if plan else None,
        bent_by=bent_by(key),
        common_advice=common_advice.about(key),
    )


def takes(key: str) -> str:
    """What the config allows for `key`, in words."""
    known = keys()[key]
    return known.need + (f", {known.range.words}" if known.range else "")


def bent_by(key: str) -> tuple[str, ...]:
    """Goals and presets that may change a setting: "goal retain", "preset sentiment"."""
    kinds: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("goal", goals.GOALS),
        ("preset", presets.PRESETS),
    )
    return tuple(
        f"{kind} {name}" for kind, known in kinds for name, lean in known.items() if key in lean.bends
    )


def _left_open(plan: Plan, key: str) -> Advice | None:
    if key in ("goal", "preset") or not is_asked(plan.config, key):
        return None
    try:
        return make_plan(_opened(plan.config, key), plan.facts).settings.get(key)
    except LoraloomError:  # what was set by hand may be the very thing that makes the rest fit
        return None


def _opened(config: Config, key: str) -> Config:
    """The request without its value for `key`."""
    section, _, name = key.rpartition(".")
    default = keys()[key].default
    if not section:
        return replace(config, **{name: default})
    return replace(config, **{section: replace(getattr(config, section), **{name: default})})
