"""K-quants, which llama.cpp makes of a file in float32 that is written beside and removed again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from loraloom.adapters.gguf.runtime import FILE_TYPES, available, quantise
from loraloom.adapters.gguf.whole_files import Written, unfinished_file
from loraloom.errors import RequestError


def quantised(write_whole: Callable[[Path], Written], out: Path, kind: str) -> Written:
    """Write a file in one of llama.cpp's formats.

    Args:
        write_whole: writes the model in float32 to a place.

    Raises:
        RequestError: the extra `llama` is missing, or the disk refuses.
        RunError: llama.cpp fails.
    """
    reason = available()
    if reason is not None:
        raise RequestError(
            f"{kind} is written by llama.cpp, which is not here",
            got=reason,
            need=f"the extra `llama`; {', '.join(FILE_TYPES)} need it",
            next='pip install "loraloom[llama]", or Q8_0, which needs nothing more',
        )
    with unfinished_file(out) as partial:
        whole = partial.with_name(f".{out.name}.f32")
        whole.unlink(missing_ok=True)  # of a command that was killed
        try:
            written = write_whole(whole)
            quantise(whole, partial, kind)
        finally:
            whole.unlink(missing_ok=True)
    return replace(written, path=out, kind=kind, bytes=out.stat().st_size)
