"""The one place where what a device says when it fails, or has no memory left, becomes
an error in our words."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

from loraloom.errors import DeviceError, LoraloomError, first_line
from loraloom.facts.device import held_by_others_now
from loraloom.lora.device_faults import is_device_failure, is_out_of_memory

AGAIN = "run it again; with CUDA_VISIBLE_DEVICES= before the command it runs on the CPU"
"""What to do where there is no run to go on with."""


@contextmanager
def device_errors() -> Generator[None]:
    """Within, and in a function that it decorates, a device that fails is a DeviceError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        told = in_our_words(error)
        if told is None:
            raise
        raise told from error


def in_our_words(error: BaseException, next: str | None = None) -> DeviceError | None:
    """The error of a device with its cause and what to do; None for any other error, ours too.

    Args:
        next: what leads on, such as the command that goes on with the run; None where there is none.
    """
    if isinstance(error, LoraloomError):
        return None
    if is_out_of_memory(error):
        return _out_of_memory(first_line(error), next)
    if is_device_failure(error):
        return _failed(first_line(error), next or AGAIN)
    return None


def _out_of_memory(said: str, next: str | None) -> DeviceError:
    # torch goes on with how its allocator is set; the first two sentences are the fault
    # and the size that was asked for.
    sentences = re.split(r"(?<=\.) (?=[A-Z])", said)[:2]
    others = held_by_others_now()
    return DeviceError(
        "memory ran out, and there was nothing left to make smaller",
        got="; ".join([" ".join(sentences).rstrip("."), *([others] if others else [])]),
        need="more free memory, or a smaller request: loraloom check names the largest batch that fits",
        next=next or (AGAIN if torch.cuda.is_initialized() else "free memory and run it again"),
    )


def _failed(said: str, next: str) -> DeviceError:
    if "no kernel image" in said:
        return DeviceError(
            "this torch has no code for this GPU",
            got=(
                f"{said}; torch {torch.__version__} has code for"
                f" {', '.join(torch.cuda.get_arch_list()) or 'none'}"
            ),
            need="a torch that was built for GPUs of this kind",
            next=next,
        )
    what = "the GPU failed and answers nothing more in this process"
    if "device-side assert" in said:
        need = (
            "token ids and labels that the model has: on the CPU (CUDA_VISIBLE_DEVICES=) the error names"
            " the one that is not"
        )
        return DeviceError(what, got=said, need=need, next=next)
    return DeviceError(
        what,
        got=said,
        need="a GPU that works: nvidia-smi shows its state, dmesg what happened to it",
        next=next,
    )
