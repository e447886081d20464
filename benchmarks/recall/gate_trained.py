"""What the gate saves and costs once it trains, what the router loses, and what cues bring."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gate_stream import SESSION, Stream

from loraloom.pipeline.recall.bench import CURRENT, MemoryBench
from loraloom.pipeline.recall.learning import learn
from loraloom.pipeline.recall.sleeping import sleep
from loraloom.pipeline.recall.writing import write
from loraloom.recall import cues, derived
from loraloom.recall.forms import Form
from loraloom.recall.items import bare
from loraloom.recall.memory import opened
from loraloom.recall.router import Router


def quiet(sentence: str) -> None:
    """Nobody watches."""


def trained(folder: Path, told: Stream) -> dict[str, Any]:
    """Learn the first session in `folder`; then the stream, by the gate with its rate, and all that is
    new without one, in copies of it; then sleep over the gated one, with cues and without."""
    learn(folder, quiet, seeds=1)
    rows = [dict(one.row) for one in told.told]
    found: dict[str, Any] = {}
    for name, rate in (("gated", told.share), ("everything new", None)):
        copy = folder.with_name(name)
        shutil.copytree(folder, copy)
        _, decisions = write(copy, None, [], rows, quiet, write_rate=rate)
        record = learn(copy, quiet, seeds=1).record
        found[name] = {
            "written": sum(one.outcome in ("insert", "supersede") for one in decisions),
            "tokens": record["tokens"],
            "steps": record["steps"],
            **recall(copy, told),
        }
    for name, sources in (("cues", derived.SOURCES), ("no cues", _without_cues())):
        copy = folder.with_name(f"slept with {name}")
        shutil.copytree(folder.with_name("gated"), copy)
        found[f"slept, {name}"] = slept(copy, told, sources)
    return found


def _without_cues() -> tuple[Any, ...]:
    return tuple(one for one in derived.SOURCES if one is not cues.cue_forms)


def slept(folder: Path, told: Stream, sources: tuple[Any, ...]) -> dict[str, Any]:
    """Sleep with what follows from these sources alone, and measure everything."""
    before = derived.SOURCES
    derived.SOURCES = sources
    try:
        done = sleep(folder, quiet)
    finally:
        derived.SOURCES = before
    assert done is not None
    record = done.record
    return {
        "committed": int(record["committed"]),
        "tokens": record["tokens"],
        "perplexity of the base's texts": record["after"]["perplexity"] / record["before"]["perplexity"],
        **recall(folder, told),
        "cues": partial(folder),
        "router": routed(folder, told),
    }


def recall(folder: Path, told: Stream) -> dict[str, float]:
    """What counts in the end, by wording: the whole answer, every token the likeliest."""
    answers = {place: item.answer for place, item in enumerate(told.made.items)} | dict(told.corrected)
    asked = [one for one in told.made.questions if one.item >= 0]
    right = answered(folder, [Form("", one.question, answers[one.item]) for one in asked])
    updates = [one.item in told.corrected and one.way == "verbatim" for one in asked]
    groups = {way: [one.way == way for one in asked] for way in ("verbatim", "near", "far")}
    groups["new, verbatim"] = [one.item >= SESSION and one.way == "verbatim" for one in asked]
    return {
        name: round(float(right[np.array(chosen)].mean()), 4)
        for name, chosen in (*groups.items(), ("corrected, verbatim", updates))
    }


def partial(folder: Path) -> dict[str, float]:
    """Held-out wordings of every part that fits one event: whether its size was trained or not."""
    with opened(folder) as memory:
        kept = memory.state.kept
    found = cues.cues_of(kept)
    trained_on = {form.question for form in cues.cue_forms(kept)}
    forms = [
        Form("", cue.asked(pattern), cue.item.answer)
        for cue in found
        for pattern in (cues.NEAR[cue.asks], cues.FAR[cue.asks])
    ]
    right = answered(folder, forms).reshape(-1, 2)
    picked = np.array([cue.asked(cues.TRAINED[cue.asks][0]) in trained_on for cue in found])
    sizes = np.array([len(cue.shown) for cue in found])
    return {
        f"{size} shown, {words}, {'trained' if is_picked else 'another part'}": round(
            float(right[(sizes == size) & (picked == is_picked), place].mean()), 4
        )
        for size in cues.SIZES
        for place, words in enumerate(("near", "far"))
        for is_picked in (True, False)
        if ((sizes == size) & (picked == is_picked)).any()
    }


def routed(folder: Path, told: Stream) -> dict[str, float]:
    """Recall with the router and without, and stored answers that unseen names get."""
    with opened(folder) as memory:
        state = memory.state
        router = Router.of(state)
        known = {bare(entry.item.answer) for entry in state.kept}
        answers = {entry.item.key: entry.item.answer for entry in state.kept}
        asked = [
            (one, answers[told.made.items[one.item].key])
            for one in told.made.questions
            if one.item >= 0 and told.made.items[one.item].key in answers
        ]
        unseen = [one for one in told.made.questions if one.item < 0]
        bench = MemoryBench(memory, [Form("", one.question, one.answer) for one in unseen], quiet)
        with bench.seated({CURRENT: bench.total}) as trials:
            said = bench.answers([one.question for one in unseen], trials[0])
    stored = np.array([bare(text) in known for text in said])
    sent = np.array([router.route(one.question).remembered for one in unseen])
    right = answered(folder, [Form("", one.question, answer) for one, answer in asked])
    found = np.array([router.route(one.question).remembered for one, _ in asked])
    return {
        "recall without": round(float(right.mean()), 4),
        "recall with": round(float((right & found).mean()), 4),
        "false recall without": round(float(stored.mean()), 4),
        "false recall with": round(float((stored & sent).mean()), 4),
        "unseen names sent to the memory": round(float(sent.mean()), 4),
        "unseen": len(unseen),
    }


def answered(folder: Path, forms: Sequence[Form]) -> Any:
    """Whether each is answered wholly, [forms]."""
    with opened(folder) as memory:
        bench = MemoryBench(memory, forms, quiet)
        rows = bench.rows(forms)
        with bench.seated({CURRENT: bench.total}) as trials:
            sums: Mapping[str, Any] = bench.sums(rows, trials)
    return sums[CURRENT].correct == sums[CURRENT].weight
