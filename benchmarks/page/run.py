"""What the live page costs, and how soon it shows what happens.

    python benchmarks/page/run.py            # about a quarter of an hour; writes result.json
    python benchmarks/page/run.py drawn      # one part: drawn, screen, memory, tabs or training
    PAIRS=2 python benchmarks/page/run.py training    # fewer pairs of trainings
    python benchmarks/page/run.py --show     # the committed result

Needs the extra `dev` and a Chromium. Times on a screen are wall time, so that they want a machine that
is idle; shares of a core, and the training's own seconds, are CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
RESULT, ROOT = HERE / "result.json", HERE.parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "web"), str(ROOT / "tests" / "end_to_end")]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CANDIDATES, TOGETHER, STEPS, SCORED_EVERY = 1024, 16, 96, 12
"""1,024 candidates, 16 at a time, of 96 steps and 8 evaluations each: 107,520 events."""
ENV = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "src"),
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
SCREEN_EVENTS = 200
TABS, TABS_SECONDS, EVENTS_A_SECOND = 10, 40.0, 20
PAIRS, TRAINING_STEPS = 8, 1500


@contextmanager
def served(root: Path) -> Generator[tuple[str, psutil.Process]]:
    """A server of its own process: its printed address, and the process."""
    command = [sys.executable, "-m", "loraloom", "serve", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        wait(lambda: answers(address))
        try:
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)


def answers(address: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(address.partition("?")[0] + "runs.json", timeout=5):
            return True
    except urllib.error.HTTPError:  # it wants the token
        return True
    except OSError:
        return False


@contextmanager
def browsing() -> Generator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait(holds: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.005)


def build_search(root: Path, candidates: int = CANDIDATES) -> Any:
    """A search of many candidates as its driver would have written it; one of five comes to its end."""
    from dataclasses import replace

    from growing import GrowingRun

    from loraloom.store.to_json import to_json

    run = GrowingRun(root, "many")
    drawn = random.Random(0)
    lines: list[bytes] = []
    write = run.folder.append
    run.folder.append = lambda event: lines.append(to_json(event))
    for start in range(0, candidates, TOGETHER):
        names = [f"t{start + place:04d}" for place in range(min(TOGETHER, candidates - start))]
        for name in names:
            run.start(name, **{"training.learning_rate": drawn.uniform(1e-4, 3e-3)})
        for step in range(1, STEPS + 1):
            for name in names:
                data = {"loss": 2.2 - 0.01 * step + 0.3 * drawn.random(), "planned_steps": STEPS}
                run.emit("step", name, step, epoch=step / STEPS, **data)
                if step % SCORED_EVERY == 0:
                    share, loss = step / STEPS, 2.0 - 0.008 * step + 0.2 * drawn.random()
                    told = {"progress": share, "epoch": share, "loss": loss, "loss_se": 0.02}
                    run.emit("evaluated", name, step, split="validation", **told)
        for place, name in enumerate(names):
            status: Any = "pruned" if place % 5 else "completed"
            run.end(name, status, STEPS, reason="place 9 of 10" if place % 5 else "")
            run.trials[name] = replace(
                run.trials[name],
                status=status,
                steps=STEPS,
                planned_steps=STEPS,
                metrics={"validation_loss": 1.2 + drawn.random(), "validation_loss_se": 0.02},
                peak_bytes=2**30,
                seconds=12.0,
                trainable_parameters=50_000,
            )
    run.folder.append = write
    with run.folder.events_path.open("ab") as file:
        file.write(b"\n".join(lines) + b"\n")
    run.result(default="t0000")
    return run


def main_thread_seconds(session: Any) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def drawn(scratch: Path) -> dict[str, Any]:
    """From the click to all curves of 1,024 candidates, and one redraw of them."""
    run = build_search(scratch)
    with served(scratch) as (address, process), browsing() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        home = address.partition("/?")[0]
        seconds: list[float] = []
        for _ in range(6):
            began = time.perf_counter()
            page.goto(f"{home}/runs/many")
            wait(lambda: page.evaluate("document.body.dataset.draws"))
            seconds.append(time.perf_counter() - began)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        redraws: list[float] = []
        busy: list[float] = []
        stale = "charts.figures.forEach((figure) => { figure.stale = true; });"
        script = f"(() => {{ {stale} const began = performance.now(); charts.draw();"
        for _ in range(20):
            before = main_thread_seconds(session)
            redraws.append(page.evaluate(f"{script} return performance.now() - began; }})()"))
            busy.append(1000 * (main_thread_seconds(session) - before))
        resident = process.memory_info().rss / 2**20
    size = run.folder.events_path.stat().st_size
    run.close()
    return {
        "candidates": CANDIDATES,
        "events_bytes": size,
        "first_seconds": seconds[0],
        "drawn_seconds": statistics.median(seconds[1:]),
        "redraw_ms": statistics.median(redraws),
        "redraw_cpu_ms": statistics.median(busy),
        "server_mib": resident,
    }


WATCH = """
() => {
  window.seenAt = {};
  const note = (key) => requestAnimationFrame(() => { window.seenAt[key] ||= Date.now(); });
  new MutationObserver(() => {
    for (const cell of document.querySelectorAll("tbody td")) note(`table ${cell.textContent}`);
  }).observe(document.querySelector("table.live"), { subtree: true, childList: true });
  const draw = charts.draw.bind(charts);
  charts.draw = () => {
    draw();
    for (const { value } of charts.figures[0].curves.values()) note(`curve ${value.at(-1)}`);
  };
}
"""


def screen(scratch: Path) -> dict[str, Any]:
    """From an event's line on disk to its score in the table, and to its point in the curve."""
    from growing import GrowingRun

    run = GrowingRun(scratch, "one")
    trials = [f"t{number:03d}" for number in range(8)]
    for trial in trials:
        run.start(trial)
    delays: dict[str, list[float]] = {"table": [], "curve": []}
    pause = random.Random(1)
    with served(scratch) as (address, _), browsing() as browser:
        page = browser.new_page()
        page.goto(address)
        page.goto(address.partition("/?")[0] + "/runs/one")
        page.locator("#link", has_text="live").wait_for()
        page.evaluate(WATCH)
        written: dict[float, float] = {}
        for step in range(1, SCREEN_EVENTS + 1):
            value = round(2.0 - 0.001 * step, 3)
            written[value] = 1000 * time.time()
            run.score(trials[step % len(trials)], step, value)
            time.sleep(pause.uniform(0.2, 0.6))
        time.sleep(1.0)
        seen = page.evaluate("() => window.seenAt")
    run.close()
    for value, at in written.items():
        delays["table"].append(seen.get(f"table {value:.3f} ± 0.020", at + 1e6) - at)
        delays["curve"].append(seen.get(f"curve {value}", at + 1e6) - at)
    told: dict[str, Any] = {"events": SCREEN_EVENTS}
    for where, found in delays.items():
        found.sort()
        told[f"{where}_ms_median"] = statistics.median(found)
        told[f"{where}_ms_95"] = found[int(0.95 * len(found))]
    return told


