"""Which linear layers carry an adapter: from "all-linear", "attention", "mlp", "query",
names or a regex to full paths.

The adapter layers take full module paths only, so every pattern is settled here, against the linear
layers that the model really has. One pattern that matches nothing among others that do is an error: PEFT
accepts it, and what was meant to be trained then silently stays frozen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeVar

from loraloom.errors import ModelError
from loraloom.lora.patterns import fault_of

Role = Literal["attention", "mlp", "other", "head", "frozen"]
"""Where a linear layer sits. "head" is an output layer: a language model's, or a classifier's; "frozen"
is one that stays as it is for a reason of its own, a mixture's router for example. Neither takes an
adapter."""
NO_TARGETS: frozenset[Role] = frozenset({"head", "frozen"})

QUERY_NAMES = frozenset({"q_proj", "query", "q", "q_lin", "query_proj", "to_q", "wq"})
FUSED_QUERY_NAMES = frozenset(
    {"c_attn", "query_key_value", "qkv_proj", "Wqkv", "in_proj", "qkv", "att_proj"}
)
Number = TypeVar("Number", int, float)

KEYWORDS = ("all-linear", "attention", "mlp", "query")


class Linear(Protocol):
    """What this file needs to know of one linear layer."""

    @property
    def path(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def why(self) -> str: ...


def resolve_targets(
    linears: Sequence[Linear],
    asked: str | Iterable[str] = "auto",
    *,
    modules_to_save: Sequence[str] = (),
) -> tuple[str, ...]:
    """Full paths of the layers that get an adapter, in the model's order, each once.

    "auto" and "all-linear" take every linear layer outside the heads. That is PEFT's set, less the
    layers that would learn nothing (role "frozen"): an encoder's pretrained pooler belongs to it. A
    single string that names no layer is a regex for the whole path, as in PEFT; in a list each entry may
    be a keyword, a full path, a path's end ("q_proj", "self_attn.q_proj") or a regex.

    Args:
        linears: the model's linear layers.
        asked: a keyword, a name, a regex, or several of them.
        modules_to_save: paths of modules that are trained whole; "all-linear" and the
            roles leave them out.

    Raises:
        ModelError: a pattern matches nothing, matches only an output head, or names a
            module that is trained whole.
    """
    patterns = (asked,) if isinstance(asked, str) else tuple(asked)
    if not patterns:
        raise ModelError(
            "`adapter.target_modules` is empty: no layer would be trained",
            need="a keyword (all-linear, attention, mlp, query), names of modules, or a regex",
            next="leave `adapter.target_modules` out to train every linear layer",
        )
    chosen: set[str] = set()
    for pattern in patterns:
        found = (
            _by_role(linears, pattern, modules_to_save)
            if _is_keyword(pattern)
            else _by_name(linears, pattern, modules_to_save)
        )
        chosen.update(found)
    return tuple(linear.path for linear in linears if linear.path in chosen)


def resolve_pattern(
    paths: Sequence[str], pattern: Mapping[str, Number], *, key: str
) -> dict[str, Number]:
    """`rank_pattern` or `alpha_pattern` by full path: each name or regex must end some
    target's path, the first one counts.

    Args:
        paths: the resolved targets.
        pattern: name or regex of a path's end -> value, as in PEFT.
        key: what the setting is called, for the error.

    Raises:
        ModelError: an entry that no target matches, or that cannot be matched.
    """
    for name in pattern:
        _refuse_fault(
            name,
            paths,
            f"`{key}` names `{name}`, which is neither the end of a target's path nor a regex for it",
        )
    expressions = {name: re.compile(rf"(?:.*\.)?(?:{name})") for name in pattern}
    resolved: dict[str, Number] = {}
    for path in paths:
        name = next(
            (name for name, expression in expressions.items() if expression.fullmatch(path)), None
        )
        if name is not None:
            resolved[path] = pattern[name]
    for name, expression in expressions.items():
        if not any(expression.fullmatch(path) for path in paths):
            names = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in paths))
            raise ModelError(
                f"`{key}` names `{name}`, which is no target; the targets are {names}",
                need="the end of a target's path, or a regex for it",
                next=f"add it to `adapter.target_modules`, or take it out of `{key}`",
            )
    return resolved


def short_label(paths: Iterable[str], linears: Sequence[Linear]) -> str:
    """A name for a set of targets that fits a table: a keyword where one gives the same
    set, else the layers' names."""
    listed = tuple(paths)
    chosen = frozenset(listed)
    for keyword in KEYWORDS:
        if chosen == frozenset(linear.path for linear in linears if _has_role(linear, keyword)):
            return keyword
    names = list(dict.fromkeys(path.rpartition(".")[2] for path in listed))
    return ",".join(names)


