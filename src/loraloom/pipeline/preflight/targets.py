"""Is what was meant to be trained trained?"""

from __future__ import annotations

from loraloom.config import names
from loraloom.errors import ModelError
from loraloom.facts.linear import left_out
from loraloom.lora.init import check_init
from loraloom.lora.targets import NO_TARGETS, short_label
from loraloom.pipeline.preflight.result import CheckResult, refused
from loraloom.pipeline.preflight.subject import Subject
from loraloom.plan.planner import candidate

NAME = "targets"


def inspect(subject: Subject) -> CheckResult:
    """A pattern that matches nothing fails, a layer that is to be adapted and trained whole at once, and
    a start for its adapter that a shared base cannot give.

    The planner refuses the first two where it meets them; what a search may ask for is tried here.
    """
    space = subject.config.search.space
    for key, asked in space.items() if isinstance(space, dict) else ():
        if key == names.TARGET_MODULES and isinstance(asked, list):
            for value in asked:  # pyright: ignore[reportUnknownVariableType]
                try:
                    candidate(subject.plan, "check", {key: value})
                except ModelError as error:
                    return refused(NAME, error)
    made = candidate(subject.plan, "check", {}).adapter
    try:
        quantised = subject.plan.values()[names.QUANTIZATION] != "none"
        check_init(made.init_lora_weights, quantised=quantised)
    except ModelError as error:
        return refused(NAME, error)
    linears = subject.facts.model.linears
    adaptable = [linear for linear in linears if linear.role not in NO_TARGETS]
    number = f"{len(made.target_modules)} of {len(adaptable)} linear layers"
    whole = f", {', '.join(made.modules_to_save)} trained whole" if made.modules_to_save else ""
    what = f"every pattern matches: {short_label(made.target_modules, linears)}{whole}"
    if subject.facts.model.experts:
        return CheckResult(
            NAME,
            "warn",
            f"{what}; the experts stay frozen",
            number=f"{number}, {subject.facts.model.experts} experts a layer",
            cause=(
                "the experts are one tensor a layer and their router only chooses: adapters take the"
                " other layers"
            ),
            command="expect less from it, or take a dense model",
        )
    if sentences := left_out(linears, 0):
        return CheckResult(
            NAME,
            "warn",
            f"{what}; {'; '.join(sentences)}",
            number=number,
            command="expect no more of them than of any frozen layer",
        )
    return CheckResult(NAME, "ok", what, number=number)