def memory(scratch: Path) -> dict[str, Any]:
    """The server: nothing opened yet, one run of 12 candidates, one of 1,024."""
    import http.cookiejar
    import urllib.request

    small, large = build_search(scratch / "small", 12), build_search(scratch / "large")
    told: dict[str, Any] = {}
    for name, run in (("small", small), ("large", large)):
        with served(run.folder.path.parent) as (address, process):
            told.setdefault("started_mib", process.memory_info().rss / 2**20)
            jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
            ask = urllib.request.build_opener(jar).open
            ask(address).read()
            for path in ("", "runs.json", *(["runs/many", "runs/many/snapshot"] * 5)):
                ask(f"{address.partition('?')[0]}{path}").read()
            told[f"{name}_mib"] = process.memory_info().rss / 2**20
        run.close()
    return told


def tabs(scratch: Path) -> dict[str, Any]:
    """The server's share of a core while ten open pages follow a run of 20 events a second."""
    from growing import GrowingRun

    run = GrowingRun(scratch, "one")
    trials = [f"t{number:03d}" for number in range(8)]
    for trial in trials:
        run.start(trial)
    stop = threading.Event()

    def write() -> None:
        step = 0
        while not stop.wait(len(trials) / EVENTS_A_SECOND):
            step += 1
            for trial in trials:
                run.step(trial, step)
                if step % 5 == 0:
                    run.score(trial, step, 2.0 - 0.001 * step)

    with served(scratch) as (address, process), browsing() as browser:
        pages: list[Any] = []
        for _ in range(TABS):  # a window each: a tab behind another is hidden, and closes its stream
            pages.append(browser.new_context().new_page())
            pages[-1].goto(address)
            pages[-1].goto(address.partition("/?")[0] + "/runs/one")
            pages[-1].locator("#link", has_text="live").wait_for()
        writer = threading.Thread(target=write)
        writer.start()
        began, before = time.perf_counter(), process.cpu_times()
        time.sleep(TABS_SECONDS)
        after, seconds = process.cpu_times(), time.perf_counter() - began
        draws = [int(page.evaluate("document.body.dataset.draws")) for page in pages]
        stop.set()
        writer.join()
        resident = process.memory_info().rss / 2**20
    run.close()
    busy = after.user + after.system - before.user - before.system
    return {
        "tabs": TABS,
        "events_a_second": EVENTS_A_SECOND,
        "share_of_a_core": busy / seconds,
        "server_mib": resident,
        "draws_a_second": statistics.median(draws) / seconds,
    }


