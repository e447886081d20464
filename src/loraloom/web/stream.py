"""What a page is sent while it is open: server-sent events, one stream a tab."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from loraloom.web.encode import encoded
from loraloom.web.tail import Place, place_of
from loraloom.web.view import View

T = TypeVar("T")

LOOK_SECONDS = 0.15
"""Between two looks at the files of a run."""
BREATH_SECONDS = 0.01
"""Between two batches of a page that has much to catch up with."""
HEARTBEAT_SECONDS = 15.0
"""After which a quiet stream says that it is there, so that a browser that is gone is noticed."""
RETRY = b"retry: 1000\n\n"


READER = ThreadPoolExecutor(1, "reader")
"""Reads files, so that streams are not kept waiting: one thread, since they would share one core."""


async def apart(work: Callable[[], T]) -> T:
    """What `work` gives, done by the reader."""
    return await asyncio.get_running_loop().run_in_executor(READER, work)


async def refreshed(view: View) -> None:
    """Bring a view up to date."""
    if view.looks_new():
        await apart(view.refresh)


async def changes(view: View, place: Place | None, version: int) -> AsyncIterator[bytes]:
    """Messages for a page that has read to `place` and seen `version`, for as long as it listens.

    Each has the place that it stands for as its id, so that a browser which lost the connection goes on
    there. A page whose file was cut is told `again`, and the stream ends: it begins anew.
    """
    yield RETRY
    await refreshed(view)
    if place is None or not view.holds(place):
        yield _message("again")
        return
    generation, told = view.generation, time.monotonic()
    while True:
        await refreshed(view)
        if view.generation != generation:
            yield _message("again")
            return
        points, after = view.points_after(place)
        pieces, newest = view.newer(version), view.version
        if points or pieces:
            yield _message(None, {"points": points, "pieces": pieces}, after)
            told = time.monotonic()
        elif time.monotonic() - told > HEARTBEAT_SECONDS:
            yield b": still here\n\n"
            told = time.monotonic()
        behind, place, version = after != place, after, newest
        await asyncio.sleep(BREATH_SECONDS if behind and place != view.place else LOOK_SECONDS)


def where_to_begin(last_event_id: str | None, asked: str | None) -> Place | None:
    """The place that a browser goes on from: of its last message, else of its snapshot."""
    return place_of(last_event_id) if last_event_id else place_of(asked)


def _message(name: str | None, data: Any = None, place: Place | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    head += f"id: {place}\n" if place else ""
    return head.encode() + b"data: " + encoded(data or {}) + b"\n\n"