def module_names(linears: Iterable[Linear]) -> tuple[str, ...]:
    """The last part of every adaptable layer's path, each once, in the model's order:
    what a user would type."""
    return tuple(dict.fromkeys(_leaf(linear) for linear in linears if linear.role not in NO_TARGETS))


def _is_keyword(pattern: str) -> bool:
    return pattern == "auto" or pattern.lower() in KEYWORDS


def _by_role(linears: Sequence[Linear], keyword: str, whole: Sequence[str]) -> list[str]:
    keyword = "all-linear" if keyword == "auto" else keyword.lower()
    found = [
        linear.path
        for linear in linears
        if _has_role(linear, keyword) and not _inside(linear.path, whole)
    ]
    if found:
        return found
    fused = [name for name in module_names(linears) if name in FUSED_QUERY_NAMES]
    if keyword == "query" and fused:
        raise ModelError(
            "`query` matches nothing: this model computes query, key and value in one layer",
            got=f"the layer {', '.join(fused)}",
            next=f"adapter.target_modules: [{fused[0]}]",
        )
    raise _no_match(keyword, linears)


def _by_name(linears: Sequence[Linear], pattern: str, whole: Sequence[str]) -> list[str]:
    found = [
        linear for linear in linears if linear.path == pattern or linear.path.endswith(f".{pattern}")
    ]
    if not found:
        found = _by_regex(linears, pattern)
    kept = [
        linear for linear in found if linear.role not in NO_TARGETS and not _inside(linear.path, whole)
    ]
    if kept and len(kept) == len(found):
        return [linear.path for linear in kept]
    saved = [linear.path for linear in found if _inside(linear.path, whole)]
    if saved:
        raise ModelError(
            f"`{pattern}` is both a LoRA target and a module that is trained whole",
            got=(
                f"{len(saved)} of its {len(found)} layers lie in `adapter.modules_to_save`, {saved[0]}"
                " first"
            ),
            need="a layer either gets an adapter or is trained whole",
            next="take it out of one of the two",
        )
    frozen = [linear for linear in found if linear.role == "frozen"]
    if frozen:
        raise ModelError(
            f"target `{pattern}` reaches {len(frozen)} layers that stay as they are, {frozen[0].path}"
            " first",
            got=frozen[0].why,
            need=f"layers that can be adapted: this model has {', '.join(module_names(linears))}",
            next="take it out of `adapter.target_modules`, or name paths without them",
        )
    if found:
        raise ModelError(
            f"target `{pattern}` is the output head of this model, which stays as it is",
            got=", ".join(linear.path for linear in found if linear.role == "head"),
            need=f"inner layers: this model has {', '.join(module_names(linears))}",
            next="take it out of `adapter.target_modules`",
        )
    raise _no_match(pattern, linears)


def _by_regex(linears: Sequence[Linear], pattern: str) -> list[Linear]:
    _refuse_fault(
        pattern,
        [linear.path for linear in linears],
        f"target `{pattern}` is neither a module of this model nor a regex",
        need=f"one of {', '.join(module_names(linears))}",
    )
    expression = re.compile(pattern)
    return [linear for linear in linears if expression.fullmatch(linear.path)]


def _refuse_fault(pattern: str, paths: Sequence[str], what: str, need: str | None = None) -> None:
    """Raises ModelError for a regex that is wrong or never ends."""
    fault = fault_of([pattern], paths)
    if fault is not None:
        raise ModelError(what, got=fault, need=need, next="name the layers themselves")


def _has_role(linear: Linear, keyword: str) -> bool:
    if linear.role in NO_TARGETS:
        return False
    if keyword == "query":
        return linear.role == "attention" and _leaf(linear) in QUERY_NAMES
    return keyword == "all-linear" or linear.role == keyword


def _inside(path: str, modules: Sequence[str]) -> bool:
    return any(path == module or path.startswith(f"{module}.") for module in modules)


def _leaf(linear: Linear) -> str:
    return linear.path.rpartition(".")[2]


def _no_match(pattern: str, linears: Sequence[Linear]) -> ModelError:
    names = module_names(linears)
    return ModelError(
        f"target `{pattern}` matches nothing; this model has {', '.join(names) or 'no linear layers'}",
        got=f"0 of {len(linears)} linear layers",
        need="every entry of `adapter.target_modules` must match at least one linear layer",
        next=f"adapter.target_modules: [{', '.join(names[:2])}], or leave it out for all linear layers",
    )
