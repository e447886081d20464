"""The live page in a real Chromium: what a person sees, presses and is told."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from growing import GrowingRun
from served import serving

from loraloom.records import Event, Finding
from loraloom.store import control

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: pip install 'loraloom[dev]'"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs a Chromium: apt install chromium", allow_module_level=True)

EVIL = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
SOON = 60.0
"""Seconds that a busy machine may take."""
Serve = Callable[..., str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Tab:
    """A tab that remembers whatever goes wrong in it."""

    def __init__(self, context: Any, address: str) -> None:
        self.home = address.partition("/?")[0]
        self.page = context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)
        self.page.goto(address)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.home, "data:", "blob:")):
            self.faults.append(f"asked the network: {request.url}")

    def show(self, path: str) -> Any:
        self.page.goto(self.home + path)
        return self.page

    def see(self, selector: str, text: str) -> Any:
        found = self.page.locator(selector).filter(has_text=text).first
        found.wait_for(timeout=SOON * 1000)
        return found

    def drawn(self, figure: int = 0) -> dict[str, list[float]]:
        """What plotly has drawn of each candidate in a figure."""
        script = (
            "place => { const plot = document.querySelectorAll('.plot')[place];"
            " const own = (plot?.data || []).filter((trace) => trace.mode !== 'markers');"
            " return Object.fromEntries(own.map((trace) => [trace.name, trace.y])); }"
        )
        return self.page.evaluate(script, figure)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that a locator cannot see: the policy lets no text run as a script."""
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def open_tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Open the printed address; each tab must end without a fault in its console."""
    tabs: list[Tab] = []
    contexts: list[Any] = []

    def opened(address: str, beside: Tab | None = None, **options: Any) -> Tab:
        if beside is None:
            contexts.append(browser.new_context(**options))
        tabs.append(Tab(beside.page.context if beside else contexts[-1], address))
        return tabs[-1]

    yield opened
    faults = [fault for tab in tabs for fault in tab.faults]
    for context in contexts:
        context.close()
    assert faults == []


def grow(run: GrowingRun, trials: int = 3) -> None:
    """A few candidates, one of them pruned by the search."""
    for number in range(trials):
        run.start(f"t{number:03d}", **{"training.learning_rate": 1e-4 * (1 + number)})
    for step in (5, 10):
        for number in range(trials):
            run.step(f"t{number:03d}", step)
            run.score(f"t{number:03d}", step, 2.0 - 0.02 * step + 0.1 * number)
    run.end(f"t{trials - 1:03d}", "pruned", 10, reason="place 3 of 3")


def test_a_run_grows_on_the_screen_point_by_point(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    tab = open_tab(serve(root))
    tab.see("tr", "first").get_by_role("link").click()
    tab.see("#counts", "No candidate has begun yet.")
    grow(run)
    for step in (15, 20):
        for trial in ("t000", "t001"):
            run.step(trial, step)
            run.score(trial, step, 1.5)
    run.score("t001", 25, 1.4)
    tab.see("tr", "1.400 ± 0.020")
    tab.see("tr[data-trial=t002]", "pruned")
    tab.see("tr[data-trial=t001]", "running")
    until(lambda: sum(map(len, tab.drawn().values())) == 2 + 4 + 5)
    assert tab.drawn()["t001"][-2:] == [1.5, 1.4]
    until(lambda: sum(map(len, tab.drawn(1).values())) == 2 + 4 + 4)


def test_points_that_are_drawn_are_those_of_the_events(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    run.start("t000")
    tab = open_tab(serve(root))
    tab.show("/runs/first")
    tab.see("tr", "t000")
    losses = [round(2.0 - 0.01 * step, 3) for step in range(1, 27)]
    for step, loss in enumerate(losses, 1):
        run.score("t000", step, loss)
        time.sleep(0.02)
    until(lambda: len(tab.drawn().get("t000", [])) == len(losses))
    assert tab.drawn()["t000"] == losses


@pytest.mark.long
def test_very_many_candidates_are_all_drawn_and_a_row_shows_its_own_curve(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    names = [f"t{number:03d}" for number in range(150)]
    for name in names:
        run.start(name)
        for step in (5, 10):
            run.score(name, step, 1.5)
        run.end(name, "pruned", 10)
    run.result(default=None)
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    tab.see("#all", "Show all 150 candidates")
    assert page.locator("tr[data-trial]").count() == 100
    paths = "document.querySelector('.plot')?.layout?.shapes?.map((shape) => shape.path || '') || []"
    until(lambda: [path.count("M") for path in page.evaluate(paths)][:2] == [150, 300])
    page.locator("tr[data-trial=t003]").hover()
    until(lambda: tab.drawn() == {"t003": [1.5, 1.5]})
    page.locator("#all").click()
    assert page.locator("tr[data-trial]").count() == 150


def test_a_hostile_run_is_text(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    run.start("t000", **{"adapter.target_modules": EVIL})
    run.score("t000", 5, 1.5)
    run.emit("note", text=EVIL)
    run.end("t000", "pruned", 5, reason=EVIL)
    finding = Finding("bad", "fault", EVIL, EVIL, EVIL)
    run.trials["t000"] = replace(run.trials["t000"], findings=(finding,))
    run.result(model=EVIL, notes=[EVIL])
    tab = open_tab(serve(root))
    tab.see("tr", "first")
    tab.show("/runs/first")
    tab.see(".finding", EVIL)
    tab.see("#notes", EVIL)
    tab.see("#line", EVIL)
    tab.page.get_by_role("button", name="t000: settings").click()
    tab.see("dialog", EVIL)
    until(lambda: len(tab.drawn()) == 1)
    assert tab.page.evaluate("window.hurt") is None


def test_prune_by_button_is_asked_and_then_applied_in_every_tab(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    grow(run)
    address = serve(root)
    here = open_tab(address)
    there = open_tab(address, beside=here)
    for tab in (here, there):
        tab.show("/runs/first")
        tab.see("tr", "t001")
    here.page.get_by_role("button", name="Prune t001").click()
    here.page.get_by_role("dialog").get_by_role("button", name="Prune t001").click()
    for tab in (here, there):
        tab.see("tr[data-trial=t001]", "prune asked")
        tab.see("#commands li", "asked")
    (asked,) = control.commands(run.folder)
    assert (asked.verb, asked.trial) == ("prune", "t001")
    told = {"uuid": asked.uuid, "verb": "prune", "state": "applied", "reason": None}
    run.folder.append(Event("command", step=11, data=told))
    run.end("t001", "pruned", 11, reason="by hand")
    for tab in (here, there):
        tab.see("#commands li", "applied")
        tab.see("tr[data-trial=t001]", "pruned")
        assert tab.page.get_by_role("button", name="Prune t001").count() == 0


def test_clone_extend_note_and_stop_come_as_they_were_asked(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    grow(run)
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    tab.see("tr", "t000")
    page.get_by_role("button", name="Clone t000").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("learning rate").fill("not a number")
    dialog.get_by_role("button", name="Clone t000").click()
    tab.see("dialog .error", "must be a number")
    dialog.get_by_label("learning rate").fill("3e-4")
    dialog.get_by_label("best weights").check()
    dialog.get_by_role("button", name="Clone t000").click()
    tab.see("#commands li", "Clone")
    page.get_by_role("button", name="Add candidates").click()
    dialog.get_by_label("how many more").fill("3")
    dialog.get_by_role("button", name="Add candidates").click()
    tab.see("#commands li", "trials 3")
    page.get_by_role("button", name="Write a note").click()
    dialog.get_by_label("note").fill("looks <b>good</b>")
    dialog.get_by_role("button", name="Keep it").click()
    tab.see("#commands li", "looks <b>good</b>")
    page.get_by_role("button", name="Stop the run").click()
    dialog.get_by_role("button", name="Stop the run").click()
    tab.see("#commands li", "Stop the run")
    asked = [(one.verb, one.trial, dict(one.changes), one.text) for one in control.commands(run.folder)]
    assert asked == [
        ("clone", "t000", {"training.learning_rate": "3e-4", "warm": True}, None),
        ("extend", None, {"trials": 3}, None),
        ("note", None, {}, "looks <b>good</b>"),
        ("stop", None, {}, None),
    ]
    tab.faults.clear()  # the refusal of "not a number" stands in the console


@pytest.mark.long
def test_a_run_whose_driver_is_gone_offers_what_lets_it_go_on(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    grow(run)
    run.result()
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    page.get_by_role("button", name="Stop the run").wait_for()
    run.close()
    tab.see("#resume", "loraloom tune --resume")
    assert page.get_by_role("button", name="Stop the run").count() == 0
    assert page.get_by_role("button", name="Prune t000").count() == 0


def test_a_full_disk_is_told_and_nothing_is_left_of_the_command(
    run: GrowingRun,
    root: Path,
    serve: Serve,
    open_tab: Callable[..., Tab],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grow(run)
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    page.get_by_role("button", name="Prune t000").click()

    def full(handle: int, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(control, "_append", full)
    page.get_by_role("dialog").get_by_role("button", name="Prune t000").click()
    tab.see("dialog .error", "the disk is full")
    assert control.commands(run.folder) == []
    tab.faults.clear()  # a refusal stands in the console


def test_a_file_that_was_cut_and_has_grown_is_drawn_anew(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    run.start("t000")
    kept = run.folder.log.mark()
    for step in (5, 10, 15):
        run.score("t000", step, 1.5)
    tab = open_tab(serve(root))
    tab.show("/runs/first")
    until(lambda: tab.drawn().get("t000") == [1.5, 1.5, 1.5])
    run.folder.log.cut(kept)
    run.seconds += 5.0
    for step in (5, 10, 15, 20):
        run.score("t000", step, 1.25)
    until(lambda: tab.drawn().get("t000") == [1.25, 1.25, 1.25, 1.25])


@pytest.mark.long
def test_a_page_goes_on_when_its_server_was_restarted(
    run: GrowingRun, root: Path, open_tab: Callable[..., Tab]
) -> None:
    run.start("t000")
    run.score("t000", 5, 1.5)
    with serving(root) as address:
        tab = open_tab(address)
        tab.show("/runs/first")
        until(lambda: tab.drawn().get("t000") == [1.5])
    run.score("t000", 10, 1.4)
    tab.see("#link", "does not answer")
    with serving(root, port=int(address.split(":")[2].partition("/")[0])):
        run.score("t000", 15, 1.3)
        tab.see("#link", "live")
        until(lambda: tab.drawn().get("t000") == [1.5, 1.4, 1.3])
    tab.faults.clear()  # a lost connection stands in the console


@pytest.mark.long
def test_nobody_is_sent_anything_while_the_page_is_hidden(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    run.start("t000")
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    tab.see("#link", "live")
    hide = (
        "on => { Object.defineProperty(document, 'hidden', { value: on, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    page.evaluate(hide, True)
    assert page.evaluate("source === null")
    run.score("t000", 5, 1.5)
    page.evaluate(hide, False)
    until(lambda: tab.drawn().get("t000") == [1.5])


def test_a_page_of_another_origin_changes_and_reads_nothing(
    run: GrowingRun, root: Path, serve: Serve, browser: Any, tmp_path: Path
) -> None:
    run.start("t000")
    address = serve(root)
    home = address.partition("/?")[0]
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>evil</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    evil = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=evil.serve_forever, daemon=True).start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(address)  # this browser is let in, and then looks at another page
    page.goto(f"http://127.0.0.1:{evil.server_port}/")
    attack = (
        "async ([home, type, mode]) => { try {"
        " const body = JSON.stringify({ uuid: '0123456789', verb: 'stop' });"
        " const headers = { 'Content-Type': type };"
        " const sent = { method: 'POST', mode, credentials: 'include', headers, body };"
        " const answer = await fetch(`${home}/runs/first/commands`, sent);"
        " return `${answer.type} ${answer.status}`; } catch (error) { return 'refused'; } }"
    )
    read = (
        "async (home) => { try { const answer = await fetch(`${home}/runs.json`,"
        " { credentials: 'include' }); return await answer.text(); } catch { return 'refused'; } }"
    )
    assert page.evaluate(attack, [home, "application/json", "cors"]) == "refused"
    assert page.evaluate(attack, [home, "text/plain", "no-cors"]) in ("opaque 0", "refused")
    assert page.evaluate(read, home) == "refused"
    assert control.commands(run.folder) == []
    context.close()
    evil.shutdown()
    evil.server_close()


def test_everything_can_be_done_by_keyboard(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    grow(run)
    tab = open_tab(serve(root))
    page = tab.show("/runs/first")
    button = page.get_by_role("button", name="Prune t000")
    button.wait_for()
    for _ in range(60):
        page.keyboard.press("Tab")
        if button.evaluate("it => it === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert button.evaluate("it => it === document.activeElement")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Enter")
    tab.see("#commands li", "Prune")
    assert [one.verb for one in control.commands(run.folder)] == ["prune"]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    run: GrowingRun, root: Path, serve: Serve, open_tab: Callable[..., Tab], width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    run.emit("workers", w0="cuda:0", w1="a-machine-with-a-long-name.example, process 12345")
    grow(run)
    run.emit("running", "t000", 10, worker="w1")
    run.emit("note", text="a note")
    run.trials["t000"] = replace(
        run.trials["t000"], findings=(Finding("one", "warning", "it overfits", "by 0.1", "train less"),)
    )
    control.append(run.folder, control.Command("0123456789", "prune", "t001"))
    run.result()
    viewport = {"width": width, "height": 800}
    tab = open_tab(serve(root), viewport=viewport, color_scheme=scheme)

    def check(what: str) -> None:
        found = axe.run(tab.page).response["violations"]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found]
        assert told == [], what
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, what

    tab.see("tr", "first")
    check("all runs")
    page = tab.show("/runs/first")
    tab.see("tr", "t000")
    until(lambda: len(tab.drawn()) == 3)
    tab.see("#workers tr", "t000")
    tab.see("#workers tr", "s ago")
    check("one run")
    page.get_by_role("button", name="Clone t000").click()
    page.get_by_role("dialog").wait_for()
    check("a dialog")
    tab.show("/runs/nobody")
    check("a message")
    tab.faults.clear()  # that page was not found


def test_a_comparison_is_that_of_the_command_line(
    root: Path, serve: Serve, open_tab: Callable[..., Tab]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for name, loss in (("first", 1.25), ("second", 1.5)):
        made = GrowingRun(root, name)
        made.start("t000")
        metrics = {"validation_loss": loss, "validation_loss_se": 0.02}
        trial = replace(made.trials["t000"], status="completed", metrics=metrics, seconds=3.0)
        made.trials["t000"] = replace(trial, trainable_parameters=50_000, peak_bytes=2**30)
        made.result(status="completed", best="t000")
        made.close()
    tab = open_tab(serve(root), viewport={"width": 360, "height": 800})
    tab.page.get_by_label("Compare first").check()
    tab.page.get_by_label("Compare second").check()
    tab.page.get_by_role("button", name="Compare").click()
    tab.page.locator("#lines").wait_for(timeout=60_000)
    tab.see("h1", "Keep first:t000")
    tab.see("#lines tr", "1.500 ± 0.020")
    assert axe.run(tab.page).response["violations"] == []
    tab.show("/compare?run=first&run=nobody")
    tab.see("#verdict", "there is no run folder")
    tab.faults.clear()  # what was refused stands in the console
