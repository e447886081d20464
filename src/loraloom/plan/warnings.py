"""What a plan warns of: things that do not stop a run and that its owner should know
before it starts."""

from __future__ import annotations

from collections.abc import Mapping

from loraloom.config import names
from loraloom.config.units import parse_seconds
from loraloom.facts.linear import left_out
from loraloom.plan.case import Case
from loraloom.plan.kto_balance import imbalance
from loraloom.plan.mixture import mixture_warnings
from loraloom.plan.numbers import count
from loraloom.plan.rules.reference import BASE
from loraloom.records import Estimate

LOST_LIMIT = 0.05


def warnings_for(case: Case, forecast: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Sentences, the gravest first."""
    return (*_model(case), *_data(case), *_settings(case), *_limits(case, forecast))


def _model(case: Case) -> list[str]:
    model = case.facts.model
    found: list[str] = []
    if model.weights_problem and model.is_local:
        found.append(f"{model.name_or_path} cannot be trained as it is: {model.weights_problem}")
    if model.experts:
        found.append(
            f"the {model.experts} experts of each layer and their router stay as they are: adapters go"
            " on the other layers"
        )
    found.extend(left_out(model.linears, model.experts))
    return found


def _data(case: Case) -> list[str]:
    data = case.facts.data
    found: list[str] = []
    if not data.measured:
        found.append(
            f"no data was given: {data.rows:,} rows of {data.mean_length:.0f} tokens are assumed"
        )
        return found
    found.extend(data.notes)
    found.extend(mixture_warnings(case))
    length = case.decided.length
    share = max(data.share_above(length), data.supervised_lost)
    if share > LOST_LIMIT and data.format != "text":
        found.append(
            f"up to {share:.0%} of the rows are longer than {length:,} tokens and lose their end: raise"
            " data.max_length"
        )
    if data.rows_left_out:
        why = (
            "have no label"
            if data.task == "seq_cls"
            else "have nothing to learn: an empty text or answer"
        )
        found.append(f"{data.rows_left_out:,} rows {why}, and are left out")
    if data.leaked_rows:
        found.append(
            f"{data.leaked_rows:,} held-out rows are also trained on: scores on them are too good"
        )
    found.extend(f"{sentence}: scores on them are too good" for sentence in data.overlaps)
    if data.repeated_rows > data.rows * 0.05:
        found.append(f"{data.repeated_rows:,} of {data.rows:,} training rows repeat earlier ones")
    if data.judged is not None:
        found.extend(_balance(case, *data.judged))
    if data.label_counts and min(data.label_counts) == 0:
        empty = [
            name for name, rows in zip(data.label_names, data.label_counts, strict=False) if rows == 0
        ]
        found.append(f"no training row has the label {', '.join(empty)}")
    if data.label_counts and data.majority_share > 0.8:
        found.append(
            f"{data.majority_share:.0%} of the rows have one label: accuracy says little, look at the"
            " loss"
        )
    return found


def _balance(case: Case, good: int, bad: int) -> list[str]:
    weights = case.asked.preference
    unfair = imbalance(good, bad, weights.desirable_weight, weights.undesirable_weight)
    return [f"{unfair[0]}: {unfair[1]}"] if unfair else []


def _reference(case: Case) -> list[str]:
    """Of a run that begins with an adapter and is held against something else."""
    initial, held = case.facts.initial, case.decided.get(names.REFERENCE)
    if initial is None or held is None or held.value == initial.place:
        return []
    against = "the bare base" if held.value == BASE else held.value
    return [
        f"candidates are held against {against}: what {initial.place} has learnt counts as drift; usual"
        f" is the model that they begin as ({names.REFERENCE}: auto)"
    ]


def _settings(case: Case) -> list[str]:
    r, width = case.decided.r, case.facts.model.hidden_size
    found = _reference(case)
    if r > width // 2:
        found.append(
            f"r = {r} is more than half the width of the model ({width}): the adapter is hardly low-rank"
        )
    if case.decided.precision == "bf16" and not case.facts.device.bf16_native:
        found.append(f"{case.facts.device.name} emulates bf16, which works but is slow")
    if case.decided.precision == "fp16":
        found.append(
            "a float16 base loses gradients below 6e-8 and overflows above 65,504: watch the first"
            " losses"
        )
    return found


def _limits(case: Case, forecast: Mapping[str, Estimate]) -> list[str]:
    if case.asked.limits.time is None:
        return []
    allowed = parse_seconds(case.asked.limits.time)
    needed = forecast["time"]
    share = case.facts.device.share
    # Only a run that is too long even at the lower end of its forecast is worth a warning.
    if needed.low / share <= allowed:
        return []
    others = f" while others have {1 - share:.0%} of the cores" if share < 1 else ""
    taken = f"{count(needed.value / share)} seconds{others}"
    search = f"{case.decided.trials} candidates take about {taken}"
    return [f"{search}, {count(allowed)} are allowed: some will not finish"]