def training(scratch: Path) -> dict[str, Any]:
    """CPU seconds of a training with a page open against one without: pairs, in both orders."""
    from bases import save_llama

    rows = [{"text": f"the {one} {verb} {place}"} for one in A for verb in B for place in C]
    base = save_llama(scratch / "base", [row["text"] for row in rows], **SIZES)
    data = scratch / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = scratch / "runs"
    runs.mkdir()
    ratios: list[float] = []
    pairs: list[dict[str, float]] = []
    with served(runs) as (address, _), browsing() as browser:
        for number in range(int(os.environ.get("PAIRS", PAIRS))):
            pair: dict[str, float] = {}
            for opened in (True, False) if number % 2 else (False, True):
                name = f"run-{number}-{'open' if opened else 'closed'}"
                pair["open" if opened else "closed"] = trained(
                    base, data, runs, name, browser if opened else None, address
                )
            pairs.append(pair)
            ratios.append(pair["open"] / pair["closed"])
            print(f"  pair {number + 1}: {pair} ratio {ratios[-1]:.4f}", flush=True)
    error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else None
    mean = statistics.mean(ratios)
    return {"pairs": pairs, "ratio": mean, "ratio_se": error, "ratio_median": statistics.median(ratios)}


SIZES = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}
A = ("cat", "dog", "bird", "horse", "soup", "cake", "bread", "pear")
B = ("sleeps", "waits", "stands", "turns", "falls", "rests")
C = ("in the house", "by the door", "under the tree", "near the river", "on the table")


def trained(base: Path, data: Path, runs: Path, name: str, browser: Any, address: str) -> float:
    """CPU seconds of one training; a page follows it where there is a browser."""
    words = [
        *("train", "--model", str(base), "--data", str(data), "--output-dir", str(runs), "--name", name),
        *("--max-steps", str(TRAINING_STEPS), "--quiet", "--validation", "0.1"),
        *("--set", "training.early_stopping_patience=null"),
    ]
    command = [sys.executable, "-m", "loraloom", *words]
    process = subprocess.Popen(command, env=ENV, stdout=subprocess.DEVNULL)
    page = None
    if browser is not None:
        wait(lambda: (runs / name / "events.jsonl").exists() or process.poll() is not None)
        page = browser.new_context().new_page()
        page.goto(address)
        page.goto(f"{address.partition('/?')[0]}/runs/{name}")
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    if page is not None:
        assert int(page.evaluate("document.body.dataset.draws || 0")) > 0
        page.context.close()
    return usage.ru_utime + usage.ru_stime


PARTS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "drawn": drawn,
    "screen": screen,
    "memory": memory,
    "tabs": tabs,
    "training": training,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    known: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if not asked.show:
        missing = [name for name in ("starlette", "uvicorn", "playwright") if find_spec(name) is None]
        if CHROMIUM is None or missing:  # `make bench` goes on with the others
            print("left out: needs the extra `dev` and a Chromium (apt install chromium)")
            return
        for part in asked.part or PARTS:
            with tempfile.TemporaryDirectory() as scratch:
                known[part] = PARTS[part](Path(scratch))
            known[part]["load_of_others"] = os.getloadavg()[0]
            print(part, json.dumps(known[part]), flush=True)
        RESULT.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps({part: figures for part, figures in known.items() if part in PARTS}, indent=1))


if __name__ == "__main__":
    main()
