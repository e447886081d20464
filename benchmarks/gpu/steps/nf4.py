"""A base in NF4, against PEFT's own. loraloom loads no quantised base: this step says so, in the place
where it will be measured."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn

from loraloom.plan.engine import QUANTIZATION
from steps.bench import Bench, NotMeasuredError


def measure(bench: Bench) -> None:
    bench.part("K=1 and 16", lambda: refuse(bench))


def refuse(bench: Bench) -> NoReturn:
    """Raises:
    NotMeasuredError: always, with the first reason that holds.
    """
    bench.only_on_cuda()
    if find_spec("bitsandbytes") is None:
        raise NotMeasuredError("bitsandbytes is not installed")
    if "nf4" not in QUANTIZATION:
        raise NotMeasuredError("loraloom loads no quantised base")
    raise NotMeasuredError("this benchmark has no training on a quantised base")
