"""One run as pages see it: what changes is told once, and a run that was cut begins anew."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from growing import PLANNED, GrowingRun

from loraloom.records import Event
from loraloom.store.control import Command, append
from loraloom.store.lines import Mark
from loraloom.web.stream import changes
from loraloom.web.tail import Place, place_of
from loraloom.web.view import View


def seen(run: GrowingRun) -> View:
    view = View(run.folder)
    view.refresh()
    return view


def shown(view: View) -> dict[str, Any]:
    return json.loads(view.snapshot())


def test_a_candidate_is_followed_from_its_start_to_its_end(run: GrowingRun) -> None:
    run.start("t000")
    view = seen(run)
    assert shown(view)["pieces"]["row:t000"]["status"] == "running"
    before = view.version
    run.score("t000", 10, 1.25)
    view.refresh()
    row = view.newer(before)["row:t000"]
    assert ("1.250 ± 0.020", "1.25") in row["cells"]
    run.end("t000", "pruned", 10, reason="place 9 of 9")
    view.refresh()
    row = view.newer(before)["row:t000"]
    assert (row["status"], row["reason"], row["role"]) == ("pruned", "place 9 of 9", "default")


def test_what_did_not_change_is_not_told_again(run: GrowingRun) -> None:
    run.start("t000")
    run.start("t001")
    view = seen(run)
    before = view.version
    run.score("t001", 10, 1.25)
    view.refresh()
    assert set(view.newer(before)) == {"row:t001", "head", "forecast"}
    before = view.version
    view.refresh()
    assert view.newer(before) == {}


def test_run_json_tells_what_events_do_not(run: GrowingRun) -> None:
    from dataclasses import replace

    run.start("t000")
    run.score("t000", 10, 1.25)
    view = seen(run)
    run.trials["t000"] = replace(run.trials["t000"], peak_bytes=2**30, trainable_parameters=50_000)
    run.result()
    run.score("t000", 20, 1.15)
    view.refresh()
    cells = [text for text, _ in shown(view)["pieces"]["row:t000"]["cells"]]
    # an event that is newer than run.json counts, and run.json knows more
    assert "1.0 GiB" in cells and "1.150 ± 0.020" in cells


def test_a_killed_run_is_not_shown_as_running(run: GrowingRun) -> None:
    run.start("t000")
    run.result()
    assert shown(seen(run))["pieces"]["head"]["status"] == "running"
    run.close()
    pieces = shown(seen(run))["pieces"]
    head = pieces["head"]
    assert (head["status"], head["alive"]) == ("interrupted", False)
    assert pieces["row:t000"]["status"] == "waiting"
    assert "--resume" in head["resume"]


def test_points_are_those_of_the_events(run: GrowingRun) -> None:
    run.start("t000")
    for step in range(1, 11):
        run.step("t000", step)
    run.score("t000", 10, 1.25)
    view = seen(run)
    points, place = view.points_after(Place())
    assert place == view.place
    assert [point[2] for point in points if point[0] == "train_loss"] == list(range(1, 11))
    assert points[-1] == ["validation_loss", "t000", 10, 10 / PLANNED, 10 / PLANNED, 1.25, 0.02]
    measured, training = shown(view)["figures"]
    assert measured["curves"]["t000"]["value"] == [1.25]
    assert training["curves"]["t000"]["step"] == list(range(1, 11))


def test_a_command_is_asked_and_then_what_an_event_says(run: GrowingRun) -> None:
    run.start("t000")
    append(run.folder, Command("0123456789", "prune", "t000"))
    view = seen(run)
    asked = shown(view)["pieces"]["commands"][0]
    assert (asked["verb"], asked["trial"], asked["state"]) == ("prune", "t000", "asked")
    data = {"uuid": "0123456789", "verb": "prune", "state": "refused", "reason": "too late"}
    run.folder.append(Event("command", step=7, data=data))
    view.refresh()
    told = shown(view)["pieces"]["commands"][0]
    assert (told["state"], told["reason"], told["step"]) == ("refused", "too late", 7)
    # a command about nobody makes no candidate
    run.emit("command", "t999", uuid="x", verb="prune", state="refused", reason="there is none")
    view.refresh()
    assert "row:t999" not in shown(view)["pieces"]


# -- the stream
# ----------------------------------------------------------------------------------------------


async def message(stream: AsyncIterator[bytes]) -> tuple[str, Any, Place | None]:
    """The next message that is no comment: its name, data and place."""
    async for text in stream:
        fields = dict(line.split(": ", 1) for line in text.decode().strip().split("\n") if ": " in line)
        if "data" in fields:
            return fields.get("event", ""), json.loads(fields["data"]), place_of(fields.get("id"))
    raise AssertionError("the stream ended")


def test_a_stream_goes_on_where_its_browser_was(run: GrowingRun) -> None:
    run.start("t000")
    view = seen(run)

    async def listened() -> None:
        begin, version = view.place, view.version
        stream = changes(view, begin, version)
        run.score("t000", 10, 1.25)
        name, data, first = await message(stream)
        assert (name, [point[2] for point in data["points"]]) == ("", [10])
        run.score("t000", 20, 1.15)
        _, data, second = await message(stream)
        assert [point[2] for point in data["points"]] == [20]
        # a server that is new knows no versions, but a place is a place
        again = changes(View(run.folder), first, -1)
        _, data, third = await message(again)
        assert [point[2] for point in data["points"]] == [20] and third == second
        assert "row:t000" in data["pieces"]

    asyncio.run(asyncio.wait_for(listened(), 30))


def test_a_file_that_was_cut_and_has_grown_is_begun_anew(run: GrowingRun) -> None:
    run.start("t000")
    kept = run.folder.log.mark()
    run.score("t000", 10, 1.25)
    view = seen(run)
    assert shown(view)["pieces"]["row:t000"]["steps"] == 10
    place = view.place

    async def listened() -> None:
        stream = changes(view, place, view.version)
        run.folder.log.cut(kept)
        run.seconds += 5.0  # a resumed run does the same again at another time
        run.score("t000", 10, 1.25)
        run.score("t000", 20, 1.15)
        assert (await message(stream))[0] == "again"
        # so it is for a browser that comes back later with the old place
        assert (await message(changes(View(run.folder), place, -1)))[0] == "again"

    asyncio.run(asyncio.wait_for(listened(), 30))
    measured = shown(view)["figures"][0]["curves"]["t000"]
    assert measured["step"] == [10, 20]


def test_a_file_that_was_cut_alone_is_begun_anew(run: GrowingRun) -> None:
    run.start("t000")
    run.score("t000", 10, 1.25)
    view = seen(run)
    run.folder.log.cut(Mark())
    view.refresh()
    assert view.generation == 1
    assert shown(view)["pieces"]["row:t000"] is None


def test_a_torn_line_is_shown_when_it_is_whole(run: GrowingRun) -> None:
    run.start("t000")
    view = seen(run)
    before = view.place
    with run.folder.events_path.open("ab") as file:
        file.write(b'{"kind": "evaluated", "trial": "t000", "step": 10, "at": 1.5, "da')
    view.refresh()
    assert view.place == before
    with run.folder.events_path.open("ab") as file:
        file.write(b'ta": {"split": "validation", "loss": 1.5, "progress": 0.25}}\n')
    view.refresh()
    assert view.place != before
    assert view.points_after(before)[0][0][5] == 1.5


def test_a_row_for_each_worker_says_whom_it_trains(run: GrowingRun) -> None:
    run.emit("workers", w0="core 0", w1="core 1")
    run.start("t000", worker="w0")
    run.start("t001", worker="w1")
    run.start("t002", worker="w1")
    rows = shown(seen(run))["pieces"]["workers"]
    assert [(row["name"], row["place"], row["trials"]) for row in rows] == [
        ("w0", "core 0", ["t000"]),
        ("w1", "core 1", ["t001", "t002"]),
    ]
    assert all(abs(row["heard"] - time.time()) < 60 for row in rows)
    run.emit("pruned", "t002", 5)
    run.emit("workers", w0="core 0", w2="core 1")
    run.emit("running", "t001", 3, worker="w2")
    rows = shown(seen(run))["pieces"]["workers"]
    assert [(row["name"], row["trials"]) for row in rows] == [("w0", ["t000"]), ("w2", ["t001"])]
    run.close()
    assert shown(seen(run))["pieces"]["workers"] == [], "nobody works on a run without a driver"


def test_an_event_of_a_later_release_is_passed_over(run: GrowingRun) -> None:
    run.start("t000")
    run.folder.append(Event("dance", "t000", 3, 1.0, {"steps": "waltz"}))
    run.folder.log.append(b"[1, 2]")
    view = seen(run)
    assert shown(view)["pieces"]["row:t000"]["status"] == "running"
